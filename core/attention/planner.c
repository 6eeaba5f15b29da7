/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/planner.h"

#include <math.h>

#include "core/attention/listed.h"
#include "core/attention/work.h"
#include "core/size.h"
#include "core/tensor.h"

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

/* Of rows [row, row + rows) and keys [begin, end). At most 2^56. In closed form: lengths may be far beyond what is worth
 * walking. */
static uint64_t count_pairs(const fa_mask *m, int64_t row, int64_t rows, int64_t begin, int64_t end)
{
    const int64_t first = clamp(m->prefix, begin, end); /* from here on, only the intervals count */
    const int64_t ends = sum_clamped(m->diagonal + row + m->right, rows, first, end);
    const int64_t begins = sum_clamped(m->diagonal + row - m->left + 1, rows, first, end);
    return (uint64_t)((first - begin) * rows + ends - begins);
}

/* Of rows [row, row + rows), and the keys of 32 blocks from key `begin` on that `bits` has. */
static uint64_t word_pairs(const fa_lists *l, const fa_sequence *s, int64_t row, int64_t rows, int64_t begin,
                           uint32_t bits)
{
    const int64_t end = begin + 32 * (int64_t)l->block_keys;
    uint64_t pairs = 0;
    if (begin >= 0 && end <= s->len_kv) {
        const int seen = fa_mask_classify(s->mask, (int)row, (int)(row + rows), (int)begin, (int)end);
        if (seen != FA_CLASS_PARTIAL)
            return seen == FA_CLASS_FULL ? (uint64_t)(rows * l->block_keys * FA_COUNT_BITS(bits)) : 0;
    }
    for (; bits != 0; bits &= bits - 1) {
        const int64_t key = begin + (int64_t)__builtin_ctz(bits) * l->block_keys;
        const int64_t first = FA_MAX(key, 0), last = FA_MIN(key + l->block_keys, s->len_kv);
        if (first < last)
            pairs += count_pairs(&s->mask, row, rows, first, last);
    }
    return pairs;
}

/* Of the rows of one block, and the keys that its list has. */
static uint64_t listed_pairs(const fa_lists *l, const fa_sequence *s, int64_t head, int64_t row)
{
    const uint32_t *list = fa_lists_of(l, s->number, head, row);
    const int64_t rows = FA_MIN(l->block_rows, s->len_q - row), keys = 32 * (int64_t)l->block_keys;
    uint64_t pairs = 0;
    for (int64_t word = s->first / keys; word * keys < (int64_t)s->first + s->len_kv; word++)
        pairs += word_pairs(l, s, row, rows, word * keys - s->first, list[word]);
    return pairs;
}

/* Whether a neighbourhood alone hides keys of the sequence: it uses all, the mask shows all, and there are no lists beside it. */
static bool is_near_alone(const fa_problem *p, const fa_sequence *s)
{
    const fa_mask *m = &s->mask;
    return p->near.words && !p->lists.given && s->first == 0 && s->len_q == p->near.grid.tokens &&
           s->len_kv >= s->len_q && fa_mask_classify(*m, 0, s->len_q, 0, s->len_kv) == FA_CLASS_FULL;
}

/* Of one query head. Where there are lists, what they have, which may be more than a neighbourhood shows. */
static uint64_t head_pairs(const fa_problem *p, const fa_sequence *s, int64_t head)
{
    const fa_lists *l = &p->lists;
    uint64_t pairs = 0;
    if (is_near_alone(p, s))
        return fa_near_pairs(&p->near) + (uint64_t)s->len_q * (uint64_t)(s->len_kv - s->len_q);
    if (!l->bits)
        return count_pairs(&s->mask, 0, s->len_q, 0, s->len_kv);
    for (int64_t row = 0; row < s->len_q; row += l->block_rows)
        pairs += listed_pairs(l, s, head, row);
    return pairs;
}

/* Query heads that see the same. */
static int32_t alike_heads(const fa_problem *p)
{
    return p->lists.head_stride ? p->lists.heads : FA_MAX(p->heads_q, 1);
}

