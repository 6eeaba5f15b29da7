/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables that lie in the host's memory: every entry that a run needs is looked at, and no other one is. */
#include <string.h>

#include "core/backend.h"
#include "helpers.h"
#include "suites.h"

enum { SEQUENCES = 3, HEADS = 2, ROWS = 2, DIM = 4, SIZE = 4, PAGES = 6, MOST = 5, REST = 0x55 };

/* Sequence 0 uses the keys of entry 1 and of a part of entry 0, sequence 1 none, and sequence 2 those of all its entries. */
static const int64_t lens[SEQUENCES] = {7, 0, SIZE *MOST}, first[SEQUENCES] = {2, 0, 0};
static const int32_t good[SEQUENCES][MOST] = {{5, 0}, {0}, {3, 1, 2, 4, 0}};

static float q[SEQUENCES * HEADS * ROWS * DIM], k[PAGES * HEADS * SIZE * DIM], v[PAGES * HEADS * SIZE * DIM],
    o[SEQUENCES * HEADS * ROWS * DIM], lse[SEQUENCES * HEADS * ROWS];
static int32_t status[SEQUENCES + 1];

static fa_device *device;
static fa_queue *queue;
static fa_plan *plan;

static fa_attention_desc paged_desc(void)
{
    fa_attention_desc d = make_desc(SEQUENCES, HEADS, HEADS, ROWS, SIZE, DIM);
    d.k = d.v = fa_tensor_make(FA_F32, PAGES, HEADS, SIZE, DIM);
    d.page_table = fa_tensor_make(FA_I32, SEQUENCES, 1, 1, MOST);
    d.lens_kv = lens;
    d.first_kv = first;
    d.want_lse = 1;
    return d;
}

/* The CPU where the library has it, so that more than the answer can be seen. */
static void begin(const fa_attention_desc *d)
{
    random_state random = {1};
    for (int i = 0; i < COUNT(k); i++) {
        k[i] = random_float(&random, -1, 1);
        v[i] = random_float(&random, -1, 1);
    }
    for (int i = 0; i < COUNT(q); i++)
        q[i] = random_float(&random, -1, 1);
    if (fa_device_open(context, "openmp", NULL, &device) != FA_OK)
        device = open_null();
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, d, &plan), FA_OK);
}

static void end(void)
{
    fa_plan_destroy(plan);
    fa_queue_destroy(queue);
    fa_device_close(device);
}

static fa_status run_with(const int32_t *table, const void *work, int32_t *status_of)
{
    static _Alignas(64) char workspace[1 << 20];
    ck_assert_uint_le(fa_plan_workspace(plan), sizeof(workspace));
    const fa_host_args args = {.struct_size = sizeof(args),
                               .q = q,
                               .k = k,
                               .v = v,
                               .page_table = table,
                               .o = o,
                               .lse = lse,
                               .workspace = workspace,
                               .work = work,
                               .status = status_of};
    memset(o, REST, sizeof(o));
    memset(lse, REST, sizeof(lse));
    return fa_plan_run_host(plan, queue, &args);
}

static fa_status run(const int32_t *table, const void *work)
{
    return run_with(table, work, NULL);
}

static void assert_untouched(const void *written, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ck_assert_int_eq(((const char *)written)[i], REST);
}

START_TEST(a_page_that_is_none_is_refused)
{
    static const struct {
        int32_t sequence, entry, page;
        const char *message;
    } bad[] = {
        {0, 0, -1, "page_table[0][0] is -1, expected 0 to 5: k and v have 6 pages"},
        {0, 1, PAGES, "page_table[0][1] is 6, expected 0 to 5: k and v have 6 pages"},
        {2, 0, INT32_MIN, "page_table[2][0] is -2147483648, expected 0 to 5"},
        {2, MOST - 1, INT32_MAX, "page_table[2][4] is 2147483647, expected 0 to 5"},
    };
    const fa_attention_desc d = paged_desc();
    begin(&d);
    for (int i = 0; i < COUNT(bad); i++) {
        int32_t table[SEQUENCES][MOST];
        memcpy(table, good, sizeof(table));
        table[bad[i].sequence][bad[i].entry] = bad[i].page;
        ck_assert_int_eq(run(&table[0][0], NULL), FA_INVALID);
        assert_message(bad[i].message);
        assert_untouched(o, sizeof(o));
        assert_untouched(lse, sizeof(lse));
    }
    end();
}
END_TEST

START_TEST(entries_of_no_keys_are_not_looked_at)
{
    static const int32_t nonsense[] = {-1, PAGES, INT32_MIN, INT32_MAX};
    const fa_attention_desc d = paged_desc();
    float expected[COUNT(o)], expected_lse[COUNT(lse)];
    begin(&d);
    ck_assert_int_eq(run(&good[0][0], NULL), FA_OK);
    memcpy(expected, o, sizeof(o));
    memcpy(expected_lse, lse, sizeof(lse));
    for (int i = 0; i < COUNT(nonsense); i++) {
        int32_t table[SEQUENCES][MOST];
        memcpy(table, good, sizeof(table));
        for (int n = 2; n < MOST; n++)
            table[0][n] = nonsense[i];
        for (int n = 0; n < MOST; n++)
            table[1][n] = nonsense[i];
        ck_assert_int_eq(run(&table[0][0], NULL), FA_OK);
        ck_assert_mem_eq(o, expected, sizeof(o));
        ck_assert_mem_eq(lse, expected_lse, sizeof(lse));
    }
    end();
}
END_TEST

