/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/sparse/mask.h"
#include "core/structs.h"

static fa_status check(fa_sparse_window_desc *d)
{
    FA_TRY(fa_shape_check(&d->shape, 64));
    if (!d->window_left && !d->window_right && !d->global_first && !d->global_last && !d->random) {
        d->window_left = d->window_right = d->shape.block_keys;
        d->global_first = d->global_last = 1;
        d->random = 3;
    }
    d->heads = d->heads ? d->heads : 1;
    FA_TRY(fa_check_limit("window_left", d->window_left, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("window_right", d->window_right, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("global_first", d->global_first, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("global_last", d->global_last, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("random", d->random, 0, FA_MAX_LENGTH));
    return fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH);
}

/* Whether a row of positions [first, last] stands in a global block. */
static bool is_global(const fa_list_maker *m, const fa_sparse_window_desc *d, int64_t first, int64_t last)
{
    const int64_t size = m->shape.block_keys, keys = m->shape.keys;
    const int64_t before = FA_MIN(d->global_first * size, keys);
    const int64_t from = FA_MAX(m->key_blocks - d->global_last, 0) * size;
    return (last >= 0 && FA_MAX(first, 0) < before) || (d->global_last > 0 && last >= from && first < keys);
}

/* Draws blocks of those that the list lacks: the first of them in a shuffled order. */
static void draw(fa_list_maker *m, const fa_sparse_window_desc *d, int64_t head, int64_t row_block,
                 int32_t *free)
{
    const int64_t end = fa_maker_visible(m, row_block);
    int64_t count = 0;
    for (int64_t block = 0; block < end; block++) {
        if (!fa_maker_has(m, block))
            free[count++] = (int32_t)block;
    }
    for (int64_t n = 0; n < FA_MIN(d->random, count); n++) {
        const uint64_t bits = fa_sparse_random(d->seed, (uint64_t)head, (uint64_t)row_block, (uint64_t)n);
        const int64_t at = n + (int64_t)(bits % (uint64_t)(count - n));
        const int32_t block = free[at];
        free[at] = free[n];
        fa_maker_add(m, block, block + 1);
    }
}

static void fill(fa_list_maker *m, const fa_sparse_window_desc *d, int64_t head, int64_t row_block,
                 int32_t *free)
{
    const int64_t size = m->shape.block_keys;
    const int64_t first = row_block * m->shape.block_rows + m->diagonal, last = fa_maker_last(m, row_block);
    const int64_t begin = FA_MAX(first - d->window_left, 0),
                  end = FA_MIN(last + d->window_right, m->shape.keys - 1);
    if (is_global(m, d, first, last))
        fa_maker_add(m, 0, m->key_blocks);
    if (begin <= end)
        fa_maker_add(m, begin / size, end / size + 1);
    fa_maker_add(m, 0, d->global_first);
    fa_maker_add(m, m->key_blocks - d->global_last, m->key_blocks);
    draw(m, d, head, row_block, free);
    fa_maker_drop(m, fa_maker_visible(m, row_block), m->key_blocks);
}

static fa_status make(fa_list_maker *m, const fa_sparse_window_desc *d)
{
    const size_t bytes = (size_t)m->key_blocks * sizeof(int32_t);
    int32_t *free = fa_alloc(m->context, bytes);
    fa_status status = free ? FA_OK : FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < d->heads * m->row_blocks && status == FA_OK; n++) {
        fill(m, d, n / m->row_blocks, n % m->row_blocks, free);
        status = fa_maker_next(m);
    }
    fa_release(m->context, free, bytes);
    return status;
}

fa_status fa_sparse_window(fa_context *context, const fa_sparse_window_desc *desc, fa_block_mask **mask)
{
    fa_sparse_window_desc d;
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_WINDOW_DESC_0_1, desc, "fa_sparse_window_desc"));
    FA_TRY(check(&d));
    fa_status status = fa_maker_begin(&m, context, &d.shape, 1, d.heads);
    if (status == FA_OK)
        status = make(&m, &d);
    return fa_maker_finish(&m, status, mask);
}
