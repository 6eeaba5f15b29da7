/* SPDX-License-Identifier: Apache-2.0 */
/* Where elements of a case's tensors lie, and what they hold. */
#include <math.h>
#include <string.h>

#include "tools/conform/conform.h"

size_t conform_bytes(fa_dtype dtype, int64_t elements)
{
    const int64_t block = fa_dtype_block(dtype); /* v may be a part of one */
    return (size_t)((elements + block - 1) / block) * fa_dtype_size(dtype);
}

/* An element of a latent row: a code of 1 or NaN, and of 1 the scale; or a number in bf16. */
static void store_latent(unsigned char *row, int64_t e, float value)
{
    const bool finite = value == value && fabsf(value) < INFINITY;
    const uint16_t bits = fa_f32_to_bf16(value);
    if (e >= 512)
        memcpy(row + 528 + 2 * (e - 512), &bits, sizeof(bits));
    else
        row[e] = finite ? 0x38 : 0x7f;
    if (e < 512 && finite)
        memcpy(row + 512 + e / 128 * 4, &value, sizeof(value));
}

void conform_store_row(const fa_tensor *t, void *base, int64_t index, int64_t d, float value)
{
    const int64_t begin = index + (t->shape[3] + 31) / 32 * 4;
    const uint16_t half = fa_f32_to_f16(value);
    if (t->dtype != FA_BITMAP_F16)
        conform_store(t->dtype, base, index + d, value);
    else if (begin + 2 * d < index + t->stride[3])
        memcpy((unsigned char *)base + begin + 2 * d, &half, sizeof(half));
}

int64_t conform_row_bytes(const fa_tensor *t)
{
    return t->dtype == FA_BITMAP_F16 ? t->stride[3] : (int64_t)conform_bytes(t->dtype, t->shape[3]);
}

/* A block's scale, which it begins with; of fp8, whose elements have none, the element. Codes alone hold nothing else. */
static void store_coded(fa_dtype dtype, unsigned char *base, int64_t index, float value)
{
    const int64_t block = fa_dtype_block(dtype), first = index - index % block;
    unsigned char *at = base + conform_bytes(dtype, first);
    const uint16_t half = fa_f32_to_f16(value);
    if (dtype == FA_FP8_DS_MLA)
        store_latent(at, index % block, value);
    else if (dtype == FA_E5M2)
        at[index % block] = (unsigned char)(half >> 8 | (value != value));
    else if (dtype == FA_E4M3)
        at[index % block] = value == value && fabsf(value) < INFINITY ? 0x38 : 0x7f; /* 1, NaN */
    else if (dtype < FA_I8)
        memcpy(at, &half, sizeof(half));
}

void conform_store(fa_dtype dtype, void *base, int64_t index, float value)
{
    switch (dtype) {
    case FA_F32: ((float *)base)[index] = value; break;
    case FA_F16: ((uint16_t *)base)[index] = fa_f32_to_f16(value); break;
    case FA_BF16: ((uint16_t *)base)[index] = fa_f32_to_bf16(value); break;
    case FA_BOOL: ((unsigned char *)base)[index] = (unsigned char)value; break;
    case FA_I32: ((int32_t *)base)[index] = (int32_t)value; break;
    default: store_coded(dtype, base, index, value);
    }
}

float conform_load(fa_dtype dtype, const void *base, int64_t index)
{
    return fa_element(dtype, base, index);
}

fa_tensor conform_strides(fa_tensor t)
{
    int64_t stride = 1;
    bool contiguous = !t.stride[0] && !t.stride[1] && !t.stride[2] && !t.stride[3];
    for (int axis = 3; axis >= 0 && contiguous; axis--) {
        t.stride[axis] = stride;
        stride *= t.shape[axis];
    }
    return t;
}

fa_tensor *conform_tensor(fa_attention_desc *desc, int input)
{
    fa_tensor *const tensors[CONFORM_INPUTS] = {
        &desc->q,          &desc->k,       &desc->v,       &desc->bias,   &desc->keep,
        &desc->page_table, &desc->k_scale, &desc->v_scale, &desc->k_zero, &desc->v_zero};
    return tensors[input];
}

void *conform_address(const conform_data *data, int t)
{
    unsigned char *home = data->memory[data->home[t]];
    return home ? home + data->offset[t] : NULL;
}

int64_t conform_index(const fa_tensor *t, int64_t b, int64_t h, int64_t r)
{
    return b * t->stride[0] + h * t->stride[1] + r * t->stride[2];
}

/* Offsets and lengths come in two widths, of which at most one is there. */
static conform_part part_of(const int64_t *cu, const int32_t *cu32, const int64_t *lens,
                            const int32_t *lens32, int64_t n, int64_t rows)
{
    if (cu)
        return (conform_part){0, cu[n], cu[n + 1] - cu[n], 0};
    if (cu32)
        return (conform_part){0, cu32[n], cu32[n + 1] - cu32[n], 0};
    return (conform_part){n, 0, lens ? lens[n] : lens32 ? lens32[n] : rows, 0};
}

conform_part conform_part_q(const fa_attention_desc *d, int64_t n)
{
    return part_of(d->cu_rows_q, d->cu_rows_q32, d->lens_q, d->lens_q32, n, d->q.shape[2]);
}

conform_part conform_part_kv(const fa_attention_desc *d, int64_t n)
{
    conform_part p = part_of(d->cu_rows_kv, d->cu_rows_kv32, d->lens_kv, d->lens_kv32, n, conform_keys(d));
    p.first = d->first_kv ? d->first_kv[n] : d->first_kv32 ? d->first_kv32[n] : 0;
    return p;
}

int64_t conform_keys(const fa_attention_desc *d)
{
    return d->page_table.shape[0] > 0 ? d->page_table.shape[3] * d->k.shape[2] : d->k.shape[2];
}

conform_place conform_place_of(const conform_data *data, int64_t n, int64_t j)
{
    const fa_attention_desc *d = &data->desc;
    const int32_t *pages = data->inputs.page_table;
    const int64_t size = d->k.shape[2];
    const conform_part p = conform_part_kv(d, n);
    if (d->page_table.shape[0] == 0)
        return (conform_place){p.batch, p.begin + j};
    return (conform_place){pages[(d->page_table.shape[0] > 1 ? n : 0) * d->page_table.shape[3] + j / size],
                           j % size};
}

int64_t conform_key_index(const conform_data *data, const fa_tensor *t, int64_t n, int64_t head, int64_t j)
{
    const conform_place place = conform_place_of(data, n, j);
    return conform_index(t, place.batch, head, place.row);
}

int64_t conform_sequences(const fa_attention_desc *d)
{
    bool packed = d->cu_rows_q || d->cu_rows_kv || d->cu_rows_q32 || d->cu_rows_kv32;
    return packed ? d->sequences : d->q.shape[0];
}
