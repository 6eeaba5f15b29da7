/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of any type into memory. */
#include <fastattn/reference.h>

#include <string.h>

#include "core/half.h"
#include "core/portable/encode.h"
#include "core/portable/prune.h"
#include "core/status.h"

enum { BLOCK = 32 }; /* elements of a block of ggml's */

static uint8_t *put_half(uint8_t *to, float x)
{
    const fa_uint bits = fa_f16_narrow(x);
    to[0] = (uint8_t)bits;
    to[1] = (uint8_t)(bits >> 8);
    return to + 2;
}

static fa_coder coder_of(int type, const float x[BLOCK])
{
    fa_block_range range = fa_block_range_of(x[0]);
    for (int i = 1; i < BLOCK; i++)
        range = fa_block_range_with(range, x[i]);
    fa_coder c = fa_coder_of(type, range);
    for (int i = 0; i < BLOCK && type == FA_TYPE_IQ4_NL; i++)
        range = fa_block_refine(range, c, x[i]);
    if (type == FA_TYPE_IQ4_NL)
        c.scale = range.by_code != 0 ? FA_DIVIDE(range.by_peak, range.by_code) : 0;
    return c;
}

static void encode_block(int type, const float x[BLOCK], uint8_t *to)
{
    const fa_coder c = coder_of(type, x);
    uint8_t code[BLOCK];
    fa_uint fifth = 0;
    for (int i = 0; i < BLOCK; i++) {
        code[i] = (uint8_t)fa_code_of(type, c, x[i]);
        fifth |= (code[i] >> 4 & 1u) << i;
    }
    to = put_half(to, c.scale);
    if (FA_TYPE_HAS_OFFSET(type))
        to = put_half(to, c.offset);
    if (FA_TYPE_CODE_BITS(type) == 8) {
        memcpy(to, code, BLOCK);
        return;
    }
    for (int i = 0; i < 4 && FA_TYPE_CODE_BITS(type) == 5; i++)
        *to++ = (uint8_t)(fifth >> 8 * i);
    for (int i = 0; i < BLOCK / 2; i++)
        to[i] = (uint8_t)((code[i] & 15) | code[i + BLOCK / 2] << 4);
}

/* Codes alone, of which a byte holds 1, 2, 4 or 8. */
static void encode_bare(int type, uint8_t *to, const float *from, int64_t count)
{
    const int bits = FA_TYPE_CODE_BITS(type), each = 8 / bits;
    for (int64_t i = 0; i < count; i += each) {
        fa_uint byte = 0;
        for (int j = 0; j < each; j++)
            byte |= fa_bare_code(type, from[i + j]) << bits * j;
        to[i / each] = (uint8_t)byte;
    }
}

/* Blocks of 16 codes of 2 bits, and 16 of one. */
static void encode_mixed(uint8_t *to, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 32, to += FA_TYPE_SIZE(FA_TYPE_U2U1)) {
        encode_bare(FA_TYPE_U2, to, from + i, 16);
        encode_bare(FA_TYPE_U1, to + 4, from + i + 16, 16);
    }
}

static void put_word(uint8_t *to, fa_uint bits)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(bits >> 8 * i);
}

/* FlashMLA's rows. */
static void encode_row(uint8_t *to, const float *from)
{
    for (int first = 0; first < FA_MLA_LATENT; first += FA_MLA_GROUP) {
        fa_block_range range = fa_block_range_of(from[first]);
        for (int e = first + 1; e < first + FA_MLA_GROUP; e++)
            range = fa_block_range_with(range, from[e]);
        const float scale = fa_mla_scale(range);
        put_word(to + fa_mla_scale_byte(first), FA_AS_UINT(scale));
        for (int e = first; e < first + FA_MLA_GROUP; e++)
            to[e] = (uint8_t)fa_mla_code(scale, from[e]);
    }
    for (int e = FA_MLA_LATENT; e < FA_MLA_DIMS; e += 2)
        put_word(to + fa_mla_byte(e), fa_bf16_narrow(from[e]) | fa_bf16_narrow(from[e + 1]) << 16);
}

