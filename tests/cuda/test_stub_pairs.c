/* SPDX-License-Identifier: Apache-2.0 */
/* A device and the host that share keys (fastattn/cooperate.h): either fails, and neither is left at work. */
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/status.h"
#include "tests/cuda/stub_life.h"

enum { PAGE = 50, PAGES = KEYS / PAGE, BYTES = HEADS * KEYS * DIM * (int)sizeof(float), MOST_CALLS = 120 };

/* One of two devices, with its cache; the other operands are the home device's. The away device's cache has pages. */
typedef struct two {
    fa_device *home, *away;
    fa_queue *queue, *away_queue;
    fa_buffer *home_cache, *away_cache, *table, *q, *o;
    fa_cooperate *pair;
    int streams; /* the away cache has no pages then */
} two;

static int32_t table[PAGES];
static float expected[HEADS * ROWS * DIM], found[HEADS * ROWS * DIM];

static fa_status make_pair(two *t)
{
    fa_attention_desc d = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    const fa_segment pages = {.struct_size = sizeof(pages),
                              .k = fa_tensor_make(FA_F32, PAGES, HEADS, PAGE, DIM),
                              .v = fa_tensor_make(FA_F32, PAGES, HEADS, PAGE, DIM),
                              .page_table = fa_tensor_make(FA_I32, 1, 1, 1, PAGES)},
                     home = {.struct_size = sizeof(home), .k = d.k, .v = d.v};
    const fa_segment *const list[] = {t->streams ? &home : &pages, &home};
    const fa_segments_desc segments = {
        .struct_size = sizeof(segments), .attention = &d, .segments = 2, .segment = list};
    const fa_cooperate_desc desc = {.struct_size = sizeof(desc),
                                    .segments = &segments,
                                    .stream_bytes = t->streams ? BYTES : 0,
                                    .stream_share = 0.9};
    d.k = d.v = (fa_tensor){.dtype = FA_F32};
    return fa_cooperate_create(t->home, t->away, &desc, &t->pair);
}

static fa_status make_memory(two *t)
{
    const struct {
        fa_device *device;
        fa_queue *queue;
        size_t bytes;
        const void *from;
        fa_buffer **buffer;
    } row[] = {
        {t->home, t->queue, BYTES, bytes_in, &t->home_cache},
        {t->away, t->away_queue, BYTES, bytes_in, &t->away_cache},
        {t->away, t->away_queue, sizeof(table), table, &t->table},
        {t->home, t->queue, sizeof(expected), bytes_in, &t->q},
        {t->home, t->queue, sizeof(expected), expected, &t->o},
    };
    fa_status status = FA_OK;
    for (int i = 0; i < COUNT(row) && status == FA_OK; i++) {
        status = fa_buffer_create(row[i].device, row[i].bytes, row[i].buffer);
        if (status == FA_OK)
            status = fa_buffer_write(row[i].queue, *row[i].buffer, 0, row[i].from, row[i].bytes);
    }
    return status;
}

static fa_status run_pair(const two *t)
{
    static const int64_t all[] = {KEYS + 150}, away_keys[] = {KEYS}, from[] = {200};
    const fa_cooperate_keys keys = {
        .struct_size = sizeof(keys), .keys = all, .away_keys = away_keys, .home_from = from};
    const fa_segment_args away = {.struct_size = sizeof(away),
                                  .k = t->away_cache,
                                  .v = t->away_cache,
                                  .page_table = t->streams ? NULL : t->table},
                          home = {.struct_size = sizeof(home), .k = t->home_cache, .v = t->home_cache};
    const fa_segment_args *const list[] = {&away, &home};
    const fa_segments_args args = {.struct_size = sizeof(args), .q = t->q, .o = t->o, .segment = list};
    return fa_cooperate_run(t->pair, t->queue, &keys, &args);
}

static fa_status live_as(two *t, const char *home, const char *away)
{
    fa_status status = fa_device_open(context, home, NULL, &t->home);
    if (status == FA_OK)
        status = fa_device_open(context, away, NULL, &t->away);
    if (status == FA_OK)
        status = fa_queue_create(t->home, &t->queue);
    if (status == FA_OK)
        status = fa_queue_create(t->away, &t->away_queue);
    if (status == FA_OK)
        status = make_memory(t);
    if (status == FA_OK)
        status = make_pair(t);
    for (int turn = 0; turn < 2 && status == FA_OK; turn++)
        status = run_pair(t);
    return status == FA_OK ? fa_queue_wait(t->queue) : status;
}

static void end(two *t)
{
    fa_cooperate_destroy(t->pair);
    fa_buffer_destroy(t->home_cache);
    fa_buffer_destroy(t->away_cache);
    fa_buffer_destroy(t->table);
    fa_buffer_destroy(t->q);
    fa_buffer_destroy(t->o);
    fa_queue_destroy(t->queue);
    fa_queue_destroy(t->away_queue);
    fa_device_close(t->home);
    fa_device_close(t->away);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
    *t = (two){.home = NULL};
}

static void set_up(void)
{
    (void)setenv("FASTATTN_CUDA_LIMITS", "images=0", 1);
    for (int i = 0; i < PAGES; i++)
        table[i] = i;
}

