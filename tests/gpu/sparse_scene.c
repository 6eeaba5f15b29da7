/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/sparse_scene.h"

#include <fastattn/reference.h>
#include <math.h>

static float o[MOST_BATCH * MOST_HEADS * MOST_ROWS * DIM];
static double exact[MOST_BATCH * MOST_HEADS * MOST_ROWS * DIM];

void scene_draw(sparse_scene *s, random_state *random)
{
    for (int i = 0; i < COUNT(s->q); i++)
        s->q[i] = random_float(random, -2, 2);
    for (int i = 0; i < COUNT(s->k); i++) {
        s->k[i] = random_float(random, -2, 2);
        s->v[i] = random_float(random, -2, 2);
    }
}

static fa_attention_desc desc_of(const sparse_scene *s)
{
    fa_attention_desc d = make_desc(s->batch, s->heads_q, s->heads_kv, s->rows, s->keys, DIM);
    d.mask = s->mask;
    return d;
}

void scene_expect(sparse_scene *s, const fa_block_mask *mask, const uint32_t *bits)
{
    const int64_t words = (s->keys + 31) / 32;
    fa_block_lists lists;
    fa_attention_desc d = desc_of(s);
    d.keep = fa_tensor_make(FA_BOOL, s->batch, s->heads_q, s->rows, s->keys);
    ck_assert_int_eq(fa_reference_attention(context, &d,
                                            &(fa_inputs){.q = s->q, .k = s->k, .v = s->v, .keep = s->keep},
                                            exact, NULL),
                     FA_OK);
    d = desc_of(s);
    d.neighbourhood = s->neighbourhood;
    if (mask)
        lists = lists_of(mask);
    d.lists = mask ? &lists : NULL;
    if (bits)
        d.keep = fa_tensor_make(FA_I32, 1, 1, s->rows, words);
    const fa_status status = fa_attention_host(device, &d, s->q, s->k, s->v, NULL, bits, o, NULL);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    for (int64_t i = 0; i < s->batch * s->heads_q * s->rows * DIM; i++)
        ck_assert_msg(fabs((double)o[i] - exact[i]) <= 4e-6, "o[%lld] is %g, expected %g", (long long)i,
                      (double)o[i], exact[i]);
}

void scene_keep(sparse_scene *s, const fa_block_mask *mask)
{
    const fa_block_lists l = lists_of(mask);
    for (int64_t i = 0; i < s->batch * s->heads_q * s->rows * s->keys; i++) {
        const int64_t key = i % s->keys, row = i / s->keys % s->rows,
                      head = i / s->keys / s->rows % s->heads_q;
        const int64_t n = i / s->keys / s->rows / s->heads_q;
        s->keep[i] = list_has(&l, l.sequences > 1 ? n : 0, head / (s->heads_q / l.heads), row / l.block_rows,
                              key / l.block_keys);
    }
}

fa_block_lists lists_of(const fa_block_mask *mask)
{
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    ck_assert_int_eq(fa_block_mask_lists(mask, &lists), FA_OK);
    return lists;
}

bool list_has(const fa_block_lists *l, int64_t sequence, int64_t head, int64_t row_block, int64_t key_block)
{
    const int64_t n = (sequence * l->heads + head) * l->row_blocks + row_block;
    for (int32_t i = l->indptr[n]; i < l->indptr[n + 1]; i++) {
        if (l->indices[i] == key_block)
            return true;
    }
    return false;
}

int64_t position_of(const fa_sparse_shape *s, int64_t row)
{
    return s->mask == FA_MASK_CAUSAL_TOP_LEFT ? row : row + s->keys - s->rows;
}

bool mask_shows(const fa_sparse_shape *s, int64_t row, int64_t key)
{
    return s->mask == FA_MASK_NONE || key <= position_of(s, row);
}
