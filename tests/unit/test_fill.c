/* SPDX-License-Identifier: Apache-2.0 */
/* fa_plan_schedule_device() on the null backend: the words that core/portable/fill.h writes, against the host's. */
#include <string.h>

#include "core/backend.h"
#include "core/size.h"
#include "core/task_words.h"
#include "helpers.h"
#include "suites.h"

#include "core/portable/fill.h"

enum { MOST = 6, LISTS = 5, GUARD = 256 };

/* A plan whose lengths lie on the device, work twice (the device's and the host's), and lists in one buffer. */
typedef struct life {
    fa_plan *plan;
    fa_buffer *work, *host_work, *lists;
    bool given[LISTS]; /* cu_rows_q, cu_rows_kv, lens_q, lens_kv, first_kv */
    int64_t wide[LISTS][MOST + 1];
} life;

static const int64_t zeros[MOST + 1] = {0};

static void begin(life *l, const fa_attention_desc *d)
{
    *l = (life){.plan = make_plan(d)};
    const int64_t *const lists[] = {d->cu_rows_q, d->cu_rows_kv, d->lens_q, d->lens_kv, d->first_kv};
    for (int i = 0; i < LISTS; i++)
        l->given[i] = lists[i] != NULL;
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_work(l->plan) + 2 * GUARD, &l->work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_work(l->plan), &l->host_work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(null_device, sizeof(int32_t) * LISTS * (MOST + 1), &l->lists), FA_OK);
}

static void end(life *l)
{
    fa_buffer_destroy(l->work);
    fa_buffer_destroy(l->host_work);
    fa_buffer_destroy(l->lists);
    fa_plan_destroy(l->plan);
}

static fa_device_lengths on_device(const life *l)
{
    const size_t bytes = sizeof(int32_t) * (MOST + 1);
    return (fa_device_lengths){
        .struct_size = sizeof(fa_device_lengths),
        .cu_rows_q = l->given[0] ? l->lists : NULL,
        .cu_rows_kv = l->given[1] ? l->lists : NULL,
        .lens_q = l->given[2] ? l->lists : NULL,
        .lens_kv = l->given[3] ? l->lists : NULL,
        .first_kv = l->given[4] ? l->lists : NULL,
        .cu_rows_kv_offset = bytes,
        .lens_q_offset = 2 * bytes,
        .lens_kv_offset = 3 * bytes,
        .first_kv_offset = 4 * bytes,
    };
}

static fa_status schedule(const life *l)
{
    const fa_device_lengths lengths = on_device(l);
    int32_t *narrow = l->lists->address;
    for (int i = 0; i < LISTS; i++) {
        for (int n = 0; n <= MOST; n++)
            narrow[i * (MOST + 1) + n] = (int32_t)l->wide[i][n];
    }
    memset(l->work->address, 0xa5, l->work->size);
    fa_status status = fa_plan_schedule_device(l->plan, null_queue, &lengths, l->work, GUARD);
    const unsigned char *bytes = l->work->address;
    bool intact = true;
    for (size_t i = 0; i < GUARD; i++)
        intact = intact && bytes[i] == 0xa5 && bytes[l->work->size - 1 - i] == 0xa5;
    ck_assert(intact);
    return status;
}

static fa_status schedule_on_host(const life *l)
{
    const fa_lengths lengths = {
        .struct_size = sizeof(lengths),
        .cu_rows_q = l->given[0] ? l->wide[0] : NULL,
        .cu_rows_kv = l->given[1] ? l->wide[1] : NULL,
        .lens_q = l->given[2] ? l->wide[2] : NULL,
        .lens_kv = l->given[3] ? l->wide[3] : NULL,
        .first_kv = l->given[4] ? l->wide[4] : NULL,
    };
    return fa_plan_schedule(l->plan, null_queue, &lengths, l->host_work, 0);
}

static const fa_table_params *params_of(const life *l)
{
    return (const void *)((const char *)l->work->address + GUARD);
}