/* What a run's own lengths use, and nothing of sequences that take no part. */
START_TEST(lengths_of_a_run_decide)
{
    fa_attention_desc d = paged_desc();
    d.dynamic_lengths = 1;
    d.lens_kv = d.first_kv = NULL;
    begin(&d);
    const int64_t now[] = {SIZE + 1, 3 * SIZE}, from[] = {0, 2 * SIZE};
    const fa_lengths lengths = {
        .struct_size = sizeof(lengths), .sequences = 2, .lens_kv = now, .first_kv = from};
    int32_t table[SEQUENCES][MOST] = {{5, 0, -1, -1, -1}, {-1, -1, 3, -1, -1}, {-1, -1, -1, -1, -1}};
    fa_buffer *work;
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(plan), &work), FA_OK);
    ck_assert_int_eq(fa_plan_schedule(plan, queue, &lengths, work, 0), FA_OK);
    ck_assert_int_eq(run(&table[0][0], work->address), FA_OK);
    ck_assert_int_eq(run(&table[0][0], NULL), FA_INVALID);
    assert_message("page_table[0][2] is -1");
    table[1][2] = PAGES;
    ck_assert_int_eq(run(&table[0][0], work->address), FA_INVALID);
    assert_message("page_table[1][2] is 6");
    fa_buffer_destroy(work);
    end();
}
END_TEST

/* Of a table that the host has checked: nothing is wrong. It is given exactly where the description asks for it. */
START_TEST(status_of_a_run)
{
    fa_attention_desc d = paged_desc();
    d.want_status = 1;
    begin(&d);
    memset(status, REST, sizeof(status));
    ck_assert_int_eq(run_with(&good[0][0], NULL, status), FA_OK);
    for (int n = 0; n < SEQUENCES; n++)
        ck_assert_int_eq(status[n], 0);
    assert_untouched(&status[SEQUENCES], sizeof(status[0]));
    int32_t table[SEQUENCES][MOST];
    memcpy(table, good, sizeof(table));
    table[2][1] = PAGES;
    memset(status, REST, sizeof(status));
    ck_assert_int_eq(run_with(&table[0][0], NULL, status), FA_INVALID);
    assert_untouched(status, sizeof(status));
    ck_assert_int_eq(run(&good[0][0], NULL), FA_INVALID);
    assert_message("args.status is NULL");
    ck_assert_int_eq(run_with(&good[0][0], NULL, (int32_t *)(void *)o), FA_INVALID);
    assert_message("args.o overlaps args.status");
    end();
    d.want_status = 0;
    begin(&d);
    ck_assert_int_eq(run_with(&good[0][0], NULL, status), FA_INVALID);
    assert_message("args.status is given, expected NULL: the description has want_status 0");
    d.want_status = 2;
    fa_plan *none;
    ck_assert_int_eq(fa_plan_create(device, &d, &none), FA_INVALID);
    assert_message("want_status is 2, expected 0 to 1");
    d = make_desc(1, 1, 1, 1, 1, 1);
    d.want_status = 1;
    ck_assert_int_eq(fa_plan_create(device, &d, &none), FA_INVALID);
    assert_message("want_status is 1, expected 0: page_table.shape is all 0");
    end();
}
END_TEST

/* A length that the host does not know may be more than a sequence's pages hold. Where the host reads the table it sees that. */
START_TEST(lengths_on_the_device_beyond_the_table)
{
    fa_attention_desc d = paged_desc();
    const int32_t fits[SEQUENCES] = {5, 0, SIZE * MOST}, too_long[SEQUENCES] = {5, 0, SIZE * MOST + 1};
    d.first_kv = NULL;
    d.dynamic_lengths = 2;
    d.want_status = 1;
    begin(&d);
    fa_buffer *work, *list;
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(plan), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, sizeof(fits), &list), FA_OK);
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = list};
    for (int i = 0; i < 2; i++) {
        memset(status, REST, sizeof(status));
        ck_assert_int_eq(fa_buffer_write(queue, list, 0, i ? too_long : fits, sizeof(fits)), FA_OK);
        ck_assert_int_eq(fa_plan_schedule_device(plan, queue, &lengths, work, 0), FA_OK);
        ck_assert_int_eq(run_with(&good[0][0], work->address, status), i ? FA_INVALID : FA_OK);
        if (i == 0)
            ck_assert_int_eq(status[2], 0);
    }
    assert_message("args.work: sequence 2 has more keys than the 20 that page_table, bias and keep hold");
    assert_untouched(status, sizeof(status));
    fa_buffer_destroy(work);
    fa_buffer_destroy(list);
    end();
}
END_TEST

Suite *pages_suite(void)
{
    Suite *suite = suite_create("pages");
    TCase *tc = add_context_case(suite, "tables in host memory");
    tcase_add_test(tc, a_page_that_is_none_is_refused);
    tcase_add_test(tc, entries_of_no_keys_are_not_looked_at);
    tcase_add_test(tc, lengths_of_a_run_decide);
    tcase_add_test(tc, status_of_a_run);
    tcase_add_test(tc, lengths_on_the_device_beyond_the_table);
    return suite;
}
