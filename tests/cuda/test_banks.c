/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory has 32 banks of four bytes. What threads access at a time meets no bank twice: computed here from the
 * functions that the kernels address by.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "core/portable/format.h"
#include "tests/unit/helpers.h"

enum { BANKS = 32, WIDE = 8 /* threads whose accesses of 16 bytes are one */ };

static void check_wide(const fa_cuda_traits *t, const int at[WIDE])
{
    unsigned met = 0;
    for (int i = 0; i < WIDE; i++) {
        ck_assert_msg(at[i] % 16 == 0, "%s: byte %d", t->name, at[i]);
        met |= 1u << at[i] / 16 % WIDE;
    }
    ck_assert_msg(met == 0xff, "%s: 16-byte accesses meet in a bank, groups 0x%x of 0xff", t->name, met);
}

/* Volta: of keys and values, eight lanes read four rows. */
static void check_four(const fa_cuda_traits *t, int row, int chunk)
{
    unsigned met = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned group = 1u << fa_cuda_chunk_at(70, t->dim_v * 2, row + i, chunk) / 16 % WIDE;
        ck_assert_msg((met & group) == 0, "%s: rows from %d on meet in a bank", t->name, row);
        met |= group;
    }
}

/* Matrix loads: eight rows from a multiple of eight on, one chunk of each. And copies: neighbours take chunks of a row. */
static void check_tensor(const fa_cuda_traits *t)
{
    const int line = t->dim_v * 2, chunks = t->dim_v / 8;
    int at[WIDE];
    for (int row = 0; row < t->block_kv; row += WIDE) {
        for (int chunk = 0; chunk < chunks; chunk++) {
            /* Volta: lanes 4 p to 4 p + 3 of two quad pairs read rows of q eight apart. */
            for (int i = 0; i < WIDE; i++)
                at[i] = fa_cuda_chunk_at(t->unit, line, t->unit == 70 ? row * 2 + i % 4 + i / 4 * 8 : row + i,
                                         chunk);
            check_wide(t, at);
            if (t->unit == 70) {
                check_four(t, row, chunk);
                check_four(t, row + 4, chunk);
            }
        }
        for (int chunk = 0; chunk < chunks; chunk += WIDE) {
            for (int i = 0; i < WIDE; i++)
                at[i] = fa_cuda_chunk_at(t->unit, line, row, chunk + i);
            check_wide(t, at);
        }
    }
}

/* Finished rows as floats: the lanes of half a warp write pairs of neighbours, four lanes a row; reading, whole lines. */
static void check_finished(const fa_cuda_traits *t)
{
    for (int dim = 0; dim < t->dim_v / t->tensor.split; dim += WIDE) {
        unsigned met = 0;
        for (int lane = 0; lane < BANKS / 2; lane++)
            met |= 3u << ((dim + 2 * (lane % 4)) ^ fa_cuda_row_shift(lane / 4)) % BANKS;
        ck_assert_msg(met == 0xffffffffu, "%s: rows from dim %d on meet in a bank: 0x%x", t->name, dim, met);
    }
}

/* A warp that writes vectors of four dims as columns, one dim at a time, and lanes that read lines four columns each. */
static void check_fma_lines(const fa_cuda_traits *t, int width)
{
    const int across = t->fma.depth / 4;
    for (int dim = 0; dim < 4; dim++) {
        unsigned met = 0;
        for (int thread = 0; thread < BANKS; thread++)
            met |= 1u << (fa_cuda_fma_line(*t, width, thread % across * 4 + dim) + thread / across) % BANKS;
        ck_assert_msg(met == 0xffffffffu, "%s: columns of %d meet in a bank: 0x%x", t->name, width, met);
    }
    int at[WIDE];
    for (int term = 0; term < t->fma.depth; term++) {
        for (int i = 0; i < WIDE; i++)
            at[i] = 4 * (fa_cuda_fma_line(*t, width, term) + 4 * i);
        check_wide(t, at);
    }
}

START_TEST(every_variant_is_a_kernel)
{
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++)
        ck_assert_msg(fa_cuda_variant_of(*t, t->most_q) + (t->unit > 0) < FA_CUDA_VARIANTS, "%s", t->name);
}
END_TEST

/* What a block may have on the least GPU that has the unit: 7.0 has 96 KiB, 7.5 has 64, and of 8.x, 8.6 has 99. */
START_TEST(rows_fit_where_they_are_made_for)
{
    int served[3] = {0};
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        const int bytes = fa_cuda_shared_bytes(*t, 1, 0), unit = t->unit == 70 ? 0 : t->unit == 75 ? 1 : 2;
        const int most[] = {98304, 65536, 101376};
        if (t->kind == FA_CUDA_TENSOR && bytes <= most[unit])
            served[unit] = FA_MAX(served[unit], t->dim_v);
        if (t->kind == FA_CUDA_TENSOR && unit < 2)
            ck_assert_msg(fa_cuda_shared_bytes(*t, 1, fa_cuda_variant_of(*t, t->most_q)) <= most[unit], "%s",
                          t->name);
        if (t->kind == FA_CUDA_DECODE || t->kind == FA_CUDA_FMA || t->kind == FA_CUDA_ROWS)
            ck_assert_msg(bytes <= 49152, "%s takes %d bytes", t->name, bytes);
        if (t->kind == FA_CUDA_LATENT) /* of 9.0 alone */
            ck_assert_msg(bytes <= 232448, "%s takes %d bytes", t->name, bytes);
    }
    ck_assert_int_eq(served[0], 256);
    ck_assert_int_eq(served[1], 256);
    ck_assert_int_eq(served[2], 512);
}
END_TEST

