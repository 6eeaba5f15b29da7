/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/schedule.h"

#include <math.h>
#include <string.h>

#include "core/attention/planner.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

/* A run is shared where that takes at most this part of its time on one unit: less gain is not worth the other units. */
#define SHARE_GAIN 0.8
#define ENOUGH_ITEMS 32 /* of each unit: more balance no better, and each part is to be merged */

/* Longest first. Pieces that are as long stay in the order of `order`. */
static void sort(fa_rank *order, fa_rank *spare, int64_t count)
{
    enum { RUN = 8 }; /* sorted by insertion */
    for (int64_t begin = 0; begin < count; begin += RUN) {
        const int64_t end = FA_MIN(begin + RUN, count);
        for (int64_t i = begin + 1; i < end; i++) {
            const fa_rank moved = order[i];
            int64_t to = i;
            for (; to > begin && order[to - 1].cycles < moved.cycles; to--)
                order[to] = order[to - 1];
            order[to] = moved;
        }
    }
    fa_rank *from = order, *to = spare;
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
        fa_rank *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != order)
        memcpy(order, from, (size_t)count * sizeof(*order));
}

/* Puts `moved` into the heap's root, whose element was taken, and lets it sink. */
static void heap_sink(fa_load *heap, int64_t count, fa_load moved)
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

