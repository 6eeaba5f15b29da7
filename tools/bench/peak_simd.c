/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instruction sets for the peak measurement. Function attributes instead of one object per compiler flag: the
 * file is the same everywhere, and what a CPU lacks is never called.
 */
#include <string.h>

#include "tools/bench/bench.h"

#define FOUR(DO) DO(0) DO(1) DO(2) DO(3)
#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define TWENTY_FOUR(DO) \
    TWELVE(DO) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)

/*
 * Streams and prefetch distances in bytes. One stream alone is what hardware prefetchers are made for; where a
 * prefetcher stops at the end of a page, several streams, or asking for the next page early, keep more reads in
 * flight.
 */
#define READ_WAYS(DO) DO(1, 0) DO(1, 1024) DO(1, 4096) DO(2, 1024) DO(4, 2048)

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) (void)(p)
#endif

/* Plain C, which the compiler may still turn into what every CPU of the architecture has. */
#define NAME(word) scalar_##word
#define ISA_NAME "scalar"
#define TARGET
#define VEC float
#define SPLAT(x) (x)
#define FMA(a, b, c) ((a) * (b) + (c))
#define LOAD(p) (*(p))
#define ADD(a, b) ((a) + (b))
#define STORE(p, a) (*(p) = (a))
#define ACCUMULATORS(DO) TWELVE(DO)
#define READERS(DO) TWELVE(DO)
#include "peak_kernel.inc"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define NAME(word) avx2_##word
#define ISA_NAME "avx2"
#define TARGET __attribute__((target("avx2,fma")))
#define VEC __m256
#define SPLAT(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define LOAD(p) _mm256_loadu_ps(p)
#define ADD(a, b) _mm256_add_ps(a, b)
#define STORE(p, a) _mm256_storeu_ps(p, a)
#define ACCUMULATORS(DO) TWELVE(DO)
#define READERS(DO) FOUR(DO)
#include "peak_kernel.inc"

#define NAME(word) avx512_##word
#define ISA_NAME "avx512"
#define TARGET __attribute__((target("avx512f")))
#define VEC __m512
#define SPLAT(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define LOAD(p) _mm512_loadu_ps(p)
#define ADD(a, b) _mm512_add_ps(a, b)
#define STORE(p, a) _mm512_storeu_ps(p, a)
#define ACCUMULATORS(DO) TWENTY_FOUR(DO)
#define READERS(DO) FOUR(DO)
#include "peak_kernel.inc"

#elif defined(__aarch64__)
#include <arm_neon.h>

#define NAME(word) neon_##word
#define ISA_NAME "neon"
#define TARGET
#define VEC float32x4_t
#define SPLAT(x) vdupq_n_f32(x)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define LOAD(p) vld1q_f32(p)
#define ADD(a, b) vaddq_f32(a, b)
#define STORE(p, a) vst1q_f32(p, a)
#define ACCUMULATORS(DO) TWENTY_FOUR(DO)
#define READERS(DO) FOUR(DO)
#include "peak_kernel.inc"
#endif

bool bench_isa_listed(const char *kernels, const char *isa)
{
    size_t length = strlen(isa);
    for (const char *at = kernels; at; at = strchr(at, ',')) {
        at += strspn(at, ", ");
        if (!strncmp(at, isa, length) && at[length] == '-')
            return true;
    }
    return false;
}

const bench_simd *bench_simd_find(const char *kernels)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (bench_isa_listed(kernels, "avx512") && __builtin_cpu_supports("avx512f"))
        return &avx512_kernels;
    if (bench_isa_listed(kernels, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &avx2_kernels;
#elif defined(__aarch64__)
    if (bench_isa_listed(kernels, "neon"))
        return &neon_kernels;
#endif
    return bench_isa_listed(kernels, "scalar") ? &scalar_kernels : NULL;
}