void fa_elements_fit(fa_dtype dtype, const float *from, int64_t count, int64_t stride, float *scale,
                     float *zero)
{
    fa_block_range range = fa_block_range_of(count > 0 ? from[0] : 0);
    for (int64_t i = 1; i < count; i++)
        range = fa_block_range_with(range, from[i * stride]);
    const fa_scaling fitted = fa_fitted((int)dtype, range, zero != NULL);
    *scale = fitted.scale;
    if (zero)
        *zero = fitted.offset;
}

void fa_elements_store(fa_dtype dtype, void *base, int64_t index, const float *from, int64_t count)
{
    const int type = (int)dtype;
    if (!FA_TYPE_IS_CODED(type)) {
        for (int64_t i = 0; i < count; i++)
            fa_store(dtype, base, index + i, from[i]);
    } else if (FA_TYPE_PRUNES(type)) {
        return; /* not without the row's bytes */
    } else if (FA_TYPE_IS_MLA(type)) {
        uint8_t *to = (uint8_t *)base + FA_TYPE_SPAN(type, index);
        for (int64_t i = 0; i < count; i += FA_MLA_DIMS, to += FA_MLA_BYTES)
            encode_row(to, from + i);
    } else if (type == FA_TYPE_U2U1) {
        encode_mixed((uint8_t *)base + FA_TYPE_SPAN(type, index), from, count);
    } else if (FA_TYPE_IS_BARE(type)) {
        encode_bare(type, (uint8_t *)base + index * FA_TYPE_CODE_BITS(type) / 8, from, count);
    } else {
        uint8_t *to = (uint8_t *)base + FA_TYPE_SPAN(type, index);
        for (int64_t i = 0; i < count; i += BLOCK, to += FA_TYPE_SIZE(type))
            encode_block(type, from + i, to);
    }
}

_Static_assert(FA_MAX_HEAD_DIM <= FA_PRUNE_MOST, "any row is pruned at once");

void fa_store_pruned(void *row, int bytes, const float *from, int dims)
{
#define FA_INDEX(x) (x)
#define PUT32(to, n, at, bits) put_word((to) + (n) + (at), bits)
    fa_uint x[FA_PRUNE_MOST];
    for (int d = 0; d < dims; d++)
        x[d] = FA_AS_UINT(from[d]);
    FA_PRUNE(x, dims, bytes, PUT32, (uint8_t *)row, 0, 0)
#undef PUT32
#undef FA_INDEX
}

/* Whether there are such rows, as fa_tensor_normalise() says it of a tensor. */
static fa_status check_row(const void *row, int64_t bytes, const float *x, const char *name, int64_t dims)
{
    if (!row || !x)
        return fa_fail(FA_INVALID, "%s is NULL", row ? name : "row");
    if (dims < 0 || dims % 8 != 0 || dims > FA_MAX_HEAD_DIM)
        return fa_fail(FA_INVALID, "dims is %lld, expected a multiple of 8, at most %d", (long long)dims,
                       FA_MAX_HEAD_DIM);
    const int64_t least = FA_BITMAP_BYTES(dims) + (dims > 0 ? 4 : 0), most = FA_BITMAP_BYTES(dims) + 2 * dims;
    if (bytes < least || bytes > most || bytes % 4 != 0)
        return fa_fail(FA_INVALID, "row_bytes is %lld, expected a multiple of 4 from %lld to %lld",
                       (long long)bytes, (long long)least, (long long)most);
    return FA_OK;
}

fa_status fa_bitmap_store(void *row, int64_t row_bytes, const float *from, int64_t dims)
{
    fa_clear_error();
    FA_TRY(check_row(row, row_bytes, from, "from", dims));
    fa_store_pruned(row, (int)row_bytes, from, (int)dims);
    return FA_OK;
}

fa_status fa_bitmap_load(const void *row, int64_t row_bytes, float *to, int64_t dims)
{
    fa_clear_error();
    FA_TRY(check_row(row, row_bytes, to, "to", dims));
    for (int d = 0; d < (int)dims; d++)
        to[d] = fa_load_pruned(row, (int)dims, (int)row_bytes, d);
    return FA_OK;
}
