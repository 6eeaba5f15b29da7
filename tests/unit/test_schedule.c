/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/schedule.h"

#include <stdlib.h>
#include <string.h>

#include "core/size.h"
#include "helpers.h"
#include "suites.h"

static const fa_limits limits = {.units = 8,
                                 .onchip_bytes = 1 << 20,
                                 .clock_hz = 1e9,
                                 .bytes_per_second = 1e11,
                                 .sync_cycles = 50,
                                 .item_cycles = 500,
                                 .launch_cycles = 1000};
static const fa_tile_traits traits = {
    .tile = {4, 4, 1}, .element_bytes = 4, .buffers = 1, .flops_per_cycle = 32, .scores_per_cycle = 1};

enum { MOST_KEYS = 150 };

/* A description with what it points to. */
typedef struct random_case {
    fa_attention_desc desc;
    fa_tuning tuning;
    int64_t cu_q[8], cu_kv[8], lens[8], first[8];
    fa_block_lists lists;
    uint8_t mask[3 * 12 * 40 * MOST_KEYS];
} random_case;

static void add_offsets(random_state *random, int64_t *cu, int64_t sequences, int64_t longest)
{
    cu[0] = random_between(random, 0, 3);
    for (int64_t n = 0; n < sequences; n++)
        cu[n + 1] = cu[n] + (random_between(random, 0, 3) ? random_between(random, 0, longest) : 0);
}

static void make_random(random_state *random, int64_t most_keys, random_case *c)
{
    static const fa_mask_kind kinds[] = {FA_MASK_NONE, FA_MASK_CAUSAL_TOP_LEFT, FA_MASK_CAUSAL_BOTTOM_RIGHT};
    int64_t batch = random_between(random, 0, 3), heads_kv = random_between(random, 1, 3);
    int64_t group = random_between(random, 1, 4), len_q = random_between(random, 0, 40);
    int64_t len_kv = random_between(random, 0, most_keys);
    c->desc = make_desc(batch, heads_kv * group, heads_kv, len_q, len_kv, random_between(random, 1, 8));
    fa_attention_desc *d = &c->desc;
    d->mask = kinds[random_bits(random) % 3];
    d->window_left = random_between(random, 0, 2) ? 0 : random_between(random, 1, 40);
    d->window_right = random_between(random, 0, 2) ? 0 : random_between(random, 1, 40);
    d->prefix = random_between(random, 0, 2) ? 0 : random_between(random, 1, 30);
    d->diagonal_offset = random_between(random, 0, 2) ? 0 : random_between(random, -50, 50);
    d->sequences = batch;
    bool packed_q = random_bits(random) % 4 == 0, packed_kv = random_bits(random) % 4 == 0;
    if (packed_q) {
        add_offsets(random, c->cu_q, batch, 30);
        d->cu_rows_q = c->cu_q;
        d->q.shape[0] = d->o.shape[0] = 1;
        d->q.shape[2] = d->o.shape[2] = c->cu_q[batch] + random_between(random, 0, 2);
    }
    if (packed_kv) {
        add_offsets(random, c->cu_kv, batch, 40);
        d->cu_rows_kv = c->cu_kv;
        d->k.shape[0] = d->v.shape[0] = 1;
        d->k.shape[2] = d->v.shape[2] = c->cu_kv[batch];
    } else if (random_bits(random) % 3 == 0) {
        for (int64_t n = 0; n < batch; n++)
            c->lens[n] = random_between(random, 0, len_kv);
        d->lens_kv = c->lens;
    }
    c->tuning = (fa_tuning){.struct_size = sizeof(fa_tuning)};
    c->tuning.splits = (int32_t)(random_between(random, 0, 1) ? 0 : random_between(random, 1, 9));
    d->tuning = &c->tuning;
}

