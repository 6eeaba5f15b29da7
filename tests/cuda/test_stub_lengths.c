/* SPDX-License-Identifier: Apache-2.0 */
/* Lengths of a run, from the host and from the device: what is passed to kernels, what waits, and what failures tell. */
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "tests/cuda/stub_life.h"

/* A run with work of its own starts as many blocks as any lengths may need, and kernels find the work. */
START_TEST(work_is_passed_on)
{
    static const char *const kernels[] = {"fma64", "rows64", "rows128", NULL};
    life l = {.dynamic = 1};
    const int64_t keys[] = {7};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = keys};
    fa_buffer *work;
    ck_assert_msg(live_on(&l, kernels[_i], 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, 256 + fa_plan_work(l.plan), &work), FA_OK);
    fa_attention_args args = args_of(&l);
    args.work = work;
    args.work_offset = 256;
    ck_assert_int_eq(fa_plan_schedule(l.plan, l.queue, &lengths, work, 256), FA_OK);
    const long before = stub_groups();
    ck_assert_int_eq(fa_plan_run(l.plan, l.queue, &args), FA_OK);
    const fa_capacity *most = &l.plan->capacity;
    ck_assert_int_eq(stub_groups() - before, most->items + most->merges * l.plan->args.block_q);
    ck_assert_uint_eq(stub_work(), (uintptr_t)work->address + 256);
    fa_buffer_destroy(work);
    die(&l);
}
END_TEST

/* Lengths on the device: one launch more, whether the stream is captured or not, and nothing else of the driver. */
START_TEST(lengths_are_read_by_a_launch)
{
    static const char *const waits[] = {"cuStreamSynchronize", "cuMemcpyHtoDAsync", "cuMemAllocHost",
                                        "cuEventRecord", "cuModuleLoadData"};
    const int32_t keys[] = {7};
    life l = {.dynamic = 2};
    fa_buffer *work, *lens;
    (void)setenv("FASTATTN_CUDA_LIMITS", "images=0", 1); /* the stub tells tasks by what it compiled */
    ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, 256 + fa_plan_work(l.plan), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(l.device, sizeof(keys), &lens), FA_OK);
    ck_assert_int_eq(fa_buffer_write(l.queue, lens, 0, keys, sizeof(keys)), FA_OK);
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = lens};
    for (int i = 0; i < COUNT(waits); i++) {
        const long before = stub_launches();
        stub_fail(waits[i], 1, CUDA_ERROR_INVALID_VALUE);
        ck_assert_int_eq(fa_plan_schedule_device(l.plan, l.queue, &lengths, work, 256), FA_OK);
        ck_assert(!stub_has_failed());
        ck_assert_int_eq(stub_launches() - before, 1);
    }
    stub_fail("cuLaunchKernel", 1, CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_ne(fa_plan_schedule_device(l.plan, l.queue, &lengths, work, 256), FA_OK);
    assert_message("cuLaunchKernel");
    stub_fail(NULL, 0, CUDA_SUCCESS);
    const fa_table_params *made = (const void *)((const char *)work->address + 256);
    const fa_table_sequence *s = (const fa_table_sequence *)(const void *)made + made->sequences_at;
    ck_assert_uint_eq((uint64_t)made->plan, l.plan->serial);
    ck_assert_int_eq(s->mask.len_kv, 7);
    fa_buffer_destroy(work);
    fa_buffer_destroy(lens);
    die(&l);
}
END_TEST

static fa_status schedule(const life *l, fa_buffer *work)
{
    const int64_t keys[] = {7};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = keys};
    return fa_plan_schedule(l->plan, l->queue, &lengths, work, 0);
}

