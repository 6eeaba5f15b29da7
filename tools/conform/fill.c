/* SPDX-License-Identifier: Apache-2.0 */
/* What the inputs of a case hold. Whatever no sequence uses stays as it is. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"
#include "tools/scales.h"

/* Element d of row i of q or k: products are gain_q * gain_k at most, each key's another. */
static float ramp(int t, int64_t i, int64_t count, int64_t d)
{
    if (d > 0)
        return 0;
    return t == CONFORM_Q ? (i % 3 == 2 ? -1.0f : 1.0f) : 1 - (float)i / (float)count;
}

/* Codes that are not the largest numbers nor NaN, and scales and elements in bf16 of about the size of `gain`. */
static void fill_latent(unsigned char *row, float gain, conform_random *random)
{
    for (int e = 0; e < 512; e++)
        row[e] = (unsigned char)conform_random_below(random, 256) & 0xbf;
    for (int g = 0; g < 4; g++) {
        const float scale = gain * (0.5f + fabsf(conform_random_normal(random)));
        memcpy(row + 512 + 4 * g, &scale, sizeof(scale));
    }
    for (int e = 0; e < 64; e++) {
        const uint16_t bits = fa_f32_to_bf16(gain * conform_random_normal(random));
        memcpy(row + 528 + 2 * e, &bits, sizeof(bits));
    }
}

/* Any dims are kept, as many as there is room for, or a few less, or more. Bits behind the last dim mean nothing. */
static void fill_bitmap(const fa_tensor *t, unsigned char *row, float gain, conform_random *random)
{
    const int64_t dims = t->shape[3], begin = (dims + 31) / 32 * 4, room = (t->stride[3] - begin) / 2;
    int64_t left = room + 4 - conform_random_below(random, 9);
    memset(row, 0, (size_t)begin);
    for (int64_t d = 0; d < 8 * begin; d++) {
        const bool kept = d >= dims ? conform_random_below(random, 2)
                                    : conform_random_below(random, (uint32_t)(dims - d)) < left;
        left -= d < dims && kept;
        row[d / 8] |= (unsigned char)(kept << d % 8);
    }
    for (int64_t i = 0; i < room; i++) {
        const uint16_t half = fa_f32_to_f16(gain * conform_random_normal(random));
        memcpy(row + begin + 2 * i, &half, sizeof(half));
    }
}

/* A row in a format of caches: any codes, and scales that make numbers of about the size of `gain`. */
static void fill_codes(const fa_tensor *t, unsigned char *row, float gain, conform_random *random)
{
    const size_t bytes = conform_bytes(t->dtype, t->shape[3]), block = fa_dtype_size(t->dtype);
    const bool is_bare = t->dtype >= FA_I8, is_fp8 = t->dtype == FA_E4M3 || t->dtype == FA_E5M2,
               has_m = t->dtype == FA_Q4_1 || t->dtype == FA_Q5_1;
    const float largest = t->dtype == FA_Q8_0 || t->dtype == FA_IQ4_NL ? 128.0f
                          : fa_dtype_size(t->dtype) > 20               ? 16.0f
                                                                       : 8.0f;
    if (t->dtype == FA_FP8_DS_MLA) {
        fill_latent(row, gain, random);
        return;
    }
    if (t->dtype == FA_BITMAP_F16) {
        fill_bitmap(t, row, gain, random);
        return;
    }
    for (size_t i = 0; i < bytes; i++) /* of fp8, not the largest numbers, nor what is not finite */
        row[i] = (unsigned char)conform_random_below(random, 256) & (is_fp8 ? 0xbf : 0xff);
    for (size_t at = 0; at < bytes && !is_fp8 && !is_bare; at += block) {
        const float d = 2 * gain / largest * (0.5f + fabsf(conform_random_normal(random)));
        const uint16_t scaling[] = {fa_f32_to_f16(d), fa_f32_to_f16(-d * largest * 0.9f)};
        memcpy(row + at, scaling, has_m ? 4 : 2);
    }
}