/* Banks, as bits, where `words` words of each of `rows` rows lie, whose beginnings are `pitch` bytes apart; 0: two meet. */
static unsigned banks_of(int pitch, int rows, int words)
{
    unsigned banks = 0;
    for (int i = 0; i < rows * words; i++) {
        const unsigned bank = 1u << (i / words * pitch / 4 + i % words) % BANKS;
        if (banks & bank)
            return 0;
        banks |= bank;
    }
    return banks;
}

/*
 * Rows of codes: each fits its chunks, rows of eight keys begin in different banks, and 8.6 has room for the longest. Of values in
 * nibbles, the 16 bytes of a block in every second row of eight, which a warp reads at once, are in different banks too.
 */
START_TEST(codes_fit_and_do_not_meet)
{
    const int type = fa_cuda_coded_type(1, FA_TYPE_Q8_0, FA_TYPE_Q8_0);
    int met = 0;
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        if (t->kind != FA_CUDA_DECODE || t->unit < 80)
            continue;
        for (int format = FA_TYPE_E4M3; format <= FA_TYPE_E2M1; format++) {
            const int bytes = FA_TYPE_SPAN(format, t->dim_v), pitch = fa_cuda_coded_pitch(*t, format, true);
            unsigned banks = 0;
            for (int row = 0; row < 8; row++)
                banks |= 15u << row * pitch / 4 % BANKS;
            ck_assert_msg(banks == 0xffffffffu, "%s: rows of codes meet in a bank: 0x%x", t->name, banks);
            ck_assert_int_le(bytes + (bytes % 16 != 0 ? 8 : 0), 16 * fa_cuda_coded_chunks(*t, format));
            ck_assert_int_le(16 * fa_cuda_coded_chunks(*t, format), pitch);
            if (FA_TYPE_CODE_BITS(format) < 8) /* which begin at an even place */
                ck_assert_msg(banks_of(2 * pitch, 4, 5) != 0, "%s: nibbles meet in a bank", t->name);
        }
        for (int variant = 0; fa_cuda_rows_of(*t, variant) <= t->most_q; variant++)
            ck_assert_int_le(fa_cuda_shared_bytes(*t, type, variant), 101376);
        met++;
    }
    ck_assert_int_eq(met, 3);
}
END_TEST

/* Likewise in kernels for many rows: of what lanes read at once. 8.6 has room for 64 rows, 9.0 for two blocks of 128. */
START_TEST(tiles_of_codes_fit_and_do_not_meet)
{
    const int formats = FA_TYPE_IQ4_NL + 1 - FA_TYPE_E4M3;
    int met = 0;
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        if (t->kind != FA_CUDA_TENSOR || t->unit != 80)
            continue;
        for (int i = 0; i < formats * formats; i++) {
            const int k = FA_TYPE_E4M3 + i / formats, v = FA_TYPE_E4M3 + i % formats;
            const int pitch = fa_cuda_tile_pitch(*t, k), type = fa_cuda_coded_type(1, k, v);
            ck_assert_int_le(FA_TYPE_SPAN(k, t->dim_v), pitch);
            ck_assert_uint_ne(FA_TYPE_IS_FP8(k) ? banks_of(pitch, 8, 4) : banks_of(pitch, 16, 1), 0);
            ck_assert_int_eq(fa_cuda_tile_share(*t, k, v) % 16, 0);
            ck_assert_int_eq(fa_cuda_tile_notes(*t, k, v) % 16, 0);
            if (t->dim_v != 128)
                continue;
            ck_assert_int_le(fa_cuda_shared_bytes(*t, type, fa_cuda_variant_of(*t, 64)), 101376);
            ck_assert_int_le(2 * (fa_cuda_shared_bytes(*t, type, fa_cuda_variant_of(*t, 128)) + 1024),
                             233472);
            met++;
        }
    }
    ck_assert_int_eq(met, formats * formats);
}
END_TEST

/*
 * Blocks of 32 dims in lines that wgmma takes: each chunk has a place of its own in the stage, which the swizzle of its line's
 * length gives, and eight rows that lanes write at once are in different banks. A multiprocessor has room for all formats.
 */
