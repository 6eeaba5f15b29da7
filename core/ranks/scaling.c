/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ranks/scaling.h"

#include "core/portable/lang.h"
#include "core/ranks/chunks.h"
#include "core/size.h"

enum { MOST_CHUNKS = 64 };

/* How often the number of ranks is doubled until there are so many: messages behind each other of a tree. */
static double depth(int32_t ranks)
{
    double n = 0;
    for (int32_t reached = 1; reached < ranks; reached *= 2)
        n++;
    return n;
}

/* Of each rank's bytes to all: of a tree's latency, and all bytes but a rank's own through each link. */
static double gather_seconds(const fa_scaling_problem *p, int32_t ranks, double bytes, bool latency)
{
    return latency ? depth(ranks) * p->link_latency : (double)(ranks - 1) * bytes / p->link_bandwidth;
}

/* The output of so many rows from so many heads: arithmetic, or reading W. */
static double projection_seconds(const fa_scaling_problem *p, double rows, double heads)
{
    const double inner = heads * p->dim_v, width = (double)p->width;
    return FA_MAX(2 * rows * inner * width / p->flops, inner * width * p->y_size / p->bandwidth);
}

static double rows_of(const fa_scaling_problem *p)
{
    return (double)p->batch * (double)p->rows;
}

static double attend(const fa_scaling_problem *p, int64_t heads_q, int64_t heads_kv, int64_t rows,
                     int64_t keys, bool causal)
{
    const fa_scaling_part part = {heads_q, heads_kv, rows, keys, causal};
    return rows > 0 && keys > 0 ? p->attention(p->user, &part) : 0;
}

/* The states of rows, merged from so many parts of each. */
static double merge_seconds(const fa_scaling_problem *p, double rows, double parts)
{
    return rows * (double)p->heads_q * (p->dim_v + 1) * sizeof(float) * (parts + 1) / p->bandwidth;
}

static fa_scaling_limit larger(fa_scaling_limit a, double a_seconds, fa_scaling_limit b, double b_seconds)
{
    return a_seconds >= b_seconds ? a : b;
}

static fa_scaling_point heads_at(const fa_scaling_problem *p, int32_t ranks)
{
    const int64_t heads_q = fa_ceil_div(p->heads_q, ranks), heads_kv = fa_ceil_div(p->heads_kv, ranks);
    const double bytes = rows_of(p) * (double)p->width * p->y_size, n = ranks,
                 moved = ranks > 1 ? 2 * (n - 1) / n * bytes : 0;
    fa_scaling_point point = {.ranks = ranks, .possible = ranks <= p->heads_q, .chunks = 1};
    if (!point.possible) {
        point.limit = FA_SCALING_PARTS;
        return point;
    }
    const double attention = attend(p, heads_q, heads_kv, p->rows, p->keys, p->causal);
    point.compute = attention + projection_seconds(p, rows_of(p), (double)heads_q);
    point.seconds = point.compute;
    if (ranks == 1)
        return point;
    /* Reduced and handed out again: twice the latency of a tree. */
    const fa_link_model model = {
        .compute_seconds = point.compute,
        .bytes = moved,
        .latency = 2 * depth(ranks) * p->link_latency,
        .bandwidth = p->link_bandwidth,
        .chunk_seconds = p->chunk_seconds,
        .overlaps = true,
    };
    point.chunks = fa_chunks_choose(&model, FA_MAX(1, FA_MIN(MOST_CHUNKS, p->batch * p->rows)));
    point.seconds = fa_chunks_seconds(&model, point.chunks);
    point.link = (double)point.chunks * model.latency + moved / p->link_bandwidth;
    const double latency = (double)point.chunks * model.latency, wire = moved / p->link_bandwidth,
                 one = attend(p, p->heads_q, p->heads_kv, p->rows, p->keys, p->causal);
    /* More query heads than KV heads on a rank: the keys of one are read by several. */
    const double stuck = FA_MAX(0, attention - one / n) + (double)point.chunks * p->chunk_seconds;
    point.limit = point.link >= stuck ? larger(FA_SCALING_LATENCY, latency, FA_SCALING_BANDWIDTH, wire)
                                      : FA_SCALING_FIXED;
    return point;
}