/* Lists of a part of the blocks, of sequences, heads and row blocks or of fewer. */
static void add_lists(random_state *random, random_case *c)
{
    fa_attention_desc *d = &c->desc;
    const int64_t heads[] = {1, d->k.shape[1], d->q.shape[1]};
    const int64_t sequences = d->sequences;
    const int density = (int)random_between(random, 0, 10) * 10;
    for (int64_t n = 0; n < sequences; n++)
        c->first[n] = random_between(random, 0, d->lens_kv ? c->lens[n] : d->k.shape[2]);
    if (!d->cu_rows_kv && random_between(random, 0, 1))
        d->first_kv = c->first;
    c->lists = (fa_block_lists){
        .struct_size = sizeof(c->lists),
        .block_rows = (int32_t)random_between(random, 1, 12),
        .block_keys = (int32_t)random_between(random, 1, 12),
        .sequences = random_between(random, 0, 1) && sequences > 0 ? sequences : 1,
        .heads = heads[random_between(random, 0, 2)],
        .row_blocks = 40,
        .key_blocks = MOST_KEYS,
        .mask = c->mask,
    };
    for (size_t i = 0; i < sizeof(c->mask); i++)
        c->mask[i] = random_between(random, 0, 99) < density;
    d->lists = &c->lists;
}

/* Whether lists show a query head's row a key, counted from key 0 of the sequence on. */
static bool lists_have(const fa_attention_desc *d, int64_t n, int64_t head, int64_t row, int64_t key)
{
    const fa_block_lists *l = d->lists;
    if (!l)
        return true;
    const int64_t list = (l->sequences > 1 ? n : 0) * l->heads + head / (d->q.shape[1] / l->heads);
    return l->mask[(list * l->row_blocks + row / l->block_rows) * l->key_blocks + key / l->block_keys] != 0;
}

typedef struct planned {
    fa_problem problem;
    fa_tiling tiling;
    fa_schedule schedule;
} planned;