static void fill_operand(const conform_case *c, conform_data *data, int t, float gain, conform_random *random)
{
    fa_tensor tensor = conform_strides(*conform_tensor(&data->desc, t));
    void *base = conform_address(data, t);
    for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
        conform_part p = t == CONFORM_Q ? conform_part_q(&data->desc, n) : conform_part_kv(&data->desc, n);
        for (int64_t h = 0; h < tensor.shape[1]; h++) {
            for (int64_t i = p.first; i < p.count; i++) {
                int64_t row = t == CONFORM_Q ? conform_index(&tensor, p.batch, h, p.begin + i)
                                             : conform_key_index(data, &tensor, n, h, i);
                if (tensor.dtype >= FA_E4M3)
                    fill_codes(&tensor, (unsigned char *)base + conform_bytes(tensor.dtype, row), gain,
                               random);
                for (int64_t d = 0; d < tensor.shape[3] && tensor.dtype < FA_E4M3; d++) {
                    bool ramps = c->ramp && t != CONFORM_V;
                    float value = ramps ? ramp(t, i, p.count, d) : conform_random_normal(random);
                    conform_store(tensor.dtype, base, row + d, gain * value);
                }
            }
        }
    }
}

/* What divides a code's number so that elements are of about size 1, and what their middle is. */
static float size_of_codes(fa_dtype dtype)
{
    static const float sizes[] = {
        [FA_E4M3] = 1, [FA_E5M2] = 1,  [FA_I8] = 75,  [FA_I4] = 5,    [FA_I2] = 1.5f,  [FA_U8] = 75,
        [FA_U4] = 5,   [FA_U2] = 1.2f, [FA_E2M1] = 3, [FA_U1] = 0.5f, [FA_U2U1] = 0.8f};
    return sizes[dtype];
}

static float middle_of_codes(fa_dtype dtype)
{
    return dtype == FA_U8     ? 127.5f
           : dtype == FA_U4   ? 7.5f
           : dtype == FA_U2   ? 1.5f
           : dtype == FA_U1   ? 0.5f
           : dtype == FA_U2U1 ? 1
                              : 0;
}

/* Scales and zeros of the keys that sequences use, each once. */
static void fill_scales(const conform_scales *s, conform_data *data, bool of_k, float gain,
                        conform_random *random)
{
    const fa_attention_desc *d = &data->desc;
    const fa_tensor *t = of_k ? &d->k : &d->v, *scale = of_k ? &d->k_scale : &d->v_scale,
                    *zero = of_k ? &d->k_zero : &d->v_zero;
    void *scales = conform_address(data, of_k ? CONFORM_K_SCALE : CONFORM_V_SCALE),
         *zeros = conform_address(data, of_k ? CONFORM_K_ZERO : CONFORM_V_ZERO);
    const int64_t keys = s->name ? conform_keys(d) : 0;
    for (int64_t i = 0; i < keys * t->shape[1] * conform_sequences(d); i++) {
        const int64_t n = i / keys / t->shape[1], head = i / keys % t->shape[1], j = i % keys;
        const conform_part p = conform_part_kv(d, n);
        for (int64_t dim = 0; dim < t->shape[3] && j >= p.first && j < p.count; dim++) {
            const conform_place at = conform_place_of(data, n, j);
            const int64_t index = scales_index(scale, t->shape, at.batch, head, at.row, dim);
            const float x = gain / size_of_codes(t->dtype) * (0.5f + fabsf(conform_random_normal(random))) /
                            (s->factor != 0 ? s->factor : 1);
            if (!isnan(conform_load(s->type, scales, index)))
                continue;
            fa_elements_store(s->type, scales, index, &x, 1);
            const float z = gain * conform_random_normal(random) - x * middle_of_codes(t->dtype);
            if (zeros)
                fa_elements_store(zero->dtype, zeros,
                                  scales_index(zero, t->shape, at.batch, head, at.row, dim), &z, 1);
        }
    }
}

/* The largest finite number of a type. */
static float largest_of(fa_dtype dtype)
{
    return dtype == FA_F16 ? 65504.0f : dtype == FA_BF16 ? 0x1.fep127f : FLT_MAX;
}

