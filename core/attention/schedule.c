/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

/* A run is shared where that takes at most this part of its time on one unit: less gain is not worth the other units. */
#define SHARE_GAIN 0.8
#define MAX_ITEMS ((int64_t)1 << 22) /* 200 MB of them: longer lists are a mistake in the sizes */

#define ENOUGH_ITEMS 32 /* of each unit: more balance no better, and each part is to be merged */
#define SPARE_ITEMS 8   /* of each unit, for lengths that no plan knows: they balance to an eighth */

typedef struct planner {
    const fa_problem *problem;
    const fa_limits *limits;
    const fa_tile_traits *traits;
    fa_tile_problem shape;
    int32_t block_q, block_kv;
    int32_t chunk;               /* most blocks of keys in one item */
    int32_t most;                /* what `chunk` never exceeds */
    int32_t splits;              /* parts asked for; 0: as `chunk` says */
    const fa_capacity *capacity; /* NULL: no bound */
    fa_schedule *out;
    bool fill; /* first pass counts, second pass writes: one piece of code */
} planner;

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The sum over i in [0, count) of `first` + i held within [low, high]. */
static int64_t sum_clamped(int64_t first, int64_t count, int64_t low, int64_t high)
{
    int64_t below = clamp(low - first, 0, count), upto = clamp(high - first, below, count);
    int64_t within = (2 * first + below + upto - 1) * (upto - below) / 2;
    return below * low + within + (count - upto) * high;
}

/* At most 2^56. In closed form: lengths may be far beyond what is worth walking. */
static uint64_t sequence_pairs(const fa_sequence *s)
{
    const fa_mask *m = &s->mask;
    int64_t rows = s->len_q, keys = s->len_kv, prefix = m->prefix;
    int64_t ends = sum_clamped((int64_t)m->diagonal + m->right, rows, prefix, keys);
    int64_t begins = sum_clamped((int64_t)m->diagonal - m->left + 1, rows, prefix, keys);
    return (uint64_t)(prefix * rows + ends - begins);
}

double fa_schedule_pairs(const fa_problem *problem)
{
    double pairs = 0;
    for (int64_t n = 0; n < problem->sequences; n++)
        pairs += (double)sequence_pairs(&problem->sequence[n]);
    return pairs;
}

/* Of all heads, and no more than the type holds. */
static uint64_t count_pairs(const fa_problem *problem)
{
    uint64_t pairs = 0;
    for (int64_t n = 0; n < problem->sequences; n++) {
        if (__builtin_add_overflow(pairs, sequence_pairs(&problem->sequence[n]), &pairs))
            return UINT64_MAX;
    }
    return __builtin_mul_overflow(pairs, (uint64_t)problem->heads_q, &pairs) ? UINT64_MAX : pairs;
}

/* What the rows of a block see: keys [0, prefix) and [begin, end) of at least one row, [all_begin, all_end) of
 * every row. An interval that no row has comes out as begin == end. */
typedef struct row_view {
    int64_t prefix, begin, end, all_begin, all_end, len_kv;
} row_view;

static row_view view_rows(const fa_mask *m, int row0, int row1)
{
    row_view v = {
        .prefix = m->prefix,
        .begin = fa_mask_begin(*m, row0),
        .end = fa_mask_end(*m, row1 - 1),
        .all_begin = fa_mask_begin(*m, row1 - 1),
        .all_end = fa_mask_end(*m, row0),
        .len_kv = m->len_kv,
    };
    if (v.end <= v.begin)
        v.begin = v.end = 0;
    return v;
}

/* How many of the blocks [from, to) lie in [0, a) or in [b, c). */
static int64_t count_in(int64_t from, int64_t to, int64_t a, int64_t b, int64_t c)
{
    a = clamp(a, from, to);
    b = clamp(b, a, to);
    return a - from + clamp(c, b, to) - b;
}

typedef struct block_walk {
    double cycles;
    int64_t full, partial, keys;
} block_walk;

/* Whole blocks of keys below `end`, the last block of the sequence counting as whole. */
static int64_t blocks_below(const planner *w, const row_view *v, int64_t end)
{
    return end >= v->len_kv ? fa_ceil_div(v->len_kv, w->block_kv) : end / w->block_kv;
}

/* Classes and cost of the blocks of keys [key_begin, key_end): what fa_mask_classify() says of each, in one
 * step. key_end is where the rows' sight ends, or the end of a block. */
