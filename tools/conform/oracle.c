/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second oracle. The library's own reads strides, heads, masks and offsets with the functions that the kernels
 * use, and would agree with them on a wrong one. This one is written from the public headers alone.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"
#include "tools/scales.h"

static double half_at(const unsigned char *at)
{
    return (double)fa_f16_to_f32((uint16_t)(at[0] | at[1] << 8));
}

/* fp8, by the numbers of bits of its exponent and mantissa. */
static double load_fp8(unsigned bits, int exponent_bits, int mantissa_bits)
{
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1)),
        bias = (1 << (exponent_bits - 1)) - 1;
    double mantissa = bits & ((1u << mantissa_bits) - 1), size = ldexp(1, -mantissa_bits), value;
    bool top = exponent == (1 << exponent_bits) - 1;
    if (top && exponent_bits == 5)
        value = mantissa == 0 ? INFINITY : NAN;
    else if (top && mantissa == 7)
        value = NAN;
    else
        value =
            exponent == 0 ? ldexp(mantissa * size, 1 - bias) : ldexp(1 + mantissa * size, exponent - bias);
    return bits & 0x80 ? -value : value;
}

/* ggml's blocks, as its structs have them: d, then m where there is one, then the fifth bits, then the codes. */
static double load_block(fa_dtype dtype, const unsigned char *at, int i)
{
    static const int iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    const double d = half_at(at);
    const bool has_m = dtype == FA_Q4_1 || dtype == FA_Q5_1, has_fifth = dtype == FA_Q5_0 || dtype == FA_Q5_1;
    const unsigned char *fifth = at + (has_m ? 4 : 2), *codes = fifth + (has_fifth ? 4 : 0);
    if (dtype == FA_Q8_0)
        return d * (double)(signed char)at[2 + i];
    int code = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
    if (has_fifth && fifth[i / 8] >> i % 8 & 1)
        code += 16;
    if (has_m)
        return d * code + half_at(at + 2);
    return d * (dtype == FA_IQ4_NL ? iq4[code] : dtype == FA_Q4_0 ? code - 8 : code - 16);
}

/* Codes alone, of which a byte holds several, the first lowest. */
static double load_bare(fa_dtype dtype, const unsigned char *base, int64_t index)
{
    static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const int bits = dtype == FA_I8 || dtype == FA_U8   ? 8
                     : dtype == FA_I2 || dtype == FA_U2 ? 2
                     : dtype == FA_U1                   ? 1
                                                        : 4;
    if (dtype == FA_U2U1) {
        const unsigned char *block = base + index / 32 * 6;
        const int64_t i = index % 32;
        return i < 16 ? block[i / 4] >> i % 4 * 2 & 3 : block[4 + (i - 16) / 8] >> i % 8 & 1;
    }
    const int code = base[index * bits / 8] >> index * bits % 8 & ((1 << bits) - 1);
    if (dtype == FA_E2M1)
        return code & 8 ? -e2m1[code & 7] : e2m1[code];
    return dtype >= FA_I8 && dtype <= FA_I2 && code >> (bits - 1) ? code - (1 << bits) : code;
}

/* 512 codes, four scales, 64 elements in bf16. A product is rounded to f32. */
static double load_latent(const unsigned char *row, int e)
{
    float scale;
    uint16_t bits;
    memcpy(&scale, row + 512 + e / 128 % 4 * 4, sizeof(scale));
    memcpy(&bits, row + (e < 512 ? 0 : 528 + 2 * (e - 512)), sizeof(bits));
    return e < 512 ? (double)(float)((double)scale * load_fp8(row[e], 4, 3)) : (double)fa_bf16_to_f32(bits);
}

static double load_coded(fa_dtype dtype, const unsigned char *base, int64_t index)
{
    if (dtype == FA_FP8_DS_MLA)
        return load_latent(base + index / 576 * 656, (int)(index % 576));
    if (dtype >= FA_I8)
        return load_bare(dtype, base, index);
    if (dtype == FA_E4M3 || dtype == FA_E5M2)
        return load_fp8(base[index], dtype == FA_E4M3 ? 4 : 5, dtype == FA_E4M3 ? 3 : 2);
    return load_block(dtype, base + index / 32 * (int64_t)fa_dtype_size(dtype), (int)(index % 32));
}