/* Work is written without a wait, until as many copies are under way as a queue has stages for. */
START_TEST(schedules_do_not_wait)
{
    enum { STAGES = 4 };
    life l = {.dynamic = 1};
    fa_buffer *work;
    ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, fa_plan_work(l.plan), &work), FA_OK);
    stub_fail("cuStreamSynchronize", 1, CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    stub_fail("cuEventSynchronize", 1, CUDA_ERROR_INVALID_VALUE);
    for (int n = 1; n < STAGES; n++)
        ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    ck_assert_int_ne(schedule(&l, work), FA_OK);
    ck_assert(stub_has_failed());
    stub_fail("cuMemAllocHost", 1, CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    stub_fail(NULL, 0, CUDA_SUCCESS);
    fa_buffer_destroy(work);
    die(&l);
}
END_TEST

static fa_status copy_both_ways(const life *l, fa_buffer *buffer, void **at)
{
    fa_status status = FA_OK;
    for (int way = 0; way < 2 && status == FA_OK; way++) {
        status = fa_host_memory_create(l->device, sizeof(bytes_in), &at[way]);
        if (status == FA_OK && way == 0)
            memcpy(at[0], bytes_in, sizeof(bytes_in));
        if (status == FA_OK)
            status = way == 0 ? fa_buffer_write_async(l->queue, buffer, 0, at[0], sizeof(bytes_in))
                              : fa_buffer_read_async(l->queue, buffer, 0, at[1], sizeof(bytes_in));
    }
    return status;
}

/* Copies from and to memory that stays in place are enqueued, without a wait; each call that fails is told. */
START_TEST(copies_do_not_wait)
{
    static const struct {
        const char *function;
        int calls;
    } row[] = {{"cuStreamSynchronize", 0},
               {"cuMemAllocHost", 2},
               {"cuMemcpyHtoDAsync", 1},
               {"cuMemcpyDtoHAsync", 1}};
    life l = {.dynamic = 0};
    fa_buffer *buffer;
    ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, sizeof(bytes_in), &buffer), FA_OK);
    for (int i = 0; i < COUNT(row); i++) {
        for (int nth = 1; nth <= row[i].calls + 1; nth++) {
            void *at[2] = {NULL, NULL};
            stub_fail(row[i].function, nth, CUDA_ERROR_OUT_OF_MEMORY);
            const fa_status status = copy_both_ways(&l, buffer, at);
            ck_assert_int_eq(status, nth <= row[i].calls ? FA_OUT_OF_MEMORY : FA_OK);
            ck_assert_int_eq(stub_has_failed(), nth <= row[i].calls);
            if (status != FA_OK)
                assert_message(row[i].function);
            stub_fail(NULL, 0, CUDA_SUCCESS);
            ck_assert_int_eq(fa_queue_wait(l.queue), FA_OK);
            if (status == FA_OK)
                ck_assert_mem_eq(at[1], bytes_in, sizeof(bytes_in));
            fa_host_memory_destroy(l.device, at[0], sizeof(bytes_in));
            fa_host_memory_destroy(l.device, at[1], sizeof(bytes_in));
        }
    }
    fa_buffer_destroy(buffer);
    die(&l);
}
END_TEST

static const char *const schedules_call[] = {"cuCtxPushCurrent",  "cuEventCreate", "cuMemAllocHost",
                                             "cuMemcpyHtoDAsync", "cuEventRecord", "cuEventSynchronize"};

START_TEST(failed_schedules_are_told)
{
    const char *function = schedules_call[_i];
    bool failed = true;
    for (int nth = 1; failed; nth++) {
        life l = {.dynamic = 1};
        fa_buffer *work;
        fa_status status = FA_OK;
        ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_buffer_create(l.device, fa_plan_work(l.plan), &work), FA_OK);
        stub_fail(function, nth, CUDA_ERROR_OUT_OF_MEMORY);
        for (int n = 0; n < 10 && status == FA_OK; n++)
            status = schedule(&l, work);
        failed = stub_has_failed();
        stub_fail(NULL, 0, CUDA_SUCCESS);
        ck_assert_int_eq(status, failed ? FA_OUT_OF_MEMORY : FA_OK);
        ck_assert(failed || nth > 1);
        if (failed)
            assert_message(function);
        ck_assert_msg(schedule(&l, work) == FA_OK, "%s", fa_last_error());
        fa_buffer_destroy(work);
        die(&l);
    }
}
END_TEST

void add_lengths(TCase *tc)
{
    tcase_add_loop_test(tc, work_is_passed_on, 0, 4);
    tcase_add_test(tc, lengths_are_read_by_a_launch);
    tcase_add_test(tc, schedules_do_not_wait);
    tcase_add_test(tc, copies_do_not_wait);
    tcase_add_loop_test(tc, failed_schedules_are_told, 0, COUNT(schedules_call));
}
