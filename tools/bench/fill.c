/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the tensors of a case. */
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

void bench_fill(void *data, fa_dtype dtype, size_t bytes, uint64_t seed, const bench_scaling *scaling)
{
    enum { CHUNK = 576 };                      /* whole blocks of every type */
    const float scale = 1.7320508f / 65536.0f; /* sqrt(12 / 4), of numbers of 16 bits */
    const int64_t count = (int64_t)(bytes / fa_dtype_size(dtype)) * fa_dtype_block(dtype);
    float value[CHUNK];
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t some = count - first < CHUNK ? count - first : CHUNK;
        for (int64_t i = 0; i < some; i++) {
            uint64_t r = bench_random(&seed);
            uint32_t sum = (uint32_t)(r & 0xffff) + (uint32_t)(r >> 16 & 0xffff) +
                           (uint32_t)(r >> 32 & 0xffff) + (uint32_t)(r >> 48);
            value[i] = ((float)sum - 131070.0f) * scale;
            if (scaling)
                value[i] = (value[i] - scaling->zero) / scaling->scale;
        }
        fa_elements_store(dtype, data, first, value, some);
    }
}

void bench_repeat(void *data, fa_dtype dtype, size_t bytes, float x)
{
    const int64_t count = (int64_t)(bytes * (size_t)fa_dtype_block(dtype) / fa_dtype_size(dtype));
    for (int64_t i = 0; i < count; i++)
        fa_elements_store(dtype, data, i, &x, 1);
}