static block_walk walk_blocks(const planner *w, const row_view *v, int32_t rows, int64_t key_begin,
                              int64_t key_end)
{
    int64_t from = key_begin / w->block_kv, to = fa_ceil_div(key_end, w->block_kv);
    int64_t seen = count_in(from, to, fa_ceil_div(v->prefix, w->block_kv), v->begin / w->block_kv,
                            fa_ceil_div(v->end, w->block_kv));
    int64_t all_from = v->prefix >= v->all_begin ? 0 : fa_ceil_div(v->all_begin, w->block_kv);
    int64_t full =
        count_in(from, to, blocks_below(w, v, v->prefix), all_from, blocks_below(w, v, v->all_end));
    int64_t cut = to * w->block_kv - key_end;
    /* Of a block that the mask cuts, a kernel that clips computes half on the average. */
    double whole = w->traits->clips ? 0.5 * (double)(seen + full) : (double)seen;
    double cycles = fmax(whole - (cut > 0), 0) *
                    fa_tiling_block_cycles(w->limits, w->traits, &w->shape, rows, w->block_kv);
    if (cut > 0)
        cycles += fa_tiling_block_cycles(w->limits, w->traits, &w->shape, rows, w->block_kv - cut);
    return (block_walk){
        .cycles = cycles, .full = full, .partial = seen - full, .keys = seen * w->block_kv - cut};
}

static double epilogue_cycles(const planner *w, int32_t rows)
{
    return w->limits->item_cycles + 2.0 * (double)fa_round_up(rows, w->traits->tile.q) *
                                        (w->shape.dim_qk + w->shape.dim_v) / w->traits->scores_per_cycle;
}

/* Appends one part of a row block for every KV head: heads are alike. */
static void add_part(planner *w, fa_work_item item, int64_t parts)
{
    fa_schedule *out = w->out;
    int64_t rows = item.row_end - item.row_begin;
    for (int32_t h = 0; h < w->problem->heads_kv; h++) {
        fa_work_item *slot = &out->item[out->items + h];
        *slot = item;
        slot->head_kv = h;
        if (item.part_row >= 0)
            slot->part_row += h * parts * rows;
    }
    out->items += w->problem->heads_kv;
}

static void add_merges(planner *w, fa_merge_item merge)
{
    fa_schedule *out = w->out;
    int64_t rows = merge.row_end - merge.row_begin;
    for (int32_t h = 0; h < w->problem->heads_kv; h++) {
        fa_merge_item *slot = &out->merge[out->merges + h];
        *slot = merge;
        slot->head_kv = h;
        slot->part_row += h * merge.parts * rows;
    }
    out->merges += w->problem->heads_kv;
}

static void fill_row_block(planner *w, fa_work_item item, const row_view *v, int64_t blocks, int64_t parts)
{
    fa_schedule *out = w->out;
    const int64_t heads = w->problem->heads_kv, begin = item.key_begin, end = item.key_end;
    const int32_t rows = item.row_end - item.row_begin;
    int64_t seen = 0;
    for (int64_t part = 0; part < parts; part++) {
        int64_t from = begin + blocks * part / parts * w->block_kv;
        int64_t to = FA_MIN(begin + blocks * (part + 1) / parts * w->block_kv, end);
        block_walk walk = walk_blocks(w, v, rows, from, to);
        item.key_begin = (int32_t)from;
        item.key_end = (int32_t)to;
        item.part_row = parts > 1 ? out->partial_rows + part * rows : -1;
        item.cycles = walk.cycles + epilogue_cycles(w, rows);
        add_part(w, item, parts);
        seen += walk.full + walk.partial;
        out->blocks_full += walk.full * heads;
        out->blocks_partial += walk.partial * heads;
        out->key_reads += (double)(walk.keys * heads);
        out->rows_done += rows * heads;
    }
    out->blocks_skipped += (fa_ceil_div(v->len_kv, w->block_kv) - seen) * heads;
    out->splits = FA_MAX(out->splits, (int32_t)parts);
    if (parts > 1)
        add_merges(w, (fa_merge_item){item.sequence, 0, item.row_begin, item.row_end, out->partial_rows,
                                      (int32_t)parts});
}