static void plan(const fa_attention_desc *desc, const fa_limits *on, int32_t block_q, int32_t block_kv,
                 bool can_split, planned *out)
{
    out->tiling = (fa_tiling){block_q, block_kv, traits.tile, 0, "tuning"};
    fa_status status = fa_problem_init(context, desc, &out->problem);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    status = fa_schedule_init(context, &out->problem, on, &traits, &out->tiling, can_split, &out->schedule);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

static void release(planned *p)
{
    fa_schedule_release(context, &p->schedule);
    fa_problem_release(context, &p->problem);
}

/* How often something was done to each row, or each (row, key) pair, of a sequence and a KV head. */
typedef struct tally {
    int64_t *first; /* index of (sequence, KV head 0, row 0, key 0) */
    uint8_t *pair, *row;
    int64_t *first_row;
} tally;

static int64_t rows_of(const planned *p, int64_t n)
{
    return (int64_t)p->problem.sequence[n].len_q * p->problem.group;
}

static tally make_tally(const planned *p)
{
    tally t = {0};
    t.first = calloc((size_t)p->problem.sequences + 1, sizeof(*t.first));
    t.first_row = calloc((size_t)p->problem.sequences + 1, sizeof(*t.first_row));
    for (int64_t n = 0; n < p->problem.sequences; n++) {
        int64_t rows = p->problem.heads_kv * rows_of(p, n);
        t.first_row[n + 1] = t.first_row[n] + rows;
        t.first[n + 1] = t.first[n] + rows * p->problem.sequence[n].len_kv;
    }
    t.pair = calloc((size_t)t.first[p->problem.sequences] + 1, 1);
    t.row = calloc((size_t)t.first_row[p->problem.sequences] + 1, 1);
    return t;
}

static void free_tally(tally *t)
{
    free(t->first);
    free(t->first_row);
    free(t->pair);
    free(t->row);
}

/* Items lie within their sequence, begin on a block, and are ordered longest first. */
static void check_items(const planned *p)
{
    for (int64_t i = 0; i < p->schedule.items; i++) {
        const fa_work_item *w = &p->schedule.item[i];
        const fa_sequence *s = &p->problem.sequence[w->sequence];
        bool rows = w->row_begin % p->tiling.block_q == 0 && w->row_begin < w->row_end &&
                    w->row_end <= rows_of(p, w->sequence) && w->row_end - w->row_begin <= p->tiling.block_q;
        bool keys =
            w->key_begin % p->tiling.block_kv == 0 && w->key_begin <= w->key_end && w->key_end <= s->len_kv;
        bool ordered = i == 0 || p->schedule.item[i - 1].cycles >= w->cycles;
        if (!rows || !keys || !ordered || w->head_kv < 0 || w->head_kv >= p->problem.heads_kv)
            ck_abort_msg("item %lld: head %d rows [%d, %d) keys [%d, %d)", (long long)i, w->head_kv,
                         w->row_begin, w->row_end, w->key_begin, w->key_end);
    }
}

/* Every visible pair is in exactly one item, no pair is in two; the number of visible pairs. */
static uint64_t check_pairs(const fa_attention_desc *d, const planned *p, tally *t)
{
    for (int64_t i = 0; i < p->schedule.items; i++) {
        const fa_work_item *w = &p->schedule.item[i];
        const fa_sequence *s = &p->problem.sequence[w->sequence];
        for (int64_t r = w->row_begin; r < w->row_end; r++) {
            int64_t at = t->first[w->sequence] + (w->head_kv * rows_of(p, w->sequence) + r) * s->len_kv;
            for (int64_t key = w->key_begin; key < w->key_end; key++)
                t->pair[at + key]++;
        }
    }
    uint64_t visible = 0;
    for (int64_t n = 0; n < p->problem.sequences; n++) {
        const fa_sequence *s = &p->problem.sequence[n];
        int64_t rows = rows_of(p, n);
        for (int64_t i = 0; i < p->problem.heads_kv * rows * s->len_kv; i++) {
            const int packed = (int)(i / s->len_kv % rows), group = p->problem.group;
            const int row = packed / group, key = (int)(i % s->len_kv);
            const int64_t head = i / s->len_kv / rows * group + packed % group;
            const bool sees =
                fa_mask_visible(s->mask, row, key) && lists_have(d, n, head, row, s->first + key);
            int times = t->pair[t->first[n] + i];
            if (times > 1 || (sees && times == 0))
                ck_abort_msg("sequence %lld, row %d, key %d: %s, scheduled %d times", (long long)n, row, key,
                             sees ? "visible" : "hidden", times);
            visible += sees;
        }
    }
    return visible;
}

static bool same_rows(const fa_work_item *w, const fa_merge_item *m)
{
    return w->sequence == m->sequence && w->head_kv == m->head_kv && w->row_begin == m->row_begin &&
           w->row_end == m->row_end;
}

/* Each row is written by one direct item or by one merge; a merge reads exactly what its part items wrote. */
static void check_writes(const planned *p, tally *t)
{
    const fa_schedule *s = &p->schedule;
    uint8_t *partial = calloc((size_t)s->partial_rows + 1, 1);
    int64_t parts = 0;
    for (int64_t i = 0; i < s->items; i++) {
        const fa_work_item *w = &s->item[i];
        for (int64_t r = w->row_begin; r < w->row_end; r++) {
            if (w->part_row < 0) {
                t->row[t->first_row[w->sequence] + w->head_kv * rows_of(p, w->sequence) + r]++;
                continue;
            }
            int64_t at = w->part_row + r - w->row_begin;
            if (at >= s->partial_rows || partial[at]++)
                ck_abort_msg("item %lld: partial row %lld is outside or taken", (long long)i, (long long)at);
        }
        parts += w->part_row >= 0;
    }
    for (int64_t i = 0; i < s->partial_rows; i++) {
        if (!partial[i])
            ck_abort_msg("nobody writes partial row %lld", (long long)i);
    }
    free(partial);
    for (int64_t m = 0; m < s->merges; m++) {
        const fa_merge_item *merge = &s->merge[m];
        int64_t rows = merge->row_end - merge->row_begin;
        ck_assert(merge->parts > 1 && merge->parts <= s->splits);
        for (int64_t r = merge->row_begin; r < merge->row_end; r++)
            t->row[t->first_row[merge->sequence] + merge->head_kv * rows_of(p, merge->sequence) + r]++;
        unsigned found = 0;
        for (int64_t i = 0; i < s->items; i++) {
            const fa_work_item *w = &s->item[i];
            if (w->part_row < 0 || !same_rows(w, merge))
                continue;
            int64_t part = (w->part_row - merge->part_row) / rows;
            if (part < 0 || part >= merge->parts || w->part_row != merge->part_row + part * rows)
                ck_abort_msg("merge %lld: part row %lld", (long long)m, (long long)w->part_row);
            found |= 1u << part;
            parts--;
        }
        ck_assert(found == (1u << merge->parts) - 1);
    }
    ck_assert_int_eq(parts, 0);
    for (int64_t i = 0; i < t->first_row[p->problem.sequences]; i++) {
        if (t->row[i] != 1)
            ck_abort_msg("row %lld of all is written %d times", (long long)i, t->row[i]);
    }
}

/* What the lists of all heads of a group leave of a block of packed rows and keys: SKIP none, FULL all of it. */
static int listed_class(const fa_attention_desc *d, const planned *p, int64_t n, int64_t head_kv, int64_t row,
                        int64_t row_end, int key, int key_end)
{
    const int64_t group = p->problem.group, begin = row / group, end = (row_end - 1) / group + 1;
    int64_t have = 0;
    for (int64_t r = begin * group; r < end * group; r++) {
        for (int k = key; k < key_end; k++)
            have +=
                lists_have(d, n, head_kv * group + r % group, r / group, p->problem.sequence[n].first + k);
    }
    return have == 0                                        ? FA_CLASS_SKIP
           : have < (end - begin) * group * (key_end - key) ? FA_CLASS_PARTIAL
                                                            : FA_CLASS_FULL;
}

/* What the schedule says of its blocks, against all blocks of all sequences counted one by one. */
static void check_counts(const fa_attention_desc *d, const planned *p, uint64_t visible)
{
    int64_t count[3] = {0};
    for (int64_t n = 0; n < p->problem.sequences; n++) {
        const fa_sequence *s = &p->problem.sequence[n];
        for (int64_t row = 0; row < rows_of(p, n); row += p->tiling.block_q) {
            int64_t last = FA_MIN(row + p->tiling.block_q, rows_of(p, n)) - 1;
            for (int64_t i = 0; i < p->problem.heads_kv * fa_ceil_div(s->len_kv, p->tiling.block_kv); i++) {
                const int key = (int)(i / p->problem.heads_kv) * p->tiling.block_kv;
                const int end = FA_MIN(key + p->tiling.block_kv, s->len_kv);
                const int seen = fa_mask_classify(s->mask, (int)(row / p->problem.group),
                                                  (int)(last / p->problem.group) + 1, key, end);
                const int in_sight =
                    FA_MAX(fa_mask_end(s->mask, (int)(last / p->problem.group)), s->mask.prefix);
                const int listed =
                    listed_class(d, p, n, i % p->problem.heads_kv, row, last + 1, key, FA_MIN(end, in_sight));
                count[FA_MIN(seen, listed)]++;
            }
        }
    }
    ck_assert_int_eq(p->schedule.blocks_skipped, count[FA_CLASS_SKIP]);
    ck_assert_int_eq(p->schedule.blocks_partial, count[FA_CLASS_PARTIAL]);
    ck_assert_int_eq(p->schedule.blocks_full, count[FA_CLASS_FULL]);
    ck_assert_uint_eq(p->schedule.pairs, visible);
    const double of_heads = fa_schedule_pairs(&p->problem) * (double)p->problem.heads_q;
    ck_assert(of_heads > (double)visible - 0.5 && of_heads < (double)visible + 0.5);
    ck_assert(p->schedule.imbalance >= 1);
    ck_assert(p->schedule.makespan >= 0);
}

START_TEST(random_problems_are_covered_once)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; n < 150; n++) {
        random_case c;
        make_random(&random, 60, &c);
        fa_limits on = limits;
        on.units = (uint32_t)random_between(&random, 1, 64);
        planned p;
        plan(&c.desc, &on, (int32_t)random_between(&random, 1, 12), (int32_t)random_between(&random, 1, 12),
             random_bits(&random) % 2 != 0, &p);
        tally t = make_tally(&p);
        check_items(&p);
        check_counts(&c.desc, &p, check_pairs(&c.desc, &p, &t));
        check_writes(&p, &t);
        free_tally(&t);
        release(&p);
    }
}
END_TEST

