/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tiling.h"

#include <math.h>
#include <string.h>

#include "core/size.h"
#include "helpers.h"
#include "suites.h"

/* A made-up device with one kernel on it. Speeds are what good kernels reach, not the data sheet's peaks. */
typedef struct made_up {
    const char *name;
    fa_limits limits;
    fa_tile_traits traits;
} made_up;

enum { V100, T4, MALI, ZEN4, NPU, DEVICE_COUNT };

static const made_up devices[DEVICE_COUNT] = {
    /* Volta's accumulator fragments are no operand fragments, so scores pass through shared memory as f16. Half
     * of the 256 KiB of registers accumulates. */
    [V100] = {"V100",
              {.units = 80,
               .onchip_bytes = 96 << 10,
               .accum_bytes = 128 << 10,
               .clock_hz = 1.53e9,
               .bytes_per_second = 900e9,
               .sync_cycles = 300,
               .item_cycles = 1500,
               .launch_cycles = 8000},
              {.tile = {16, 16, 4},
               .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V | FA_STAGE_S,
               .element_bytes = 2,
               .score_bytes = 2,
               .buffers = 1,
               .flops_per_cycle = 600,
               .scores_per_cycle = 60}},
    /* From Turing on, scores stay in registers. */
    [T4] = {"T4",
            {.units = 40,
             .onchip_bytes = 64 << 10,
             .accum_bytes = 128 << 10,
             .clock_hz = 1.59e9,
             .bytes_per_second = 320e9,
             .sync_cycles = 300,
             .item_cycles = 1500,
             .launch_cycles = 8000},
            {.tile = {16, 8, 8},
             .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V,
             .element_bytes = 2,
             .score_bytes = 2,
             .buffers = 1,
             .flops_per_cycle = 600,
             .scores_per_cycle = 60}},
    /* No matrix unit, f32 staged in 32 KiB, few registers. */
    [MALI] = {"Mali",
              {.units = 10,
               .onchip_bytes = 32 << 10,
               .accum_bytes = 16 << 10,
               .clock_hz = 0.85e9,
               .bytes_per_second = 20e9,
               .sync_cycles = 200,
               .item_cycles = 2000,
               .launch_cycles = 30000},
              {.tile = {4, 4, 1},
               .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V,
               .element_bytes = 4,
               .score_bytes = 4,
               .buffers = 1,
               .flops_per_cycle = 60,
               .scores_per_cycle = 30}},
    /* One core with 1 MiB of L2, everything of a block in it. */
    [ZEN4] = {"Zen 4",
              {.units = 8,
               .onchip_bytes = 1 << 20,
               .clock_hz = 4.5e9,
               .bytes_per_second = 60e9,
               .sync_cycles = 100,
               .item_cycles = 2000,
               .launch_cycles = 20000},
              {.tile = {16, 8, 1},
               .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V | FA_STAGE_S | FA_STAGE_O,
               .element_bytes = 4,
               .score_bytes = 4,
               .buffers = 1,
               .flops_per_cycle = 28,
               .scores_per_cycle = 1}},
    /* Ascend-like: a cube of 128 x 128, whose accumulator is one tile of rows high; operands stream through
     * buffers of the cube's own, and only scores are staged where cube and vector unit meet. Their meeting is
     * what costs (FastAttention, arXiv 2410.16663). */
    [NPU] = {"NPU",
             {.units = 24,
              .onchip_bytes = 512 << 10,
              .clock_hz = 1e9,
              .bytes_per_second = 1200e9,
              .sync_cycles = 1000,
              .item_cycles = 3000,
              .launch_cycles = 20000},
             {.tile = {128, 128, 16},
              .stage = FA_STAGE_S,
              .element_bytes = 2,
              .score_bytes = 4,
              .buffers = 1,
              .max_block_q = 128,
              .flops_per_cycle = 8192,
              .scores_per_cycle = 128}},
};

static fa_tile_problem square(const made_up *d, int64_t length, int32_t dim, double density)
{
    return (fa_tile_problem){.rows = length,
                             .keys = length,
                             .instances = 32,
                             .dim_qk = dim,
                             .dim_v = dim,
                             .far_bytes = d->traits.element_bytes,
                             .density = density,
                             .group = 1};
}