/* Bits of dims, then the elements whose bits are set, as far as there is room for them in `bytes`. */
static double load_kept(const unsigned char *row, int64_t dims, int64_t bytes, int64_t d)
{
    int64_t at = (dims + 31) / 32 * 4;
    uint16_t half;
    for (int64_t i = 0; i < d; i++)
        at += row[i / 8] >> i % 8 & 1 ? 2 : 0;
    if (!(row[d / 8] >> d % 8 & 1) || at + 2 > bytes)
        return 0;
    memcpy(&half, row + at, sizeof(half));
    return (double)fa_f16_to_f32(half);
}

static double load(const fa_tensor *t, const void *base, int64_t index)
{
    if (t->dtype >= FA_E4M3)
        return load_coded(t->dtype, base, index);
    switch (t->dtype) {
    case FA_F16: return (double)fa_f16_to_f32(((const uint16_t *)base)[index]);
    case FA_BF16: return (double)fa_bf16_to_f32(((const uint16_t *)base)[index]);
    case FA_BOOL: return (double)((const unsigned char *)base)[index];
    default: return (double)((const float *)base)[index];
    }
}

/* One row of one head of a sequence. */
typedef struct row_of {
    const conform_data *data;
    int64_t n, h, i;
    conform_part q, kv;
    const double *k, *v; /* the keys and values of its KV head, where it attends */
} row_of;

/* An element of bias or keep, whose axes of size 1 are repeated. */
static double load_repeated(const row_of *r, const fa_tensor *given, const void *base, int64_t j)
{
    fa_tensor t = conform_strides(*given);
    const int64_t *s = t.shape;
    int64_t row = conform_index(&t, s[0] > 1 ? r->n : 0, s[1] > 1 ? r->h : 0, s[2] > 1 ? r->i : 0);
    return load(&t, base, row + (s[3] > 1 ? j * t.stride[3] : 0));
}

/* What keep says of a key, by its bit where it has bits. */
static bool keeps(const row_of *r, int64_t j)
{
    const fa_attention_desc *d = &r->data->desc;
    if (d->keep.dtype != FA_I32)
        return load_repeated(r, &d->keep, r->data->inputs.keep, j) != 0;
    const fa_tensor t = conform_strides(d->keep);
    const int64_t bit = d->keep_last > 0 ? j - (r->kv.count - d->keep_last) : j;
    const int64_t row =
        conform_index(&t, t.shape[0] > 1 ? r->n : 0, t.shape[1] > 1 ? r->h : 0, t.shape[2] > 1 ? r->i : 0);
    return bit < 0 ||
           (((const uint32_t *)r->data->inputs.keep)[row + bit / 32] & (uint32_t)1 << bit % 32) != 0;
}

/* Whether the list of the row's block has the key's block. */
static bool lists(const row_of *r, int64_t j)
{
    const fa_block_lists *l = &r->data->lists;
    const int64_t n = l->sequences > 1 ? r->n : 0, head = r->h * l->heads / r->data->desc.q.shape[1];
    const int64_t list = (n * l->heads + head) * l->row_blocks + r->i / l->block_rows;
    return r->data->list_mask[list * l->key_blocks + j / l->block_keys] != 0;
}

static int64_t position_of(const row_of *r)
{
    const fa_attention_desc *d = &r->data->desc;
    bool top_left = d->mask == FA_MASK_CAUSAL_TOP_LEFT || d->alignment == FA_ALIGN_TOP_LEFT;
    int64_t alignment = top_left ? 0 : r->kv.count - r->q.count;
    return r->i + alignment + d->diagonal_offset;
}

