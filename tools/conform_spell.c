/* SPDX-License-Identifier: Apache-2.0 */
/* Written from the public headers' documentation alone, so that it can disagree with the library. */
#include <math.h>
#include <stdlib.h>

#include "conform.h"

static float load(const fa_tensor *t, const void *base, int64_t index)
{
    switch (t->dtype) {
    case FA_F16: return fa_f16_to_f32(((const uint16_t *)base)[index]);
    case FA_BF16: return fa_bf16_to_f32(((const uint16_t *)base)[index]);
    case FA_BOOL: return ((const unsigned char *)base)[index];
    default: return ((const float *)base)[index];
    }
}

/* An element of bias or keep, whose axes of size 1 are repeated. */
static float load_repeated(const fa_tensor *given, const void *base, int64_t n, int64_t h, int64_t i, int64_t j)
{
    fa_tensor t = conform_strides(*given);
    const int64_t *s = t.shape;
    int64_t row = conform_index(&t, s[0] > 1 ? n : 0, s[1] > 1 ? h : 0, s[2] > 1 ? i : 0);
    return load(&t, base, row + (s[3] > 1 ? j : 0));
}

static bool sees(const conform_data *data, int64_t n, int64_t h, int64_t i, int64_t j)
{
    const fa_attention_desc *d = &data->desc;
    int64_t alignment = conform_part_kv(d, n).count - conform_part_q(d, n).count;
    if (d->mask == FA_MASK_CAUSAL_TOP_LEFT)
        alignment = 0;
    int64_t position = i + alignment + d->diagonal_offset;
    bool visible = true;
    if (d->mask != FA_MASK_NONE && j > position)
        visible = false;
    if (d->window_left > 0 && j <= position - d->window_left)
        visible = false;
    if (d->window_right > 0 && j >= position + d->window_right)
        visible = false;
    if (j < d->prefix)
        visible = true;
    return visible && (d->keep.shape[0] == 0 || load_repeated(&d->keep, data->inputs.keep, n, h, i, j) != 0);
}

/* q, k or v with a head for every query head. */
static bool spell_operand(const conform_data *data, int input, conform_spelled *spelled)
{
    fa_tensor *to = conform_tensor(&spelled->desc, input);
    fa_tensor from = conform_strides(*to);
    int64_t heads = data->desc.q.shape[1], group = from.shape[1] > 0 ? heads / from.shape[1] : 1;
    *to = fa_tensor_make(FA_F32, from.shape[0], heads, from.shape[2], from.shape[3]);
    int64_t rows = from.shape[0] * heads * from.shape[2], dim = from.shape[3];
    const void *base = conform_address(data, input);
    float *memory = spelled->memory[input] = malloc((size_t)(rows * dim + 1) * sizeof(float));
    if (!memory)
        return false;
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / from.shape[2] / heads, h = row / from.shape[2] % heads, r = row % from.shape[2];
        int64_t at = conform_index(&from, b, h / group, r);
        for (int64_t d = 0; d < dim; d++)
            memory[row * dim + d] = load(&from, base, at + d);
    }
    return true;
}

/* Bias, and which key each row sees. */
static bool spell_pairs(const conform_data *data, conform_spelled *spelled)
{
    const fa_attention_desc *d = &data->desc;
    int64_t rows = 0, keys = 0, sequences = conform_sequences(d), heads = d->q.shape[1];
    for (int64_t n = 0; n < sequences; n++) {
        int64_t count = conform_part_q(d, n).count, seen = conform_part_kv(d, n).count;
        rows = count > rows ? count : rows;
        keys = seen > keys ? seen : keys;
    }
    int64_t pairs = sequences * heads * rows * keys;
    spelled->desc.bias = spelled->desc.keep = (fa_tensor){0};
    if (pairs == 0)
        return true;
    float *bias = spelled->memory[CONFORM_BIAS] = calloc((size_t)pairs, sizeof(float));
    spelled->keep = calloc((size_t)pairs, 1);
    if (!bias || !spelled->keep)
        return false;
    for (int64_t at = 0; at < pairs; at++) {
        int64_t j = at % keys, i = at / keys % rows, h = at / keys / rows % heads, n = at / keys / rows / heads;
        if (i >= conform_part_q(d, n).count || j >= conform_part_kv(d, n).count)
            continue;
        spelled->keep[at] = sees(data, n, h, i, j);
        if (d->bias.shape[0] > 0)
            bias[at] = load_repeated(&d->bias, data->inputs.bias, n, h, i, j);
    }
    spelled->desc.keep = fa_tensor_make(FA_BOOL, sequences, heads, rows, keys);
    if (d->bias.shape[0] > 0)
        spelled->desc.bias = fa_tensor_make(FA_F32, sequences, heads, rows, keys);
    return true;
}

bool conform_spell_out(const conform_data *data, conform_spelled *spelled)
{
    *spelled = (conform_spelled){.desc = data->desc};
    bool ok = spell_pairs(data, spelled);
    for (int t = CONFORM_Q; t <= CONFORM_V; t++)
        ok = ok && spell_operand(data, t, spelled);
    fa_attention_desc *d = &spelled->desc;
    /* A keep tensor is all the mask there is, but slopes count from where the mask puts a row. */
    if (spelled->keep && !d->alibi_slopes) {
        d->mask = FA_MASK_NONE;
        d->window_left = d->window_right = d->prefix = d->diagonal_offset = 0;
    }
    float **memory = spelled->memory;
    spelled->inputs = (fa_inputs){memory[CONFORM_Q], memory[CONFORM_K], memory[CONFORM_V],
                                  d->bias.shape[0] > 0 ? memory[CONFORM_BIAS] : NULL, spelled->keep};
    return ok;
}

void conform_spelled_free(conform_spelled *spelled)
{
    for (int t = 0; t < CONFORM_KEEP; t++)
        free(spelled->memory[t]);
    free(spelled->keep);
}

static bool is_hidden(const conform_data *data, int64_t n, int64_t head_kv, int64_t j)
{
    int64_t group = data->desc.q.shape[1] / data->desc.k.shape[1], rows = conform_part_q(&data->desc, n).count;
    for (int64_t h = head_kv * group; h < (head_kv + 1) * group; h++) {
        for (int64_t i = 0; i < rows; i++) {
            if (sees(data, n, h, i, j))
                return false;
        }
    }
    return true;
}

void conform_poison(conform_data *data)
{
    for (int t = CONFORM_K; t <= CONFORM_V; t++) {
        fa_tensor tensor = conform_strides(*conform_tensor(&data->desc, t));
        for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
            conform_part p = conform_part_kv(&data->desc, n);
            for (int64_t at = 0; at < tensor.shape[1] * p.count; at++) {
                int64_t head = at / p.count, j = at % p.count;
                int64_t row = conform_index(&tensor, p.batch, head, p.begin + j);
                bool hidden = is_hidden(data, n, head, j);
                for (int64_t d = 0; hidden && d < tensor.shape[3]; d++)
                    conform_store(tensor.dtype, conform_address(data, t), row + d, NAN);
            }
        }
    }
    conform_data_keep(data);
}