/* No piece of a row block has more listed blocks than another and one. */
static void check_shares(const random_case *c, const planned *p)
{
    for (int64_t m = 0; m < p->schedule.merges; m++) {
        const fa_merge_item *merge = &p->schedule.merge[m];
        int64_t least = INT64_MAX, most = 0;
        for (int64_t i = 0; i < p->schedule.items; i++) {
            const fa_work_item *w = &p->schedule.item[i];
            int64_t blocks = 0;
            if (!same_rows(w, merge))
                continue;
            const fa_mask mask = p->problem.sequence[w->sequence].mask;
            for (int key = w->key_begin; key < w->key_end; key += p->tiling.block_kv) {
                const int end = FA_MIN(key + p->tiling.block_kv, w->key_end), group = p->problem.group;
                blocks += fa_mask_classify(mask, w->row_begin / group, (w->row_end - 1) / group + 1, key,
                                           end) != FA_CLASS_SKIP &&
                          listed_class(&c->desc, p, w->sequence, w->head_kv, w->row_begin, w->row_end, key,
                                       end) != FA_CLASS_SKIP;
            }
            least = FA_MIN(least, blocks);
            most = FA_MAX(most, blocks);
        }
        ck_assert_msg(most <= least + 1, "merge %lld: parts have %lld to %lld blocks", (long long)m,
                      (long long)least, (long long)most);
    }
}

