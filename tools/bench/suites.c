/* SPDX-License-Identifier: Apache-2.0 */
/* The lists of cases that `fastattn bench --suite` knows. */
#include <stdlib.h>

#include "tools/bench/bench.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool bench_cases_add(bench_cases *cases, const bench_case *c)
{
    if (cases->count == cases->room) {
        size_t room = cases->room ? 2 * cases->room : 64;
        bench_case *grown = realloc(cases->item, room * sizeof(*grown));
        if (!grown)
            return false;
        cases->item = grown;
        cases->room = room;
    }
    cases->item[cases->count++] = *c;
    return true;
}

static bench_case square_case(int64_t heads, int64_t length, int64_t dim, fa_dtype dtype, bool causal)
{
    return (bench_case){
        .size = {.batch = 1,
                 .heads_q = heads,
                 .len_q = length,
                 .dim_qk = dim,
                 .heads_kv = heads,
                 .len_kv = length,
                 .dim_v = dim},
        .dtype = dtype,
        .causal = causal,
    };
}

/* New tokens of one sequence against its cache, with the grouped heads of an 8-billion-parameter Llama 3. */
static bench_case cache_case(int64_t rows, int64_t keys, fa_dtype dtype)
{
    return (bench_case){
        .size = {.batch = 1,
                 .heads_q = 32,
                 .len_q = rows,
                 .dim_qk = 128,
                 .heads_kv = 8,
                 .len_kv = keys,
                 .dim_v = 128},
        .dtype = dtype,
    };
}

static bool add_quick(bench_cases *cases, fa_dtype dtype)
{
    const bench_case list[] = {
        square_case(8, 512, 64, dtype, false),
        square_case(8, 1024, 128, dtype, false),
        square_case(8, 1024, 128, dtype, true),
        cache_case(1, 4096, dtype),
    };
    bool ok = true;
    for (size_t i = 0; ok && i < COUNT(list); i++)
        ok = bench_cases_add(cases, &list[i]);
    return ok;
}

static bool add_prefill(bench_cases *cases, fa_dtype dtype)
{
    bool ok = true;
    for (int64_t dim = 64; dim <= 128; dim *= 2) {
        for (int causal = 0; causal <= 1; causal++) {
            for (int64_t length = 512; ok && length <= 4096; length *= 2) {
                bench_case c = square_case(8, length, dim, dtype, causal);
                ok = bench_cases_add(cases, &c);
            }
        }
    }
    return ok;
}

static bool add_decode(bench_cases *cases, fa_dtype dtype)
{
    /* Around powers of two, where a kernel that has one path for few rows and one for many has its seam. */
    static const int64_t rows[] = {2, 3, 4, 7, 8, 12, 15, 16, 24, 31, 32, 48, 63};
    const int64_t long_cache = 4096;
    bool ok = true;
    for (int64_t keys = 1024; ok && keys <= 16384; keys *= 2) {
        bench_case c = cache_case(1, keys, dtype);
        ok = bench_cases_add(cases, &c);
    }
    for (size_t i = 0; ok && i < COUNT(rows); i++) {
        bench_case c = cache_case(rows[i], long_cache, dtype);
        ok = bench_cases_add(cases, &c);
    }
    return ok;
}

static bool add_blocks(bench_cases *cases, fa_dtype dtype)
{
    static const int32_t widths[] = {0, 64, 128, 256, 512, 1024}; /* 0: the planner's choice */
    bool ok = true;
    for (int64_t dim = 64; dim <= 128; dim *= 2) {
        for (int causal = 0; causal <= 1; causal++) {
            for (size_t i = 0; ok && i < COUNT(widths); i++) {
                bench_case c = square_case(8, 2048, dim, dtype, causal);
                c.block_kv = widths[i];
                c.axis = BENCH_BY_BLOCK;
                ok = bench_cases_add(cases, &c);
            }
        }
    }
    return ok;
}

static bool add_dims(bench_cases *cases, fa_dtype dtype)
{
    static const struct {
        int64_t qk, v;
    } dims[] = {{1, 1},   {16, 16}, {17, 17},   {32, 32},   {40, 40},   {64, 64},  {72, 72},
                {80, 80}, {96, 96}, {112, 112}, {128, 128}, {256, 256}, {576, 512}};
    bool ok = true;
    for (size_t i = 0; ok && i < COUNT(dims); i++) {
        bench_case c = square_case(8, 1024, dims[i].qk, dtype, false);
        c.size.dim_v = dims[i].v;
        c.axis = BENCH_BY_DIM;
        ok = bench_cases_add(cases, &c);
    }
    return ok;
}

static bool add_tiny(bench_cases *cases, fa_dtype dtype)
{
    static const int64_t lengths[] = {1, 4, 8, 16, 32, 64};
    bool ok = true;
    for (int64_t heads = 1; heads <= 8; heads *= 8) {
        for (size_t i = 0; ok && i < COUNT(lengths); i++) {
            bench_case c = square_case(heads, lengths[i], 64, dtype, false);
            ok = bench_cases_add(cases, &c);
        }
    }
    return ok;
}

/* Enough work for a GPU; at the longest one batch less, where every score in memory takes most of it. */
static bool add_gpu(bench_cases *cases, fa_dtype dtype)
{
    static const struct {
        int64_t batch, length;
    } squares[] = {{2, 2048}, {2, 4096}, {2, 8192}, {1, 16384}}, caches[] = {{16, 4096}, {1, 16384}};
    bool ok = true;
    for (int64_t dim = 64; dim <= 128; dim *= 2) {
        for (int causal = 0; causal <= 1; causal++) {
            for (size_t i = 0; ok && i < COUNT(squares); i++) {
                bench_case c = square_case(16, squares[i].length, dim, dtype, causal);
                c.size.batch = squares[i].batch;
                ok = bench_cases_add(cases, &c);
            }
        }
    }
    for (size_t i = 0; ok && i < COUNT(caches); i++) {
        bench_case c = cache_case(1, caches[i].length, dtype);
        c.size.batch = caches[i].batch;
        ok = bench_cases_add(cases, &c);
    }
    return ok;
}

static bool add_overhead(bench_cases *cases, fa_dtype dtype)
{
    bench_case c = square_case(1, 1, 1, dtype, false);
    c.axis = BENCH_NOT_DRAWN;
    c.call = BENCH_RUN;
    bool ok = bench_cases_add(cases, &c);
    c.call = BENCH_HOST;
    return ok && bench_cases_add(cases, &c);
}

const bench_suite bench_suites[BENCH_SUITES] = {
    {"quick", false, add_quick},      {"prefill", false, add_prefill}, {"decode", false, add_decode},
    {"blocks", false, add_blocks},    {"dims", true, add_dims},        {"tiny", true, add_tiny},
    {"overhead", true, add_overhead}, {"gpu", false, add_gpu},
};
