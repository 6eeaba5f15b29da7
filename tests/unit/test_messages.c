/* SPDX-License-Identifier: Apache-2.0 */
/* fa_last_error() after a success, whatever was tried on the way, and after what cannot fail. */
#include <fastattn/dlpack.h>
#include <fastattn/reference.h>

#include "core/backend.h"
#include "core/device.h"
#include "core/status.h"
#include "helpers.h"
#include "suites.h"

/* The null backend, every function of which first fails at something and then succeeds all the same. */
static const fa_backend *quiet;
static fa_backend chatty;

static void chat(void)
{
    (void)fa_fail(FA_DEVICE_LOST, "tried in vain");
}

static fa_status chatty_open(fa_device *device, void *import)
{
    chat();
    return quiet->open(device, import);
}

static void chatty_close(fa_device *device)
{
    chat();
    quiet->close(device);
}

static fa_status chatty_buffer_create(fa_buffer *buffer)
{
    chat();
    return quiet->buffer_create(buffer);
}

static fa_status chatty_buffer_wrap(fa_buffer *buffer, void *host)
{
    chat();
    return quiet->buffer_wrap(buffer, host);
}

static void chatty_buffer_destroy(fa_buffer *buffer)
{
    chat();
    quiet->buffer_destroy(buffer);
}

static fa_status chatty_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                              size_t size)
{
    chat();
    return quiet->buffer_write(queue, buffer, offset, source, size);
}

static fa_status chatty_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                             size_t size)
{
    chat();
    return quiet->buffer_read(queue, buffer, offset, target, size);
}

static fa_status chatty_queue(fa_queue *queue)
{
    (void)queue;
    chat();
    return FA_OK;
}

static fa_status chatty_seconds(fa_queue *queue, double *seconds)
{
    (void)queue;
    chat();
    *seconds = 1;
    return FA_OK;
}

static void chatty_queue_destroy(fa_queue *queue)
{
    chat();
    quiet->queue_destroy(queue);
}

static fa_status chatty_prepare(fa_plan *plan)
{
    chat();
    plan->impl = plan; /* so that it is released */
    return quiet->plan_prepare(plan);
}

static void chatty_release(fa_plan *plan)
{
    chat();
    quiet->plan_release(plan);
}

static fa_status chatty_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    chat();
    return quiet->plan_run(plan, queue, binding);
}

static fa_device *open_chatty(void)
{
    quiet = null_device->backend;
    chatty = *quiet;
    chatty.open = chatty_open;
    chatty.close = chatty_close;
    chatty.buffer_create = chatty_buffer_create;
    chatty.buffer_wrap = chatty_buffer_wrap;
    chatty.buffer_destroy = chatty_buffer_destroy;
    chatty.buffer_write = chatty_write;
    chatty.buffer_read = chatty_read;
    chatty.queue_create = chatty_queue;
    chatty.queue_wait = chatty_queue;
    chatty.queue_seconds = chatty_seconds;
    chatty.queue_destroy = chatty_queue_destroy;
    chatty.plan_prepare = chatty_prepare;
    chatty.plan_release = chatty_release;
    chatty.plan_run = chatty_run;
    const fa_device_entry entry = {.backend = &chatty, .info = null_device->info};
    fa_device *device;
    ck_assert_int_eq(fa_device_open_entry(context, &entry, &device), FA_OK);
    ck_assert_str_eq(fa_last_error(), "");
    return device;
}

