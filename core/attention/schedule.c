/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/schedule.h"

#include <math.h>
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

/* A work item of every KV head: heads are alike, so that lists are made and ordered for one of them. */
typedef struct piece {
    double cycles;
    int64_t part_row; /* of the first head; -1: it is no part */
    int32_t sequence, row_begin, row_end, key_begin, key_end;
    int32_t parts; /* of its row block */
} piece;

/* How many pieces are so long, and the number of the first of them where pieces are made. */
typedef struct rank {
    double cycles;
    int32_t pieces, at;
} rank;

/* Units that have the same load. */
typedef struct load {
    double cycles;
    int64_t units;
} load;

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
    const fa_context *context;   /* lists grow by its allocator; NULL: they have the capacity's room */
    int32_t kept;                /* the chunk of the schedule that is kept */
    int64_t room;                /* pieces that the lists have room for */
    piece *piece;                /* block after block */
    rank *order, *spare;         /* longest first, and what sorting needs beside it */
    int64_t ranks;
    bool filled; /* pieces are those of the ranks */
    load *load;  /* one for each unit, at most */
    /* Cycles of a whole block of keys, and of an item's end, for the rows that were asked for last. */
    int32_t rows;
    double block_cycles, end_cycles;
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

/* The same view in blocks of keys: those that some row sees, and those that all rows see whole. */
typedef struct block_view {
    int64_t prefix, begin, end, all_prefix, all_begin, all_end;
} block_view;

/* Of rows and lengths, which are below 2^31: divisions of 32 bits are the faster ones. */
static int64_t divide(int64_t a, int32_t b)
{
    return (uint32_t)a / (uint32_t)b;
}

static int64_t divide_up(int64_t a, int32_t b)
{
    return ((uint32_t)a + (uint32_t)b - 1) / (uint32_t)b;
}

/* Whole blocks of keys below `end`, the last block of the sequence counting as whole. */
static int64_t blocks_below(const planner *w, const row_view *v, int64_t end)
{
    return end >= v->len_kv ? divide_up(v->len_kv, w->block_kv) : divide(end, w->block_kv);
}

static block_view view_blocks(const planner *w, const row_view *v)
{
    return (block_view){
        .prefix = divide_up(v->prefix, w->block_kv),
        .begin = divide(v->begin, w->block_kv),
        .end = divide_up(v->end, w->block_kv),
        .all_prefix = blocks_below(w, v, v->prefix),
        .all_begin = v->prefix >= v->all_begin ? 0 : divide_up(v->all_begin, w->block_kv),
        .all_end = blocks_below(w, v, v->all_end),
    };
}

/*
 * Classes and cost of the blocks [from, to) of keys: what fa_mask_classify() says of each, in one step. `cut` keys of
 * the last are not there: the rows' sight ends before them.
 */
static block_walk walk_blocks(const planner *w, const block_view *v, int64_t from, int64_t to, int64_t cut)
{
    int64_t seen = count_in(from, to, v->prefix, v->begin, v->end);
    int64_t full = count_in(from, to, v->all_prefix, v->all_begin, v->all_end);
    /* Of a block that the mask cuts, a kernel that clips computes half on the average. */
    double whole = w->traits->clips ? 0.5 * (double)(seen + full) : (double)seen;
    double cycles = fmax(whole - (cut > 0), 0) * w->block_cycles;
    if (cut > 0)
        cycles += fa_tiling_block_cycles(w->limits, w->traits, &w->shape, w->rows, w->block_kv - cut);
    return (block_walk){
        .cycles = cycles, .full = full, .partial = seen - full, .keys = seen * w->block_kv - cut};
}

static double epilogue_cycles(const planner *w, int32_t rows)
{
    return w->limits->item_cycles + 2.0 * (double)fa_round_up(rows, w->traits->tile.q) *
                                        (w->shape.dim_qk + w->shape.dim_v) / w->traits->scores_per_cycle;
}

static void take_rows(planner *w, int32_t rows)
{
    if (rows == w->rows)
        return;
    w->rows = rows;
    w->block_cycles = fa_tiling_block_cycles(w->limits, w->traits, &w->shape, rows, w->block_kv);
    w->end_cycles = epilogue_cycles(w, rows);
}