START_TEST(lines_are_as_wgmma_takes_them)
{
    const int formats = FA_TYPE_IQ4_NL + 1 - FA_TYPE_E4M3;
    int met = 0;
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        if (!fa_cuda_takes_formats(*t))
            continue;
        for (int i = 0; i < 2 * t->block_kv * t->dim_v / 8; i++) {
            const bool of_v = i % 2;
            const int row = i / 2 % t->block_kv, chunk = i / 2 / t->block_kv, line = of_v ? 64 : 128;
            const int dims = line / 2,
                      plain = (chunk * 8 / dims * t->block_kv + row) * line + chunk % (dims / 8) * 16;
            const int swizzled = plain ^ (plain >> 7 & (of_v ? 3 : 7)) << 4;
            ck_assert_int_eq(fa_cuda_tile_block_at(*t, of_v, row, chunk / 4) ^ chunk % 4 * 16, swizzled);
        }
        for (int block = 0; block < t->dim_v / 32 * 2; block++) {
            int at[WIDE];
            for (int row = 0; row < WIDE; row++)
                at[row] = fa_cuda_tile_block_at(*t, block % 2, row, block / 2);
            check_wide(t, at);
        }
        for (int i = 0; i < formats * formats; i++) {
            const int type = fa_cuda_coded_type(1, FA_TYPE_E4M3 + i / formats, FA_TYPE_E4M3 + i % formats);
            ck_assert_int_le(fa_cuda_shared_bytes(*t, type, 0), 232448);
        }
        met++;
    }
    ck_assert_int_eq(met, 1);
}
END_TEST

START_TEST(no_bank_is_met_twice)
{
    int tensor = 0, fma = 0;
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        if (t->kind == FA_CUDA_TENSOR) {
            check_tensor(t);
            /* Volta's lanes are spread over more rows, and meet: once for each block of rows. */
            if (t->unit != 70)
                check_finished(t);
            tensor++;
        }
        if (t->kind == FA_CUDA_FMA) {
            check_fma_lines(t, t->block_kv);
            for (int rows = t->block_q; rows <= t->most_q; rows *= 2) {
                if (rows % BANKS == 0)
                    check_fma_lines(t, rows);
            }
            fma++;
        }
    }
    ck_assert_int_ge(tensor, 9);
    ck_assert_int_eq(fma, 4);
}
END_TEST

/* Keys in pages: what a thread takes from another lane is the row that it copies a chunk of. */
START_TEST(rows_are_looked_up_by_their_warp)
{
    for (const fa_cuda_traits *t = fa_cuda_table; t->kind != FA_CUDA_MERGE; t++) {
        const int chunks = t->dim_v / 8;
        for (int id = 0; t->kind == FA_CUDA_TENSOR && id < t->group; id++) {
            for (int i = 0; i < t->block_kv * chunks / t->group; i++) {
                const int lane = fa_cuda_lane_that_looks_up(chunks, id, i);
                ck_assert_int_lt(lane, 32);
                ck_assert_int_eq(fa_cuda_row_looked_up(t->group, chunks, id / 32 * 32 + lane),
                                 id / chunks + i * t->group / chunks);
            }
        }
    }
}
END_TEST

static int warps_of(size_t shared, size_t of_unit, int units, double items, double keys)
{
    const fa_cu_caps caps = {.units = units, .shared_bytes = shared, .unit_shared_bytes = of_unit};
    const fa_cuda_traits *t = fa_cuda_table;
    while (strcmp(t->name, "ampere-rows128") != 0)
        t++;
    const int type = fa_cuda_coded_type(1, FA_TYPE_Q8_0, FA_TYPE_Q8_0);
    const int warps = fa_cu_coded_warps(&caps, t, type, 0, items, keys);
    ck_assert_int_le(fa_cuda_decode_bytes(*t, type, 0, warps), (int)shared);
    ck_assert_int_le(warps, fa_cuda_coded_warps(*t, 0));
    return warps;
}

/* Of 9.0 with 132 multiprocessors; of 8.6, which has room for 8 warps; and of 8.0, which has for 12 in blocks of 4. */
START_TEST(blocks_are_as_wide_as_items_let_them)
{
    ck_assert_int_eq(warps_of(232448, 233472, 132, 128, 4096), 16);
    ck_assert_int_eq(warps_of(232448, 233472, 132, 132, 512), 16);
    ck_assert_int_eq(warps_of(232448, 233472, 132, 133, 4096), 8);
    ck_assert_int_eq(warps_of(232448, 233472, 132, 265, 4096), 4);
    ck_assert_int_eq(warps_of(232448, 233472, 132, 128, 511), 8);
    ck_assert_int_eq(warps_of(232448, 233472, 132, 1, 100), 4);
    ck_assert_int_eq(warps_of(101376, 102400, 84, 1, 4096), 8);
    ck_assert_int_eq(warps_of(166912, 167936, 108, 1, 4096), 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda banks");
    TCase *tc = tcase_create("banks");
    tcase_add_test(tc, rows_fit_where_they_are_made_for);
    tcase_add_test(tc, every_variant_is_a_kernel);
    tcase_add_test(tc, codes_fit_and_do_not_meet);
    tcase_add_test(tc, tiles_of_codes_fit_and_do_not_meet);
    tcase_add_test(tc, lines_are_as_wgmma_takes_them);
    tcase_add_test(tc, no_bank_is_met_twice);
    tcase_add_test(tc, rows_are_looked_up_by_their_warp);
    tcase_add_test(tc, blocks_are_as_wide_as_items_let_them);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