double fa_schedule_pairs(const fa_problem *problem)
{
    const int32_t alike = alike_heads(problem), heads = FA_MAX(problem->heads_q, 1);
    double pairs = 0;
    for (int64_t n = 0; n < problem->sequences; n++) {
        for (int32_t head = 0; head < heads; head += alike)
            pairs += (double)head_pairs(problem, &problem->sequence[n], head) * alike / heads;
    }
    return pairs;
}

uint64_t fa_schedule_count_pairs(const fa_problem *problem)
{
    const int32_t alike = alike_heads(problem);
    uint64_t pairs = 0;
    for (int64_t n = 0; n < problem->sequences; n++) {
        for (int32_t head = 0; head < problem->heads_q; head += alike) {
            uint64_t more = head_pairs(problem, &problem->sequence[n], head);
            if (__builtin_mul_overflow(more, (uint64_t)alike, &more) ||
                __builtin_add_overflow(pairs, more, &pairs))
                return UINT64_MAX;
        }
    }
    return pairs;
}

int32_t fa_planner_most_blocks(const fa_limits *limits, const fa_tile_traits *traits, const fa_tiling *tiling,
                               bool can_split)
{
    const int32_t keys = fa_tiling_item_keys(limits, traits);
    return keys > 0 && can_split ? FA_MAX(keys / tiling->block_kv, 1) : INT32_MAX;
}

int32_t fa_planner_heads(const fa_problem *problem)
{
    return fa_lists_planned(problem) && problem->lists.head_stride ? 1 : problem->heads_kv;
}

fa_planner fa_planner_begin(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                            const fa_tiling *tiling, bool can_split)
{
    const int32_t most = fa_planner_most_blocks(limits, traits, tiling, can_split);
    fa_planner w = {
        .problem = problem,
        .limits = limits,
        .traits = traits,
        .shape = {.dim_qk = problem->dim_qk,
                  .dim_v = problem->dim_v,
                  .far_bytes = fa_tensor_mean_bytes(&problem->tensor[FA_K])},
        .block_q = tiling->block_q,
        .block_kv = tiling->block_kv,
        .heads = fa_planner_heads(problem),
        .chunk = most,
        .most = most,
        .splits = problem->tuning.splits,
    };
    if (problem->lists.bits)
        fa_work_describe(problem, &w.params);
    return w;
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
static int64_t blocks_below(const fa_planner *w, const row_view *v, int64_t end)
{
    return end >= v->len_kv ? divide_up(v->len_kv, w->block_kv) : divide(end, w->block_kv);
}

static block_view view_blocks(const fa_planner *w, const row_view *v)
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
static fa_walked walk_blocks(const fa_planner *w, const block_view *v, int64_t from, int64_t to, int64_t cut)
{
    int64_t seen = count_in(from, to, v->prefix, v->begin, v->end);
    int64_t full = count_in(from, to, v->all_prefix, v->all_begin, v->all_end);
    /* Of a block that the mask cuts, a kernel that clips computes half on the average. */
    double whole = w->traits->clips ? 0.5 * (double)(seen + full) : (double)seen;
    double cycles = fmax(whole - (cut > 0), 0) * w->block_cycles;
    if (cut > 0)
        cycles += fa_tiling_block_cycles(w->limits, w->traits, &w->shape, w->rows, w->block_kv - cut);
    return (fa_walked){
        .cycles = cycles, .full = full, .partial = seen - full, .keys = seen * w->block_kv - cut};
}

static double epilogue_cycles(const fa_planner *w, int32_t rows)
{
    return w->limits->item_cycles + 2.0 * (double)fa_round_up(rows, w->traits->tile.q) *
                                        (w->shape.dim_qk + w->shape.dim_v) / w->traits->scores_per_cycle;
}

void fa_planner_take_rows(fa_planner *w, int32_t rows)
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
    int32_t sequence, head, row_begin, row_end;
    int64_t begin, end, blocks, parts;
    fa_walked listed; /* where there are lists */
} row_block;

/* As kernels meet it, where there are lists. */
static fa_listed listed_of(const fa_planner *w, const row_block *b)
{
    return fa_listed_of(w->problem, &w->params, b->sequence, b->head, b->row_begin, b->row_end, (int)b->end);
}

/*
 * Of the word of the lists that the listed block at `key` is in: its blocks from there on, if the mask and the neighbourhood
 * show every row all their keys. They end at *end. 0: they are to be looked at one by one.
 */
