/* SPDX-License-Identifier: Apache-2.0 */
/* fa_workspace_bound(): no plan of the family needs more, and the bound is of use. */
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

enum { MOST_SEQUENCES = 40 };

/* A member of the family of `largest`: other sizes, packed or dense, other masks and extras. */
typedef struct member {
    fa_attention_desc desc;
    int64_t cu_q[MOST_SEQUENCES + 1], cu_kv[MOST_SEQUENCES + 1], lens_q[MOST_SEQUENCES],
        lens_kv[MOST_SEQUENCES];
    float per_head[64];
} member;

static int64_t size_up_to(random_state *random, int64_t most)
{
    /* Often all there is, where bounds are met. */
    return random_bits(random) % 3 == 0 ? most : random_between(random, 0, most);
}

static void cut_into(random_state *random, int64_t total, int64_t count, int64_t *cu)
{
    cu[0] = 0;
    for (int64_t n = 0; n < count; n++)
        cu[n + 1] = n == count - 1 ? total : random_between(random, cu[n], total);
}

static void draw_member(random_state *random, const fa_attention_desc *largest, member *m)
{
    fa_attention_desc *d = &m->desc;
    *d = *largest;
    int64_t batch = size_up_to(random, largest->q.shape[0]), rows = size_up_to(random, largest->q.shape[2]);
    int64_t keys = size_up_to(random, largest->k.shape[2]);
    bool packed = random_bits(random) % 3 == 0;
    int64_t sequences = packed ? random_between(random, 1, MOST_SEQUENCES) : batch;
    d->q.shape[0] = d->o.shape[0] = d->k.shape[0] = d->v.shape[0] = packed ? 1 : batch;
    d->q.shape[2] = d->o.shape[2] = rows;
    d->k.shape[2] = d->v.shape[2] = keys;
    if (packed) {
        cut_into(random, rows, sequences, m->cu_q);
        cut_into(random, keys, sequences, m->cu_kv);
        d->sequences = sequences;
        d->cu_rows_q = m->cu_q;
        d->cu_rows_kv = m->cu_kv;
    } else if (random_bits(random) % 2) {
        for (int64_t n = 0; n < batch; n++) {
            m->lens_q[n] = size_up_to(random, rows);
            m->lens_kv[n] = size_up_to(random, keys);
        }
        d->lens_q = random_bits(random) % 2 ? m->lens_q : NULL;
        d->lens_kv = m->lens_kv;
    }
    d->mask = (fa_mask_kind)random_between(random, 0, 2);
    d->window_left = random_bits(random) % 4 ? 0 : random_between(random, 1, 3000);
    d->prefix = random_bits(random) % 4 ? 0 : random_between(random, 1, 3000);
    d->diagonal_offset = random_bits(random) % 4 ? 0 : random_between(random, -3000, 3000);
    d->alibi_slopes = random_bits(random) % 3 ? NULL : m->per_head;
    d->sinks = random_bits(random) % 3 ? NULL : m->per_head;
    d->want_lse = random_bits(random) % 2;
    d->dynamic_lengths = random_bits(random) % 3 == 0;
    d->softcap = random_bits(random) % 3 ? 0 : 20;
    if (random_bits(random) % 4 == 0 && rows > 0 && keys > 0 && sequences > 0)
        d->bias = fa_tensor_make(FA_F16, 1, 1, 1, 1);
}

static fa_attention_desc draw_largest(random_state *random, fa_tuning *tuning)
{
    static const int64_t lengths[] = {0, 1, 4, 100, 3000, 40000}, dims[] = {16, 64, 72, 128, 256, 576};
    int64_t heads_kv = random_between(random, 1, 4), heads_q = heads_kv * random_between(random, 1, 8);
    fa_attention_desc d =
        make_desc(random_between(random, 1, 12), heads_q, heads_kv, lengths[random_bits(random) % 5],
                  lengths[random_bits(random) % 6], dims[random_bits(random) % 6]);
    d.q.dtype = d.k.dtype = d.v.dtype = d.o.dtype = (fa_dtype)random_between(random, FA_F32, FA_BF16);
    *tuning = (fa_tuning){.struct_size = sizeof(*tuning)};
    if (random_bits(random) % 6 == 0)
        tuning->block_q = (int32_t)random_between(random, 1, 300);
    if (random_bits(random) % 6 == 0)
        tuning->block_kv = (int32_t)random_between(random, 1, 3000);
    if (random_bits(random) % 6 == 0)
        tuning->splits = (int32_t)random_between(random, 1, 9);
    d.tuning = tuning;
    return d;
}