/* A block of rows, and the keys that it is to meet: [begin, end), so many blocks, met in so many parts. */
typedef struct row_block {
    row_view view;
    int32_t sequence, row_begin, row_end;
    int64_t begin, end, blocks, parts;
} row_block;

static row_block make_row_block(const planner *w, int64_t n, int64_t row_begin, int64_t row_end)
{
    const int32_t group = w->problem->group;
    row_block b = {.sequence = (int32_t)n, .row_begin = (int32_t)row_begin, .row_end = (int32_t)row_end};
    b.view = view_rows(&w->problem->sequence[n].mask, (int)divide(row_begin, group),
                       (int)divide(row_end - 1, group) + 1);
    int64_t first = b.view.prefix > 0 ? 0 : divide(b.view.begin, w->block_kv);
    b.begin = first * w->block_kv;
    b.end = FA_MAX(b.view.end, b.view.prefix);
    b.blocks = divide_up(b.end - b.begin, w->block_kv);
    int64_t parts = w->splits ? FA_MIN(w->splits, fa_tiling_parts(w->limits)) : divide_up(b.blocks, w->chunk);
    parts = FA_MAX(parts, divide_up(b.blocks, w->most));
    b.parts = FA_MAX(FA_MIN(parts, b.blocks), 1);
    return b;
}

/* How the blocks of keys of a row block are shared out: part p begins with block first + blocks * p / parts. */
typedef struct sharing {
    int64_t first, blocks, parts, step, rest; /* step and rest are blocks / parts */
} sharing;

static sharing share_blocks(const planner *w, const row_block *b)
{
    const int32_t parts = (int32_t)b->parts;
    const int64_t step = divide(b->blocks, parts);
    return (sharing){divide(b->begin, w->block_kv), b->blocks, parts, step, b->blocks - step * parts};
}

static int64_t part_begin(const sharing *s, int64_t part)
{
    return s->first + s->step * part + (s->rest > 0 ? s->rest * part / s->parts : 0);
}

static block_walk walk_part(const planner *w, const row_block *b, const block_view *view, int64_t from,
                            int64_t to)
{
    const int64_t keys = to * w->block_kv;
    return walk_blocks(w, view, from, to, keys - FA_MIN(keys, b->end));
}

static void add_rank(planner *w, double cycles, int64_t pieces)
{
    if (pieces > 0)
        w->order[w->ranks++] = (rank){cycles, (int32_t)pieces, 0};
}

static void rank_parts(planner *w, const row_block *b, const block_view *view, const sharing *s,
                       int64_t begin, int64_t end)
{
    for (int64_t part = begin, from = begin < end ? part_begin(s, begin) : 0, to; part < end;
         part++, from = to) {
        to = part_begin(s, part + 1);
        add_rank(w, walk_part(w, b, view, from, to).cycles + w->end_cycles, 1);
    }
}

/* How long the parts of a row block are, and how many are so long. */
static void rank_row_block(planner *w, const row_block *b)
{
    const block_view view = view_blocks(w, &b->view);
    const sharing s = share_blocks(w, b);
    /* Parts [low, high) meet whole blocks that every row sees: they differ by a block of keys, and in nothing else. */
    const int64_t skipped = FA_MAX(view.all_begin - s.first, 0);
    const int64_t seen = FA_MIN(view.all_end, divide(b->end, w->block_kv)) - s.first;
    int64_t low = 0, high = s.parts;
    take_rows(w, b->row_end - b->row_begin);
    if (skipped > 0)
        low = skipped < s.blocks ? fa_ceil_div(skipped * s.parts, s.blocks) : s.parts;
    if (seen < s.blocks)
        high = seen > 0 ? fa_ceil_div((seen + 1) * s.parts, s.blocks) - 1 : 0;
    high = clamp(high, low, s.parts);
    const int64_t longer = s.rest > 0 && high > low ? s.rest * high / s.parts - s.rest * low / s.parts : 0;
    rank_parts(w, b, &view, &s, 0, low);
    add_rank(w, (double)(s.step + 1) * w->block_cycles + w->end_cycles, longer);
    add_rank(w, (double)s.step * w->block_cycles + w->end_cycles, high - low - longer);
    rank_parts(w, b, &view, &s, high, s.parts);
}