static const fa_table_item *items_of(const life *l)
{
    return (const fa_table_item *)(const void *)params_of(l) + params_of(l)->items_at;
}

static const fa_table_merge *merges_of(const life *l)
{
    return (const fa_table_merge *)(const void *)params_of(l) + params_of(l)->merges_at;
}

static const fa_table_sequence *sequences_of(const life *l)
{
    return (const fa_table_sequence *)(const void *)params_of(l) + params_of(l)->sequences_at;
}

/* All but the lists of items and merges, and how long they are, is what the host writes. */
static void check_like_host(const life *l)
{
    const fa_table_params *host = l->host_work->address, *p = params_of(l);
    const size_t end =
        l->plan->layout.sequences + (size_t)l->plan->problem.sequences * sizeof(fa_table_sequence);
    ck_assert_msg(schedule_on_host(l) == FA_OK, "%s", fa_last_error());
    fa_table_params same = *p;
    same.items = host->items;
    same.merges = host->merges;
    same.workers = host->workers;
    same.partial_rows = host->partial_rows;
    ck_assert_mem_eq(&same, host, sizeof(same));
    ck_assert_mem_eq((const char *)p + sizeof(*p), (const char *)host + sizeof(*p), end - sizeof(*p));
}

static void check_capacity(const life *l)
{
    const fa_table_params *p = params_of(l);
    const fa_capacity *c = &l->plan->capacity;
    ck_assert(p->items >= 0 && p->items <= c->items);
    ck_assert(p->merges >= 0 && p->merges <= c->merges);
    ck_assert(p->partial_rows >= 0 && p->partial_rows <= c->partial_rows);
    ck_assert(p->workers >= (p->items > 0) && p->workers <= (int)c->workers);
}

/* Every row meets each key that it sees once, every partial row is written once and merged once. */
static void check_items(const life *l)
{
    enum { ROWS = 160, KEYS = 300 };
    static unsigned char met[MOST][2][ROWS][KEYS];
    const fa_problem *problem = &l->plan->problem;
    const fa_table_params *p = params_of(l);
    const fa_table_sequence *s = sequences_of(l);
    bool once = true;
    unsigned char *written = calloc(1, (size_t)p->partial_rows + 1);
    memset(met, 0, sizeof(met));
    for (int i = 0; i < p->items; i++) {
        const fa_table_item *w = &items_of(l)[i];
        ck_assert(w->row_begin >= 0 && w->row_begin < w->row_end && w->row_end <= ROWS);
        ck_assert(w->row_begin % l->plan->args.block_q == 0 &&
                  w->row_end - w->row_begin <= l->plan->args.block_q);
        ck_assert(w->key_begin >= 0 && w->key_begin <= w->key_end &&
                  w->key_end <= s[w->sequence].mask.len_kv);
        ck_assert_int_eq(w->key_begin % l->plan->args.block_kv, 0);
        for (int r = w->row_begin; r < w->row_end; r++) {
            for (int k = w->key_begin; k < w->key_end; k++)
                met[w->sequence][w->head_kv][r][k]++;
            if (w->part_row >= 0)
                once = written[w->part_row + r - w->row_begin]++ == 0 && once;
        }
    }
    for (int i = 0; i < p->merges; i++) {
        const fa_table_merge *m = &merges_of(l)[i];
        ck_assert_int_gt(m->parts, 1);
        for (int r = 0; r < m->parts * (m->row_end - m->row_begin); r++)
            once = written[m->part_row + r]++ == 1 && once;
    }
    for (int64_t r = 0; r < p->partial_rows; r++)
        once = written[r] == 2 && once;
    free(written);
    for (int64_t n = 0; n < problem->sequences; n++) {
        const int64_t rows = l->given[0] ? l->wide[0][n + 1] - l->wide[0][n] : l->wide[2][n];
        for (int64_t r = 0; r < rows * problem->group; r++) {
            for (int k = 0; k < s[n].mask.len_kv; k++) {
                const bool seen = fa_mask_visible(s[n].mask, (int)r / problem->group, k);
                for (int h = 0; h < problem->heads_kv; h++)
                    once = once && met[n][h][r][k] <= 1 && (!seen || met[n][h][r][k] == 1);
            }
        }
    }
    ck_assert(once);
}