/* As above, with lists: blocks and pairs by brute force, parts of as many listed blocks. */
START_TEST(listed_problems_are_covered_once)
{
    static random_case c;
    random_state random = {(uint64_t)_i + 77};
    for (int n = 0; n < 60; n++) {
        const int32_t block_kv = (int32_t)random_between(&random, 1, n % 2 ? 2 : 12);
        make_random(&random, MOST_KEYS, &c);
        add_lists(&random, &c);
        if (n % 2) /* lists of more than a word */
            c.lists.block_keys = (int32_t)random_between(&random, 1, 4);
        fa_limits on = limits;
        on.units = (uint32_t)random_between(&random, 1, 64);
        planned p;
        plan(&c.desc, &on, (int32_t)random_between(&random, 1, 12), block_kv, true, &p);
        tally t = make_tally(&p);
        check_items(&p);
        check_counts(&c.desc, &p, check_pairs(&c.desc, &p, &t));
        check_writes(&p, &t);
        check_shares(&c, &p);
        free_tally(&t);
        release(&p);
    }
}
END_TEST

START_TEST(forced_splits_are_taken)
{
    fa_tuning tuning = {.struct_size = sizeof(tuning)};
    fa_attention_desc d = make_desc(2, 4, 2, 10, 100, 4);
    d.tuning = &tuning;
    for (tuning.splits = 1; tuning.splits <= 30; tuning.splits++) {
        planned p;
        plan(&d, &limits, 8, 10, true, &p);
        int32_t parts = FA_MIN(tuning.splits, 10); /* ten blocks of keys: no part is empty */
        ck_assert_int_eq(p.schedule.splits, parts);
        ck_assert_int_eq(p.schedule.items, 2 * 2 * 3 * parts);
        ck_assert_int_eq(p.schedule.merges, parts > 1 ? 2 * 2 * 3 : 0);
        ck_assert_int_eq(p.schedule.partial_rows, parts > 1 ? 2 * 2 * 20 * parts : 0);
        release(&p);
    }
}
END_TEST