static void fill_row_block(planner *w, const row_block *b, fa_schedule *out)
{
    const int64_t heads = w->problem->heads_kv;
    const int32_t rows = b->row_end - b->row_begin;
    const block_view view = view_blocks(w, &b->view);
    const sharing s = share_blocks(w, b);
    int64_t from = s.first, seen = 0, keys = 0, full = 0;
    take_rows(w, rows);
    for (int64_t part = 0, to; part < s.parts; part++, from = to) {
        to = part_begin(&s, part + 1);
        block_walk walk = walk_part(w, b, &view, from, to);
        const double cycles = walk.cycles + w->end_cycles;
        w->order[w->ranks] = (rank){cycles, 1, (int32_t)w->ranks};
        w->piece[w->ranks++] = (piece){
            .cycles = cycles,
            .part_row = s.parts > 1 ? out->partial_rows + part * rows : -1,
            .sequence = b->sequence,
            .row_begin = b->row_begin,
            .row_end = b->row_end,
            .key_begin = (int32_t)(from * w->block_kv),
            .key_end = (int32_t)FA_MIN(to * w->block_kv, b->end),
            .parts = (int32_t)s.parts,
        };
        seen += walk.full + walk.partial;
        full += walk.full;
        keys += walk.keys;
    }
    out->blocks_full += full * heads;
    out->blocks_partial += (seen - full) * heads;
    out->blocks_skipped += (divide_up(b->view.len_kv, w->block_kv) - seen) * heads;
    out->key_reads += (double)(keys * heads);
    out->rows_done += rows * heads * b->parts;
    out->splits = FA_MAX(out->splits, (int32_t)s.parts);
}

static int64_t most_items(const planner *w)
{
    return w->capacity ? w->capacity->items : MAX_ITEMS;
}

/* Each counts items, merges and partial rows. RANK says how long pieces are too, FILL makes them. */
typedef enum walk { COUNT, RANK, FILL } walk;

/* Goes through all blocks of rows, and ends early where there are more items than anyone wants. */
static void walk_problem(planner *w, walk what, fa_schedule *out)
{
    const int64_t heads = w->problem->heads_kv;
    *out = (fa_schedule){.splits = 1};
    if (what != COUNT)
        w->ranks = 0;
    for (int64_t n = 0; n < w->problem->sequences && heads > 0; n++) {
        int64_t rows = (int64_t)w->problem->sequence[n].len_q * w->problem->group;
        if (what == COUNT && w->splits == 0 &&
            w->chunk == INT32_MAX) { /* nothing is split: no need to look */
            out->items += fa_ceil_div(rows, w->block_q) * heads;
            continue;
        }
        for (int64_t row = 0; row < rows && out->items <= most_items(w); row += w->block_q) {
            const row_block b = make_row_block(w, n, row, FA_MIN(row + w->block_q, rows));
            if (what == RANK)
                rank_row_block(w, &b);
            if (what == FILL)
                fill_row_block(w, &b, out);
            out->items += heads * b.parts;
            out->merges += b.parts > 1 ? heads : 0;
            out->partial_rows += b.parts > 1 ? heads * b.parts * (b.row_end - b.row_begin) : 0;
        }
    }
}

/* Longest first. Pieces that are as long stay in the order of `order`. */
static void sort(rank *order, rank *spare, int64_t count)
{
    enum { RUN = 8 }; /* sorted by insertion */
    for (int64_t begin = 0; begin < count; begin += RUN) {
        const int64_t end = FA_MIN(begin + RUN, count);
        for (int64_t i = begin + 1; i < end; i++) {
            const rank moved = order[i];
            int64_t to = i;
            for (; to > begin && order[to - 1].cycles < moved.cycles; to--)
                order[to] = order[to - 1];
            order[to] = moved;
        }
    }
    rank *from = order, *to = spare;
    for (int64_t run = RUN; run < count; run *= 2) {
        for (int64_t begin = 0; begin < count; begin += 2 * run) {
            const int64_t middle = FA_MIN(begin + run, count), end = FA_MIN(begin + 2 * run, count);
            int64_t left = begin, right = middle;
            for (int64_t i = begin; i < end; i++) {
                const bool takes_left =
                    right == end || (left < middle && from[left].cycles >= from[right].cycles);
                to[i] = from[takes_left ? left : right];
                left += takes_left;
                right += !takes_left;
            }
        }
        rank *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != order)
        memcpy(order, from, (size_t)count * sizeof(*order));
}