static int64_t add_word(const fa_planner *w, const fa_listed *of, int key, int64_t *end, fa_walked *walk)
{
    const int size = w->params.list_keys, number = of->sequence->first + key, block = number / size;
    *end = (block / 32 + 1) * 32 * (int64_t)size - of->sequence->first;
    if (w->problem->near.words || number % size != 0 || size % w->block_kv != 0 || *end > of->walk.key_end ||
        fa_walk_class(of->walk, key, (int)*end) != FA_CLASS_FULL)
        return 0;
    const fa_uint here = UINT32_MAX << block % 32;
    const int64_t each = size / w->block_kv;
    const int64_t blocks = each * FA_COUNT_BITS(fa_list_word(*of, block / 32, false) & here);
    const int64_t full = each * FA_COUNT_BITS(fa_list_word(*of, block / 32, true) & here);
    walk->cycles += (double)blocks * w->block_cycles;
    walk->full += full;
    walk->partial += blocks - full;
    walk->keys += blocks * w->block_kv;
    return blocks;
}

static void add_block(const fa_planner *w, const fa_listed *of, int key, fa_walked *walk)
{
    const int end = FA_MIN(key + w->block_kv, of->walk.key_end);
    const int block_end = FA_MIN(key + w->block_kv, of->walk.mask.len_kv);
    const bool seen = fa_walk_class(of->walk, key, block_end) == FA_CLASS_FULL;
    const bool full = seen && !fa_listed_cuts(*of, key, end);
    const double share = w->traits->clips && !seen ? 0.5 : 1; /* lists are not clipped to */
    walk->cycles += end < key + w->block_kv
                        ? fa_tiling_block_cycles(w->limits, w->traits, &w->shape, w->rows, end - key)
                        : share * w->block_cycles;
    walk->full += full;
    walk->partial += !full;
    walk->keys += end - key;
}

/* Adds listed blocks from the one at *key on, at most `most`, and says how many. *key becomes the next one. */
static int64_t add_listed(const fa_planner *w, const fa_listed *of, int64_t most, int *key, fa_walked *walk)
{
    fa_walked word = *walk;
    int64_t end, blocks = add_word(w, of, *key, &end, &word);
    if (blocks > 0 && blocks <= most) {
        *walk = word;
    } else {
        blocks = 1;
        end = (int64_t)*key + w->block_kv;
        add_block(w, of, *key, walk);
    }
    *key = end < of->walk.key_end ? fa_listed_next(*of, (int)end, w->block_kv) : of->walk.key_end;
    return blocks;
}

/* What so many listed blocks from the one at *key on come to, or as many as there are. *key becomes the next one. */
static fa_walked walk_listed(const fa_planner *w, const fa_listed *of, int64_t blocks, int *key)
{
    fa_walked walk = {0};
    while (blocks > 0 && *key < of->walk.key_end)
        blocks -= add_listed(w, of, blocks, key, &walk);
    return walk;
}

static int first_listed(const fa_planner *w, const row_block *b, const fa_listed *of)
{
    return fa_listed_next(*of, (int)b->begin, w->block_kv);
}

/* What the row block meets that the walk is at. However it is split, that is the same. */
static fa_walked walk_once(fa_planner *w, const row_block *b)
{
    fa_walked *walked = &w->walked[w->row_block];
    if (w->row_block == w->counted) {
        const fa_listed of = listed_of(w, b);
        int key = first_listed(w, b, &of);
        fa_planner_take_rows(w, b->row_end - b->row_begin);
        *walked = walk_listed(w, &of, INT64_MAX, &key);
        w->counted++;
    }
    return *walked;
}