static bool sees(const row_of *r, int64_t j)
{
    const fa_attention_desc *d = &r->data->desc;
    int64_t position = position_of(r);
    bool visible = j >= r->kv.first;
    if (d->mask != FA_MASK_NONE && j > position)
        visible = false;
    if (d->window_left > 0 && j <= position - d->window_left)
        visible = false;
    if (d->window_right > 0 && j >= position + d->window_right)
        visible = false;
    if (j < d->prefix && j >= r->kv.first)
        visible = true;
    if (visible && r->data->list_mask)
        visible = lists(r, j);
    if (visible && r->data->near_at)
        visible = conform_near_shows(r->data, r->i, j);
    return visible && (d->keep.shape[0] == 0 || keeps(r, j));
}

/* The offset of key j of the KV head that this row's head belongs to. */
static int64_t key_offset(const row_of *r, const fa_tensor *t, int64_t j)
{
    int64_t group = r->data->desc.q.shape[1] / t->shape[1];
    return conform_key_index(r->data, t, r->n, r->h / group, j);
}

/* The rows of k or v that the row's KV head uses. */
static void load_keys(const row_of *r, bool of_k, double *to)
{
    const fa_attention_desc *d = &r->data->desc;
    const fa_inputs *in = &r->data->inputs;
    const fa_tensor t = conform_strides(of_k ? d->k : d->v);
    const int64_t head = r->h / (d->q.shape[1] / t.shape[1]);
    for (int64_t j = r->kv.first; j < r->kv.count; j++) {
        const conform_place place = conform_place_of(r->data, r->n, j);
        const int64_t at = conform_index(&t, place.batch, head, place.row);
        const void *base = of_k ? in->k : in->v;
        for (int64_t c = 0; c < t.shape[3]; c++) {
            const double x = t.dtype == FA_BITMAP_F16
                                 ? load_kept((const unsigned char *)base + at, t.shape[3], t.stride[3], c)
                                 : load(&t, base, at + c);
            to[j * t.shape[3] + c] = scales_element(d, in, of_k, x, place.batch, head, place.row, c);
        }
    }
}

static double score(const row_of *r, const double *q, int64_t j)
{
    const fa_attention_desc *d = &r->data->desc;
    const fa_inputs *in = &r->data->inputs;
    const int64_t dim = d->q.shape[3];
    float scale = d->scale != 0 || d->scale_is_set ? d->scale : (float)(1 / sqrt((double)dim));
    double s = 0;
    for (int64_t c = 0; c < dim; c++)
        s += q[c] * r->k[j * dim + c];
    s *= (double)scale;
    if (d->softcap > 0)
        s = (double)d->softcap * tanh(s / (double)d->softcap);
    if (d->alibi_slopes)
        s -= (double)d->alibi_slopes[r->n * d->alibi_stride + r->h] * fabs((double)(position_of(r) - j));
    double factor = d->bias_factors ? (double)d->bias_factors[r->h] : 1;
    return d->bias.shape[0] > 0 ? s + factor * load_repeated(r, &d->bias, in->bias, j) : s;
}

/* What rows are attended to in. */
typedef struct room {
    double *k, *v;  /* of a KV head: conform_keys() rows */
    double *weight; /* one for each key                  */
    bool *seen;     /* likewise                          */
    double *q, *o;  /* of one row                        */
} room;

/* Fills room->o and returns the LSE. */
static double attend(const row_of *r, const room *m)
{
    const fa_attention_desc *d = &r->data->desc;
    const fa_tensor q = conform_strides(d->q);
    const int64_t dim = d->v.shape[3], at_q = conform_index(&q, r->q.batch, r->h, r->q.begin + r->i);
    double sink = d->sinks ? (double)d->sinks[r->h] : -INFINITY, max = sink, sum = 0, *weight = m->weight;
    for (int64_t c = 0; c < q.shape[3]; c++)
        m->q[c] = load(&q, r->data->inputs.q, at_q + c);
    for (int64_t j = 0; j < r->kv.count; j++) {
        m->seen[j] = sees(r, j);
        weight[j] = m->seen[j] ? score(r, m->q, j) : -INFINITY;
        max = weight[j] > max ? weight[j] : max;
    }
    for (int64_t c = 0; c < dim; c++)
        m->o[c] = 0;
    for (int64_t j = 0; j < r->kv.count; j++) {
        if (!m->seen[j])
            continue;
        double p = weight[j] == -INFINITY ? 0 : exp(weight[j] - max);
        sum += p;
        for (int64_t c = 0; c < dim; c++)
            m->o[c] += p * r->v[j * dim + c];
    }
    sum += sink == -INFINITY ? 0 : exp(sink - max);
    for (int64_t c = 0; c < dim; c++)
        m->o[c] = sum == 0 ? 0 : m->o[c] / sum;
    return sum == 0 ? -INFINITY : max + log(sum);
}