static void heap_add(fa_load *heap, int64_t count, fa_load added)
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
static double simulate(const fa_planner *w)
{
    fa_load *heap = w->load;
    int64_t loads = 1;
    double busiest = 0;
    heap[0] = (fa_load){0, w->limits->units};
    for (int64_t i = 0; i < w->ranks;) {
        const double cycles = w->order[i].cycles;
        int64_t items = 0;
        for (; i < w->ranks && w->order[i].cycles == cycles; i++)
            items += (int64_t)w->order[i].pieces * w->heads;
        while (items > 0) {
            fa_load least = heap[0];
            const double after = least.cycles + cycles;
            if (items < least.units) {
                heap[0].units -= items;
                heap_add(heap, loads++, (fa_load){after, items});
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

static int64_t count_pieces(const fa_planner *w, const fa_schedule *s)
{
    return s->items > 0 ? s->items / w->heads : 0;
}

static size_t list_bytes(int64_t pieces)
{
    return (size_t)pieces * (sizeof(fa_piece) + 2 * sizeof(fa_rank));
}

static void lay_out(fa_planner *w, void *memory, int64_t pieces)
{
    w->room = pieces;
    w->piece = memory;
    w->order = (fa_rank *)(w->piece + pieces);
    w->spare = w->order + pieces;
}

/* Lists that do not grow have room for all that the capacity allows. */
static fa_status reserve(fa_planner *w, int64_t pieces)
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
static fa_status measure(fa_planner *w, fa_pass what, fa_schedule *s)
{
    fa_status status = reserve(w, count_pieces(w, s));
    if (status != FA_OK)
        return status;
    fa_planner_walk(w, what, s);
    w->filled = what == FA_PASS_FILL;
    sort(w->order, w->spare, w->ranks);
    s->makespan = simulate(w);
    return FA_OK;
}

/* Merging reads the partial results once; the units share it evenly, after one more barrier. */
static double merge_cycles(const fa_planner *w, const fa_schedule *s)
{
    if (s->merges == 0)
        return 0;
    return w->limits->sync_cycles + w->limits->item_cycles +
           (double)s->partial_rows * (w->shape.dim_v + 1) / (w->traits->scores_per_cycle * w->limits->units);
}

/* Keeps what was measured. */
static void keep(fa_planner *w, fa_schedule *s)
{
    const uint32_t units = w->limits->units;
    w->kept = w->chunk;
    s->longest = w->ranks > 0 ? w->order[0].cycles : 0;
    for (int64_t i = 0; i < w->ranks; i++) {
        for (int64_t items = (int64_t)w->order[i].pieces * w->heads; items > 0; items--)
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

static bool has_room(const fa_planner *w, const fa_schedule *s)
{
    const fa_capacity *c = w->capacity;
    return s->items <= fa_planner_most_items(w) &&
           (!c || (s->merges <= c->merges && s->partial_rows <= c->partial_rows));
}

/* What units that are all busy to the end would take at least. More items than `first`'s cost their start each, and
 * blocks of keys cost no less for being in several; sums round. */
static double least_makespan(const fa_planner *w, const fa_schedule *first, const fa_schedule *s)
{
    const double rounding = 1 - 1e-6;
    const double started = (double)(s->items - first->items) * w->limits->item_cycles;
    return (first->cycles + started) / w->limits->units * rounding + merge_cycles(w, s);
}

/* Tries ever shorter chunks of keys and keeps the shortest makespan. */
static fa_status search(fa_planner *w, const fa_schedule *first, fa_schedule *best)
{
    int64_t most_rows = fa_schedule_most_partial_rows(w->limits, w->block_q,
                                                      (int64_t)w->problem->max_len_q * w->problem->group);
    int64_t key_blocks = fa_ceil_div(w->problem->max_len_kv, w->block_kv);
    int64_t most =
        FA_MIN(key_blocks, FA_MAX_ITEMS / FA_MAX(best->items, 1)); /* pieces, so that the list fits */
    bool enough = false;
    for (int64_t pieces = 2; pieces <= most && best->imbalance > 1.05 && !enough;
         pieces += FA_MAX(pieces / 4, 1)) {
        const int32_t chunk = (int32_t)FA_MIN(fa_ceil_div(key_blocks, pieces), w->most);
        const double wanted = best->makespan * 0.97;
        if (chunk == w->chunk)
            continue;
        w->chunk = chunk;
        fa_schedule candidate;
        fa_planner_walk(w, FA_PASS_COUNT, &candidate);
        enough = candidate.items > (int64_t)w->limits->units * ENOUGH_ITEMS ||
                 candidate.items > fa_planner_most_items(w);
        if (candidate.partial_rows > most_rows || !has_room(w, &candidate) ||
            least_makespan(w, first, &candidate) >= wanted)
            continue;
        fa_status status = measure(w, FA_PASS_RANK, &candidate);
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
static void keep_to_one(fa_planner *w, const fa_schedule *first, fa_schedule *schedule)
{
    if (schedule->merges > 0 && w->splits == 0) {
        w->kept = w->most;
        *schedule = *first;
    }
    schedule->workers = schedule->items > 0;
    schedule->makespan = schedule->cycles;
    schedule->imbalance = 1;
}

/* Chooses the chunk that is kept, and says what it comes to. */
static fa_status choose(fa_planner *w, bool can_split, fa_schedule *schedule)
{
    fa_planner_walk(w, FA_PASS_COUNT, schedule);
    if (schedule->items > fa_planner_most_items(w))
        return fa_fail(FA_OUT_OF_MEMORY, "blocks of %d rows and %d keys make more than %lld work items",
                       w->block_q, w->block_kv, (long long)fa_planner_most_items(w));
    fa_status status = measure(w, FA_PASS_FILL, schedule);
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
static void make_pieces(fa_planner *w, fa_schedule *schedule)
{
    const fa_schedule chosen = *schedule;
    if (w->filled && w->kept == w->most)
        return;
    w->chunk = w->kept;
    fa_planner_walk(w, FA_PASS_FILL, schedule);
    schedule->longest = chosen.longest;
    schedule->cycles = chosen.cycles;
    schedule->makespan = chosen.makespan;
    schedule->imbalance = chosen.imbalance;
    schedule->workers = chosen.workers;
    sort(w->order, w->spare, w->ranks);
}

/* The items of all heads, in the order of lengths, then of sequences, heads, rows and keys. */
static void write_items(const fa_planner *w, fa_work_item *item)
{
    for (int64_t i = 0, end; i < w->ranks; i = end) {
        const fa_piece *first = &w->piece[w->order[i].at];
        for (end = i + 1; end < w->ranks && w->order[end].cycles == first->cycles &&
                          w->piece[w->order[end].at].sequence == first->sequence;)
            end++;
        for (int64_t k = i; k < end; k++) {
            const fa_piece *p = &w->piece[w->order[k].at];
            const int64_t rows = p->part_row < 0 ? 0 : (int64_t)(p->row_end - p->row_begin) * p->parts;
            fa_work_item made = {p->sequence,  p->head,    p->row_begin, p->row_end,
                                 p->key_begin, p->key_end, p->part_row,  p->cycles};
            fa_work_item *at = item + (k - i);
            for (; made.head_kv < p->head + w->heads; made.head_kv++, made.part_row += rows, at += end - i)
                *at = made;
        }
        item += (end - i) * w->heads;
    }
}

static void write_merges(const fa_planner *w, fa_merge_item *merge)
{
    for (const fa_piece *p = w->piece, *end = p + w->ranks; p < end; p += p->parts) {
        const int64_t rows = p->row_end - p->row_begin;
        for (int32_t h = 0; h < w->heads && p->parts > 1; h++)
            *merge++ = (fa_merge_item){
                p->sequence, p->head + h, p->row_begin, p->row_end, p->part_row + h * p->parts * rows,
                p->parts};
    }
}

static fa_status copy_lists(const fa_planner *w, fa_schedule *s)
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
    size_t load, walked, item, merge, bytes;
} room;

static bool lay_out_room(const fa_problem *problem, const fa_limits *limits, const fa_capacity *capacity,
                         room *r)
{
    r->pieces = capacity->items > 0 ? capacity->items / fa_planner_heads(problem) : 0;
    r->load = list_bytes(r->pieces);
    size_t end = r->load;
    bool fits = fa_grow(&end, limits->units, sizeof(fa_load));
    r->walked = end;
    if (fa_lists_planned(problem))
        fits = fits && fa_grow(&end, (size_t)r->pieces + 1, sizeof(fa_walked));
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
    fa_planner w = fa_planner_begin(problem, limits, traits, tiling, can_split);
    char *bytes = memory;
    room r;
    (void)lay_out_room(problem, limits, capacity, &r);
    w.capacity = capacity;
    w.load = (fa_load *)(void *)(bytes + r.load);
    w.walked = (fa_walked *)(void *)(bytes + r.walked);
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
    fa_planner w = fa_planner_begin(problem, limits, traits, tiling, can_split);
    *schedule = (fa_schedule){0};
    w.context = context;
    w.load = fa_alloc(context, limits->units * sizeof(*w.load));
    const size_t walked = (size_t)fa_planner_walked(&w) * sizeof(*w.walked);
    w.walked = fa_alloc(context, walked);
    fa_status status = w.load && w.walked ? choose(&w, can_split, schedule) : FA_OUT_OF_MEMORY;
    if (status == FA_OK) {
        make_pieces(&w, schedule);
        status = copy_lists(&w, schedule);
    }
    fa_release(context, w.piece, list_bytes(w.room));
    fa_release(context, w.walked, walked);
    fa_release(context, w.load, limits->units * sizeof(*w.load));
    if (status != FA_OK)
        *schedule = (fa_schedule){0};
    else
        schedule->pairs = fa_schedule_count_pairs(problem);
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