static bool fits(const made_up *d, const fa_tile_problem *p, const fa_tiling *t)
{
    return fa_tiling_onchip(&d->traits, p, t->block_q, t->block_kv) <= d->limits.onchip_bytes &&
           fa_tiling_accum(&d->limits, p, t->block_q, t->block_kv) <= d->limits.accum_bytes;
}

static fa_tiling choose(const made_up *d, const fa_tile_problem *p)
{
    fa_tiling t;
    if (!fa_tiling_choose(&d->limits, &d->traits, p, 0, 0, &t))
        ck_abort_msg("%s: nothing fits", d->name);
    return t;
}

/* What good implementations for these devices use, or what simple arithmetic says. */
START_TEST(expected_sizes)
{
    static const struct {
        int which;
        int64_t length;
        int32_t dim;
        double density;
        int32_t low_q, high_q, low_kv, high_kv;
    } row[] = {
        /* FlashAttention ports to Volta: 128 x 64 or 64 x 64. K and V of 64 keys take 32 KiB, Q of 128 rows 32
         * KiB, scores 16 KiB: of 96 KiB, doubling either side does not fit. */
        {V100, 4096, 128, 1, 128, 128, 64, 64},
        {V100, 4096, 128, 0.5, 64, 128, 32, 64},
        {V100, 65536, 128, 0.5, 128, 128, 64, 64},
        /* Half the dim: a side may double. */
        {V100, 4096, 64, 1, 128, 256, 64, 128},
        /* 256 wide, the output alone is 64 KiB of registers at 64 rows. */
        {V100, 4096, 256, 1, 64, 64, 32, 32},
        /* 64 KiB hold Q of 128 rows and K and V of 64 keys exactly. */
        {T4, 4096, 128, 1, 128, 128, 64, 64},
        {T4, 4096, 128, 0.5, 64, 128, 32, 64},
        {T4, 4096, 64, 1, 128, 256, 64, 128},
        /* 16 keys of K and V are 16 KiB, 16 rows of Q 8 KiB: f32 in 32 KiB leaves blocks this small. */
        {MALI, 4096, 128, 1, 16, 16, 16, 16},
        {MALI, 4096, 64, 1, 32, 32, 16, 32},
        {MALI, 4096, 64, 0.5, 16, 32, 16, 32},
        /* A core: hundreds of rows a pass over K and V, so that memory keeps up; within L2. */
        {ZEN4, 4096, 128, 1, 128, 512, 32, 256},
        {ZEN4, 4096, 128, 0.5, 64, 256, 16, 128},
        {ZEN4, 4096, 64, 1, 128, 512, 64, 256},
        /* 128 x 1024 scores of 4 bytes are the 512 KiB. */
        {NPU, 4096, 128, 1, 128, 128, 1024, 1024},
        {NPU, 65536, 128, 0.5, 128, 128, 1024, 1024},
        {NPU, 4096, 128, 0.5, 128, 128, 512, 1024},
        /* One row and one key: one tile. */
        {V100, 1, 128, 1, 16, 16, 16, 16},
    };
    for (int i = 0; i < COUNT(row); i++) {
        const made_up *d = &devices[row[i].which];
        fa_tile_problem p = square(d, row[i].length, row[i].dim, row[i].density);
        fa_tiling t = choose(d, &p);
        bool sane = t.block_q >= row[i].low_q && t.block_q <= row[i].high_q && t.block_kv >= row[i].low_kv &&
                    t.block_kv <= row[i].high_kv;
        ck_assert_msg(sane, "%s, length %lld, dim %d, density %g: %d x %d, expected %d to %d x %d to %d",
                      d->name, (long long)row[i].length, row[i].dim, row[i].density, t.block_q, t.block_kv,
                      row[i].low_q, row[i].high_q, row[i].low_kv, row[i].high_kv);
        ck_assert_str_eq(t.source, "model");
    }
}
END_TEST