static row_block make_row_block(fa_planner *w, int64_t n, int32_t head, int64_t row_begin, int64_t row_end)
{
    const int32_t group = w->problem->group;
    row_block b = {
        .sequence = (int32_t)n, .head = head, .row_begin = (int32_t)row_begin, .row_end = (int32_t)row_end};
    b.view = view_rows(&w->problem->sequence[n].mask, (int)divide(row_begin, group),
                       (int)divide(row_end - 1, group) + 1);
    int64_t first = b.view.prefix > 0 ? 0 : divide(b.view.begin, w->block_kv);
    b.begin = first * w->block_kv;
    b.end = FA_MAX(b.view.end, b.view.prefix);
    b.blocks = divide_up(b.end - b.begin, w->block_kv);
    if (fa_lists_planned(w->problem)) {
        b.listed = walk_once(w, &b);
        b.blocks = b.listed.full + b.listed.partial;
    }
    int64_t parts = w->splits ? FA_MIN(w->splits, fa_tiling_parts(w->limits)) : divide_up(b.blocks, w->chunk);
    parts = FA_MAX(parts, divide_up(b.blocks, w->most));
    b.parts = FA_MAX(FA_MIN(parts, b.blocks), 1);
    return b;
}

/* How the blocks of keys of a row block are shared out: part p begins with block first + blocks * p / parts. */
typedef struct sharing {
    int64_t first, blocks, parts, step, rest; /* step and rest are blocks / parts */
} sharing;

static sharing share_blocks(const fa_planner *w, const row_block *b)
{
    const int32_t parts = (int32_t)b->parts;
    const int64_t step = divide(b->blocks, parts);
    return (sharing){divide(b->begin, w->block_kv), b->blocks, parts, step, b->blocks - step * parts};
}

static int64_t part_begin(const sharing *s, int64_t part)
{
    return s->first + s->step * part + (s->rest > 0 ? s->rest * part / s->parts : 0);
}

static fa_walked walk_part(const fa_planner *w, const row_block *b, const block_view *view, int64_t from,
                           int64_t to)
{
    const int64_t keys = to * w->block_kv;
    return walk_blocks(w, view, from, to, keys - FA_MIN(keys, b->end));
}

static void add_rank(fa_planner *w, double cycles, int64_t pieces)
{
    if (pieces > 0)
        w->order[w->ranks++] = (fa_rank){cycles, (int32_t)pieces, 0};
}

static void rank_parts(fa_planner *w, const row_block *b, const block_view *view, const sharing *s,
                       int64_t begin, int64_t end)
{
    for (int64_t part = begin, from = begin < end ? part_begin(s, begin) : 0, to; part < end;
         part++, from = to) {
        to = part_begin(s, part + 1);
        add_rank(w, walk_part(w, b, view, from, to).cycles + w->end_cycles, 1);
    }
}

