/* SPDX-License-Identifier: Apache-2.0 */
/* How many programs lengths cost, counted by a driver that computes nothing: few, and none that was compiled ahead. */
#include "tests/unit/helpers.h"
#include FA_TEST_STUB

static const struct {
    fa_dtype type;
    int64_t heads_q, heads_kv, dim;
} families[] = {{FA_F32, 1, 1, 64}, {FA_F16, 8, 8, 128}, {FA_F16, 32, 8, 128}, {FA_F32, 12, 2, 64}};

#ifndef FA_TEST_FAMILIES /* fewer where a plan costs the stub much */
#define FA_TEST_FAMILIES COUNT(families)
#endif
enum { FAMILIES = FA_TEST_FAMILIES };

static fa_attention_desc describe(int family, int64_t rows, int64_t keys, fa_mask_kind mask)
{
    fa_attention_desc d =
        make_desc(1, families[family].heads_q, families[family].heads_kv, rows, keys, families[family].dim);
    d.q.dtype = d.k.dtype = d.v.dtype = d.o.dtype = families[family].type;
    d.mask = mask;
    return d;
}

static void plan_once(fa_device *device, const fa_attention_desc *d)
{
    fa_plan *plan;
    ck_assert_msg(fa_plan_create(device, d, &plan) == FA_OK, "%s", fa_last_error());
    fa_plan_destroy(plan);
}

static fa_device *open_device(void)
{
    fa_device *device;
    ck_assert_msg(fa_device_open(context, FA_TEST_BACKEND, NULL, &device) == FA_OK, "%s", fa_last_error());
    return device;
}

static long generate(fa_device *device, int family)
{
    const long before = (long)FA_TEST_COUNT();
    for (int64_t keys = 1; keys <= 1024; keys += keys < 70 || keys > 1000 ? 1 : 13) {
        const fa_attention_desc d = describe(family, 1, keys, FA_MASK_NONE);
        plan_once(device, &d);
    }
    return (long)FA_TEST_COUNT() - before;
}

/* One list for all heads, of blocks of 64 rows and keys, which every row has. */
static fa_block_lists all_blocks(int64_t rows, int64_t keys)
{
    static uint8_t mask[16 * 16];
    memset(mask, 1, sizeof(mask));
    return (fa_block_lists){.struct_size = sizeof(fa_block_lists),
                            .block_rows = 64,
                            .block_keys = 64,
                            .sequences = 1,
                            .heads = 1,
                            .row_blocks = (rows + 63) / 64,
                            .key_blocks = (keys + 63) / 64,
                            .mask = mask};
}

static long prompt(fa_device *device, int family, fa_mask_kind mask, bool listed)
{
    const long before = (long)FA_TEST_COUNT();
    for (int64_t rows = 1; rows <= 1024; rows += rows < 70 ? 1 : 61) {
        const fa_block_lists lists = all_blocks(rows, rows);
        fa_attention_desc d = describe(family, rows, rows, mask);
        d.lists = listed ? &lists : NULL;
        plan_once(device, &d);
    }
    return (long)FA_TEST_COUNT() - before;
}

START_TEST(a_cache_grows)
{
    long most = 0;
    for (int family = 0; family < FAMILIES; family++) {
        fa_device *device = open_device(); /* what was compiled goes with it */
        const long compiled = generate(device, family);
        most = compiled > most ? compiled : most;
        fa_device_close(device);
    }
    ck_assert_msg(most == FA_TEST_GENERATION, "%ld programs, expected %d", most, FA_TEST_GENERATION);
}
END_TEST

START_TEST(prompts_grow)
{
    long most = 0;
    for (int family = 0; family < FAMILIES; family++) {
        for (int mask = FA_MASK_NONE; mask <= FA_MASK_CAUSAL_BOTTOM_RIGHT; mask += 2) {
            fa_device *device = open_device();
            const long compiled = prompt(device, family, (fa_mask_kind)mask, false);
            most = compiled > most ? compiled : most;
            fa_device_close(device);
        }
    }
    ck_assert_msg(most == FA_TEST_PROMPTS, "%ld programs, expected %d", most, FA_TEST_PROMPTS);
}
END_TEST