static void draw_masks(random_state *random, fa_attention_desc *d)
{
    d->mask = (fa_mask_kind)(random_bits(random) % 3);
    d->window_left = random_bits(random) % 2 ? random_between(random, 1, 60) : 0;
    d->window_right = random_bits(random) % 2 ? random_between(random, 1, 60) : 0;
    d->prefix = random_bits(random) % 3 ? 0 : random_between(random, 1, 90);
    d->diagonal_offset = random_bits(random) % 3 ? 0 : random_between(random, -40, 40);
}

/* Which lists there are; a side is packed, or has lengths. */
static void draw_lists(random_state *random, fa_attention_desc *d)
{
    d->sequences = d->q.shape[0];
    if (random_bits(random) % 3 == 0) {
        d->q.shape[0] = d->o.shape[0] = 1;
        d->cu_rows_q = zeros;
    } else {
        d->lens_q = zeros;
    }
    if (random_bits(random) % 3 == 0) {
        d->k.shape[0] = d->v.shape[0] = 1;
        d->cu_rows_kv = zeros;
    } else {
        d->lens_kv = zeros;
    }
    d->first_kv = random_bits(random) % 2 ? zeros : NULL;
}

static void draw_lengths(random_state *random, life *l)
{
    const fa_problem *p = &l->plan->problem;
    const int64_t most[] = {p->tensor[FA_Q].shape[2], p->tensor[FA_K].shape[2]};
    for (int side = 0; side < 2; side++) {
        l->wide[side][0] = random_between(random, 0, most[side] / 3);
        for (int n = 0; n < MOST; n++) {
            l->wide[side][n + 1] = random_between(random, l->wide[side][n], most[side]);
            l->wide[2 + side][n] =
                random_bits(random) % 3 ? random_between(random, 0, most[side]) : most[side];
        }
    }
    for (int n = 0; n < MOST; n++) {
        const int64_t keys = l->given[1] ? l->wide[1][n + 1] - l->wide[1][n] : l->wide[3][n];
        l->wide[4][n] = random_between(random, 0, keys);
    }
}

static fa_attention_desc draw_desc(random_state *random, fa_tuning *tuning, int64_t most_keys)
{
    fa_attention_desc d = make_desc(random_between(random, 1, MOST), 4, random_bits(random) % 2 ? 2 : 1,
                                    random_between(random, 1, 40), random_between(random, 1, most_keys), 64);
    *tuning = (fa_tuning){.struct_size = sizeof(*tuning),
                          .block_q = (int32_t)random_between(random, 0, 40),
                          .block_kv = (int32_t)random_between(random, 0, 60),
                          .splits = random_bits(random) % 3 ? 0 : (int32_t)random_between(random, 1, 6)};
    d.tuning = tuning;
    d.dynamic_lengths = 2;
    d.want_lse = 1;
    draw_masks(random, &d);
    draw_lists(random, &d);
    return d;
}

START_TEST(any_lengths_are_scheduled)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; n < 60; n++) {
        fa_tuning tuning;
        const fa_attention_desc d = draw_desc(&random, &tuning, 300);
        life l;
        begin(&l, &d);
        for (int turn = 0; turn < 3; turn++) {
            draw_lengths(&random, &l);
            ck_assert_msg(schedule(&l) == FA_OK, "%s", fa_last_error());
            check_capacity(&l);
            check_items(&l);
            check_like_host(&l);
        }
        end(&l);
    }
}
END_TEST