static void plan_row_block(planner *w, int32_t n, int32_t row_begin, int32_t row_end)
{
    fa_schedule *out = w->out;
    int row0 = row_begin / w->problem->group, row1 = (row_end - 1) / w->problem->group + 1;
    row_view v = view_rows(&w->problem->sequence[n].mask, row0, row1);
    int64_t begin = v.prefix > 0 ? 0 : v.begin, end = FA_MAX(v.end, v.prefix);
    begin -= begin % w->block_kv;
    int64_t blocks = fa_ceil_div(end - begin, w->block_kv), heads = w->problem->heads_kv;
    int64_t parts = w->splits ? FA_MIN(w->splits, fa_tiling_parts(w->limits)) : fa_ceil_div(blocks, w->chunk);
    parts = FA_MAX(parts, fa_ceil_div(blocks, w->most));
    parts = FA_MAX(FA_MIN(parts, blocks), 1);
    if (w->fill) {
        fa_work_item item = {n, 0, row_begin, row_end, (int32_t)begin, (int32_t)end, -1, 0};
        fill_row_block(w, item, &v, blocks, parts);
    } else {
        out->items += heads * parts;
        out->merges += parts > 1 ? heads : 0;
    }
    if (parts > 1)
        out->partial_rows += heads * parts * (row_end - row_begin);
}

static void walk_problem(planner *w)
{
    fa_schedule *out = w->out;
    fa_work_item *item = out->item;
    fa_merge_item *merge = out->merge;
    *out = (fa_schedule){.item = item, .merge = merge, .splits = 1};
    for (int64_t n = 0; n < w->problem->sequences && w->problem->heads_kv > 0; n++) {
        int64_t rows = (int64_t)w->problem->sequence[n].len_q * w->problem->group;
        if (!w->fill && w->splits == 0 && w->chunk == INT32_MAX) { /* nothing is split: no need to look */
            out->items += fa_ceil_div(rows, w->block_q) * w->problem->heads_kv;
            continue;
        }
        for (int64_t row = 0; row < rows && out->items <= MAX_ITEMS; row += w->block_q)
            plan_row_block(w, (int32_t)n, (int32_t)row, (int32_t)FA_MIN(row + w->block_q, rows));
    }
}

static int longest_first(const void *left, const void *right)
{
    const fa_work_item *a = left, *b = right;
    if (a->cycles != b->cycles)
        return a->cycles < b->cycles ? 1 : -1;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    if (a->head_kv != b->head_kv)
        return a->head_kv < b->head_kv ? -1 : 1;
    if (a->row_begin != b->row_begin)
        return a->row_begin < b->row_begin ? -1 : 1;
    return (a->key_begin > b->key_begin) - (a->key_begin < b->key_begin);
}

/* Puts `load` into the heap's root, whose element was taken, and lets it sink. */
static void heap_sink(double *heap, uint32_t count, double load)
{
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= load)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = load;
}

/* What the units' shared queue does: the next item goes to whichever unit is free first. */
static void simulate(const planner *w, double *heap)
{
    fa_schedule *out = w->out;
    uint32_t units = w->limits->units;
    memset(heap, 0, units * sizeof(*heap));
    out->cycles = out->makespan = 0;
    out->longest = out->items > 0 ? out->item[0].cycles : 0;
    for (int64_t i = 0; i < out->items; i++) {
        heap_sink(heap, units, heap[0] + out->item[i].cycles);
        out->cycles += out->item[i].cycles;
    }
    for (uint32_t u = 0; u < units; u++)
        out->makespan = fmax(out->makespan, heap[u]);
    out->imbalance = out->cycles > 0 ? fmax(out->makespan * units / out->cycles, 1) : 1; /* sums round */
    out->workers = out->items < units ? (uint32_t)out->items : units;
    /* Merging reads the partial results once; the units share it evenly, after one more barrier. */
    if (out->merges > 0)
        out->makespan +=
            w->limits->sync_cycles + w->limits->item_cycles +
            (double)out->partial_rows * (w->shape.dim_v + 1) / (w->traits->scores_per_cycle * units);
}

void fa_schedule_release_lists(const fa_context *context, fa_schedule *s)
{
    fa_release(context, s->item, (size_t)s->items * sizeof(*s->item));
    fa_release(context, s->merge, (size_t)s->merges * sizeof(*s->merge));
    s->item = NULL;
    s->merge = NULL;
}

