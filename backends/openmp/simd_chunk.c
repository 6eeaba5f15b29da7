/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two products of a chunk of keys and a few query rows. Head dims are lanes. What scales a block multiplies keys in
 * registers, and of values their weights, see weighs_scale().
 */
#include "simd/chunk.h"

#include "simd/codes.h"

enum {
    ROWS = 4,                 /* query rows that share a load                                 */
    KEYS = VL == 8 ? 2 : 4,   /* keys of a score micro-kernel, as registers allow             */
    HALVES = VL < 16 ? 1 : 2, /* of a block, of a value micro-kernel: enough sums in flight   */
    MOST_VECS = HALVES * HALF_VECS,
};

/* Bytes of 32 elements. */
#define BLOCK_BYTES(type) FA_TYPE_SPAN(type, BLOCK)

#if FA_ISA_IS != FA_ISA_scalar
/* Number `n` of what scales a block is an f16 at its beginning. Of whole vectors of rows. */
FA_INLINE void read_scaling(const int type, const int n, const uint8_t *const *row, int count, int dim,
                            float by, float *to)
{
    for (int b = 0; b * BLOCK < dim; b++, to += FEW) {
        const ptrdiff_t at = (ptrdiff_t)b * FA_TYPE_SIZE(type) + 2 * n;
        for (int i = 0; i < count; i += VL)
            v_store(to + i, v_mul(v_gather_f16(row + i, at), v_set1(by)));
    }
}

/* Loaded once: gcc would rather load it again for each product. Where codes are decoded, registers have no room for it. */
FA_INLINE vf v_held(const int type, vf a)
{
#if defined(__x86_64__)
    if (!FA_TYPE_IS_CODED(type))
        __asm__("" : "+x"(a));
#endif
    (void)type;
    return a;
}

/* Whether the weights of values are multiplied by what scales a block, rather than its elements. */
FA_INLINE bool weighs_scale(const int type)
{
    return FA_TYPE_IS_CODED(type) && !FA_TYPE_HAS_OFFSET(type);
}

/* Of half of block b of row i, which lies at `block`: vector number `part`. `scaled`: elements, else their numbers. */
FA_INLINE vf load_part(const int type, const bool scaled, const fa_chunk *c, const uint8_t *block, int b,
                       const int half, int i, const int part)
{
    if (!FA_TYPE_IS_CODED(type))
        return load_typed((fa_dtype)type, block, 16 * half + part * VL);
    if (!scaled)
        return v_of_bytes(numbers_of(type, block, half), part);
    return load_codes(type, block, half, part, v_set1(c->scale[b * FEW + i]),
                      FA_TYPE_HAS_OFFSET(type) ? v_set1(c->offset[b * FEW + i]) : v_set1(0.0f));
}

/*
 * Starts the loads of a row, all at once: in scattered pages each row is in a page of memory of its own, and its lines
 * are found together.
 */
FA_INLINE void load_row(const int type, const uint8_t *row, int dim)
{
    const int bytes = FA_TYPE_SPAN(type, dim);
    for (int at = 0; at < bytes; at += LINE_BYTES)
        __builtin_prefetch(row + at);
    if (BLOCK_BYTES(type) % LINE_BYTES != 0)
        __builtin_prefetch(row + bytes - 1);
}

FA_INLINE void store_halves(const int type, const uint8_t *from, uint16_t *to)
{
    vh_store(to, type == FA_TYPE_E4M3 ? vh_load_e4m3(from) : vh_load_e5m2(from));
}