/* Both are f64 sums of the same terms. */
static bool agree(double a, double b)
{
    if (isnan(a) || isnan(b) || isinf(a) || isinf(b))
        return isnan(a) ? isnan(b) : a == b;
    return fabs(a - b) <= 1e-9 * (1 + fabs(a));
}

static bool compare_row(const row_of *r, const check_reference *reference, const room *m, char *message,
                        size_t size)
{
    const fa_attention_desc *d = &r->data->desc;
    const double *lse, *oracle = check_oracle(reference, &lse);
    int64_t dim = d->v.shape[3], row = r->q.begin + r->i, heads = d->q.shape[1];
    int64_t at = (r->q.batch * heads + r->h) * d->q.shape[2] + row;
    double own = attend(r, m);
    int64_t wrong = agree(own, lse[at]) ? dim : 0;
    for (int64_t c = 0; c < dim && wrong == dim; c++)
        wrong = agree(m->o[c], oracle[at * dim + c]) ? dim : c;
    if (wrong < dim)
        (void)snprintf(
            message, size,
            "fa_reference_attention is wrong at [%lld,%lld,%lld,%lld]: o %.9g, lse %.9g, by the suite's "
            "own oracle %.9g, %.9g",
            (long long)r->q.batch, (long long)r->h, (long long)row, (long long)wrong,
            oracle[at * dim + wrong], lse[at], m->o[wrong], own);
    return wrong == dim;
}

/* All rows of one sequence. */
static bool compare_sequence(const conform_data *data, const check_reference *reference, int64_t n,
                             const room *m, char *message, size_t size)
{
    const fa_attention_desc *d = &data->desc;
    const int64_t group = d->k.shape[1] > 0 ? d->q.shape[1] / d->k.shape[1] : 1;
    row_of r = {data, n, 0, 0, conform_part_q(d, n), conform_part_kv(d, n), m->k, m->v};
    bool ok = true;
    for (r.h = 0; ok && r.q.count > 0 && r.h < d->q.shape[1]; r.h++) {
        if (r.h % group == 0) {
            load_keys(&r, true, m->k);
            load_keys(&r, false, m->v);
        }
        for (r.i = 0; ok && r.i < r.q.count; r.i++)
            ok = compare_row(&r, reference, m, message, size);
    }
    return ok;
}

bool conform_oracles_agree(const conform_data *data, const check_reference *reference, char *message,
                           size_t size)
{
    const fa_attention_desc *d = &data->desc;
    const size_t keys = (size_t)conform_keys(d) + 1, dim_qk = (size_t)d->q.shape[3],
                 dim_v = (size_t)d->v.shape[3];
    double *numbers = malloc((keys * (dim_qk + dim_v + 1) + dim_qk + dim_v) * sizeof(double));
    bool *seen = malloc(keys * sizeof(bool)), ok = numbers && seen;
    if (!ok)
        (void)snprintf(message, size, "out of memory");
    room m = {.k = numbers, .seen = seen};
    if (ok) {
        m.v = m.k + keys * dim_qk;
        m.weight = m.v + keys * dim_v;
        m.q = m.weight + keys;
        m.o = m.q + dim_qk;
    }
    for (int64_t n = 0; ok && n < conform_sequences(d); n++)
        ok = compare_sequence(data, reference, n, &m, message, size);
    free(numbers);
    free(seen);
    return ok;
}