/* A kernel that makes no partial results gets none, unless they are asked for by name. */
START_TEST(nothing_is_split_where_it_cannot_be)
{
    fa_attention_desc d = make_desc(1, 1, 1, 1, 4096, 64);
    fa_limits on = limits;
    on.units = 64;
    planned p;
    plan(&d, &on, 4, 16, false, &p);
    ck_assert_int_eq(p.schedule.items, 1);
    ck_assert_int_eq(p.schedule.merges, 0);
    release(&p);
    plan(&d, &on, 4, 16, true, &p);
    ck_assert_int_gt(p.schedule.splits, 8); /* one row, 256 blocks of keys, 64 idle units */
    release(&p);
    fa_tuning one = {.struct_size = sizeof(one), .splits = 1};
    d.tuning = &one;
    plan(&d, &on, 4, 16, true, &p);
    ck_assert_int_eq(p.schedule.splits, 1);
    release(&p);
}
END_TEST

START_TEST(rows_without_keys_are_written_too)
{
    fa_attention_desc d = make_desc(1, 1, 1, 8, 4, 4);
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT; /* rows 0 to 3 see nothing */
    planned p;
    plan(&d, &limits, 4, 4, true, &p);
    ck_assert_int_eq(p.schedule.items, 2);
    ck_assert_int_eq(p.schedule.item[1].row_begin, 0);
    ck_assert_int_eq(p.schedule.item[1].key_end, p.schedule.item[1].key_begin);
    ck_assert_uint_eq(p.schedule.pairs, 1 + 2 + 3 + 4);
    release(&p);
    d = make_desc(3, 2, 2, 5, 0, 4); /* no keys at all */
    plan(&d, &limits, 4, 4, true, &p);
    ck_assert_int_eq(p.schedule.items, 3 * 2 * 2);
    ck_assert_uint_eq(p.schedule.pairs, 0);
    release(&p);
    d = make_desc(0, 2, 2, 5, 7, 4); /* nothing to do */
    plan(&d, &limits, 4, 4, true, &p);
    ck_assert_int_eq(p.schedule.items, 0);
    ck_assert_int_eq(p.schedule.splits, 1);
    ck_assert(p.schedule.imbalance >= 1);
    release(&p);
}
END_TEST

START_TEST(units_are_kept_busy)
{
    fa_attention_desc d = make_desc(1, 8, 8, 4096, 4096, 64);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    for (uint32_t units = 1; units <= 64; units++) {
        fa_limits on = limits;
        on.units = units;
        planned p;
        plan(&d, &on, 128, 128, true, &p);
        ck_assert_msg(p.schedule.imbalance >= 1 && p.schedule.imbalance <= 1.25, "%u units: imbalance %g",
                      units, p.schedule.imbalance);
        double total = 0, longest = 0;
        for (int64_t i = 0; i < p.schedule.items; i++) {
            total += p.schedule.item[i].cycles;
            longest = FA_MAX(longest, p.schedule.item[i].cycles);
        }
        ck_assert(p.schedule.makespan >= total / units * 0.999 && p.schedule.makespan >= longest);
        ck_assert(p.schedule.longest == longest);
        ck_assert_double_eq_tol(p.schedule.cycles, total, 1e-6 * total);
        release(&p);
    }
}
END_TEST

/* One row and few heads: the keys are what there is to share out. */
START_TEST(decoding_uses_every_unit)
{
    fa_attention_desc d = make_desc(1, 4, 1, 1, 16384, 64);
    for (uint32_t units = 2; units <= 64; units *= 2) {
        fa_limits on = limits;
        on.units = units;
        planned p;
        plan(&d, &on, 4, 64, true, &p);
        ck_assert_msg(p.schedule.items >= units, "%u units, %lld items", units, (long long)p.schedule.items);
        ck_assert_msg(p.schedule.imbalance <= 1.25, "%u units: imbalance %g", units, p.schedule.imbalance);
        release(&p);
    }
}
END_TEST

START_TEST(equal_questions_get_equal_answers)
{
    fa_attention_desc d = make_desc(2, 6, 3, 77, 333, 32);
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    planned a, b;
    plan(&d, &limits, 16, 16, true, &a);
    plan(&d, &limits, 16, 16, true, &b);
    ck_assert_int_eq(a.schedule.items, b.schedule.items);
    for (int64_t i = 0; i < a.schedule.items; i++) {
        const fa_work_item *x = &a.schedule.item[i], *y = &b.schedule.item[i];
        ck_assert(x->sequence == y->sequence && x->head_kv == y->head_kv && x->row_begin == y->row_begin &&
                  x->key_begin == y->key_begin && x->part_row == y->part_row);
    }
    release(&a);
    release(&b);
}
END_TEST