static fa_scaling_point context_at(const fa_scaling_problem *p, int32_t ranks)
{
    const int64_t keys = fa_ceil_div(p->keys, ranks);
    const double state = rows_of(p) * (double)p->heads_q * (p->dim_v + 1) * sizeof(float),
                 whole = projection_seconds(p, rows_of(p), (double)p->heads_q) +
                         (ranks > 1 ? merge_seconds(p, rows_of(p), ranks) : 0);
    fa_scaling_point point = {.ranks = ranks, .possible = ranks <= p->keys, .chunks = 1};
    if (!point.possible) {
        point.limit = FA_SCALING_PARTS;
        return point;
    }
    /* The rows' own keys are on one rank, which computes what a causal mask leaves: others compute as much or more. */
    const double attention = attend(p, p->heads_q, p->heads_kv, p->rows, keys, ranks == 1 && p->causal);
    point.compute = attention + whole;
    const double latency = ranks > 1 ? gather_seconds(p, ranks, state, true) : 0,
                 wire = ranks > 1 ? gather_seconds(p, ranks, state, false) : 0,
                 one = attend(p, p->heads_q, p->heads_kv, p->rows, p->keys, p->causal),
                 fixed = FA_MAX(0, attention - one / ranks) + (ranks > 1 ? p->chunk_seconds : 0);
    point.link = latency + wire;
    point.seconds = point.compute + point.link + (ranks > 1 ? p->chunk_seconds : 0);
    point.limit = larger(FA_SCALING_LATENCY, latency, FA_SCALING_BANDWIDTH, wire);
    if (point.link < FA_MAX(fixed, whole))
        point.limit = larger(FA_SCALING_FIXED, fixed, FA_SCALING_WHOLE, whole);
    return point;
}

static fa_scaling_point ring_at(const fa_scaling_problem *p, int32_t ranks)
{
    const int64_t chunk = fa_ceil_div(p->rows, 2 * (int64_t)ranks), own = FA_MIN(2 * chunk, p->rows);
    const double rows = (double)p->batch * (double)own,
                 block = rows * (double)p->heads_kv * (p->dim_qk + p->dim_v) * p->kv_size,
                 project = projection_seconds(p, rows, (double)p->heads_q);
    fa_scaling_point point = {
        .ranks = ranks, .possible = 2 * (int64_t)ranks <= p->rows || ranks == 1, .chunks = ranks};
    if (!point.possible) {
        point.limit = FA_SCALING_PARTS;
        return point;
    }
    const double first = attend(p, p->heads_q, p->heads_kv, own, own, p->causal);
    point.compute = first + project;
    point.seconds = point.compute;
    if (ranks == 1)
        return point;
    /* Of another rank's block: all rows with its first chunk, or half of the rows with both. A step is a plan for each chunk
     * of rows, of which a causal mask may leave one. */
    const int64_t halves = p->causal ? 1 : 2;
    const double half = attend(p, p->heads_q, p->heads_kv, chunk, 2 * chunk, false),
                 step = (double)halves * half + merge_seconds(p, rows, 2) + p->chunk_seconds,
                 wire = block / p->link_bandwidth, shift = p->link_latency + wire, steps = ranks - 1;
    point.compute += steps * step;
    point.link = steps * shift;
    point.seconds = project + FA_MAX(first, shift) + (steps - 1) * FA_MAX(step, shift) + step;
    const double one = attend(p, p->heads_q, p->heads_kv, p->rows, p->rows, p->causal),
                 fixed = FA_MAX(0, point.compute - project - one / ranks);
    if (shift > step)
        point.limit = larger(FA_SCALING_LATENCY, p->link_latency, FA_SCALING_BANDWIDTH, wire);
    else
        point.limit = fixed > 0 ? FA_SCALING_FIXED : FA_SCALING_NONE;
    return point;
}

fa_scaling_point fa_scaling_at(const fa_scaling_problem *p, fa_scaling_scheme scheme, int32_t ranks)
{
    return scheme == FA_SCALING_HEADS     ? heads_at(p, ranks)
           : scheme == FA_SCALING_CONTEXT ? context_at(p, ranks)
                                          : ring_at(p, ranks);
}

fa_scaling_point fa_scaling_end(const fa_scaling_problem *p, fa_scaling_scheme scheme, int32_t most,
                                fa_scaling_point *beyond)
{
    const double gain = 1.25;
    fa_scaling_point best = fa_scaling_at(p, scheme, 1);
    while (best.ranks <= most / 2) {
        *beyond = fa_scaling_at(p, scheme, 2 * best.ranks);
        if (!beyond->possible || best.seconds < gain * beyond->seconds)
            return best;
        best = *beyond;
    }
    *beyond = best;
    return best;
}