#ifdef FA_TEST_BACKEND
static const char *const backends[] = {FA_TEST_BACKEND};
#else
static const char *const backends[] = {"null", "openmp"};
#endif

START_TEST(no_plan_needs_more)
{
    enum { FAMILIES = 60, MEMBERS = 40 };
    random_state random = {(uint64_t)_i + 7};
    fa_device *device;
    int plans = 0, split = 0, near = 0;
    if (fa_device_open(context, backends[_i], NULL, &device) != FA_OK)
        return; /* not built */
    for (int f = 0; f < FAMILIES; f++) {
        fa_tuning tuning;
        fa_attention_desc largest = draw_largest(&random, &tuning);
        size_t bound;
        fa_status status = fa_workspace_bound(device, &largest, &bound);
        if (status == FA_UNSUPPORTED) { /* forced blocks that do not fit */
            ck_assert_int_eq(fa_device_supports(device, &largest, NULL, 0), FA_UNSUPPORTED);
            continue;
        }
        ck_assert_msg(status == FA_OK, "%s", fa_last_error());
        for (int n = 0; n <= MEMBERS; n++) {
            member m = {.per_head = {0}};
            m.desc = largest;
            if (n > 0)
                draw_member(&random, &largest, &m);
            fa_plan *plan;
            fa_plan_info info = {.struct_size = sizeof(info)};
            status = fa_plan_create(device, &m.desc, &plan);
            if (status != FA_OK) {
                /* A list of too many items, or forced parts that this member's kernels cannot make. */
                ck_assert_msg(status == FA_OUT_OF_MEMORY || status == FA_UNSUPPORTED, "%s", fa_last_error());
                continue;
            }
            ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
            size_t needed = fa_plan_workspace(plan);
            fa_plan_destroy(plan);
            ck_assert_msg(needed <= bound, "family %d, member %d, %s: %zu bytes needed, the bound is %zu", f,
                          n, info.kernel, needed, bound);
            plans++;
            split += info.merge_items > 0;
            near += needed > 0 && needed >= bound / 4;
        }
    }
    ck_assert_int_gt(plans, FAMILIES * MEMBERS / 2);
    ck_assert_int_gt(split, 20);
    ck_assert_int_gt(near, 20); /* or the bound could be anything */
    fa_device_close(device);
}
END_TEST

START_TEST(refusals)
{
    const fa_attention_desc good = make_desc(1, 2, 1, 8, 8, 8);
    fa_attention_desc bad = good;
    size_t bytes = 77;
    ck_assert_int_eq(fa_workspace_bound(null_device, &good, NULL), FA_INVALID);
    assert_message("bytes is NULL");
    ck_assert_int_eq(fa_workspace_bound(NULL, &good, &bytes), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_uint_eq(bytes, 0);
    ck_assert_int_eq(fa_workspace_bound(null_device, NULL, &bytes), FA_INVALID);
    assert_message("desc is NULL");
    bad.k.shape[3] = 9;
    bytes = 77;
    ck_assert_int_eq(fa_workspace_bound(null_device, &bad, &bytes), FA_INVALID);
    assert_message("k.shape[3] is 9");
    ck_assert_uint_eq(bytes, 0);
    const fa_tuning unknown = {.struct_size = sizeof(unknown), .kernel = "none such"};
    bad = good;
    bad.tuning = &unknown;
    ck_assert_int_eq(fa_workspace_bound(null_device, &bad, &bytes), FA_UNSUPPORTED);
    assert_message("tuning.kernel is \"none such\"");
    ck_assert_int_eq(fa_workspace_bound(null_device, &good, &bytes), FA_OK);
    ck_assert_str_eq(fa_last_error(), "");
    fa_device *device;
    const fa_tuning baseline = {.struct_size = sizeof(baseline), .kernel = "scalar-standard"};
    bad.tuning = &baseline;
    if (fa_device_open(context, "openmp", NULL, &device) != FA_OK)
        return; /* not built */
    ck_assert_int_eq(fa_workspace_bound(device, &bad, &bytes), FA_UNSUPPORTED);
    assert_message("tuning.kernel is \"scalar-standard\", a baseline");
    fa_device_close(device);
}
END_TEST

Suite *workspace_suite(void)
{
    Suite *suite = suite_create("workspace");
    TCase *tc = add_device_case(suite, "bound");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, no_plan_needs_more, 0, COUNT(backends));
    tcase_add_test(tc, refusals);
    return suite;
}