/* Puts `moved` into the heap's root, whose element was taken, and lets it sink. */
static void heap_sink(load *heap, int64_t count, load moved)
{
    int64_t at = 0;
    for (int64_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1].cycles < heap[child].cycles)
            child++;
        if (heap[child].cycles >= moved.cycles)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void heap_add(load *heap, int64_t count, load added)
{
    int64_t at = count;
    for (int64_t parent; at > 0 && heap[parent = (at - 1) / 2].cycles > added.cycles; at = parent)
        heap[at] = heap[parent];
    heap[at] = added;
}

/*
 * Cycles of the busiest unit. It is what the units' shared queue does: the next item goes to whichever unit is free
 * first. Items that are as long, as those of all heads are, go to units of one load in one step.
 */
static double simulate(const planner *w)
{
    load *heap = w->load;
    int64_t loads = 1;
    double busiest = 0;
    heap[0] = (load){0, w->limits->units};
    for (int64_t i = 0; i < w->ranks;) {
        const double cycles = w->order[i].cycles;
        int64_t items = 0;
        for (; i < w->ranks && w->order[i].cycles == cycles; i++)
            items += (int64_t)w->order[i].pieces * w->problem->heads_kv;
        while (items > 0) {
            load least = heap[0];
            const double after = least.cycles + cycles;
            if (items < least.units) {
                heap[0].units -= items;
                heap_add(heap, loads++, (load){after, items});
                break;
            }
            items -= least.units;
            least.cycles = after;
            heap_sink(heap, loads, least);
        }
    }
    for (int64_t i = 0; i < loads; i++)
        busiest = fmax(busiest, heap[i].cycles);
    return busiest;
}

static int64_t count_pieces(const planner *w, const fa_schedule *s)
{
    return s->items > 0 ? s->items / w->problem->heads_kv : 0;
}

static size_t list_bytes(int64_t pieces)
{
    return (size_t)pieces * (sizeof(piece) + 2 * sizeof(rank));
}

static void lay_out(planner *w, void *memory, int64_t pieces)
{
    w->room = pieces;
    w->piece = memory;
    w->order = (rank *)(w->piece + pieces);
    w->spare = w->order + pieces;
}

/* Lists that do not grow have room for all that the capacity allows. */
static fa_status reserve(planner *w, int64_t pieces)
{
    if (pieces <= w->room && w->piece)
        return FA_OK;
    fa_release(w->context, w->piece, list_bytes(w->room));
    w->piece = NULL;
    void *memory = fa_alloc(w->context, list_bytes(pieces));
    if (!memory)
        return FA_OUT_OF_MEMORY;
    lay_out(w, memory, pieces);
    return FA_OK;
}

/* How long what was counted takes, without merges. */
static fa_status measure(planner *w, walk what, fa_schedule *s)
{
    fa_status status = reserve(w, count_pieces(w, s));
    if (status != FA_OK)
        return status;
    walk_problem(w, what, s);
    w->filled = what == FILL;
    sort(w->order, w->spare, w->ranks);
    s->makespan = simulate(w);
    return FA_OK;
}

/* Merging reads the partial results once; the units share it evenly, after one more barrier. */
static double merge_cycles(const planner *w, const fa_schedule *s)
{
    if (s->merges == 0)
        return 0;
    return w->limits->sync_cycles + w->limits->item_cycles +
           (double)s->partial_rows * (w->shape.dim_v + 1) / (w->traits->scores_per_cycle * w->limits->units);
}

