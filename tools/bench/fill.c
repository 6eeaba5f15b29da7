/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the tensors of a case. */
#include <string.h>

#include <fastattn/reference.h>

#include "tools/bench/bench.h"

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number as its type holds it. */
static float rounded(fa_dtype dtype, float x)
{
    unsigned char bytes[4];
    fa_elements_store(dtype, bytes, 0, &x, 1);
    return fa_element(dtype, bytes, 0);
}

const fa_tensor *bench_scale(const fa_attention_desc *d, int n)
{
    return n == BENCH_K_SCALE   ? &d->k_scale
           : n == BENCH_V_SCALE ? &d->v_scale
           : n == BENCH_K_ZERO  ? &d->k_zero
                                : &d->v_zero;
}

bench_scaling bench_scaling_of(fa_dtype dtype, const fa_tensor *scale, const fa_tensor *zero)
{
    const float ends[] = {-4, 4}; /* where nearly all elements lie */
    const bool zeros = zero->shape[0] > 0;
    bench_scaling s = {1, 0};
    if (scale->shape[0] == 0)
        return s;
    fa_elements_fit(dtype, ends, 2, 1, &s.scale, zeros ? &s.zero : NULL);
    s.scale = rounded(scale->dtype, s.scale);
    s.zero = zeros ? rounded(zero->dtype, s.zero) : 0;
    return s;
}

static float draw(uint64_t *seed)
{
    const float scale = 1.7320508f / 65536.0f; /* sqrt(12 / 4), of numbers of 16 bits */
    const uint64_t r = bench_random(seed);
    const uint32_t sum = (uint32_t)(r & 0xffff) + (uint32_t)(r >> 16 & 0xffff) +
                         (uint32_t)(r >> 32 & 0xffff) + (uint32_t)(r >> 48);
    return ((float)sum - 131070.0f) * scale;
}

/* Rows of bitmap_f16, one behind the other. */
static void fill_rows(void *data, const fa_tensor *t, size_t bytes, uint64_t seed)
{
    float value[FA_MAX_HEAD_DIM];
    for (int64_t at = 0; at < (int64_t)bytes; at += t->stride[3]) {
        for (int64_t d = 0; d < t->shape[3]; d++)
            value[d] = draw(&seed);
        (void)fa_bitmap_store((char *)data + at, t->stride[3], value, t->shape[3]);
    }
}

void bench_fill(void *data, const fa_tensor *t, size_t bytes, uint64_t seed, const bench_scaling *scaling)
{
    enum { CHUNK = 576 }; /* whole blocks of every type */
    const int64_t count = (int64_t)(bytes / fa_dtype_size(t->dtype)) * fa_dtype_block(t->dtype);
    float value[CHUNK];
    memset(data, 0, bytes); /* padding of rows too */
    if (t->dtype == FA_BITMAP_F16) {
        fill_rows(data, t, bytes, seed);
        return;
    }
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t some = count - first < CHUNK ? count - first : CHUNK;
        for (int64_t i = 0; i < some; i++) {
            value[i] = draw(&seed);
            if (scaling)
                value[i] = (value[i] - scaling->zero) / scaling->scale;
        }
        fa_elements_store(t->dtype, data, first, value, some);
    }
}

void bench_repeat(void *data, fa_dtype dtype, size_t bytes, float x)
{
    const int64_t count = (int64_t)(bytes * (size_t)fa_dtype_block(dtype) / fa_dtype_size(dtype));
    for (int64_t i = 0; i < count; i++)
        fa_elements_store(dtype, data, i, &x, 1);
}
