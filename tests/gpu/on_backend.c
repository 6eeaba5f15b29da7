/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/on_backend.h"

#include <stdio.h>
#include <string.h>

const char *backend;
bool slow;
fa_device *device;
fa_queue *queue;
static bool had_device;

static void setup(void)
{
    device = NULL;
    had_device = fa_device_open(context, backend, NULL, &device) == FA_OK;
    if (had_device)
        ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    else
        (void)printf("skipped: %s\n", fa_last_error());
}

static void teardown(void)
{
    if (device)
        fa_queue_destroy(queue);
    fa_device_close(device);
}

TCase *add_backend_case(Suite *suite, const char *name)
{
    backend = name;
    slow = strcmp(backend, "openmp") != 0 && strcmp(backend, "cuda") != 0;
    TCase *tc = add_context_case(suite, backend);
    tcase_add_checked_fixture(tc, setup, teardown);
    return tc;
}

int run_on_backend(Suite *suite)
{
    const int result = run_unforked(suite);
    return result == EXIT_SUCCESS && !had_device ? SKIPPED : result;
}

void succeed(fa_status status)
{
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

fa_buffer *make_buffer(size_t bytes)
{
    fa_buffer *buffer;
    ck_assert_int_eq(fa_buffer_create(device, bytes, &buffer), FA_OK);
    return buffer;
}

fa_buffer *upload(const void *from, size_t bytes)
{
    fa_buffer *buffer = make_buffer(bytes);
    ck_assert_int_eq(fa_buffer_write(queue, buffer, 0, from, bytes), FA_OK);
    return buffer;
}