/* Keeps what was measured. */
static void keep(planner *w, fa_schedule *s)
{
    const uint32_t units = w->limits->units;
    w->kept = w->chunk;
    s->longest = w->ranks > 0 ? w->order[0].cycles : 0;
    for (int64_t i = 0; i < w->ranks; i++) {
        for (int64_t items = (int64_t)w->order[i].pieces * w->problem->heads_kv; items > 0; items--)
            s->cycles += w->order[i].cycles;
    }
    s->imbalance = s->cycles > 0 ? fmax(s->makespan * units / s->cycles, 1) : 1; /* sums round */
    s->workers = s->items < units ? (uint32_t)s->items : units;
    s->makespan += merge_cycles(w, s);
}

int64_t fa_schedule_most_partial_rows(const fa_limits *limits, int64_t block_q, int64_t rows)
{
    return (int64_t)limits->units * ENOUGH_ITEMS * FA_MIN(block_q, rows);
}

static bool has_room(const planner *w, const fa_schedule *s)
{
    const fa_capacity *c = w->capacity;
    return s->items <= most_items(w) &&
           (!c || (s->merges <= c->merges && s->partial_rows <= c->partial_rows));
}

/* What units that are all busy to the end would take at least. More items than `first`'s cost their start each, and
 * blocks of keys cost no less for being in several; sums round. */
static double least_makespan(const planner *w, const fa_schedule *first, const fa_schedule *s)
{
    const double rounding = 1 - 1e-6;
    const double started = (double)(s->items - first->items) * w->limits->item_cycles;
    return (first->cycles + started) / w->limits->units * rounding + merge_cycles(w, s);
}

/* Tries ever shorter chunks of keys and keeps the shortest makespan. */
static fa_status search(planner *w, const fa_schedule *first, fa_schedule *best)
{
    int64_t most_rows = fa_schedule_most_partial_rows(w->limits, w->block_q,
                                                      (int64_t)w->problem->max_len_q * w->problem->group);
    int64_t key_blocks = fa_ceil_div(w->problem->max_len_kv, w->block_kv);
    int64_t most = FA_MIN(key_blocks, MAX_ITEMS / FA_MAX(best->items, 1)); /* pieces, so that the list fits */
    bool enough = false;
    for (int64_t pieces = 2; pieces <= most && best->imbalance > 1.05 && !enough;
         pieces += FA_MAX(pieces / 4, 1)) {
        const int32_t chunk = (int32_t)FA_MIN(fa_ceil_div(key_blocks, pieces), w->most);
        const double wanted = best->makespan * 0.97;
        if (chunk == w->chunk)
            continue;
        w->chunk = chunk;
        fa_schedule candidate;
        walk_problem(w, COUNT, &candidate);
        enough =
            candidate.items > (int64_t)w->limits->units * ENOUGH_ITEMS || candidate.items > most_items(w);
        if (candidate.partial_rows > most_rows || !has_room(w, &candidate) ||
            least_makespan(w, first, &candidate) >= wanted)
            continue;
        fa_status status = measure(w, RANK, &candidate);
        if (status != FA_OK)
            return status;
        if (candidate.makespan + merge_cycles(w, &candidate) < wanted) {
            keep(w, &candidate);
            *best = candidate;
        }
    }
    return FA_OK;
}

/* Too little to share: one unit does it all, and what was split for the others is whole again. */
static void keep_to_one(planner *w, const fa_schedule *first, fa_schedule *schedule)
{
    if (schedule->merges > 0 && w->splits == 0) {
        w->kept = w->most;
        *schedule = *first;
    }
    schedule->workers = schedule->items > 0;
    schedule->makespan = schedule->cycles;
    schedule->imbalance = 1;
}

/* The most blocks of keys in one item. */
static int32_t most_blocks(const fa_limits *limits, const fa_tile_traits *traits, const fa_tiling *tiling,
                           bool can_split)
{
    const int32_t keys = fa_tiling_item_keys(limits, traits);
    return keys > 0 && can_split ? FA_MAX(keys / tiling->block_kv, 1) : INT32_MAX;
}

static planner begin(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                     const fa_tiling *tiling, bool can_split)
{
    const int32_t most = most_blocks(limits, traits, tiling, can_split);
    return (planner){
        .problem = problem,
        .limits = limits,
        .traits = traits,
        .shape = {.dim_qk = problem->dim_qk,
                  .dim_v = problem->dim_v,
                  .far_bytes = fa_dtype_mean_bytes(problem->tensor[FA_K].dtype)},
        .block_q = tiling->block_q,
        .block_kv = tiling->block_kv,
        .chunk = most,
        .most = most,
        .splits = problem->tuning.splits,
    };
}

