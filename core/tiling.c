/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tiling.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/portable/lang.h"
#include "core/size.h"

/* The part of the shorter of arithmetic and fetching that the longer never hides. */
#define EXPOSED 0.1

/* What a score costs more where the scores of a block do not fit into the nearest memory. */
#define BEYOND_NEAR 1.4

#define MAX_BLOCK \
    ((int64_t)1 << 20) /* rows or keys of a block: what fa_tuning can force, and far beyond use */

#define MAX_UNITS (1 << 14) /* blocks that are worked on at a time: the largest GPUs have a third of that */

/* `value` within [low, high]; `low` where it is no number. */
static double within(double value, double low, double high)
{
    return value > low ? fmin(value, high) : low;
}

fa_limits fa_limits_sane(const fa_limits *limits, int32_t resident)
{
    const double cycles = 1e12; /* more than an hour */
    const double blocks = resident > 1 ? resident : 1;
    fa_limits sane = *limits;
    sane.units = (uint32_t)within(limits->units * blocks, 1, MAX_UNITS);
    sane.onchip_bytes = limits->onchip_bytes < INT64_MAX ? limits->onchip_bytes : INT64_MAX;
    sane.clock_hz = within(limits->clock_hz, 1e3, 1e15) / blocks;
    sane.bytes_per_second = within(limits->bytes_per_second, 1e3, 1e18);
    sane.sync_cycles = within(limits->sync_cycles, 0, cycles) / blocks;
    sane.item_cycles = within(limits->item_cycles, 0, cycles) / blocks;
    sane.launch_cycles = within(limits->launch_cycles, 0, cycles) / blocks;
    sane.run_cycles = within(limits->run_cycles, 0, cycles) / blocks;
    return sane;
}

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t at_least(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

fa_tile_problem fa_tiling_class(const fa_limits *limits, const fa_tile_problem *problem, bool one_position)
{
    const int64_t few_rows = 32, many_rows = 1024, few_keys = 16, some_keys = 64, many_keys = 1024;
    fa_tile_problem of_all = *problem;
    if (!limits->compiled)
        return of_all;
    of_all.density = 1;
    of_all.instances =
        2 * (int64_t)limits->units; /* so that blocks which share a unit fill all units as well */
    of_all.keys = one_position || problem->keys > some_keys ? many_keys
                  : problem->keys > few_keys                ? some_keys
                                                            : few_keys;
    of_all.rows = problem->rows > few_rows ? many_rows : 1;
    while (of_all.rows < problem->rows && of_all.rows < few_rows)
        of_all.rows *= 2;
    if (one_position)
        of_all.rows = problem->group;
    return of_all;
}

/* Dims that are computed and staged: whole tiles. */
static int64_t padded_qk(const fa_tile_traits *t, const fa_tile_problem *p)
{
    return at_least(fa_round_up(p->dim_qk, t->tile.d), t->least_dim_qk);
}

static int64_t padded_v(const fa_tile_traits *t, const fa_tile_problem *p)
{
    return at_least(fa_round_up(p->dim_v, t->tile.d), t->least_dim_v);
}

/* Of the scores that a kernel has in hand at a time. */
static int64_t score_bytes(const fa_tile_traits *t, int64_t block_q, int64_t block_kv)
{
    return (t->score_rows ? at_most(t->score_rows, block_q) : block_q) * block_kv * t->score_bytes;
}

uint64_t fa_tiling_onchip(const fa_tile_traits *t, const fa_tile_problem *p, int64_t block_q,
                          int64_t block_kv)
{
    int64_t dqk = padded_qk(t, p), dv = padded_v(t, p);
    int64_t bytes = t->fixed_bytes;
    if (t->slice) {
        int64_t slice = t->slice * (block_q + at_least(block_kv, dv));
        bytes += t->buffers * at_least(slice, t->exchange * block_q) * t->element_bytes;
    }
    if (t->stage & FA_STAGE_Q)
        bytes += block_q * dqk * t->element_bytes;
    if (t->stage & FA_STAGE_K)
        bytes += block_kv * dqk * t->element_bytes * t->buffers;
    if (t->stage & FA_STAGE_V)
        bytes += block_kv * dv * t->element_bytes * t->buffers;
    if (t->stage & FA_STAGE_S)
        bytes += score_bytes(t, block_q, block_kv);
    if (t->stage & FA_STAGE_O)
        bytes += block_q * dv * (int64_t)sizeof(float);
    return (uint64_t)bytes;
}

uint64_t fa_tiling_accum(const fa_limits *limits, const fa_tile_problem *p, int64_t block_q, int64_t block_kv)
{
    return limits->accum_bytes ? (uint64_t)(block_q * (p->dim_v + block_kv)) * sizeof(float) : 0;
}

static bool fits(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p, int64_t block_q,
                 int64_t block_kv)
{
    return fa_tiling_onchip(t, p, block_q, block_kv) <= limits->onchip_bytes &&
           fa_tiling_accum(limits, p, block_q, block_kv) <= limits->accum_bytes &&
           (t->max_block_q == 0 || block_q <= t->max_block_q) &&
           (t->max_block_kv == 0 || block_kv <= t->max_block_kv);
}

double fa_tiling_block_cycles(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                              int64_t rows, int64_t keys)
{
    double q = (double)fa_round_up(rows, t->tile.q), kv = (double)fa_round_up(keys, t->tile.kv);
    double dqk = (double)padded_qk(t, p), dv = (double)padded_v(t, p);
    double products = 2 * q * kv * (dqk + dv) / t->flops_per_cycle;
    double softmax = q * kv / t->scores_per_cycle;
    if (limits->near_bytes && score_bytes(t, (int64_t)q, (int64_t)kv) > (int64_t)limits->near_bytes)
        softmax *= BEYOND_NEAR;
    double rescale = q * dv / (t->rescales_per_cycle > 0 ? t->rescales_per_cycle : t->flops_per_cycle / 2);
    double fetch = (double)keys * (p->dim_qk + (t->v_in_k ? 0 : p->dim_v)) * p->far_bytes * limits->units *
                   limits->clock_hz / limits->bytes_per_second;
    double compute = products + softmax + rescale;
    double exposed = p->far_bytes == t->in_place_bytes ? EXPOSED : fmax(t->exposed, EXPOSED);
    return fmax(compute, fetch) + exposed * fmin(compute, fetch) + limits->sync_cycles;
}

/* How evenly `items` equal pieces fill the units; long rows can be split, at a price. */
static double evenness(double items, double units)
{
    if (items <= 0)
        return 1;
    double even = items / (ceil(items / units) * units);
    return fmax(even, 0.85);
}

static double modelled_seconds(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                               int64_t block_q, int64_t block_kv)
{
    double row_blocks = (double)fa_ceil_div(p->rows, block_q) * (double)p->instances;
    double key_blocks = (double)p->keys / (double)block_kv;
    /* A block that the mask cuts is computed whole, or down to its tiles. The cut enters it half a step of keys
     * early on the average, and the last position of a step sees further than its middle one, by which density
     * counts. */
    double rows = (double)(t->clips ? t->tile.q : at_most(block_q, p->rows));
    double positions = rows / (p->group > 0 ? p->group : 1);
    double cut = 0.5 * ((double)(t->clips ? t->tile.kv : block_kv) + positions) / (double)block_kv;
    double visited = p->density < 1 ? fmin(p->density * key_blocks + cut, key_blocks) : key_blocks;
    double whole =
        fa_tiling_block_cycles(limits, t, p, at_most(block_q, p->rows), at_most(block_kv, p->keys));
    /* Taking a block of rows up and writing it out: whole tiles, filled or not. */
    double fixed = limits->item_cycles + 2.0 * (double)fa_round_up(at_most(block_q, p->rows), t->tile.q) *
                                             (p->dim_qk + p->dim_v) / t->scores_per_cycle;
    double cycles = row_blocks * ((t->clips ? visited : fmax(visited, 1)) * whole + fixed);
    return cycles / (limits->clock_hz * limits->units * evenness(row_blocks, limits->units)) +
           (limits->launch_cycles + limits->run_cycles) / limits->clock_hz;
}

/* Block sizes from low to high in doubling steps: neighbours differ less than the model's own error. */
typedef struct size_range {
    int64_t low, high;
} size_range;

static size_range range_of(int64_t forced, int64_t tile, int64_t length, int64_t max_block)
{
    if (forced)
        return (size_range){fa_round_up(forced, tile), fa_round_up(forced, tile)};
    int64_t limit = max_block > 0 ? at_most(max_block, MAX_BLOCK) : MAX_BLOCK;
    int64_t high = fa_round_up(length > 0 ? at_most(length, limit) : 1, tile);
    return (size_range){tile, high > limit && high > tile ? high - tile : high};
}

/*
 * Of the sizes that fit and take at most `enough` seconds the one that needs least on-chip memory; where there
 * is none, the fastest.
 */
static bool search(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p, size_range q,
                   size_range kv, double enough, fa_tiling *best)
{
    bool found = false;
    uint64_t best_bytes = 0;
    for (int64_t bq = q.low; bq < 2 * q.high; bq *= 2) {
        int64_t block_q = at_most(bq, q.high);
        for (int64_t bkv = kv.low; bkv < 2 * kv.high; bkv *= 2) {
            int64_t block_kv = at_most(bkv, kv.high);
            if (!fits(limits, t, p, block_q, block_kv))
                break;
            double seconds = modelled_seconds(limits, t, p, block_q, block_kv);
            uint64_t bytes = fa_tiling_onchip(t, p, block_q, block_kv);
            bool better =
                seconds <= enough ? best->seconds > enough || bytes < best_bytes : seconds < best->seconds;
            if (!found || better) {
                best->block_q = (int32_t)block_q;
                best->block_kv = (int32_t)block_kv;
                best->seconds = seconds;
                best_bytes = bytes;
            }
            found = true;
        }
    }
    return found;
}

static bool search_ranges(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                          int32_t forced_q, int32_t forced_kv, double enough, fa_tiling *tiling)
{
    const char *source = forced_q || forced_kv ? "tuning" : "model";
    size_range q = range_of(forced_q, t->tile.q, p->rows, t->max_block_q);
    size_range kv = range_of(forced_kv, t->tile.kv, p->keys, t->max_block_kv);
    *tiling = (fa_tiling){(int32_t)q.low, (int32_t)kv.low, t->tile, INFINITY, source};
    if (search(limits, t, p, q, kv, enough, tiling))
        return true;
    if (!limits->onchip_soft || (!forced_q && !forced_kv))
        return false;
    /* Asked for beyond the cache: so be it, with the least of what was not asked for. */
    fa_limits more = *limits;
    more.onchip_bytes = UINT64_MAX;
    return search(&more, t, p, q, kv, INFINITY, tiling);
}

bool fa_tiling_fastest(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                       int32_t forced_q, int32_t forced_kv, fa_tiling *tiling)
{
    return search_ranges(limits, t, p, forced_q, forced_kv, -1, tiling);
}

bool fa_tiling_choose(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                      int32_t forced_q, int32_t forced_kv, fa_tiling *tiling)
{
    if (!fa_tiling_fastest(limits, t, p, forced_q, forced_kv, tiling))
        return false;
    /* A bigger block must pay: it costs memory and balance that the model sees only in part. Taking the
     * smallest of the nearly fastest also means that more memory never makes the choice slower. */
    return search_ranges(limits, t, p, forced_q, forced_kv, tiling->seconds * 1.005, tiling);
}

void fa_tiling_cover(const fa_limits *limits, const fa_tile_traits *t, int64_t rows, fa_tiling *tiling)
{
    while (limits->compiled && tiling->block_q / 2 >= at_least(rows, 1) &&
           tiling->block_q / 2 % t->tile.q == 0)
        tiling->block_q /= 2;
}

bool fa_tiling_next_largest(const fa_limits *limits, const fa_tile_traits *t, const fa_tile_problem *p,
                            int32_t forced_q, int32_t forced_kv, fa_tiling *tiling)
{
    size_range q = range_of(forced_q, t->tile.q, p->rows, t->max_block_q);
    size_range kv = range_of(forced_kv, t->tile.kv, p->keys, t->max_block_kv);
    bool first = tiling->block_q == 0;
    int64_t block_q = first ? q.low : tiling->block_q + t->tile.q;
    bool fit = fits(limits, t, p, block_q, kv.low);
    bool forced_beyond = first && limits->onchip_soft && (forced_q || forced_kv);
    if (block_q > q.high || (!fit && !forced_beyond))
        return false;
    /* Of whole tiles of keys, `low` fit (or are forced) and `beyond` do not. */
    int64_t low = kv.low / t->tile.kv, beyond = fit ? kv.high / t->tile.kv + 1 : low + 1;
    while (beyond - low > 1) {
        int64_t middle = low + (beyond - low) / 2;
        if (fits(limits, t, p, block_q, middle * t->tile.kv))
            low = middle;
        else
            beyond = middle;
    }
    tiling->tile = t->tile;
    tiling->block_q = (int32_t)block_q;
    tiling->block_kv = (int32_t)(low * t->tile.kv);
    return true;
}

/* Half of the turns are left for what does not grow with the keys: rows, dims, blocks that the mask skips. */
int32_t fa_tiling_item_keys(const fa_limits *limits, const fa_tile_traits *traits)
{
    return limits->loop_turns && traits->key_turns ? FA_MAX(limits->loop_turns / 2 / traits->key_turns, 1)
                                                   : 0;
}

int32_t fa_tiling_parts(const fa_limits *limits)
{
    enum { PART_TURNS = 8 }; /* of all loops of a merge, for one part and up to FA_MAX_HEAD_DIM dims */
    return limits->loop_turns ? FA_MAX(limits->loop_turns / PART_TURNS, 1) : INT32_MAX;
}