/* Counts, allocates, fills, sorts. */
static fa_status build(const fa_context *context, planner *w, fa_schedule *out, double *heap)
{
    *out = (fa_schedule){0};
    w->out = out;
    w->fill = false;
    walk_problem(w);
    if (out->items > MAX_ITEMS)
        return fa_fail(FA_OUT_OF_MEMORY, "blocks of %d rows and %d keys make more than %lld work items",
                       w->block_q, w->block_kv, (long long)MAX_ITEMS);
    out->item = fa_alloc(context, (size_t)out->items * sizeof(*out->item));
    out->merge = fa_alloc(context, (size_t)out->merges * sizeof(*out->merge));
    if (!out->item || !out->merge) {
        fa_schedule_release_lists(context, out);
        return FA_OUT_OF_MEMORY;
    }
    w->fill = true;
    walk_problem(w);
    qsort(out->item, (size_t)out->items, sizeof(*out->item), longest_first);
    simulate(w, heap);
    return FA_OK;
}

int64_t fa_schedule_most_partial_rows(const fa_limits *limits, int64_t block_q, int64_t rows)
{
    return (int64_t)limits->units * ENOUGH_ITEMS * FA_MIN(block_q, rows);
}

static bool has_room(const planner *w, const fa_schedule *s)
{
    const fa_capacity *c = w->capacity;
    return !c || (s->items <= c->items && s->merges <= c->merges && s->partial_rows <= c->partial_rows);
}

/* Tries ever shorter chunks of keys and keeps the shortest makespan. */
static fa_status search(const fa_context *context, planner *w, fa_schedule *best, double *heap)
{
    int64_t most_rows = fa_schedule_most_partial_rows(w->limits, w->block_q,
                                                      (int64_t)w->problem->max_len_q * w->problem->group);
    int64_t key_blocks = fa_ceil_div(w->problem->max_len_kv, w->block_kv);
    int64_t most = FA_MIN(key_blocks, MAX_ITEMS / FA_MAX(best->items, 1)); /* pieces, so that the list fits */
    for (int64_t pieces = 2; pieces <= most && best->imbalance > 1.05; pieces += FA_MAX(pieces / 4, 1)) {
        w->chunk = (int32_t)FA_MIN(fa_ceil_div(key_blocks, pieces), w->most);
        fa_schedule candidate;
        fa_status status = build(context, w, &candidate, heap);
        if (status != FA_OK)
            return status;
        bool enough = candidate.items > (int64_t)w->limits->units * ENOUGH_ITEMS ||
                      (w->capacity && candidate.items > w->capacity->items);
        bool better = candidate.makespan < best->makespan * 0.97 && candidate.partial_rows <= most_rows &&
                      has_room(w, &candidate);
        fa_schedule_release_lists(context, better ? best : &candidate);
        if (better)
            *best = candidate;
        if (enough)
            break;
    }
    return FA_OK;
}

/* Too little to share: one unit does it all, and what was split for the others is whole again. */
static fa_status keep_to_one(const fa_context *context, planner *w, fa_schedule *schedule, double *heap)
{
    fa_status status = FA_OK;
    if (schedule->merges > 0 && w->splits == 0) {
        w->chunk = w->most;
        fa_schedule_release_lists(context, schedule);
        status = build(context, w, schedule, heap);
    }
    schedule->workers = schedule->items > 0;
    schedule->makespan = schedule->cycles;
    schedule->imbalance = 1;
    return status;
}

/* The most blocks of keys in one item. */
static int32_t most_blocks(const fa_limits *limits, const fa_tile_traits *traits, const fa_tiling *tiling,
                           bool can_split)
{
    const int32_t keys = fa_tiling_item_keys(limits, traits);
    return keys > 0 && can_split ? FA_MAX(keys / tiling->block_kv, 1) : INT32_MAX;
}

fa_status fa_schedule_init(const fa_context *context, const fa_problem *problem, const fa_limits *limits,
                           const fa_tile_traits *traits, const fa_tiling *tiling, bool can_split,
                           const fa_capacity *capacity, fa_schedule *schedule)
{
    planner w = {
        .problem = problem,
        .limits = limits,
        .traits = traits,
        .shape = {.dim_qk = problem->dim_qk,
                  .dim_v = problem->dim_v,
                  .far_bytes = fa_dtype_mean_bytes(problem->tensor[FA_K].dtype)},
        .block_q = tiling->block_q,
        .block_kv = tiling->block_kv,
        .splits = problem->tuning.splits,
        .capacity = capacity,
    };
    w.chunk = w.most = most_blocks(limits, traits, tiling, can_split);
    double *heap = fa_alloc(context, limits->units * sizeof(*heap));
    if (!heap)
        return FA_OUT_OF_MEMORY;
    fa_status status = build(context, &w, schedule, heap);
    double alone = schedule->cycles; /* one unit, nothing split */
    if (status == FA_OK && can_split && problem->tuning.splits == 0)
        status = search(context, &w, schedule, heap);
    if (status == FA_OK && alone * SHARE_GAIN <= schedule->makespan + limits->launch_cycles)
        status = keep_to_one(context, &w, schedule, heap);
    fa_release(context, heap, limits->units * sizeof(*heap));
    if (status != FA_OK)
        fa_schedule_release(context, schedule);
    else
        schedule->pairs = count_pairs(problem);
    return status;
}