/* Chooses the chunk that is kept, and says what it comes to. */
static fa_status choose(planner *w, bool can_split, fa_schedule *schedule)
{
    walk_problem(w, COUNT, schedule);
    if (schedule->items > most_items(w))
        return fa_fail(FA_OUT_OF_MEMORY, "blocks of %d rows and %d keys make more than %lld work items",
                       w->block_q, w->block_kv, (long long)most_items(w));
    fa_status status = measure(w, FILL, schedule);
    if (status != FA_OK)
        return status;
    keep(w, schedule);
    const fa_schedule first = *schedule; /* nothing split that need not be */
    if (can_split && w->splits == 0)
        status = search(w, &first, schedule);
    if (first.cycles * SHARE_GAIN <= schedule->makespan + w->limits->launch_cycles)
        keep_to_one(w, &first, schedule);
    return status;
}

/* Makes the pieces of the schedule that is kept, longest first, unless they are there. */
static void make_pieces(planner *w, fa_schedule *schedule)
{
    const fa_schedule chosen = *schedule;
    if (w->filled && w->kept == w->most)
        return;
    w->chunk = w->kept;
    walk_problem(w, FILL, schedule);
    schedule->longest = chosen.longest;
    schedule->cycles = chosen.cycles;
    schedule->makespan = chosen.makespan;
    schedule->imbalance = chosen.imbalance;
    schedule->workers = chosen.workers;
    sort(w->order, w->spare, w->ranks);
}

/* The items of all heads, in the order of lengths, then of sequences, heads, rows and keys. */
static void write_items(const planner *w, fa_work_item *item)
{
    for (int64_t i = 0, end; i < w->ranks; i = end) {
        const piece *first = &w->piece[w->order[i].at];
        for (end = i + 1; end < w->ranks && w->order[end].cycles == first->cycles &&
                          w->piece[w->order[end].at].sequence == first->sequence;)
            end++;
        for (int64_t k = i; k < end; k++) {
            const piece *p = &w->piece[w->order[k].at];
            const int64_t rows = p->part_row < 0 ? 0 : (int64_t)(p->row_end - p->row_begin) * p->parts;
            fa_work_item made = {p->sequence,  0,          p->row_begin, p->row_end,
                                 p->key_begin, p->key_end, p->part_row,  p->cycles};
            fa_work_item *at = item + (k - i);
            for (; made.head_kv < w->problem->heads_kv; made.head_kv++, made.part_row += rows, at += end - i)
                *at = made;
        }
        item += (end - i) * w->problem->heads_kv;
    }
}

static void write_merges(const planner *w, fa_merge_item *merge)
{
    for (const piece *p = w->piece, *end = p + w->ranks; p < end; p += p->parts) {
        const int64_t rows = p->row_end - p->row_begin;
        for (int32_t h = 0; h < w->problem->heads_kv && p->parts > 1; h++)
            *merge++ = (fa_merge_item){
                p->sequence, h, p->row_begin, p->row_end, p->part_row + h * p->parts * rows, p->parts};
    }
}

static fa_status copy_lists(const planner *w, fa_schedule *s)
{
    s->item = fa_alloc(w->context, (size_t)s->items * sizeof(*s->item));
    s->merge = fa_alloc(w->context, (size_t)s->merges * sizeof(*s->merge));
    if (!s->item || !s->merge) {
        fa_schedule_release_lists(w->context, s);
        return FA_OUT_OF_MEMORY;
    }
    write_items(w, s->item);
    write_merges(w, s->merge);
    return FA_OK;
}

/* What fa_schedule_make() works in: where its lists lie, in bytes. All hold words of 64 bits. */
typedef struct room {
    int64_t pieces;
    size_t load, item, merge, bytes;
} room;

