/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child after fork(). Where a driver has the device, every call that would reach it says so and none hangs, and nothing
 * of the parent's suffers. Elsewhere all works on.
 */
#include <fastattn/merge.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/on_backend.h"

enum { SECONDS = 20, ROWS = 8, DIM = 16, BYTES = ROWS * DIM * (int)sizeof(float) };

static fa_attention_desc desc;
static fa_merge_desc merge_desc;
static fa_plan *plan;
static fa_merge *merge;
static fa_buffer *buffer[4], *workspace;
static void *host_memory;
static fa_attention_args args;
static int wrong;

/* What `call` gave, in a child: where the device is lost, a message that says why. */
static void expect(const char *call, fa_status expected, fa_status found)
{
    const char *say = expected == FA_OK ? "" : "after fork()";
    if (found == expected && strstr(fa_last_error(), say))
        return;
    (void)fprintf(stderr, "%s is %s: %s\n", call, fa_status_name(found), fa_last_error());
    wrong++;
}

#define EXPECT(expected, call) expect(#call, expected, call)

static void open_again(bool works)
{
    fa_device *again = NULL;
    EXPECT(works ? FA_OK : FA_NO_DEVICE, fa_device_open(context, backend, NULL, &again));
    fa_device_close(again);
    bool found = false;
    for (size_t i = 0; i < fa_device_count(context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        EXPECT(FA_OK, fa_device_describe(context, i, &info));
        found |= strcmp(info.backend, backend) == 0 && (info.available != 0) == works &&
                 (works || strstr(info.reason, "after fork()"));
    }
    wrong += !found;
}

static void make_more(fa_status lost)
{
    fa_queue *other_queue = NULL;
    fa_buffer *other_buffer = NULL;
    fa_plan *other_plan = NULL;
    fa_merge *other_merge = NULL;
    void *other_memory = NULL;
    EXPECT(lost, fa_queue_create(device, &other_queue));
    EXPECT(lost, fa_buffer_create(device, BYTES, &other_buffer));
    EXPECT(lost, fa_host_memory_create(device, BYTES, &other_memory));
    EXPECT(lost, fa_plan_create(device, &desc, &other_plan));
    EXPECT(lost, fa_merge_create(device, &merge_desc, &other_merge));
    EXPECT(lost, fa_device_warm(device, &desc));
    fa_merge_destroy(other_merge);
    fa_plan_destroy(other_plan);
    fa_host_memory_destroy(device, other_memory, BYTES);
    fa_buffer_destroy(other_buffer);
    fa_queue_destroy(other_queue);
}

static void use(fa_status lost)
{
    float row[ROWS * DIM] = {0};
    const fa_merge_args merge_args = {.struct_size = sizeof(merge_args),
                                      .partial = buffer[1],
                                      .partial_lse = buffer[2],
                                      .o = buffer[0],
                                      .lse = buffer[3]};
    EXPECT(lost, fa_buffer_write(queue, buffer[0], 0, row, BYTES));
    EXPECT(lost, fa_buffer_read(queue, buffer[0], 0, row, BYTES));
    EXPECT(lost, fa_buffer_write_async(queue, buffer[0], 0, row, BYTES));
    EXPECT(lost, fa_buffer_read_async(queue, buffer[0], 0, row, BYTES));
    EXPECT(lost, fa_plan_run(plan, queue, &args));
    EXPECT(lost, fa_merge_run(merge, queue, &merge_args));
    EXPECT(lost, fa_queue_wait(queue));
}

static void destroy(void)
{
    fa_merge_destroy(merge);
    fa_plan_destroy(plan);
    fa_host_memory_destroy(device, host_memory, BYTES);
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_buffer_destroy(workspace);
}

/* The exit status of a child that does all of it: what was wrong, or 99 when it hangs. */
static int in_child(bool works)
{
    (void)fflush(NULL);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)alarm(SECONDS);
        use(works ? FA_OK : FA_DEVICE_LOST);
        make_more(works ? FA_OK : FA_DEVICE_LOST);
        destroy();
        fa_queue_destroy(queue);
        fa_device_close(device);
        open_again(works);
        _exit(wrong);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

START_TEST(after_fork)
{
    if (!device)
        return;
    desc = make_desc(1, 1, 1, ROWS, ROWS, DIM);
    merge_desc = (fa_merge_desc){.struct_size = sizeof(merge_desc),
                                 .parts = 1,
                                 .partial = fa_tensor_make(FA_F32, 1, 1, ROWS, DIM),
                                 .o = fa_tensor_make(FA_F32, 1, 1, ROWS, DIM),
                                 .want_lse = 1};
    ck_assert_msg(fa_plan_create(device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_merge_create(device, &merge_desc, &merge) == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < COUNT(buffer); i++)
        ck_assert_int_eq(fa_buffer_create(device, BYTES, &buffer[i]), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan) + 1, &workspace), FA_OK);
    ck_assert_int_eq(fa_host_memory_create(device, BYTES, &host_memory), FA_OK);
    args = (fa_attention_args){.struct_size = sizeof(args),
                               .q = buffer[0],
                               .k = buffer[1],
                               .v = buffer[2],
                               .o = buffer[3],
                               .workspace = workspace};
    ck_assert_int_eq(in_child(strcmp(backend, "null") == 0), 0);
    use(FA_OK);
    make_more(FA_OK);
    ck_assert_int_eq(wrong, 0);
    destroy();
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("fork");
    tcase_add_test(add_backend_case(suite, argv[1]), after_fork);
    return run_on_backend(suite);
}
