/* SPDX-License-Identifier: Apache-2.0 */
#include "scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint32_t scene_seed;
int failures;

static float random_number(void)
{
    scene_seed = scene_seed * 1664525u + 1013904223u;
    return (float)(scene_seed >> 8) / (float)(1 << 23) - 1;
}

fa_dtype dtype_of(enum ggml_type type)
{
    for (int i = 0; i <= FA_IQ4_NL; i++) {
        if (strcmp(fa_dtype_name((fa_dtype)i), ggml_type_name(type)) == 0)
            return (fa_dtype)i;
    }
    return FA_F32;
}

void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory)
        abort();
    return memory;
}

void fill(struct ggml_tensor *t)
{
    const int64_t count = ggml_nelements(t);
    float *number = allocate((size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; i++)
        number[i] = random_number();
    fa_elements_store(dtype_of(t->type), t->data, 0, number, count);
    free(number);
}

float mask_at(const test_case *c, int batch, int head, int row, int key)
{
    const int position = c->seen - c->rows + row;
    const bool own = key <= position && key / 7 % 3 == (row + head) % 2;
    switch (c->mask) {
    case CELLS: return own ? 0 : -INFINITY;
    case ALIBI_CELLS: return own ? -fabsf((float)(position - key)) : -INFINITY;
    case WINDOW: return key <= position && key > position - 20 ? 0 : -INFINITY;
    case RAGGED: return key <= position - 3 * batch ? 0 : -INFINITY; /* each sequence has keys of its own */
    case ALIBI: return key <= position ? -fabsf((float)(position - key)) : -INFINITY;
    case HOLES: return key <= position && (key + row) % 3 != 0 ? 0 : -INFINITY;
    case HIDDEN_ROW: return row != 1 && key < c->seen ? 0 : -INFINITY;
    default: return key <= position ? 0 : -INFINITY;
    }
}

int mask_heads(const test_case *c)
{
    return c->head_masks ? c->heads : 1;
}

void fill_mask(const test_case *c, struct ggml_tensor *mask)
{
    uint16_t *at = mask->data;
    for (int b = 0; b < c->batch; b++) {
        for (int h = 0; h < mask_heads(c); h++) {
            for (int i = 0; i < c->rows; i++) {
                for (int j = 0; j < c->keys; j++)
                    *at++ = fa_f32_to_f16(mask_at(c, b, h, i, j));
            }
        }
    }
}

struct ggml_tensor *new_tensor(struct ggml_context *ctx, enum ggml_type type, bool permuted, int dim,
                               int rows, int heads, int batch)
{
    if (!permuted)
        return ggml_new_tensor_4d(ctx, type, dim, rows, heads, batch);
    return ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, dim, heads, rows, batch), 0, 2, 1, 3);
}

fa_tensor view_of(const struct ggml_tensor *t)
{
    const fa_dtype dtype = dtype_of(t->type);
    const int64_t block = fa_dtype_block(dtype), size = (int64_t)fa_dtype_size(dtype);
    return (fa_tensor){
        .dtype = dtype,
        .shape = {t->ne[3], t->ne[2], t->ne[1], t->ne[0]},
        .stride = {(int64_t)t->nb[3] / size * block, (int64_t)t->nb[2] / size * block,
                   (int64_t)t->nb[1] / size * block, 1},
    };
}

bool sees(const test_case *c, int batch, int head, int row, int key)
{
    return mask_at(c, batch, c->head_masks ? head : 0, row, key) > -INFINITY;
}

bool any_sees(const test_case *c, int batch, int key)
{
    for (int h = 0; h < mask_heads(c); h++) {
        for (int i = 0; i < c->rows; i++) {
            if (sees(c, batch, h, i, key))
                return true;
        }
    }
    return false;
}