/* One row against many keys: long blocks of keys, since nothing else amortises the synchronisation. */
START_TEST(decoding_takes_many_keys_at_once)
{
    static const int32_t least[DEVICE_COUNT] = {
        [V100] = 64, [T4] = 32, [MALI] = 8, [ZEN4] = 32, [NPU] = 1024};
    for (int i = 0; i < DEVICE_COUNT; i++) {
        fa_tile_problem p = square(&devices[i], 4096, 128, 1);
        p.rows = 1;
        fa_tiling t = choose(&devices[i], &p);
        ck_assert_int_eq(t.block_q, devices[i].traits.tile.q);
        ck_assert_msg(t.block_kv >= least[i], "%s: %d keys", devices[i].name, t.block_kv);
    }
}
END_TEST

/* A cut block is computed whole: on a triangle a block of all rows would do twice the work. */
START_TEST(masks_do_not_get_blocks_of_all_rows)
{
    for (int i = 0; i < DEVICE_COUNT; i++) {
        if (devices[i].traits.max_block_q)
            continue;
        fa_tile_problem p = square(&devices[i], 512, 64, 0.5);
        fa_tiling t = choose(&devices[i], &p);
        ck_assert_msg(t.block_q <= 128, "%s: %d rows", devices[i].name, t.block_q);
    }
}
END_TEST

static fa_tile_problem random_problem(random_state *random, const made_up *d)
{
    return (fa_tile_problem){
        .rows =
            random_between(random, 0, 3) ? random_between(random, 0, 20000) : random_between(random, 0, 4),
        .keys = random_between(random, 0, 20000),
        .instances = random_between(random, 0, 200),
        .dim_qk = (int32_t)random_between(random, 1, 160),
        .dim_v = (int32_t)random_between(random, 1, 160),
        .far_bytes = d->traits.element_bytes,
        .density = random_between(random, 0, 1) ? 1 : (double)random_float(random, 0, 1),
        .group = (int32_t)random_between(random, 0, 8),
    };
}

START_TEST(sizes_are_whole_tiles_that_fit)
{
    random_state random = {1};
    for (int n = 0; n < 2000; n++) {
        const made_up *d = &devices[n % DEVICE_COUNT];
        fa_tile_problem p = random_problem(&random, d);
        fa_tiling t = choose(d, &p), again = choose(d, &p);
        bool whole = t.block_q > 0 && t.block_kv > 0 && t.block_q % d->traits.tile.q == 0 &&
                     t.block_kv % d->traits.tile.kv == 0;
        bool needed = t.block_q < p.rows + d->traits.tile.q + (p.rows == 0) &&
                      t.block_kv < p.keys + d->traits.tile.kv + (p.keys == 0);
        if (!whole || !needed || !fits(d, &p, &t) || !isfinite(t.seconds) || t.seconds < 0 ||
            memcmp(&t.tile, &d->traits.tile, sizeof(t.tile)) != 0)
            ck_abort_msg("%s, %lld rows, %lld keys, dims %d and %d: %d x %d in %g s", d->name,
                         (long long)p.rows, (long long)p.keys, p.dim_qk, p.dim_v, t.block_q, t.block_kv,
                         t.seconds);
        if (t.block_q != again.block_q || t.block_kv != again.block_kv || t.seconds != again.seconds)
            ck_abort_msg("%s: the same question, another answer", d->name);
    }
}
END_TEST

START_TEST(more_memory_is_never_slower)
{
    random_state random = {2};
    for (int n = 0; n < 300; n++) {
        made_up d = devices[n % DEVICE_COUNT];
        fa_tile_problem p = random_problem(&random, &d);
        double last = INFINITY;
        for (uint64_t bytes = d.limits.onchip_bytes; bytes <= 4 << 20; bytes += bytes / 7) {
            d.limits.onchip_bytes = bytes;
            fa_tiling t = choose(&d, &p);
            if (t.seconds > last)
                ck_abort_msg("%s: %d x %d takes %.9g s with %llu bytes, %.9g s with fewer", d.name, t.block_q,
                             t.block_kv, t.seconds, (unsigned long long)bytes, last);
            last = t.seconds;
        }
    }
}
END_TEST

