/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16 dot products for the peak measurement. An accumulator grows by the same small power of two with every
 * step and stands still where f32 has no room for more: never denormal, infinite or NaN, and of a speed that
 * does not depend on it.
 */
#if defined(__linux__) && defined(__x86_64__)
#define _DEFAULT_SOURCE /* syscall() */
#endif

#include "tools/bench/bench.h"

/* Not by version: a compiler that has the instructions has the headers, which gcc and clang name differently. */
#if defined(__x86_64__) && defined(__GNUC__) && defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define WITH_AVX512BF16 1
#endif
#if defined(__linux__) && (__has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>))
#define WITH_AMX 1
#endif
#endif

#if defined(WITH_AVX512BF16) || defined(WITH_AMX)
#include <cpuid.h>
#include <immintrin.h>

#define BF16_TINY 0x3b80 /* 2^-8 */
#endif

#ifdef WITH_AVX512BF16
enum { VECTORS = 24, VECTOR_FLOATS = 16 };
#define TWELVE_VECTORS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define EACH_VECTOR(DO) \
    TWELVE_VECTORS(DO)  \
    DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)
/* Each from a value of its own as far as the compiler knows: equal ones would be computed once for all. */
#define START(n) __m512 acc##n = _mm512_set1_ps((n)*zero);
#define STEP(n) acc##n = _mm512_dpbf16_ps(acc##n, tiny, tiny);
#define TOTAL(n) total = _mm512_add_ps(total, acc##n);

__attribute__((target("avx512f,avx512bf16"))) static float vector_multiply_add(int64_t steps)
{
    volatile float zero = 0.0f;
    float lane[VECTOR_FLOATS], sum = 0.0f;
    __m512 total = _mm512_set1_ps(zero);
    const __m512bh tiny = (__m512bh)_mm512_set1_epi16(BF16_TINY);
    EACH_VECTOR(START)
    for (int64_t i = 0; i < steps; i++) {
        EACH_VECTOR(STEP)
    }
    EACH_VECTOR(TOTAL)
    _mm512_storeu_ps(lane, total);
    for (int i = 0; i < VECTOR_FLOATS; i++)
        sum += lane[i];
    return sum;
}

static const bench_simd vector_kernels = {
    .isa = "avx512bf16",
    .flops_per_step = VECTORS * VECTOR_FLOATS * 4,
    .multiply_add = vector_multiply_add,
};

static bool vector_usable(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}
#endif

#ifdef WITH_AMX
#include <sys/syscall.h>
#include <unistd.h>

/* Six accumulators, which is more than latency over throughput (52 cycles, 16 cycles), and the two factors. */
enum { TILE_ROWS = 16, TILE_BYTES = 64, TILE_FLOATS = TILE_ROWS * TILE_BYTES / 4, TILES = 8, SUMS = 6 };
#define EACH_SUM(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define ZERO_TILE(n) _tile_zero(n);
#define TILE_STEP(n) _tile_dpbf16ps(n, 6, 7);
#define TILE_TOTAL(n)                     \
    _tile_stored(n, memory, TILE_BYTES);  \
    for (int i = 0; i < TILE_FLOATS; i++) \
        sum += memory[i];

/* What LDTILECFG reads. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

__attribute__((target("amx-tile,amx-bf16"))) static float tile_multiply_add(int64_t steps)
{
    uint16_t tiny[2 * TILE_FLOATS];
    float memory[TILE_FLOATS] = {0}, sum = 0.0f;
    tile_config config = {.palette = 1};
    for (int i = 0; i < TILES; i++) {
        config.row_bytes[i] = TILE_BYTES;
        config.rows[i] = TILE_ROWS;
    }
    for (int i = 0; i < 2 * TILE_FLOATS; i++)
        tiny[i] = BF16_TINY;
    /* gcc's intrinsics do not say what memory they read, so that writing it could be left out. */
    __asm__ volatile("" : : "r"(&config), "r"(tiny) : "memory");
    _tile_loadconfig(&config);
    EACH_SUM(ZERO_TILE)
    _tile_loadd(6, tiny, TILE_BYTES);
    _tile_loadd(7, tiny, TILE_BYTES);
    for (int64_t i = 0; i < steps; i++) {
        EACH_SUM(TILE_STEP)
    }
    EACH_SUM(TILE_TOTAL)
    _tile_release();
    return sum;
}

static const bench_simd tile_kernels = {
    .isa = "amx",
    .flops_per_step = SUMS * TILE_FLOATS * 32 * 2,
    .multiply_add = tile_multiply_add,
};

/* Linux hands out the registers of the tiles to a process that asks for them. */
static bool tile_usable(void)
{
    const long request_permission = 0x1023, tile_data = 18;
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1) && (d >> 22 & 1) &&
           syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

int bench_dots_find(const char *kernels, const bench_simd *found[BENCH_MAX_DOTS])
{
    int count = 0;
#ifdef WITH_AVX512BF16
    if (bench_isa_listed(kernels, vector_kernels.isa) && vector_usable())
        found[count++] = &vector_kernels;
#endif
#ifdef WITH_AMX
    if (bench_isa_listed(kernels, tile_kernels.isa) && tile_usable())
        found[count++] = &tile_kernels;
#endif
#if !defined(WITH_AVX512BF16) && !defined(WITH_AMX)
    (void)kernels;
    (void)found;
#endif
    return count;
}