/* Whatever the lists hold, items stay within the tensors, and the lists within the work. */
START_TEST(garbage_is_held_within_the_tensors)
{
    random_state random = {7};
    for (int n = 0; n < 300; n++) {
        fa_tuning tuning;
        const fa_attention_desc d = draw_desc(&random, &tuning, 70000);
        life l;
        begin(&l, &d);
        const fa_problem *p = &l.plan->problem;
        for (int i = 0; i < LISTS * (MOST + 1); i++) {
            const int64_t near = random_between(&random, -5, 60), far = (int32_t)random_bits(&random);
            l.wide[i / (MOST + 1)][i % (MOST + 1)] = random_bits(&random) % 2 ? near : far;
        }
        ck_assert_int_eq(schedule(&l), FA_OK);
        check_capacity(&l);
        for (int i = 0; i < params_of(&l)->items; i++) {
            const fa_table_item *w = &items_of(&l)[i];
            const fa_table_sequence *s = &sequences_of(&l)[w->sequence];
            const int64_t *at = p->tensor[FA_K].stride, *to = p->tensor[FA_O].stride;
            ck_assert(w->sequence >= 0 && w->sequence < p->sequences);
            ck_assert(w->head_kv >= 0 && w->head_kv < p->heads_kv);
            ck_assert(w->key_end <= s->mask.len_kv && s->first >= 0);
            if (at[2] > 0)
                ck_assert_int_le(s->k_at % FA_MAX(at[0], at[2] * p->tensor[FA_K].shape[2]) / at[2] +
                                     s->mask.len_kv,
                                 p->tensor[FA_K].shape[2]);
            if (to[2] > 0)
                ck_assert_int_le(s->o_at % FA_MAX(to[0], to[2] * p->tensor[FA_O].shape[2]) / to[2] +
                                     (w->row_end - 1) / p->group + 1,
                                 p->tensor[FA_O].shape[2]);
        }
        for (int64_t i = 0; i < p->sequences && l.given[0]; i++) {
            const int64_t most = p->tensor[FA_Q].shape[2], begin_q = FA_MIN(FA_MAX(l.wide[0][i], 0), most);
            if (begin_q > FA_MIN(FA_MAX(l.wide[0][i + 1], 0), most))
                ck_assert_int_eq(params_of(&l)->items, 0);
        }
        end(&l);
    }
}
END_TEST

/* Bias and keep bound what a sequence may have. */
START_TEST(bias_bounds_lengths)
{
    const int64_t rows[] = {3}, keys[] = {50};
    fa_attention_desc d = make_desc(1, 4, 2, 8, 100, 64);
    d.dynamic_lengths = 2;
    d.lens_q = rows;
    d.lens_kv = keys;
    d.bias = fa_tensor_make(FA_F32, 1, 1, 5, 60);
    life l;
    begin(&l, &d);
    l.wide[2][0] = 8;
    l.wide[3][0] = 100;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(sequences_of(&l)[0].mask.len_kv, 60);
    ck_assert_int_eq(items_of(&l)[0].row_end, 5 * 2);
    end(&l);
    d.bias.shape[0] = d.bias.shape[1] = d.bias.shape[2] = d.bias.shape[3] = 0;
    d.keep = fa_tensor_make(FA_I32, 1, 1, 1, 2);
    begin(&l, &d);
    l.wide[2][0] = 8;
    l.wide[3][0] = 100;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(sequences_of(&l)[0].mask.len_kv, 2 * 32);
    ck_assert_int_eq(schedule_on_host(&l), FA_INVALID);
    assert_message("a sequence has 100 keys, expected at most the bits of keep.shape[3], 64");
    end(&l);
    d.keep_last = 64;
    begin(&l, &d);
    l.wide[2][0] = 8;
    l.wide[3][0] = 100;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(sequences_of(&l)[0].mask.len_kv, 100);
    check_like_host(&l);
    end(&l);
}
END_TEST