START_TEST(forced_sizes_are_rounded_up_to_tiles)
{
    for (int i = 0; i < DEVICE_COUNT; i++) {
        const made_up *d = &devices[i];
        fa_tile_problem p = square(d, 4096, 64, 1);
        fa_tiling t;
        int32_t q = d->traits.tile.q, kv = d->traits.tile.kv;
        ck_assert(fa_tiling_choose(&d->limits, &d->traits, &p, 1, 1, &t));
        ck_assert(t.block_q == q && t.block_kv == kv);
        ck_assert_str_eq(t.source, "tuning");
        ck_assert(fa_tiling_choose(&d->limits, &d->traits, &p, q, kv + 1, &t));
        ck_assert(t.block_q == q && t.block_kv == 2 * kv);
        /* One of the two: the other is searched for, and nothing is better than the free choice. */
        fa_tiling free_choice = choose(d, &p);
        ck_assert(fa_tiling_choose(&d->limits, &d->traits, &p, q, 0, &t));
        ck_assert_int_eq(t.block_q, q);
        ck_assert(t.block_kv % kv == 0 && t.seconds >= free_choice.seconds / 1.005);
        ck_assert(fa_tiling_choose(&d->limits, &d->traits, &p, 0, kv, &t));
        ck_assert_int_eq(t.block_kv, kv);
        /* Larger than the problem, and still taken as asked for. */
        p.rows = p.keys = 1;
        ck_assert(fa_tiling_choose(&d->limits, &d->traits, &p, q, 2 * kv, &t));
        ck_assert(t.block_q == q && t.block_kv == 2 * kv);
    }
}
END_TEST

START_TEST(a_device_too_small_is_refused)
{
    for (int i = 0; i < DEVICE_COUNT; i++) {
        made_up d = devices[i];
        fa_tile_problem p = square(&d, 4096, 128, 1);
        uint64_t least = fa_tiling_onchip(&d.traits, &p, d.traits.tile.q, d.traits.tile.kv);
        fa_tiling t;
        d.limits.onchip_bytes = least;
        ck_assert(fa_tiling_choose(&d.limits, &d.traits, &p, 0, 0, &t));
        ck_assert(t.block_q == d.traits.tile.q && t.block_kv == d.traits.tile.kv);
        d.limits.onchip_bytes = least - 1;
        ck_assert(!fa_tiling_choose(&d.limits, &d.traits, &p, 0, 0, &t));
        /* The tile that does not fit is what the message tells. */
        ck_assert(t.block_q == d.traits.tile.q && t.block_kv == d.traits.tile.kv);
        d = devices[i];
        ck_assert(!fa_tiling_choose(&d.limits, &d.traits, &p, 1 << 20, 1 << 20, &t));
        ck_assert(t.block_q == 1 << 20 && t.block_kv == 1 << 20);
    }
    /* Registers too few for one tile. */
    made_up d = devices[MALI];
    fa_tile_problem p = square(&d, 4096, 128, 1);
    d.limits.accum_bytes = fa_tiling_accum(&d.limits, &p, 4, 4) - 1;
    fa_tiling t;
    ck_assert(!fa_tiling_choose(&d.limits, &d.traits, &p, 0, 0, &t));
}
END_TEST

START_TEST(limits_of_the_kernel_bind)
{
    made_up d = devices[ZEN4];
    fa_tile_problem p = square(&d, 4096, 64, 1);
    d.traits.max_block_q = 48;  /* three tiles: no power of two of them */
    d.traits.max_block_kv = 20; /* two tiles and a half */
    fa_tiling t = choose(&d, &p);
    ck_assert_int_le(t.block_q, 48);
    ck_assert_int_le(t.block_kv, 16);
    ck_assert(!fa_tiling_choose(&d.limits, &d.traits, &p, 64, 0, &t));
}
END_TEST

/* Of a class, not of some number of sequences: one that leaves units idle says nothing about another. */
START_TEST(a_class_fills_units_that_hold_two_blocks)
{
    fa_limits limits = devices[T4].limits;
    const fa_tile_traits traits = devices[T4].traits;
    const fa_tile_problem decode = {.rows = 4,
                                    .keys = 4096,
                                    .instances = 40,
                                    .dim_qk = 64,
                                    .dim_v = 64,
                                    .far_bytes = 2,
                                    .density = 1,
                                    .group = 4};
    fa_tiling one, two;
    limits.compiled = true;
    const fa_tile_problem of_all = fa_tiling_class(&limits, &decode, true);
    const fa_limits alone = fa_limits_sane(&limits, 1), beside = fa_limits_sane(&limits, 2);
    ck_assert(fa_tiling_fastest(&alone, &traits, &of_all, 0, 0, &one));
    ck_assert(fa_tiling_fastest(&beside, &traits, &of_all, 0, 0, &two));
    ck_assert_double_eq_tol(two.seconds, one.seconds, 0.05 * one.seconds);
}
END_TEST