static bool is_hidden(const conform_data *data, int64_t n, int64_t head_kv, int64_t j)
{
    const fa_attention_desc *d = &data->desc;
    int64_t group = d->q.shape[1] / d->k.shape[1];
    row_of r = {data, n, 0, 0, conform_part_q(d, n), conform_part_kv(d, n), NULL, NULL};
    for (r.h = head_kv * group; r.h < (head_kv + 1) * group; r.h++) {
        for (r.i = 0; r.i < r.q.count; r.i++) {
            if (sees(&r, j))
                return false;
        }
    }
    return true;
}

/* NaN for the scales that a key shares with no other key or head. */
static void poison_scales(conform_data *data, bool of_k, int64_t n, int64_t head, int64_t j)
{
    const fa_attention_desc *d = &data->desc;
    const fa_tensor *t = of_k ? &d->k : &d->v, *scale = of_k ? &d->k_scale : &d->v_scale;
    void *scales = conform_address(data, of_k ? CONFORM_K_SCALE : CONFORM_V_SCALE);
    const conform_place at = conform_place_of(data, n, j);
    const float nan = NAN;
    for (int axis = 0; axis < 3; axis++) {
        if (scale->shape[axis] != t->shape[axis])
            return;
    }
    for (int64_t dim = 0; dim < t->shape[3]; dim++)
        fa_elements_store(scale->dtype, scales, scales_index(scale, t->shape, at.batch, head, at.row, dim),
                          &nan, 1);
}

void conform_poison(conform_data *data, conform_hazard hazard)
{
    for (int t = CONFORM_K; t <= CONFORM_V; t++) {
        fa_tensor tensor = conform_strides(*conform_tensor(&data->desc, t));
        for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
            conform_part p = conform_part_kv(&data->desc, n);
            for (int64_t at = 0; at < tensor.shape[1] * p.count; at++) {
                int64_t head = at / p.count, j = at % p.count;
                if (j < p.first)
                    continue;
                int64_t row = conform_key_index(data, &tensor, n, head, j);
                bool hidden = is_hidden(data, n, head, j);
                if (hidden)
                    poison_scales(data, t == CONFORM_K, n, head, j);
                for (int64_t d = 0; hidden && d < tensor.shape[3]; d++) {
                    float infinity = (row + d) % 2 ? INFINITY : -INFINITY;
                    conform_store_row(&tensor, conform_address(data, t), row, d,
                                      hazard == CONFORM_HIDDEN ? NAN : infinity);
                }
            }
        }
    }
    conform_data_keep(data);
}

/* Whether a row of an operand is another in the tame inputs. */
static bool is_changed(const conform_data *data, int t, const fa_tensor *tensor, int64_t index)
{
    size_t at = data->offset[t] + conform_bytes(tensor->dtype, index);
    const char *now = data->memory[data->home[t]], *tame = data->tame[data->home[t]];
    return memcmp(now + at, tame + at, (size_t)conform_row_bytes(tensor)) != 0;
}

bool conform_meets_hazard(const conform_data *data, int64_t n, int64_t head, int64_t row)
{
    const fa_attention_desc *d = &data->desc;
    const row_of r = {data, n, head, row, conform_part_q(d, n), conform_part_kv(d, n), NULL, NULL};
    fa_tensor q = conform_strides(d->q), k = conform_strides(d->k), v = conform_strides(d->v);
    if (is_changed(data, CONFORM_Q, &q, conform_index(&q, r.q.batch, head, r.q.begin + row)))
        return true;
    for (int64_t j = 0; j < r.kv.count; j++) {
        if (sees(&r, j) && (is_changed(data, CONFORM_K, &k, key_offset(&r, &k, j)) ||
                            is_changed(data, CONFORM_V, &v, key_offset(&r, &v, j))))
            return true;
    }
    return false;
}

bool conform_sees(const conform_data *data, int64_t n, int64_t head, int64_t row, int64_t begin, int64_t end)
{
    const fa_attention_desc *d = &data->desc;
    const row_of r = {data, n, head, row, conform_part_q(d, n), conform_part_kv(d, n), NULL, NULL};
    int64_t j = begin > r.kv.first ? begin : r.kv.first;
    end = end < r.kv.count ? end : r.kv.count;
    while (j < end && !sees(&r, j))
        j++;
    return j < end;
}