static bool lay_out_room(const fa_problem *problem, const fa_limits *limits, const fa_capacity *capacity,
                         room *r)
{
    r->pieces = capacity->items > 0 ? capacity->items / problem->heads_kv : 0;
    r->load = list_bytes(r->pieces);
    size_t end = r->load;
    bool fits = fa_grow(&end, limits->units, sizeof(load));
    r->item = end;
    fits = fits && fa_grow(&end, (size_t)capacity->items, sizeof(fa_work_item));
    r->merge = end;
    fits = fits && fa_grow(&end, (size_t)capacity->merges, sizeof(fa_merge_item));
    r->bytes = end;
    return fits;
}

size_t fa_schedule_room(const fa_problem *problem, const fa_limits *limits, const fa_capacity *capacity)
{
    room r;
    return lay_out_room(problem, limits, capacity, &r) ? r.bytes : SIZE_MAX;
}

fa_status fa_schedule_make(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                           const fa_tiling *tiling, bool can_split, const fa_capacity *capacity, void *memory,
                           fa_schedule *schedule)
{
    planner w = begin(problem, limits, traits, tiling, can_split);
    char *bytes = memory;
    room r;
    (void)lay_out_room(problem, limits, capacity, &r);
    w.capacity = capacity;
    w.load = (load *)(void *)(bytes + r.load);
    lay_out(&w, memory, r.pieces);
    fa_status status = choose(&w, can_split, schedule);
    if (status != FA_OK)
        return status;
    make_pieces(&w, schedule);
    schedule->item = (fa_work_item *)(void *)(bytes + r.item);
    schedule->merge = (fa_merge_item *)(void *)(bytes + r.merge);
    write_items(&w, schedule->item);
    write_merges(&w, schedule->merge);
    return FA_OK;
}

fa_status fa_schedule_init(const fa_context *context, const fa_problem *problem, const fa_limits *limits,
                           const fa_tile_traits *traits, const fa_tiling *tiling, bool can_split,
                           fa_schedule *schedule)
{
    planner w = begin(problem, limits, traits, tiling, can_split);
    *schedule = (fa_schedule){0};
    w.context = context;
    w.load = fa_alloc(context, limits->units * sizeof(*w.load));
    fa_status status = w.load ? choose(&w, can_split, schedule) : FA_OUT_OF_MEMORY;
    if (status == FA_OK) {
        make_pieces(&w, schedule);
        status = copy_lists(&w, schedule);
    }
    fa_release(context, w.piece, list_bytes(w.room));
    fa_release(context, w.load, limits->units * sizeof(*w.load));
    if (status != FA_OK)
        *schedule = (fa_schedule){0};
    else
        schedule->pairs = count_pairs(problem);
    return status;
}

void fa_schedule_release_lists(const fa_context *context, fa_schedule *s)
{
    fa_release(context, s->item, (size_t)s->items * sizeof(*s->item));
    fa_release(context, s->merge, (size_t)s->merges * sizeof(*s->merge));
    s->item = NULL;
    s->merge = NULL;
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

fa_schedule_rule fa_schedule_rule_of(const fa_problem *problem, const fa_limits *limits,
                                     const fa_tile_traits *traits, const fa_tiling *tiling, bool can_split,
                                     const fa_capacity *capacity)
{
    const int64_t longest = (int64_t)fa_problem_most_rows(problem) * problem->group;
    const int32_t rows = (int32_t)FA_MAX(FA_MIN(tiling->block_q, longest), 1);
    int64_t all_rows, blocks;
    planner w = begin(problem, limits, traits, tiling, can_split);
    take_rows(&w, rows);
    const double block = FA_MAX(w.block_cycles, 1);
    fa_schedule_rule rule = {
        .most = w.most,
        .item_cost = w.end_cycles / block,
        .part_cost = rows * (w.shape.dim_v + 1) / (traits->scores_per_cycle * limits->units) / block,
        .merge_cost = (limits->sync_cycles + limits->item_cycles) / block,
        .launch_cost = limits->launch_cycles / block,
    };
    /* Each split row block has two items at least and one merge, and each of its items so many partial rows at most. */
    if (can_split && w.splits == 0 && count_rows(problem, tiling->block_q, &all_rows, &blocks)) {
        const int64_t by_merges = capacity->merges < blocks ? 2 * capacity->merges : capacity->items;
        rule.items = (int32_t)FA_MIN(FA_MIN(capacity->items, by_merges), capacity->partial_rows / rows);
    }
    return rule;
}