/* What a block keeps, by hand: Q 32 x 72, K 16 x 72 and V 16 x 40 (dims up to tiles of 8), twice, scores, output. */
START_TEST(dims_that_are_computed_anyway_count)
{
    const fa_limits *limits = &devices[T4].limits;
    fa_tile_traits traits = devices[T4].traits, wide = traits;
    wide.least_dim_qk = wide.least_dim_v = 128;
    fa_tile_problem few = {
        .rows = 4096, .keys = 4096, .instances = 16, .dim_qk = 64, .dim_v = 64, .far_bytes = 2, .density = 1};
    fa_tile_problem many = few;
    many.dim_qk = many.dim_v = 128;
    ck_assert_uint_eq(fa_tiling_onchip(&wide, &few, 64, 64), fa_tiling_onchip(&traits, &many, 64, 64));
    ck_assert_uint_eq(fa_tiling_onchip(&wide, &many, 64, 64), fa_tiling_onchip(&traits, &many, 64, 64));
    double cost = fa_tiling_block_cycles(limits, &wide, &few, 64, 64);
    ck_assert_double_gt(cost, fa_tiling_block_cycles(limits, &traits, &few, 64, 64));
    ck_assert_double_le(cost, fa_tiling_block_cycles(limits, &traits, &many, 64, 64));
}
END_TEST

START_TEST(bytes_by_hand)
{
    const fa_tile_problem p = {.dim_qk = 70, .dim_v = 33};
    fa_tile_traits t = {.tile = {16, 8, 8}, .element_bytes = 2, .score_bytes = 4, .buffers = 2};
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), 0);
    t.stage = FA_STAGE_Q;
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), 32 * 72 * 2);
    t.stage = FA_STAGE_K | FA_STAGE_V;
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), (16 * 72 + 16 * 40) * 2 * 2);
    t.stage = FA_STAGE_S | FA_STAGE_O;
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), 32 * 16 * 4 + 32 * 40 * 4);
    /* In slices: 4 lines of 32 rows beside 16 keys or 40 dims of v; what is exchanged takes the place of one. */
    t = (fa_tile_traits){
        .tile = {16, 8, 8}, .element_bytes = 4, .buffers = 2, .slice = 4, .fixed_bytes = 100};
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), 100 + 2 * 4 * (32 + 40) * 4);
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 48), 100 + 2 * 4 * (32 + 48) * 4);
    t.exchange = 16;
    ck_assert_uint_eq(fa_tiling_onchip(&t, &p, 32, 16), 100 + 2 * 16 * 32 * 4);
    fa_limits limits = {.accum_bytes = 1};
    ck_assert_uint_eq(fa_tiling_accum(&limits, &p, 32, 16), (32 * 33 + 32 * 16) * 4);
    limits.accum_bytes = 0;
    ck_assert_uint_eq(fa_tiling_accum(&limits, &p, 32, 16), 0);
}
END_TEST

/* The largest problem that can be described, on a kernel that stages nothing: no size leaves its type. */
START_TEST(huge_problems_stay_in_range)
{
    made_up d = devices[ZEN4];
    d.traits.stage = 0;
    fa_tile_problem p = square(&d, FA_MAX_LENGTH, FA_MAX_HEAD_DIM, 1);
    p.rows *= 1 << 20;
    fa_tiling t = choose(&d, &p);
    ck_assert(t.block_q > 0 && t.block_kv > 0 && isfinite(t.seconds));
}
END_TEST

