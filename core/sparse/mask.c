/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sparse/mask.h"

#include <fastattn/clustered.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/structs.h"

fa_status fa_block_mask_lists(const fa_block_mask *mask, fa_block_lists *lists)
{
    fa_clear_error();
    if (!mask || !lists)
        return fa_fail(FA_INVALID, "%s is NULL", mask ? "lists" : "mask");
    return fa_fill_struct(&mask->lists, sizeof(mask->lists), FA_BLOCK_LISTS_0_1, lists, "fa_block_lists");
}

void fa_block_mask_destroy(fa_block_mask *mask)
{
    if (!mask)
        return;
    fa_release(mask->context, mask->indptr, (size_t)mask->offsets * sizeof(*mask->indptr));
    fa_release(mask->context, mask->indices, (size_t)mask->room * sizeof(*mask->indices));
    fa_release(mask->context, mask, sizeof(*mask));
}

fa_status fa_block_mask_keys(const fa_block_mask *mask, int64_t most, int32_t *keys)
{
    fa_clear_error();
    if (!mask || !keys)
        return fa_fail(FA_INVALID, "%s is NULL", mask ? "keys" : "mask");
    const fa_block_lists *l = &mask->lists;
    if (l->block_rows != 1 || l->block_keys != 1)
        return fa_fail(FA_INVALID, "mask has blocks of %d rows and %d keys, expected 1 and 1", l->block_rows,
                       l->block_keys);
    const int64_t lists = mask->offsets - 1, rows = l->row_blocks;
    for (int64_t n = 0; n < lists; n++) {
        if (mask->indptr[n + 1] - mask->indptr[n] > most)
            return fa_fail(FA_INVALID, "most is %lld, but list %lld has %d keys", (long long)most,
                           (long long)n, mask->indptr[n + 1] - mask->indptr[n]);
    }
    for (int64_t n = 0; n < lists; n++) {
        const int64_t row = n % rows, head = n / rows % l->heads, sequence = n / rows / l->heads;
        int32_t *to = keys + ((sequence * rows + row) * l->heads + head) * most;
        for (int64_t i = 0; i < most; i++) {
            const int64_t at = mask->indptr[n] + i;
            to[i] = at < mask->indptr[n + 1] ? mask->indices[at] : -1;
        }
    }
    return FA_OK;
}

fa_status fa_planner_enter(const fa_context *context, const void *desc, fa_block_mask **mask)
{
    fa_clear_error();
    if (!mask)
        return fa_fail(FA_INVALID, "mask is NULL");
    *mask = NULL;
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    return FA_OK;
}