/* Counting the pairs of the longest sequences there are must not walk them row by row. */
START_TEST(pairs_of_long_sequences)
{
    fa_attention_desc d = make_desc(1, 1, 1, FA_MAX_LENGTH, FA_MAX_LENGTH, 1);
    fa_problem p;
    const uint64_t n = FA_MAX_LENGTH;
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    ck_assert(fa_schedule_pairs(&p) == (double)(n * (n + 1) / 2));
    fa_problem_release(context, &p);
    d.window_left = 1000;
    d.prefix = 10;
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    /* Rows 0 to 999 see row + 1 keys and what of the prefix lies ahead; 9 rows more overlap the prefix. */
    uint64_t expected = 1000 * 1001 / 2 + 45 + (n - 1000) * 1010 - 45;
    ck_assert(fa_schedule_pairs(&p) == (double)expected);
    fa_problem_release(context, &p);
}
END_TEST

/* Where a driver ends loops, items have few enough keys, whatever else is asked for. */
START_TEST(loops_bound_the_keys_of_an_item)
{
    fa_limits ends = limits;
    fa_tile_traits loops = traits;
    fa_tuning tuning = {.struct_size = sizeof(tuning), .splits = _i};
    fa_tiling tiling = {4, 16, traits.tile, 0, "tuning"};
    fa_attention_desc d = make_desc(1, 2, 1, 3, 100003, 8);
    fa_problem p;
    fa_schedule s;
    ends.loop_turns = 1000;
    loops.key_turns = 2;
    d.tuning = &tuning;
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    ck_assert_int_eq(fa_schedule_init(context, &p, &ends, &loops, &tiling, true, &s), FA_OK);
    ck_assert_int_eq(fa_tiling_item_keys(&ends, &loops), 250);
    int64_t keys = 0;
    for (int64_t i = 0; i < s.items; i++) {
        ck_assert_int_le(s.item[i].key_end - s.item[i].key_begin, 250);
        keys += s.item[i].key_end - s.item[i].key_begin;
    }
    ck_assert_int_eq(keys, 2 * 100003); /* two blocks of rows */
    fa_schedule_release(context, &s);
    fa_problem_release(context, &p);
}
END_TEST

/* More work items than memory is spent on: refused at once, by number. */
START_TEST(too_many_items_are_refused)
{
    fa_attention_desc d = make_desc(1, 1 << 20, 1 << 20, FA_MAX_LENGTH, FA_MAX_LENGTH, 1);
    fa_problem p;
    fa_schedule s;
    fa_tiling tiling = {4, 4, traits.tile, 0, "tuning"};
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    ck_assert_int_eq(fa_schedule_init(context, &p, &limits, &traits, &tiling, true, &s), FA_OUT_OF_MEMORY);
    assert_message("work items");
    fa_problem_release(context, &p);
}
END_TEST

Suite *schedule_suite(void)
{
    Suite *suite = suite_create("schedule");
    TCase *tc = add_context_case(suite, "schedule");
    tcase_add_loop_test(tc, random_problems_are_covered_once, 0, 10);
    tcase_add_loop_test(tc, listed_problems_are_covered_once, 0, 4);
    tcase_add_test(tc, forced_splits_are_taken);
    tcase_add_test(tc, nothing_is_split_where_it_cannot_be);
    tcase_add_test(tc, rows_without_keys_are_written_too);
    tcase_add_test(tc, units_are_kept_busy);
    tcase_add_test(tc, decoding_uses_every_unit);
    tcase_add_test(tc, equal_questions_get_equal_answers);
    tcase_add_test(tc, pairs_of_long_sequences);
    tcase_add_test(tc, too_many_items_are_refused);
    tcase_add_loop_test(tc, loops_bound_the_keys_of_an_item, 0, 4);
    return suite;
}