START_TEST(sizes_that_overflow_say_so)
{
    int64_t i = 0;
    ck_assert(fa_mul_i64(1 << 30, 1 << 30, &i) && i == (int64_t)1 << 60);
    ck_assert(!fa_mul_i64(INT64_MAX, 2, &i));
    size_t total = 5;
    ck_assert(fa_grow(&total, 3, 4) && total == 17);
    ck_assert(!fa_grow(&total, SIZE_MAX, 2));
    ck_assert(!fa_grow(&total, PTRDIFF_MAX, 1));
    ck_assert_uint_eq(total, 17);
    ck_assert_int_eq(fa_ceil_div(0, 8), 0);
    ck_assert_int_eq(fa_ceil_div(1, 8), 1);
    ck_assert_int_eq(fa_ceil_div(8, 8), 1);
    ck_assert_int_eq(fa_round_up(9, 8), 16);
    ck_assert_uint_eq(fa_align64(0), 0);
    ck_assert_uint_eq(fa_align64(1), 64);
    ck_assert_uint_eq(fa_align64(64), 64);
}
END_TEST

static bool is_same(fa_tile_problem a, fa_tile_problem b)
{
    return a.rows == b.rows && a.keys == b.keys && a.instances == b.instances && a.density == b.density;
}

START_TEST(lengths_have_few_classes)
{
    const fa_limits free = {.units = 8}, compiled = {.units = 8, .compiled = true};
    const fa_tile_problem p = {
        .rows = 37, .keys = 70, .instances = 3, .dim_qk = 64, .dim_v = 64, .density = 0.5, .group = 4};
    fa_tile_problem other = p, a = fa_tiling_class(&free, &p, false), b;
    ck_assert(is_same(a, p));
    a = fa_tiling_class(&compiled, &p, false);
    other.rows = 5000;
    other.keys = 100000;
    other.instances = 64;
    other.density = 1;
    b = fa_tiling_class(&compiled, &other, false);
    ck_assert(is_same(a, b));
    a = fa_tiling_class(&compiled, &p, true);
    other.keys = 1;
    b = fa_tiling_class(&compiled, &other, true);
    ck_assert(is_same(a, b));
    ck_assert_int_eq(a.rows, 4); /* the group's */
    other.rows = 5;
    b = fa_tiling_class(&compiled, &other, false);
    ck_assert_int_eq(b.rows, 8);
    ck_assert_int_lt(b.keys, a.keys);
}
END_TEST

START_TEST(blocks_cover_few_rows)
{
    const fa_limits free = {.units = 8}, compiled = {.units = 8, .compiled = true};
    const fa_tile_traits t = {.tile = {32, 64, 64}};
    const struct {
        const fa_limits *limits;
        int64_t rows;
        int32_t block_q;
    } cases[] = {{&free, 1, 256},      {&compiled, 200, 256}, {&compiled, 128, 128},
                 {&compiled, 65, 128}, {&compiled, 1, 32},    {&compiled, 0, 32}};
    for (int i = 0; i < COUNT(cases); i++) {
        fa_tiling tiling = {.block_q = 256, .block_kv = 64};
        fa_tiling_cover(cases[i].limits, &t, cases[i].rows, &tiling);
        ck_assert_int_eq(tiling.block_q, cases[i].block_q);
    }
}
END_TEST

Suite *tiling_suite(void)
{
    Suite *suite = suite_create("tiling");
    TCase *tc = tcase_create("tiling");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, lengths_have_few_classes);
    tcase_add_test(tc, blocks_cover_few_rows);
    tcase_add_test(tc, expected_sizes);
    tcase_add_test(tc, decoding_takes_many_keys_at_once);
    tcase_add_test(tc, masks_do_not_get_blocks_of_all_rows);
    tcase_add_test(tc, sizes_are_whole_tiles_that_fit);
    tcase_add_test(tc, more_memory_is_never_slower);
    tcase_add_test(tc, forced_sizes_are_rounded_up_to_tiles);
    tcase_add_test(tc, a_device_too_small_is_refused);
    tcase_add_test(tc, limits_of_the_kernel_bind);
    tcase_add_test(tc, dims_that_are_computed_anyway_count);
    tcase_add_test(tc, a_class_fills_units_that_hold_two_blocks);
    tcase_add_test(tc, bytes_by_hand);
    tcase_add_test(tc, huge_problems_stay_in_range);
    tcase_add_test(tc, sizes_that_overflow_say_so);
    suite_add_tcase(suite, tc);
    return suite;
}