fa_status fa_shape_check(fa_sparse_shape *s, int32_t block)
{
    s->block_rows = s->block_rows ? s->block_rows : block;
    s->block_keys = s->block_keys ? s->block_keys : block;
    FA_TRY(fa_check_limit("shape.rows", s->rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("shape.keys", s->keys, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("shape.block_rows", s->block_rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("shape.block_keys", s->block_keys, 1, FA_MAX_LENGTH));
    if ((int)s->mask < FA_MASK_NONE || s->mask > FA_MASK_CAUSAL_BOTTOM_RIGHT)
        return fa_fail(FA_INVALID, "shape.mask is %d, expected an fa_mask_kind", (int)s->mask);
    return FA_OK;
}

/* Room for so many indices, and what there are already. */
static fa_status grow(fa_list_maker *m, int64_t count)
{
    fa_block_mask *mask = m->mask;
    const int64_t have = mask->indptr[m->lists];
    int64_t room = FA_MAX(mask->room, 64);
    if (count <= mask->room)
        return FA_OK;
    while (room < count)
        room *= 2;
    int32_t *indices = fa_alloc(m->context, (size_t)room * sizeof(*indices));
    if (!indices)
        return FA_OUT_OF_MEMORY;
    if (have > 0)
        memcpy(indices, mask->indices, (size_t)have * sizeof(*indices));
    fa_release(m->context, mask->indices, (size_t)mask->room * sizeof(*indices));
    mask->indices = indices;
    mask->room = room;
    return FA_OK;
}

static fa_status make(fa_list_maker *m, int64_t sequences, int64_t heads)
{
    int64_t lists;
    fa_block_mask *mask = m->mask;
    if (!fa_mul_i64(sequences, heads, &lists) || !fa_mul_i64(lists, m->row_blocks, &lists) ||
        lists >= INT32_MAX)
        return fa_fail(FA_OUT_OF_MEMORY,
                       "%lld sequences, %lld heads and %lld blocks of rows are too many lists",
                       (long long)sequences, (long long)heads, (long long)m->row_blocks);
    mask->offsets = lists + 1;
    mask->indptr = fa_alloc_zeroed(m->context, (size_t)mask->offsets * sizeof(*mask->indptr));
    m->list = fa_alloc_zeroed(m->context, (size_t)m->words * sizeof(*m->list));
    return mask->indptr && m->list ? FA_OK : FA_OUT_OF_MEMORY;
}

fa_status fa_maker_begin(fa_list_maker *m, const fa_context *context, const fa_sparse_shape *s,
                         int64_t sequences, int64_t heads)
{
    *m = (fa_list_maker){
        .context = context,
        .shape = *s,
        .diagonal = s->mask == FA_MASK_CAUSAL_TOP_LEFT ? 0 : s->keys - s->rows,
        .row_blocks = fa_ceil_div(s->rows, s->block_rows),
        .key_blocks = fa_ceil_div(s->keys, s->block_keys),
    };
    m->words = fa_ceil_div(m->key_blocks, 64);
    m->mask = fa_alloc_zeroed(context, sizeof(*m->mask));
    if (!m->mask)
        return FA_OUT_OF_MEMORY;
    m->mask->context = context;
    m->mask->lists = (fa_block_lists){
        .struct_size = sizeof(fa_block_lists),
        .block_rows = s->block_rows,
        .block_keys = s->block_keys,
        .sequences = sequences,
        .heads = heads,
        .row_blocks = m->row_blocks,
        .key_blocks = m->key_blocks,
    };
    FA_TRY(make(m, sequences, heads));
    return grow(m, FA_MIN(m->mask->offsets * 4, INT32_MAX / 4));
}

/* The bits of word n that stand for blocks [begin, end). */
static uint64_t bits_of(int64_t n, int64_t begin, int64_t end)
{
    const int64_t first = FA_MAX(begin - n * 64, 0), last = FA_MIN(end - n * 64, 64) - 1;
    return ~(uint64_t)0 << first & ~(uint64_t)0 >> (63 - last);
}

void fa_maker_add(fa_list_maker *m, int64_t begin, int64_t end)
{
    begin = FA_MAX(begin, 0);
    end = FA_MIN(end, m->key_blocks);
    for (int64_t n = begin / 64; n * 64 < end && begin < end; n++)
        m->list[n] |= bits_of(n, begin, end);
}

void fa_maker_drop(fa_list_maker *m, int64_t begin, int64_t end)
{
    begin = FA_MAX(begin, 0);
    end = FA_MIN(end, m->key_blocks);
    for (int64_t n = begin / 64; n * 64 < end && begin < end; n++)
        m->list[n] &= ~bits_of(n, begin, end);
}

fa_status fa_maker_next(fa_list_maker *m)
{
    fa_block_mask *mask = m->mask;
    int64_t count = mask->indptr[m->lists];
    for (int64_t n = 0; n < m->words; n++)
        count += __builtin_popcountll(m->list[n]);
    if (count > INT32_MAX)
        return fa_fail(FA_OUT_OF_MEMORY, "the lists have more than %d blocks", INT32_MAX);
    FA_TRY(grow(m, count));
    int32_t *to = mask->indices + mask->indptr[m->lists];
    for (int64_t n = 0; n < m->words; n++) {
        for (uint64_t bits = m->list[n]; bits; bits &= bits - 1)
            *to++ = (int32_t)(n * 64 + __builtin_ctzll(bits));
        m->list[n] = 0;
    }
    mask->indptr[++m->lists] = (int32_t)count;
    return FA_OK;
}

fa_status fa_maker_finish(fa_list_maker *m, fa_status status, fa_block_mask **mask)
{
    fa_release(m->context, m->list, (size_t)m->words * sizeof(*m->list));
    if (status == FA_OK) {
        m->mask->lists.indptr = m->mask->indptr;
        m->mask->lists.indices = m->mask->indices;
        *mask = m->mask;
    } else {
        fa_block_mask_destroy(m->mask);
    }
    return status;
}

int64_t fa_maker_last(const fa_list_maker *m, int64_t row_block)
{
    return FA_MIN((row_block + 1) * m->shape.block_rows, m->shape.rows) - 1 + m->diagonal;
}

int64_t fa_maker_visible(const fa_list_maker *m, int64_t row_block)
{
    const int64_t last = fa_maker_last(m, row_block);
    if (m->shape.mask == FA_MASK_NONE)
        return m->key_blocks;
    return last < 0 ? 0 : FA_MIN(last / m->shape.block_keys + 1, m->key_blocks);
}

/* The finalizer of splitmix64: a change of one bit changes all. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t fa_sparse_random(uint64_t seed, uint64_t a, uint64_t b, uint64_t n)
{
    const uint64_t step = 0x9e3779b97f4a7c15u;
    return mix(mix(mix(mix(seed + step) + a + step) + b + step) + n + step);
}