/* How long the parts of a row block are, and how many are so long. */
static void rank_row_block(fa_planner *w, const row_block *b)
{
    const block_view view = view_blocks(w, &b->view);
    const sharing s = share_blocks(w, b);
    /* Parts [low, high) meet whole blocks that every row sees: they differ by a block of keys, and in nothing else. */
    const int64_t skipped = FA_MAX(view.all_begin - s.first, 0);
    const int64_t seen = FA_MIN(view.all_end, divide(b->end, w->block_kv)) - s.first;
    int64_t low = 0, high = s.parts;
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

/* What part number `part` of a row block meets: [begin, end). */
static void add_piece(fa_planner *w, const row_block *b, const fa_walked *walk, int64_t part, int64_t begin,
                      int64_t end, fa_schedule *out)
{
    const int64_t heads = w->heads;
    const int32_t rows = b->row_end - b->row_begin;
    const double cycles = walk->cycles + w->end_cycles;
    w->order[w->ranks] = (fa_rank){cycles, 1, (int32_t)w->ranks};
    w->piece[w->ranks++] = (fa_piece){
        .cycles = cycles,
        .part_row = b->parts > 1 ? out->partial_rows + part * rows : -1,
        .sequence = b->sequence,
        .row_begin = b->row_begin,
        .row_end = b->row_end,
        .key_begin = (int32_t)begin,
        .key_end = (int32_t)end,
        .parts = (int32_t)b->parts,
        .head = b->head,
    };
    out->blocks_full += walk->full * heads;
    out->blocks_partial += walk->partial * heads;
    out->blocks_skipped -= (walk->full + walk->partial) * heads;
    out->key_reads += (double)(walk->keys * heads);
}

static void fill_row_block(fa_planner *w, const row_block *b, fa_schedule *out)
{
    const block_view view = view_blocks(w, &b->view);
    const sharing s = share_blocks(w, b);
    int64_t from = s.first;
    for (int64_t part = 0, to; part < s.parts; part++, from = to) {
        to = part_begin(&s, part + 1);
        const fa_walked walk = walk_part(w, b, &view, from, to);
        add_piece(w, b, &walk, part, from * w->block_kv, FA_MIN(to * w->block_kv, b->end), out);
    }
}

/* Of a row block with lists: parts have as many of its blocks each. */
static void take_listed(fa_planner *w, const row_block *b, fa_pass what, fa_schedule *out)
{
    const fa_listed of = listed_of(w, b);
    const int end = b->blocks > 0 ? (int)b->end : 0;
    int key = FA_MIN(first_listed(w, b, &of), end);
    for (int64_t part = 0; part < b->parts; part++) {
        const int64_t blocks = b->blocks * (part + 1) / b->parts - b->blocks * part / b->parts;
        const int begin = key;
        fa_walked walk = b->listed;
        if (b->parts > 1)
            walk = walk_listed(w, &of, blocks, &key);
        else
            key = end;
        if (what == FA_PASS_RANK)
            add_rank(w, walk.cycles + w->end_cycles, 1);
        else
            add_piece(w, b, &walk, part, begin, key, out);
    }
}

static void take_row_block(fa_planner *w, const row_block *b, fa_pass what, fa_schedule *out)
{
    const int32_t rows = b->row_end - b->row_begin;
    if (what == FA_PASS_COUNT)
        return;
    fa_planner_take_rows(w, rows);
    if (what == FA_PASS_FILL) {
        out->blocks_skipped += divide_up(b->view.len_kv, w->block_kv) * w->heads;
        out->rows_done += (int64_t)rows * w->heads * b->parts;
        out->splits = FA_MAX(out->splits, (int32_t)b->parts);
    }
    if (fa_lists_planned(w->problem))
        take_listed(w, b, what, out);
    else if (what == FA_PASS_RANK)
        rank_row_block(w, b);
    else
        fill_row_block(w, b, out);
}

int64_t fa_planner_most_items(const fa_planner *w)
{
    return w->capacity ? w->capacity->items : FA_MAX_ITEMS;
}

int64_t fa_planner_walked(const fa_planner *w)
{
    const fa_problem *p = w->problem;
    int64_t blocks = 0;
    for (int64_t n = 0; fa_lists_planned(p) && n < p->sequences; n++)
        blocks += fa_ceil_div((int64_t)p->sequence[n].len_q * p->group, w->block_q);
    return FA_MIN(blocks * (p->heads_kv / FA_MAX(w->heads, 1)),
                  fa_planner_most_items(w) / FA_MAX(w->heads, 1) + 1);
}

/* The row blocks of a sequence, of KV heads from `head` on that are alike. */
static void walk_rows(fa_planner *w, int64_t n, int32_t head, fa_pass what, fa_schedule *out)
{
    const int64_t rows = (int64_t)w->problem->sequence[n].len_q * w->problem->group;
    for (int64_t row = 0; row < rows && out->items <= fa_planner_most_items(w); row += w->block_q) {
        const row_block b = make_row_block(w, n, head, row, FA_MIN(row + w->block_q, rows));
        take_row_block(w, &b, what, out);
        w->row_block++;
        out->items += w->heads * b.parts;
        out->merges += b.parts > 1 ? w->heads : 0;
        out->partial_rows += b.parts > 1 ? w->heads * b.parts * (b.row_end - b.row_begin) : 0;
    }
}

void fa_planner_walk(fa_planner *w, fa_pass what, fa_schedule *out)
{
    const int32_t heads = w->problem->heads_kv;
    *out = (fa_schedule){.splits = 1};
    w->row_block = 0;
    if (what != FA_PASS_COUNT)
        w->ranks = 0;
    for (int64_t n = 0; n < w->problem->sequences && heads > 0; n++) {
        if (what == FA_PASS_COUNT && w->splits == 0 &&
            w->chunk == INT32_MAX) { /* nothing is split: no need to look */
            const int64_t rows = (int64_t)w->problem->sequence[n].len_q * w->problem->group;
            out->items += fa_ceil_div(rows, w->block_q) * heads;
            continue;
        }
        for (int32_t head = 0; head < heads; head += w->heads)
            walk_rows(w, n, head, what, out);
    }
}
