/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/structs.h"

enum { SINKS = 1, LOCAL = 3 };

static fa_status check_heads(const fa_sparse_streaming_desc *d)
{
    for (int64_t h = 0; h < d->heads; h++) {
        if (d->head_mask_type[h] < -1 || d->head_mask_type[h] > d->masks)
            return fa_fail(FA_INVALID, "head_mask_type[%lld] is %d, expected -1 to %lld", (long long)h,
                           d->head_mask_type[h], (long long)d->masks);
    }
    for (int64_t n = 0; d->streaming_info && n < 2 * d->heads; n++) {
        if (d->streaming_info[n] < 0)
            return fa_fail(FA_INVALID, "streaming_info[%lld] is %d, expected at least 0", (long long)n,
                           d->streaming_info[n]);
    }
    return FA_OK;
}

static fa_status check(fa_sparse_streaming_desc *d)
{
    int64_t bytes;
    FA_TRY(fa_shape_check(&d->shape, 128));
    d->sequences = d->sequences ? d->sequences : 1;
    FA_TRY(fa_check_limit("sequences", d->sequences, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("masks", d->masks, 0, FA_MAX_LENGTH));
    if (!d->head_mask_type)
        return fa_fail(FA_INVALID, "head_mask_type is NULL");
    if (!fa_mul_i64(d->sequences, d->masks, &bytes) ||
        !fa_mul_i64(bytes, fa_ceil_div(d->shape.rows, d->shape.block_rows), &bytes) ||
        !fa_mul_i64(bytes, fa_ceil_div(d->shape.keys, d->shape.block_keys), &bytes))
        return fa_fail(FA_OUT_OF_MEMORY, "sequences is %lld and masks is %lld, more than memory could hold",
                       (long long)d->sequences, (long long)d->masks);
    if (d->masks > 0 && !d->base_blockmask)
        return fa_fail(FA_INVALID, "base_blockmask is NULL, expected %lld masks", (long long)d->masks);
    return check_heads(d);
}

static void fill(fa_list_maker *m, const fa_sparse_streaming_desc *d, int64_t n, int64_t head,
                 int64_t row_block)
{
    const int32_t type = d->head_mask_type[head], *info = d->streaming_info;
    const int64_t end = fa_maker_visible(m, row_block);
    if (type == 0)
        fa_maker_add(m, 0, end);
    if (type < 0) {
        fa_maker_add(m, 0, FA_MIN(info ? info[2 * head] : SINKS, end));
        fa_maker_add(m, end - (info ? info[2 * head + 1] : LOCAL), end);
    }
    if (type > 0) {
        const uint8_t *base =
            d->base_blockmask + ((n * d->masks + type - 1) * m->row_blocks + row_block) * m->key_blocks;
        for (int64_t block = 0; block < end; block++) {
            if (base[block])
                fa_maker_add(m, block, block + 1);
        }
    }
}

fa_status fa_sparse_streaming(fa_context *context, const fa_sparse_streaming_desc *desc, fa_block_mask **mask)
{
    fa_sparse_streaming_desc d;
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_STREAMING_DESC_0_1, desc, "fa_sparse_streaming_desc"));
    FA_TRY(check(&d));
    fa_status status = fa_maker_begin(&m, context, &d.shape, d.sequences, d.heads);
    for (int64_t n = 0; status == FA_OK && n < m.mask->offsets - 1; n++) {
        fill(&m, &d, n / m.row_blocks / d.heads, n / m.row_blocks % d.heads, n % m.row_blocks);
        status = fa_maker_next(&m);
    }
    return fa_maker_finish(&m, status, mask);
}
