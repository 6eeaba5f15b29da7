/* SPDX-License-Identifier: Apache-2.0 */
/* Into how many chunks a layer is cut, and where: pure functions. */
#include <fastattn/ranks.h>

#include "core/ranks/chunks.h"
#include "tests/unit/helpers.h"

/* The model: one chunk where a link has latency alone, more where it has bandwidth, and never worse than in turn. */
START_TEST(model)
{
    fa_link_model m = {.compute_seconds = 10e-3,
                       .bytes = 1e6,
                       .latency = 5e-3,
                       .bandwidth = 1e12,
                       .chunk_seconds = fa_chunks_cost(true, false),
                       .overlaps = true};
    ck_assert_int_eq(fa_chunks_choose(&m, 64), 1);
    m.latency = 20e-6;
    m.bandwidth = 100e6; /* 10 ms */
    const int64_t n = fa_chunks_choose(&m, 64);
    ck_assert_int_gt(n, 8);
    ck_assert_double_lt(fa_chunks_seconds(&m, n), 0.6 * fa_chunks_seconds(&m, 1));
    ck_assert_double_gt(fa_chunks_seconds(&m, n), 10e-3);
    ck_assert_int_eq(fa_chunks_choose(&m, 3), 3);
    m.chunk_seconds = 10e-3; /* more than a chunk hides */
    ck_assert_int_eq(fa_chunks_choose(&m, 64), 1);
    m.chunk_seconds = fa_chunks_cost(true, false);
    m.overlaps = false;
    ck_assert_int_eq(fa_chunks_choose(&m, 64), 1);
}
END_TEST

/*
 * Two H200, of which tests/ranks/time_layer.c measured each number of chunks (docs/ranks.md): the model takes nothing that
 * was slower than one chunk, and mostly what was fastest, or near to it.
 */
START_TEST(model_of_enqueued_chunks)
{
    static const struct {
        double compute, megabytes, gigabytes_per_second;
        int64_t blocks, chunks;
    } measured[] = {
        {0.153e-3, 16.8, 240, 256, 1}, {0.318e-3, 33.6, 267, 512, 1},  {0.975e-3, 67.1, 280, 1024, 4},
        {2.184e-3, 134, 294, 2048, 4}, {12.07e-3, 268, 306, 4096, 4},  {25.37e-3, 537, 322, 8192, 8},
        {0.320e-3, 33.6, 155, 512, 1}, {0.970e-3, 67.1, 157, 1024, 4}, {0.964e-3, 67.1, 83, 1024, 4},
    };
    for (int i = 0; i < COUNT(measured); i++) {
        const fa_link_model m = {.compute_seconds = measured[i].compute,
                                 .bytes = 1e6 * measured[i].megabytes,
                                 .latency = 7e-6,
                                 .bandwidth = 1e9 * measured[i].gigabytes_per_second,
                                 .chunk_seconds = fa_chunks_cost(false, true),
                                 .overlaps = true,
                                 .enqueued = true};
        const int64_t n = fa_chunks_choose(&m, fa_chunks_filling(measured[i].blocks, 132));
        ck_assert_msg(n == measured[i].chunks, "%d: %lld", i, (long long)n);
    }
}
END_TEST

START_TEST(cuts)
{
    const fa_token_range sequence[] = {{0, 10}, {10, 0}, {10, 37}, {60, 40}};
    int64_t cut[FA_SHARDED_MAX_CHUNKS + 1];
    for (int64_t unit = 1; unit <= 16; unit++) {
        for (int64_t chunks = 1; chunks <= 64; chunks++) {
            const int64_t n = fa_chunks_cut(100, chunks, unit, sequence, 4, cut);
            ck_assert_int_le(n, chunks);
            ck_assert_int_eq(cut[0], 0);
            ck_assert_int_eq(cut[n], 100);
            for (int64_t i = 1; i <= n; i++) {
                ck_assert_int_gt(cut[i], cut[i - 1]);
                for (int s = 0; s < 4; s++) {
                    const int64_t at = cut[i] - sequence[s].first;
                    if (at > 0 && at < sequence[s].count)
                        ck_assert_int_eq(at % unit, 0);
                }
            }
        }
    }
    ck_assert_int_eq(fa_chunks_cut(100, 4, 5, &(fa_token_range){0, 100}, 1, cut), 4);
    ck_assert_int_eq(cut[1], 25);
    ck_assert_int_eq(fa_chunks_cut(0, 4, 5, NULL, 0, cut), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chunks");
    TCase *tc = tcase_create("chunks");
    tcase_add_test(tc, model);
    tcase_add_test(tc, model_of_enqueued_chunks);
    tcase_add_test(tc, cuts);
    suite_add_tcase(suite, tc);
    return run_unforked(suite);
}
