/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/sparse/mask.h"
#include "core/structs.h"

enum { BLOCK = 128 };

static fa_status check(fa_sparse_distance_desc *d)
{
    FA_TRY(fa_shape_check(&d->shape, BLOCK));
    d->heads = d->heads ? d->heads : 1;
    FA_TRY(fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("distances", d->distances, 0, FA_MAX_LENGTH));
    if ((d->probability != NULL) != (d->distances > 0))
        return fa_fail(FA_INVALID, "distances is %lld, expected %s", (long long)d->distances,
                       d->probability ? "at least 1 with probability" : "0 without probability");
    for (int64_t n = 1; n < d->distances; n++) {
        if (!(d->probability[n] >= 0 && d->probability[n] <= 1))
            return fa_fail(FA_INVALID, "probability[%lld] is %g, expected 0 to 1", (long long)n,
                           d->probability[n]);
    }
    return FA_OK;
}

static double probability(const fa_list_maker *m, const fa_sparse_distance_desc *d, int64_t distance)
{
    if (!d->probability)
        return 1 - (double)distance / (double)m->key_blocks;
    return distance == 0 ? 1 : d->distances == 1 ? 0 : d->probability[FA_MIN(distance, d->distances - 1)];
}

static void fill(fa_list_maker *m, const fa_sparse_distance_desc *d, int64_t head, int64_t row_block)
{
    const int64_t end = fa_maker_visible(m, row_block);
    const int64_t last = FA_MAX(fa_maker_last(m, row_block), 0);
    const int64_t own = FA_MIN(last / m->shape.block_keys, m->key_blocks - 1);
    const uint64_t list = (uint64_t)(head * m->row_blocks + row_block);
    for (int64_t block = 0; block < end; block++) {
        /* 53 bits are a number below 1, so that 1 is always and 0 never. */
        const uint64_t bits = fa_sparse_random(d->seed, list, (uint64_t)block, 0) >> 11;
        if ((double)bits * 0x1p-53 < probability(m, d, block < own ? own - block : block - own))
            fa_maker_add(m, block, block + 1);
    }
}

fa_status fa_sparse_distance(fa_context *context, const fa_sparse_distance_desc *desc, fa_block_mask **mask)
{
    fa_sparse_distance_desc d;
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_DISTANCE_DESC_0_1, desc, "fa_sparse_distance_desc"));
    FA_TRY(check(&d));
    fa_status status = fa_maker_begin(&m, context, &d.shape, 1, d.heads);
    for (int64_t n = 0; status == FA_OK && n < m.mask->offsets - 1; n++) {
        fill(&m, &d, n / m.row_blocks, n % m.row_blocks);
        status = fa_maker_next(&m);
    }
    return fa_maker_finish(&m, status, mask);
}