static void fill_bias_ends(const conform_case *c, conform_data *data, conform_random *random)
{
    fa_tensor tensor = conform_strides(data->desc.bias);
    const int64_t *s = tensor.shape;
    float largest = largest_of(tensor.dtype);
    for (int64_t row = 0; row < s[0] * s[1] * s[2]; row++) {
        for (int64_t j = 0; j < s[3]; j++) {
            float value = conform_random_normal(random);
            bool half = conform_random_below(random, 2) == 0, chosen = j == row * 5 % s[3];
            switch (c->bias_ends) {
            case CONFORM_BIAS_MIN_ALL: value = -largest; break;
            case CONFORM_BIAS_MIN_ROWS: value = row % 2 ? value : -largest; break;
            case CONFORM_BIAS_MIN_KEYS: value = half ? value : -largest; break;
            case CONFORM_BIAS_MAX_ALL: value = largest; break;
            case CONFORM_BIAS_MAX_KEY: value = chosen ? largest : value; break;
            case CONFORM_BIAS_BOTH: value = chosen ? largest : -largest; break;
            case CONFORM_BIAS_TAME: break;
            }
            conform_store(tensor.dtype, conform_address(data, CONFORM_BIAS), row * s[3] + j, value);
        }
    }
}

/* A run of bits that is 0 in all rows, and one in those of the first half: blocks of keys lie in them. */
static bool in_run(int64_t row, int64_t rows, int64_t bit)
{
    return (bit >= 21 && bit < 133) || (row < (rows + 1) / 2 && bit >= 140 && bit < 300);
}

/* Bits of keep, a third of them 0; and rows of zeros, as fill_extra() has them. */
static void fill_bits(conform_data *data, bool runs, conform_random *random)
{
    const fa_tensor t = conform_strides(data->desc.keep);
    const int64_t *s = t.shape;
    uint32_t *words = conform_address(data, CONFORM_KEEP);
    for (int64_t row = 0; row < s[0] * s[1] * s[2]; row++) {
        const int64_t at = conform_index(&t, row / s[2] / s[1], row / s[2] % s[1], row % s[2]);
        const bool blind = s[2] > 1 && row % s[2] % 5 == 3;
        for (int64_t j = 0; j < 32 * s[3]; j++) {
            const uint32_t bit = (uint32_t)1 << j % 32;
            words[at + j / 32] &= ~bit;
            const bool hole = blind || (runs && in_run(row % s[2], s[2], j));
            if (conform_random_below(random, 3) > 0 && !hole)
                words[at + j / 32] |= bit;
        }
    }
}

/* bias or keep: rows that see nothing are among them where there is an axis of rows. */
static void fill_extra(conform_data *data, int t, bool holes, conform_random *random)
{
    fa_tensor tensor = conform_strides(*conform_tensor(&data->desc, t));
    const int64_t *s = tensor.shape;
    bool is_keep = t == CONFORM_KEEP;
    for (int64_t row = 0; row < s[0] * s[1] * s[2]; row++) {
        bool blind = s[2] > 1 && row % s[2] % 5 == 3 && (is_keep || holes);
        for (int64_t j = 0; j < s[3]; j++) {
            bool hole = blind || ((is_keep || holes) && conform_random_below(random, 10) < 3);
            /* Any byte but 0 means visible. */
            float value =
                is_keep ? (float)(1 + conform_random_below(random, 255)) : conform_random_normal(random);
            if (hole)
                value = is_keep ? 0 : -INFINITY;
            int64_t at = conform_index(&tensor, row / s[2] / s[1], row / s[2] % s[1], row % s[2]);
            conform_store(tensor.dtype, conform_address(data, t), at + j * tensor.stride[3], value);
        }
    }
}