/* A long row is shared among the units, a short one is not; without keys it is written all the same. */
START_TEST(long_rows_are_shared)
{
    const int64_t keys[] = {20000};
    fa_attention_desc d = make_desc(1, 2, 1, 1, 20000, 64);
    d.dynamic_lengths = 2;
    d.lens_kv = keys;
    life l;
    begin(&l, &d);
    l.wide[3][0] = 20000;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_ge(params_of(&l)->items, 4);
    ck_assert_int_eq(params_of(&l)->merges, 1);
    ck_assert_int_eq(params_of(&l)->workers, 4);
    int32_t longest = 0;
    for (int i = 0; i < params_of(&l)->items; i++)
        longest = FA_MAX(longest, items_of(&l)[i].key_end - items_of(&l)[i].key_begin);
    ck_assert_int_le(longest, 20000 / 4 + 1000);
    l.wide[3][0] = 1;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(params_of(&l)->items, 1);
    ck_assert_int_eq(params_of(&l)->workers, 1);
    ck_assert_int_eq(items_of(&l)[0].part_row, -1);
    l.wide[3][0] = 0;
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(params_of(&l)->items, 1);
    ck_assert_int_eq(items_of(&l)[0].key_end, 0);
    end(&l);
}
END_TEST

/* Blocks of keys that rows [begin, end) of a KV head meet. */
static int blocks_met(fa_mask m, int group, int begin, int end, int block_kv)
{
    const int from = fa_mask_begin(m, begin / group), to = fa_mask_end(m, (end - 1) / group);
    const int last = FA_MAX(to > from ? to : 0, m.prefix), first = m.prefix > 0 || to <= from ? 0 : from;
    return last > first ? (last + block_kv - 1) / block_kv - first / block_kv : 0;
}

/* What a sequence is cut by is never less than what one of its row blocks meets, or items would be longer than they may. */
START_TEST(key_blocks_are_bounded)
{
    random_state random = {3};
    int reached = 0;
    for (int n = 0; n < 20000; n++) {
        const int len_q = (int)random_between(&random, 1, 60), len_kv = (int)random_between(&random, 0, 500),
                  group = (int)random_between(&random, 1, 4), block_q = (int)random_between(&random, 1, 70),
                  block_kv = (int)random_between(&random, 1, 64);
        const fa_mask m = {
            .len_kv = len_kv,
            .diagonal = (int)random_between(&random, -80, 480),
            .left = random_bits(&random) % 4 ? (int)random_between(&random, 1, 90) : FA_UNLIMITED,
            .right = random_bits(&random) % 4 ? (int)random_between(&random, 1, 90) : FA_UNLIMITED,
            .prefix = random_bits(&random) % 4 ? 0 : (int)random_between(&random, 0, len_kv),
        };
        const int bound = fa_fill_key_blocks(m, len_q, group, block_q, block_kv);
        for (int row = 0; row < len_q * group; row += block_q) {
            const int met = blocks_met(m, group, row, FA_MIN(row + block_q, len_q * group), block_kv);
            ck_assert_msg(met <= bound, "%d keys, diagonal %d, left %d, right %d: %d blocks, at most %d",
                          len_kv, m.diagonal, m.left, m.right, met, bound);
            reached += met == bound && m.left < FA_UNLIMITED && m.right < FA_UNLIMITED;
        }
    }
    ck_assert_int_gt(reached, 0);
}
END_TEST

/* Rows are split for balance into no more items than there is room for, though more would end sooner. */
START_TEST(items_keep_within_their_budget)
{
    random_state random = {3};
    int split = 0;
    for (int n = 0; n < 2000; n++) {
        const fa_fill_params params = {
            .most = 1 << 20,
            .units = (int)random_between(&random, 1, 64),
            .items = (int)random_between(&random, 1, 300),
            .item_cost = 0.01f,
            .part_cost = 0.001f,
        };
        const fa_task_view view = {.params = &params};
        fa_fill_sums all = {.row_blocks = (int)random_between(&random, 1, 40)};
        all.longest = (int)random_between(&random, 1, 5000);
        all.blocks = (float)all.row_blocks * (float)all.longest;
        const fa_fill_chunk chunk = fa_fill_choose(&view, all);
        if (chunk.blocks == params.most)
            continue;
        const int parts = (all.longest + chunk.blocks - 1) / chunk.blocks;
        ck_assert_msg(parts * all.row_blocks <= params.items, "%d row blocks in %d parts, room for %d items",
                      all.row_blocks, parts, params.items);
        split += parts > 1;
    }
    ck_assert_int_gt(split, 100);
}
END_TEST