static const struct {
    const char *home, *away;
    int streams;
} order[] = {{"cuda", "openmp", 0}, {"openmp", "cuda", 0}, {"cuda", "cuda", 0}, {"cuda", "openmp", 1}};

static const char *const may_fail[] = {
    "cuMemAlloc",     "cuMemAllocHost",      "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",  "cuStreamCreate",
    "cuLaunchKernel", "cuStreamSynchronize", "cuEventRecord",     "cuEventElapsedTime",
};

/* The nth call of a function fails, for all n that a life has: that is told, nothing leaks, and what ran has ended. */
START_TEST(failures_of_either_are_told)
{
    const char *function = may_fail[_i / COUNT(order)], *home = order[_i % COUNT(order)].home,
               *away = order[_i % COUNT(order)].away;
    set_up();
    for (int nth = 1; nth <= MOST_CALLS; nth++) {
        two t = {.streams = order[_i % COUNT(order)].streams};
        stub_fail(function, nth, CUDA_ERROR_OUT_OF_MEMORY);
        const fa_status status = live_as(&t, home, away);
        const bool failed = stub_has_failed();
        stub_fail(NULL, 0, CUDA_SUCCESS);
        ck_assert_msg((status == FA_OK) == !failed, "call %d of %s: %s", nth, function, fa_last_error());
        if (failed)
            assert_message(function);
        end(&t);
        if (!failed) {
            ck_assert_int_gt(nth, 1);
            break;
        }
    }
}
END_TEST

/* The host refuses its page table while the device computes: the call waits for the device, and tells what it was. */
START_TEST(a_device_is_waited_for)
{
    two t = {.home = NULL};
    set_up();
    ck_assert_msg(live_as(&t, "cuda", "openmp") == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < COUNT(expected); i++)
        expected[i] = 77;
    ck_assert_int_eq(fa_buffer_write(t.queue, t.o, 0, expected, sizeof(expected)), FA_OK);
    table[1] = PAGES;
    ck_assert_int_eq(fa_buffer_write(t.away_queue, t.table, 0, table, sizeof(table)), FA_OK);
    const long launches = stub_launches();
    stub_fail("cuStreamSynchronize", 2, 700); /* q is read behind the first */
    ck_assert_int_eq(run_pair(&t), FA_INVALID);
    assert_message("segment[0]: page_table[0][1] is 6");
    ck_assert_int_gt(stub_launches(), launches);
    ck_assert(stub_has_failed());
    stub_fail(NULL, 0, CUDA_SUCCESS);
    ck_assert_int_eq(fa_buffer_read(t.queue, t.o, 0, found, sizeof(found)), FA_OK);
    ck_assert_mem_eq(found, expected, sizeof(found));
    end(&t);
}
END_TEST

static fa_status fail_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    (void)plan;
    (void)queue;
    (void)binding;
    return fa_fail(FA_OUT_OF_MEMORY, "the processors have none");
}

/* The host fails while pieces are copied and computed: all three queues of the device are waited for, and the next run is right. */
START_TEST(pieces_are_waited_for)
{
    enum { WAITS = 1 + 1 + 2 }; /* for q, for home's keys, for each buffer of pieces */
    static fa_backend posed;
    two t = {.streams = 1};
    set_up();
    ck_assert_msg(live_as(&t, "cuda", "openmp") == FA_OK, "%s", fa_last_error());
    fa_cooperate_info before = {.struct_size = sizeof(before)}, after = before;
    ck_assert_int_eq(fa_cooperate_get_info(t.pair, &before), FA_OK);
    ck_assert_int_gt(before.keys_streamed, 0);
    for (int i = 0; i < COUNT(expected); i++)
        expected[i] = 78;
    ck_assert_int_eq(fa_buffer_write(t.queue, t.o, 0, expected, sizeof(expected)), FA_OK);
    const fa_backend *const plain = t.away->backend;
    posed = *plain;
    posed.plan_run = fail_run;
    for (int more = 0; more < 2; more++) {
        t.away->backend = &posed;
        stub_fail("cuStreamSynchronize", WAITS + more, 700);
        ck_assert_int_eq(run_pair(&t), FA_OUT_OF_MEMORY);
        assert_message("segment[0]: the processors have none");
        ck_assert_int_eq(stub_has_failed(), more == 0);
        stub_fail(NULL, 0, CUDA_SUCCESS);
        t.away->backend = plain;
        ck_assert_int_eq(fa_buffer_read(t.queue, t.o, 0, found, sizeof(found)), FA_OK);
        ck_assert_mem_eq(found, expected, sizeof(found));
        ck_assert_int_eq(fa_cooperate_get_info(t.pair, &after), FA_OK);
        ck_assert_int_eq(after.runs, before.runs);
        ck_assert_double_eq(after.measured_stream, before.measured_stream);
    }
    ck_assert_int_eq(run_pair(&t), FA_OK);
    ck_assert_int_eq(fa_queue_wait(t.queue), FA_OK);
    end(&t);
}
END_TEST

void add_pairs(TCase *tc)
{
    tcase_add_loop_test(tc, failures_of_either_are_told, 0, COUNT(may_fail) * COUNT(order));
    tcase_add_test(tc, a_device_is_waited_for);
    tcase_add_test(tc, pieces_are_waited_for);
}