/* Rows of fp8 as f16. */
FA_INLINE void make_halves(const int type, fa_chunk *c, uint16_t *to)
{
    for (int i = 0; i < c->count; i++, to += c->dim) {
        const uint8_t *row = c->row[i];
        int d = 0;
        for (; d + LINE_BYTES <= c->dim; d += LINE_BYTES) {
            __builtin_prefetch(c->row[i + c->far] + d);
            FA_UNROLL
            for (int n = 0; n < LINE_BYTES; n += 16)
                store_halves(type, row + d + n, to + d + n);
        }
        for (; d < c->dim; d += 16)
            store_halves(type, row + d, to + d);
        __builtin_prefetch(c->row[i + c->far] + c->dim - 1);
        c->made[i] = (const uint8_t *)to;
    }
    c->factor = type == FA_TYPE_E4M3 ? 256.0f : 1.0f;
    c->dtype = FA_F16;
    c->row = c->made;
    c->far = 0;
}

void FA_ISA_NAME(chunk_prepare)(fa_chunk *c, uint16_t *scratch)
{
    const uint8_t *const *row = c->row;
    if (c->count % VL != 0) { /* the last repeats */
        for (int i = 0; i < FEW; i++)
            c->made[i] = c->row[FA_MIN(i, c->count - 1)];
        row = c->made;
    }
    c->factor = 1.0f;
#define FORMAT(name)                                                                    \
    case FA_##name:                                                                     \
        read_scaling(FA_TYPE_##name, 0, row, c->count, c->dim, V_BYTES_UNIT, c->scale); \
        if (FA_TYPE_HAS_OFFSET(FA_TYPE_##name))                                         \
            read_scaling(FA_TYPE_##name, 1, row, c->count, c->dim, 1.0f, c->offset);    \
        break
    switch (c->dtype) {
    case FA_E4M3: make_halves(FA_TYPE_E4M3, c, scratch); break;
    case FA_E5M2:
        make_halves(FA_TYPE_E5M2, c, scratch);
        break;
        FORMAT(Q8_0);
        FORMAT(Q4_0);
        FORMAT(Q4_1);
        FORMAT(Q5_0);
        FORMAT(Q5_1);
        FORMAT(IQ4_NL);
    default: break;
    }
#undef FORMAT
}

/* The scores of `keys` keys from number i on; rows and keys are constants at each call. */
FA_INLINE void chunk_score_tile(const int rows, const int keys, const int type, bool ahead, const fa_chunk *c,
                                int i, const float *q, int q_stride, float *s, int s_stride)
{
    const int blocks = (c->dim + BLOCK - 1) / BLOCK;
    vf acc[ROWS * KEYS];
    FA_UNROLL
    for (int n = 0; n < rows * keys; n++)
        acc[n] = v_set1(0.0f);
    for (int b = 0; b * BLOCK < c->dim; b++) {
        for (int j = b; ahead && j < keys; j += blocks)
            load_row(type, c->row[i + j + c->far], c->dim);
        FA_UNROLL
        for (int half = 0; half < 2; half++) {
            const float *at = q + b * BLOCK + 16 * half;
            if (half > 0 && b * BLOCK + 16 >= c->dim)
                break;
            FA_UNROLL
            for (int part = 0; part < HALF_VECS; part++) {
                vf x[KEYS];
                FA_UNROLL
                for (int j = 0; j < keys; j++) {
                    const uint8_t *block = c->row[i + j] + (ptrdiff_t)b * BLOCK_BYTES(type);
                    x[j] = load_part(type, true, c, block, b, half, i + j, part);
                }
                FA_UNROLL
                for (int r = 0; r < rows; r++) {
                    const vf qv = v_held(type, v_load(at + r * q_stride + part * VL));
                    FA_UNROLL
                    for (int j = 0; j < keys; j++)
                        acc[r * keys + j] = v_fma(qv, x[j], acc[r * keys + j]);
                }
            }
        }
    }
    if (rows * keys % 4 != 0) {
        FA_UNROLL
        for (int n = 0; n < rows * keys; n++)
            s[n / keys * s_stride + n % keys] = v_sum(acc[n]);
        return;
    }
    FA_UNROLL
    for (int n = 0; n < rows * keys; n += 4) {
        float sums[4];
        v_sum4(acc + n, sums);
        FA_UNROLL
        for (int m = n; m < n + 4; m++)
            s[m / keys * s_stride + m % keys] = sums[m - n];
    }
}

FA_INLINE void score_rows(const int rows, const int type, bool ahead, const fa_chunk *c, const float *q,
                          int q_stride, float *s, int s_stride)
{
    int i = 0;
    for (; i + KEYS <= c->count; i += KEYS)
        chunk_score_tile(rows, KEYS, type, ahead, c, i, q, q_stride, s + i, s_stride);
    for (; i < c->count; i++)
        chunk_score_tile(rows, 1, type, ahead, c, i, q, q_stride, s + i, s_stride);
}

/* What sums of values are over while a chunk is added: its numbers are, where weights have the scales. */
FA_INLINE float sum_unit(const int type)
{
    return weighs_scale(type) ? V_BYTES_UNIT : 1.0f;
}

/* Adds row i of the chunk, weighted: `vecs` vectors from half `half` of block b on. */
FA_INLINE void add_row(const int rows, const int vecs, const int half, const int type, const fa_chunk *c,
                       int b, int i, const float *p, int p_stride, vf acc[ROWS][MOST_VECS])
{
    const uint8_t *block = c->row[i] + (ptrdiff_t)b * BLOCK_BYTES(type);
    vf x[MOST_VECS];
    FA_UNROLL
    for (int n = 0; n < vecs; n++)
        x[n] = load_part(type, !weighs_scale(type), c, block, b, half + n / HALF_VECS, i, n % HALF_VECS);
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        const vf weight = v_set1(p[r * p_stride + i]);
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            acc[r][n] = v_fma(weight, x[n], acc[r][n]);
    }
}

/* `halves` halves of block b, from number `half` on, of all outputs. */
FA_INLINE void chunk_value_tile(const int rows, const int halves, const int half, const int type, bool ahead,
                                const fa_chunk *c, int b, const float *p, int p_stride, float *o,
                                int o_stride)
{
    /* Each tile reads all rows, and starts the loads of a share of those to come. */
    const int vecs = halves * HALF_VECS, tiles = (c->dim + 16 * halves - 1) / (16 * halves);
    int next = ahead ? (b * 2 + half) / HALVES : FEW;
    float *to = o + b * BLOCK + 16 * half;
    vf acc[ROWS][MOST_VECS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            acc[r][n] = v_mul(v_load(to + r * o_stride + n * VL), v_set1(1 / sum_unit(type)));
    }
    int i = 0;
    for (; i + 2 <= c->count; i += 2) {
        for (; next < i + 2; next += tiles)
            load_row(type, c->row[next + c->far], c->dim);
        add_row(rows, vecs, half, type, c, b, i, p, p_stride, acc);
        add_row(rows, vecs, half, type, c, b, i + 1, p, p_stride, acc);
    }
    for (; i < c->count; i++)
        add_row(rows, vecs, half, type, c, b, i, p, p_stride, acc);
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            v_store(to + r * o_stride + n * VL, v_mul(acc[r][n], v_set1(sum_unit(type))));
    }
}

/* Weights of keys, times a number for each, over V_BYTES_UNIT. */
FA_INLINE void weigh(const int rows, int count, const float *p, int p_stride, const float *by, float *to,
                     int to_stride)
{
    for (int i = 0; i < count; i += VL) {
        const vf factor = v_mul(v_load(by + i), v_set1(1 / V_BYTES_UNIT));
        FA_UNROLL
        for (int r = 0; r < rows; r++)
            v_store(to + r * to_stride + i, v_mul(v_load(p + r * p_stride + i), factor));
    }
}

FA_INLINE void value_rows(const int rows, const int type, bool ahead, const fa_chunk *c, const float *p,
                          int p_stride, float *o, int o_stride)
{
    float weights[ROWS * FEW];
    const float *w = weighs_scale(type) ? weights : p;
    const int w_stride = weighs_scale(type) ? FEW : p_stride;
    for (int b = 0; b * BLOCK < c->dim; b++) {
        const bool whole = (b + 1) * BLOCK <= c->dim;
        if (weighs_scale(type))
            weigh(rows, c->count, p, p_stride, c->scale + b * FEW, weights, FEW);
        if (whole || HALVES == 1)
            chunk_value_tile(rows, HALVES, 0, type, ahead, c, b, w, w_stride, o, o_stride);
        if (whole && HALVES == 1)
            chunk_value_tile(rows, 1, 1, type, ahead, c, b, w, w_stride, o, o_stride);
        if (!whole && HALVES > 1)
            chunk_value_tile(rows, 1, 0, type, ahead, c, b, w, w_stride, o, o_stride);
    }
}

/* Functions of their own: in one together, gcc 12 keeps what the inner loops need in memory. */
typedef void chunk_product(const fa_chunk *c, bool ahead, const float *x, int x_stride, float *y,
                           int y_stride);
#define FA_PRODUCT(name, rows, type)                                                                \
    static void name##_##rows##_##type(const fa_chunk *c, bool ahead, const float *x, int x_stride, \
                                       float *y, int y_stride)                                      \
    {                                                                                               \
        name(rows, FA_##type, ahead, c, x, x_stride, y, y_stride);                                  \
    }
#define FA_PRODUCTS(type)              \
    FA_PRODUCT(score_rows, ROWS, type) \
    FA_PRODUCT(score_rows, 1, type)    \
    FA_PRODUCT(value_rows, ROWS, type) \
    FA_PRODUCT(value_rows, 1, type)
#define FA_EACH_TYPE(of) of(F32) of(F16) of(BF16) of(Q8_0) of(Q4_0) of(Q4_1) of(Q5_0) of(Q5_1) of(IQ4_NL)
FA_EACH_TYPE(FA_PRODUCTS)

#define FA_SCORES(type) [FA_##type] = {score_rows_1_##type, score_rows_ROWS_##type},
#define FA_VALUES(type) [FA_##type] = {value_rows_1_##type, value_rows_ROWS_##type},
static chunk_product *const scores_of[][2] = {FA_EACH_TYPE(FA_SCORES)};
static chunk_product *const values_of[][2] = {FA_EACH_TYPE(FA_VALUES)};

/* In groups of rows, of which only the first finds the chunk in memory. */
static void multiply(chunk_product *const product[2], const fa_chunk *c, int rows, const float *x,
                     int x_stride, float *y, int y_stride)
{
    for (int r = 0, step; r < rows; r += step) {
        step = r + ROWS <= rows ? ROWS : 1;
        product[step == ROWS](c, r == 0 && c->far > 0, x + r * x_stride, x_stride, y + r * y_stride,
                              y_stride);
    }
}

/* Scores or weights, times what the chunk's elements are too small by. */
static void enlarge(const fa_chunk *c, int rows, float *x, int stride)
{
    const vf factor = v_set1(c->factor);
    for (int r = 0; c->factor != 1.0f && r < rows; r++) {
        for (int i = 0; i < c->count; i += VL)
            v_store(x + r * stride + i, v_mul(v_load(x + r * stride + i), factor));
    }
}

void FA_ISA_NAME(chunk_scores)(const fa_chunk *c, int rows, const float *q, int q_stride, float *s,
                               int s_stride)
{
    multiply(scores_of[c->dtype], c, rows, q, q_stride, s, s_stride);
    enlarge(c, rows, s, s_stride);
}

void FA_ISA_NAME(chunk_values)(const fa_chunk *c, int rows, float *p, int p_stride, float *o, int o_stride)
{
    enlarge(c, rows, p, p_stride);
    multiply(values_of[c->dtype], c, rows, p, p_stride, o, o_stride);
}
#endif