void conform_place_hazard(conform_data *data, conform_hazard hazard)
{
    if (hazard < CONFORM_NAN_Q || hazard > CONFORM_INF_V || conform_sequences(&data->desc) == 0)
        return;
    int t = CONFORM_Q + ((int)hazard - CONFORM_NAN_Q) % 3;
    fa_tensor tensor = conform_strides(*conform_tensor(&data->desc, t));
    conform_part p = t == CONFORM_Q ? conform_part_q(&data->desc, 0) : conform_part_kv(&data->desc, 0);
    int64_t middle = p.first + (p.count - p.first) / 2;
    if (p.count > p.first)
        conform_store_row(&tensor, conform_address(data, t),
                          t == CONFORM_Q ? conform_index(&tensor, p.batch, 0, p.begin + middle)
                                         : conform_key_index(data, &tensor, 0, 0, middle),
                          tensor.dtype == FA_BITMAP_F16 ? 0 : tensor.shape[3] / 2,
                          hazard >= CONFORM_INF_Q ? INFINITY : NAN);
}

bool conform_fill_heads(const conform_case *c, conform_data *data, conform_random *random)
{
    size_t count = c->heads_q > 0 ? (size_t)c->heads_q : 1;
    size_t entries = c->slopes_each ? (size_t)c->batch + 1 : 1, stride = count + 3;
    data->slopes = malloc(entries * stride * sizeof(float));
    data->factors = malloc(count * sizeof(float));
    data->sinks = malloc(count * sizeof(float));
    if (!data->slopes || !data->factors || !data->sinks)
        return false;
    for (int32_t h = 0; h < c->heads_q; h++) {
        float part = 1 / (float)(1 + h / 2), sign = h % 2 ? -1.0f : 1.0f;
        data->slopes[h] = c->slope != 0 ? c->slope * part : ldexpf(1, -1 - h % 8);
        data->sinks[h] = c->no_sinks ? -INFINITY : conform_random_normal(random);
        if (c->sink != 0)
            data->sinks[h] = c->sink * part * sign;
    }
    for (size_t n = 1; n < entries; n++) {
        for (size_t h = 0; h < stride; h++)
            data->slopes[n * stride + h] =
                h < (size_t)c->heads_q ? data->slopes[h] * (1 + (float)n / 4) : NAN;
    }
    for (int32_t h = 0; h < c->heads_q; h++)
        data->factors[h] = (float)(1 + h % 5) * 0.375f;
    data->desc.alibi_slopes = c->alibi ? data->slopes : NULL;
    data->desc.alibi_stride = c->alibi && c->slopes_each ? (int64_t)stride : 0;
    data->desc.bias_factors = c->factors && c->bias_axes != CONFORM_NO_AXES ? data->factors : NULL;
    data->desc.sinks = c->sinks || c->no_sinks ? data->sinks : NULL;
    return true;
}

void conform_fill(const conform_case *c, conform_data *data, conform_random *random)
{
    /* Scores have a standard deviation of 1 with the default scale, times the two gains. */
    float gain_q = 1, gain_k = 1;
    if (c->hazard == CONFORM_LARGE)
        gain_q = 3000;
    if (c->hazard == CONFORM_HUGE) {
        gain_q = 1e15f;
        gain_k = 1e15f;
    }
    gain_q *= c->gain_q != 0 ? c->gain_q : 1;
    gain_k *= c->gain_k != 0 ? c->gain_k : 1;
    fill_operand(c, data, CONFORM_Q, gain_q, random);
    fill_operand(c, data, CONFORM_K, gain_k, random);
    fill_scales(&c->k_scales, data, true, gain_k, random);
    fill_scales(&c->v_scales, data, false, c->gain_v != 0 ? c->gain_v : 1, random);
    if (data->home[CONFORM_V] != CONFORM_K)
        fill_operand(c, data, CONFORM_V, c->gain_v != 0 ? c->gain_v : 1, random);
    if (c->bias_ends == CONFORM_BIAS_TAME)
        fill_extra(data, CONFORM_BIAS, c->bias_holes, random);
    else
        fill_bias_ends(c, data, random);
    if (c->keep_bits != 0)
        fill_bits(data, c->keep_runs, random);
    else
        fill_extra(data, CONFORM_KEEP, false, random);
}