/* The call succeeds and leaves no message, neither its own nor an older one. */
#define QUIET(call)                                                                         \
    do {                                                                                    \
        (void)fa_fail(FA_IO, "stale");                                                      \
        ck_assert_msg((call) == FA_OK, #call ": %s", fa_last_error());                      \
        ck_assert_msg(fa_last_error()[0] == '\0', #call " leaves \"%s\"", fa_last_error()); \
    } while (0)

START_TEST(success_leaves_no_message)
{
    fa_attention_desc d = make_desc(1, 2, 2, 8, 8, 4);
    d.want_lse = 1;
    static float q[64], k[64], v[64], o[64], lse[16];
    static double exact[64];
    fa_device *device = open_chatty(), *second;
    fa_context *other;
    fa_device_info info = {.struct_size = sizeof(info)};
    QUIET(fa_context_create(NULL, &other));
    fa_context_destroy(other);
    QUIET(fa_device_describe(context, 0, &info));
    QUIET(fa_device_open(context, "null", &d, &second));
    fa_device_close(second);
    QUIET(fa_device_get_info(device, &info));
    QUIET(fa_device_supports(device, &d, NULL, 0));

    fa_queue *queue;
    fa_buffer *buffer, *wrapped;
    double seconds;
    QUIET(fa_queue_create(device, &queue));
    QUIET(fa_queue_wait(queue));
    QUIET(fa_queue_seconds(queue, &seconds));
    QUIET(fa_buffer_create(device, 1 << 12, &buffer));
    QUIET(fa_buffer_wrap_host(device, q, sizeof(q), &wrapped));
    QUIET(fa_buffer_write(queue, buffer, 0, q, sizeof(q)));
    QUIET(fa_buffer_read(queue, buffer, 0, q, sizeof(q)));
    QUIET(fa_buffer_write(queue, buffer, 0, NULL, 0));

    fa_plan *plan;
    fa_plan_info told = {.struct_size = sizeof(told)};
    int64_t rows, columns;
    fa_tile_class tile;
    QUIET(fa_plan_create(device, &d, &plan));
    QUIET(fa_plan_get_info(plan, &told));
    QUIET(fa_plan_grid(plan, 0, &rows, &columns));
    QUIET(fa_plan_tile(plan, 0, 0, 0, &tile));
    QUIET(fa_plan_head_tile(plan, 0, 0, 0, 0, &tile));
    fa_buffer *workspace;
    QUIET(fa_buffer_create(device, fa_plan_workspace(plan), &workspace));
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = wrapped,
                                    .k = wrapped,
                                    .v = wrapped,
                                    .o = buffer,
                                    .lse = buffer,
                                    .lse_offset = 1024,
                                    .workspace = workspace};
    QUIET(fa_plan_run(plan, queue, &args));
    QUIET(fa_attention_host(device, &d, q, k, v, NULL, NULL, o, lse));

    const fa_inputs in = {.q = q, .k = k, .v = v};
    QUIET(fa_reference_attention(context, &d, &in, exact, NULL));
    QUIET(fa_naive_attention(context, &d, &in, FA_ORDER_FORWARD, FA_F32, o, NULL));
    const fa_merge_desc merge = {.struct_size = sizeof(merge), .parts = 1, .partial = d.q, .o = d.o};
    QUIET(fa_merge_host(&merge, q, lse, o, NULL));
    size_t span;
    QUIET(fa_tensor_span(&d.q, &span));

    /* What cannot fail leaves the message that there is, so that cleaning up loses none. */
    (void)fa_fail(FA_IO, "why it all failed");
    fa_buffer_destroy(workspace);
    fa_plan_destroy(plan);
    fa_buffer_destroy(wrapped);
    fa_buffer_destroy(buffer);
    fa_queue_destroy(queue);
    fa_device_close(device);
    ck_assert_uint_gt(fa_device_count(context), 0);
    ck_assert_str_eq(fa_last_error(), "why it all failed");
}
END_TEST

/* The first kernel refuses, the second serves: what the first one said is nobody's concern. */
START_TEST(kernels_tried_in_vain)
{
    fa_kernel halves = *null_device->kernel[0];
    halves.name = "halves";
    halves.types_q = FA_TYPE(FA_F16);
    null_device->kernel[1] = null_device->kernel[0];
    null_device->kernel[0] = &halves;
    null_device->kernels = 2;
    const fa_attention_desc d = make_desc(1, 2, 2, 8, 8, 4);
    static float q[64], k[64], v[64], o[64];
    char reason[64] = "?";
    fa_plan *plan;
    QUIET(fa_plan_create(null_device, &d, &plan));
    fa_plan_destroy(plan);
    QUIET(fa_device_supports(null_device, &d, reason, sizeof(reason)));
    ck_assert_str_eq(reason, "");
    QUIET(fa_attention_host(null_device, &d, q, k, v, NULL, NULL, o, NULL));
}
END_TEST

/* A failure's own message outlives what is destroyed on the way out. */
START_TEST(failures_keep_their_message)
{
    fa_device *device = open_chatty();
    const fa_attention_desc d = make_desc(1, 2, 2, 8, 8, 4);
    static float q[64], k[64], v[64];
    ck_assert_int_eq(fa_attention_host(device, &d, q, k, v, NULL, NULL, NULL, NULL), FA_INVALID);
    assert_message("o is NULL");
    fa_attention_desc bad = d;
    bad.scale = 1.0f / 0.0f;
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(device, &bad, &plan), FA_INVALID);
    assert_message("scale is inf");
    fa_device_close(device);
}
END_TEST

Suite *messages_suite(void)
{
    Suite *suite = suite_create("messages");
    TCase *tc = add_device_case(suite, "messages");
    tcase_add_test(tc, success_leaves_no_message);
    tcase_add_test(tc, kernels_tried_in_vain);
    tcase_add_test(tc, failures_keep_their_message);
    return suite;
}