START_TEST(a_warm_device_compiles_nothing)
{
    for (int family = 0; family < FAMILIES; family++) {
        fa_device *device = open_device();
        const long before = (long)FA_TEST_COUNT();
        fa_attention_desc largest = describe(family, 1, 1024, FA_MASK_NONE);
        ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
        ck_assert_int_gt((long)FA_TEST_COUNT(), before);
        ck_assert_int_eq(generate(device, family), 0);
        largest = describe(family, 1024, 1024, FA_MASK_NONE);
        ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(prompt(device, family, FA_MASK_CAUSAL_BOTTOM_RIGHT, false), 0);
        ck_assert_int_eq(prompt(device, family, FA_MASK_NONE, false), 0);
        fa_device_close(device);
    }
}
END_TEST

/* Programs that read lists are others than those that do not. */
START_TEST(lists_are_data)
{
    fa_device *device = open_device();
    const fa_block_lists lists = all_blocks(1024, 1024);
    fa_attention_desc largest = describe(0, 1024, 1024, FA_MASK_NONE);
    ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
    const long before = (long)FA_TEST_COUNT();
    largest.lists = &lists;
    ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
    ck_assert_int_gt((long)FA_TEST_COUNT(), before);
    ck_assert_int_eq(prompt(device, 0, FA_MASK_CAUSAL_BOTTOM_RIGHT, true), 0);
    ck_assert_int_eq(prompt(device, 0, FA_MASK_NONE, true), 0);
    fa_device_close(device);
}
END_TEST

START_TEST(members_of_a_warm_family)
{
    random_state random = {7};
    fa_device *device = open_device();
    const fa_attention_desc largest = describe(2, 700, 3000, FA_MASK_NONE);
    ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
    const long before = (long)FA_TEST_COUNT();
    for (int n = 0; n < 75 * FAMILIES; n++) {
        const int64_t rows = random_between(&random, 0, n % 2 ? 700 : 20),
                      keys = random_between(&random, 0, 3000);
        fa_attention_desc d = describe(2, rows, keys, (fa_mask_kind)random_between(&random, 0, 2));
        const int64_t cut[] = {0, random_between(&random, 0, rows), rows};
        const int64_t keys_cut[] = {0, random_between(&random, 0, keys), keys};
        const int64_t lens[] = {random_between(&random, 0, keys)};
        d.window_left = n % 5 ? 0 : random_between(&random, 1, 500);
        d.want_lse = n % 3 == 0;
        if (n % 4 == 0)
            d.lens_kv = lens;
        if (n % 4 == 1) {
            d.sequences = 2;
            d.cu_rows_q = cut;
            d.cu_rows_kv = keys_cut;
        }
        plan_once(device, &d);
    }
    ck_assert_int_eq((long)FA_TEST_COUNT() - before, 0);
    fa_device_close(device);
}
END_TEST

/* A decoder's sequences without a row lower the mean, down to 0 where lengths are told later. */
START_TEST(members_without_rows)
{
    static const int64_t none[] = {0}, most_rows[] = {1, 2, 700}, one_of_two[] = {0, 0, 1},
                         halves[] = {0, 1500, 3000};
    for (int i = 0; i < COUNT(most_rows); i++) {
        fa_device *device = open_device();
        const fa_attention_desc largest = describe(2 % FAMILIES, most_rows[i], 3000, FA_MASK_NONE);
        ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
        const long before = (long)FA_TEST_COUNT();
        for (int n = 0; n < 6; n++) {
            fa_attention_desc d = largest;
            d.dynamic_lengths = n < 5;
            d.lens_q = n & 1 && n < 4 ? none : NULL;
            d.lens_kv = n & 2 && n < 4 ? none : NULL;
            d.sequences = n < 4 ? 0 : 2;
            d.cu_rows_q = n < 4 ? NULL : one_of_two;
            d.cu_rows_kv = n < 4 ? NULL : halves;
            plan_once(device, &d);
            ck_assert_msg((long)FA_TEST_COUNT() == before, "%lld rows, own lengths %d",
                          (long long)most_rows[i], n);
        }
        fa_device_close(device);
    }
}
END_TEST

#ifdef FA_TEST_PAGES /* of backends that serve them */
/* So many pages of so many keys, and a pool of some more. */
static fa_attention_desc describe_pages(int64_t rows, int64_t pages, int64_t size)
{
    fa_attention_desc d = describe(0, rows, size, FA_MASK_NONE);
    d.k.shape[0] = d.v.shape[0] = pages + 3;
    d.page_table = fa_tensor_make(FA_I32, 1, 1, 1, pages);
    return d;
}