START_TEST(refusals)
{
    const int64_t keys[] = {20, 30};
    fa_attention_desc d = make_desc(2, 2, 1, 1, 200, 64);
    d.dynamic_lengths = 2;
    d.lens_kv = keys;
    life l;
    begin(&l, &d);
    fa_device_lengths lengths = on_device(&l);
    const fa_device_lengths right = lengths;
    ck_assert_int_eq(fa_plan_schedule_device(NULL, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, NULL, l.work, 0), FA_INVALID);
    assert_message("lengths is NULL");
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, NULL, 0), FA_INVALID);
    assert_message("work is NULL");
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 64), FA_INVALID);
    assert_message("work_offset is 64, expected a multiple of 256");
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 1024), FA_INVALID);
    assert_message("behind offset 1024, expected at least");
    lengths.lens_kv = NULL;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.lens_kv is NULL");
    lengths = right;
    lengths.lens_q = l.lists;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.lens_q is given, expected NULL: the description has no lens_q");
    lengths = right;
    lengths.first_kv = l.lists;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.first_kv is given, expected NULL");
    lengths = right;
    lengths.cu_rows_kv = l.lists;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.cu_rows_kv is given, expected NULL");
    lengths = right;
    lengths.lens_kv_offset = 2;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.lens_kv_offset is 2, expected a multiple of 4");
    lengths.lens_kv_offset = l.lists->size - 4;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("lengths.lens_kv");
    lengths = (fa_device_lengths){.struct_size = sizeof(lengths), .lens_kv = l.work, .lens_kv_offset = 512};
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("args.work overlaps args.lens_kv");
    lengths = right;
    lengths.struct_size = 8;
    ck_assert_int_eq(fa_plan_schedule_device(l.plan, null_queue, &lengths, l.work, 0), FA_INVALID);
    assert_message("fa_device_lengths");
    d.dynamic_lengths = 1;
    fa_plan *plan = make_plan(&d);
    ck_assert_int_eq(fa_plan_schedule_device(plan, null_queue, &right, l.work, 0), FA_INVALID);
    assert_message("the plan's description has dynamic_lengths 1, expected 2");
    fa_plan_destroy(plan);
    end(&l);
}
END_TEST

/* A plan is made, or not at all, whichever request for memory fails; its runs ask for none. */
START_TEST(without_memory)
{
    const int64_t keys[] = {20, 30};
    fa_attention_desc d = make_desc(2, 2, 1, 1, 200, 64);
    d.dynamic_lengths = 2;
    d.lens_kv = keys;
    const long live = atomic_load(&memory.live), first = atomic_load(&memory.calls);
    fa_plan *plan = NULL;
    for (long fail = 0; !plan; fail++) {
        memory.fail_at = atomic_load(&memory.calls) + fail;
        fa_status status = fa_plan_create(null_device, &d, &plan);
        ck_assert(status == FA_OUT_OF_MEMORY || status == FA_OK);
        ck_assert(plan || atomic_load(&memory.live) == live);
    }
    memory.fail_at = -1;
    ck_assert_int_gt(atomic_load(&memory.calls), first + 4);
    fa_plan_destroy(plan);
    life l;
    begin(&l, &d);
    memory.fail_at = atomic_load(&memory.calls);
    ck_assert_int_eq(schedule(&l), FA_OK);
    memory.fail_at = -1;
    end(&l);
}
END_TEST

Suite *fill_suite(void)
{
    Suite *suite = suite_create("fill");
    TCase *tc = add_device_case(suite, "schedule_device");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, any_lengths_are_scheduled, 0, 4);
    tcase_add_test(tc, garbage_is_held_within_the_tensors);
    tcase_add_test(tc, bias_bounds_lengths);
    tcase_add_test(tc, long_rows_are_shared);
    tcase_add_test(tc, key_blocks_are_bounded);
    tcase_add_test(tc, items_keep_within_their_budget);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, without_memory);
    return suite;
}