void fa_schedule_release(const fa_context *context, fa_schedule *schedule)
{
    fa_schedule_release_lists(context, schedule);
    *schedule = (fa_schedule){0};
}

fa_capacity fa_capacity_of(const fa_schedule *schedule)
{
    return (fa_capacity){schedule->items, schedule->merges, schedule->partial_rows, schedule->workers};
}

/* Rows of all heads in sequences of any lengths, and the most blocks that they make. */
static bool count_rows(const fa_problem *p, int64_t block_q, int64_t *rows, int64_t *blocks)
{
    const int64_t *q = p->tensor[FA_Q].shape;
    int64_t length = 0;
    *rows = *blocks = 0;
    if (p->heads_kv == 0 || p->sequences == 0)
        return true;
    if (!fa_mul_i64(q[2], p->group, &length))
        return false;
    if (p->packed_q) /* each sequence may end with a block that it does not fill */
        *blocks = FA_MIN(length / block_q + p->sequences, length);
    else if (!fa_mul_i64(fa_ceil_div(length, block_q), p->sequences, blocks))
        return false;
    return fa_mul_i64(length, p->packed_q ? 1 : p->sequences, rows) && fa_mul_i64(*rows, p->heads_kv, rows) &&
           fa_mul_i64(*blocks, p->heads_kv, blocks);
}

fa_status fa_capacity_init(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                           const fa_tiling *tiling, bool can_split, const fa_schedule *schedule,
                           fa_capacity *capacity)
{
    const int64_t keys = FA_MIN(problem->keys, FA_MAX_LENGTH);
    const int64_t key_blocks = fa_ceil_div(keys, tiling->block_kv);
    const int32_t asked = FA_MIN(problem->tuning.splits, fa_tiling_parts(limits));
    const int64_t longest = FA_MIN(problem->tensor[FA_Q].shape[2], FA_MAX_LENGTH) * problem->group;
    /* Parts that each block has at most because it must, and what splitting for balance may add. */
    int64_t parts = FA_MAX(asked, fa_ceil_div(key_blocks, most_blocks(limits, traits, tiling, can_split)));
    int64_t rows, blocks, items, partial_rows, all_parts, spare = 0;
    parts = FA_MAX(FA_MIN(parts, key_blocks), 1);
    bool fits = count_rows(problem, tiling->block_q, &rows, &blocks) && fa_mul_i64(blocks, parts, &items) &&
                fa_mul_i64(rows, parts, &partial_rows) && items <= MAX_ITEMS;
    if (!fits)
        return fa_fail(FA_OUT_OF_MEMORY,
                       "dynamic_lengths: blocks of %d rows and %d keys may make more than %lld work items",
                       tiling->block_q, tiling->block_kv, (long long)MAX_ITEMS);
    if (can_split && asked == 0 && key_blocks > 1)
        spare = FA_MIN((int64_t)limits->units * SPARE_ITEMS, FA_MIN(blocks, MAX_ITEMS) * key_blocks);
    if (!fa_mul_i64(rows, key_blocks, &all_parts))
        all_parts = INT64_MAX;
    partial_rows =
        FA_MAX(parts > 1 ? partial_rows : 0, FA_MIN(all_parts, spare * FA_MIN(tiling->block_q, longest)));
    items = FA_MAX(items, spare);
    *capacity = (fa_capacity){
        .items = FA_MAX(items, schedule->items),
        .merges = FA_MAX(parts > 1 ? blocks : FA_MIN(blocks, spare / 2), schedule->merges),
        .partial_rows = FA_MAX(partial_rows, schedule->partial_rows),
        .workers = (uint32_t)FA_MIN(FA_MAX(items, schedule->items), (int64_t)limits->units),
    };
    return FA_OK;
}