/* Keys in pages are programs of their own, and as few: sizes of pages and of pools are data. */
START_TEST(pages_are_data)
{
    static const int64_t sizes[] = {1, 7, 16, 64, 1024};
    fa_device *device = open_device();
    long before = (long)FA_TEST_COUNT();
    fa_attention_desc largest = describe_pages(1, 64, 16);
    ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
    const long paged = (long)FA_TEST_COUNT() - before;
    before += paged;
    for (int i = 0; i < COUNT(sizes); i++) {
        for (int64_t keys = 1; keys <= 1024 / sizes[i] * sizes[i]; keys += keys < 20 ? 1 : 97) {
            fa_attention_desc d = describe_pages(1, 1024 / sizes[i], sizes[i]);
            d.lens_kv = &keys;
            plan_once(device, &d);
        }
    }
    ck_assert_int_eq((long)FA_TEST_COUNT() - before, 0);
    largest = describe(0, 1, 1024, FA_MASK_NONE);
    ck_assert_msg(fa_device_warm(device, &largest) == FA_OK, "%s", fa_last_error());
    const long plain = (long)FA_TEST_COUNT() - before;
    ck_assert_msg(plain > 0 && plain < paged, "%ld programs, %ld with pages and what merges both", plain,
                  paged);
    fa_device_close(device);
}
END_TEST
#endif

/* The tasks of plans are programs too: one for each that a description asks for. */
START_TEST(tasks_are_compiled_ahead)
{
    static const int64_t keys[] = {1024};
    fa_device *device = open_device();
    fa_attention_desc d = describe(0, 1, 1024, FA_MASK_NONE);
    d.lens_kv = keys;
    ck_assert_msg(fa_device_warm(device, &d) == FA_OK, "%s", fa_last_error());
    const long plain = (long)FA_TEST_COUNT();
    d.dynamic_lengths = 2;
    ck_assert_msg(fa_device_warm(device, &d) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq((long)FA_TEST_COUNT() - plain, 1);
    plan_once(device, &d);
    ck_assert_msg(fa_device_warm(device, &d) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq((long)FA_TEST_COUNT() - plain, 1);
#ifdef FA_TEST_PAGES
    d = describe_pages(1, 64, 16);
    ck_assert_msg(fa_device_warm(device, &d) == FA_OK, "%s", fa_last_error());
    const long paged = (long)FA_TEST_COUNT();
    d.want_status = 1;
    ck_assert_msg(fa_device_warm(device, &d) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq((long)FA_TEST_COUNT() - paged, 1);
    plan_once(device, &d);
    ck_assert_int_eq((long)FA_TEST_COUNT() - paged, 1);
#endif
    fa_device_close(device);
}
END_TEST

START_TEST(refusals)
{
    fa_device *device = open_device();
    const long before = (long)FA_TEST_COUNT();
    fa_attention_desc bad = describe(0, 1, 8, FA_MASK_NONE);
    const fa_tuning unknown = {.struct_size = sizeof(unknown), .kernel = "none such"};
    ck_assert_int_eq(fa_device_warm(NULL, &bad), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_device_warm(device, NULL), FA_INVALID);
    assert_message("desc is NULL");
    bad.tuning = &unknown;
    ck_assert_int_eq(fa_device_warm(device, &bad), FA_UNSUPPORTED);
    assert_message("tuning.kernel is \"none such\"");
    bad.tuning = NULL;
    bad.k.shape[3] = 9;
    ck_assert_int_eq(fa_device_warm(device, &bad), FA_INVALID);
    assert_message("k.shape[3] is 9");
    ck_assert_int_eq((long)FA_TEST_COUNT() - before, 0);
    fa_device_close(device);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("programs");
    TCase *tc = add_context_case(suite, "lengths");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_cache_grows);
    tcase_add_test(tc, prompts_grow);
    tcase_add_test(tc, a_warm_device_compiles_nothing);
    tcase_add_test(tc, lists_are_data);
    tcase_add_test(tc, members_of_a_warm_family);
    tcase_add_test(tc, members_without_rows);
#ifdef FA_TEST_PAGES
    tcase_add_test(tc, pages_are_data);
#endif
    tcase_add_test(tc, tasks_are_compiled_ahead);
    tcase_add_test(tc, refusals);
    return run_unforked(suite);
}
