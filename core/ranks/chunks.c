/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ranks/chunks.h"

#include "core/portable/lang.h"

double fa_chunks_cost(bool host, bool enqueued)
{
    return enqueued ? 30e-6 : host ? 20e-6 : 150e-6;
}

double fa_chunks_seconds(const fa_link_model *m, int64_t chunks)
{
    const double n = (double)chunks, compute = m->compute_seconds / n + m->chunk_seconds,
                 reduce = m->latency + m->bytes / n / m->bandwidth;
    if (!m->overlaps)
        return n * (compute + reduce);
    if (m->enqueued && chunks > 1) /* the last two are reduced when all is computed */
        return 2 * compute + (n - 2) * FA_MAX(compute, reduce) + 2 * reduce;
    return compute + (n - 1) * FA_MAX(compute, reduce) + reduce;
}

int64_t fa_chunks_choose(const fa_link_model *m, int64_t most)
{
    const double about = 0.99;
    int64_t best = 1;
    double seconds = fa_chunks_seconds(m, 1);
    for (int64_t n = 2; n <= most; n += m->enqueued ? n : 1) {
        const double candidate = fa_chunks_seconds(m, n);
        if (candidate < about * seconds) {
            best = n;
            seconds = candidate;
        }
    }
    return best;
}

int64_t fa_chunks_filling(int64_t blocks, uint32_t units)
{
    const double about_two = 1.75, chunks = (double)blocks / (about_two * FA_MAX(1, units));
    return chunks < 1 ? 1 : (int64_t)chunks;
}

/* The sequence that token t lies in, or the last that begins before it; -1: none. */
static int64_t find(const fa_token_range *sequence, int64_t sequences, int64_t t)
{
    int64_t low = 0, high = sequences;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (sequence[middle].first <= t)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

/* Where to cut instead of at t. Between sequences any place will do. */
static int64_t snap(int64_t t, int64_t unit, const fa_token_range *sequence, int64_t sequences)
{
    const int64_t n = find(sequence, sequences, t);
    if (n < 0 || t - sequence[n].first >= sequence[n].count)
        return t;
    const int64_t units = (t - sequence[n].first + unit / 2) / unit;
    return sequence[n].first + FA_MIN(units * unit, sequence[n].count);
}

int64_t fa_chunks_cut(int64_t tokens, int64_t chunks, int64_t unit, const fa_token_range *sequence,
                      int64_t sequences, int64_t *cut)
{
    int64_t n = 0;
    cut[0] = 0;
    for (int64_t c = 1; c < chunks; c++) {
        const int64_t ideal = tokens / chunks * c + tokens % chunks * c / chunks,
                      at = snap(ideal, unit, sequence, sequences);
        if (at > cut[n] && at < tokens)
            cut[++n] = at;
    }
    cut[++n] = tokens;
    return n;
}
