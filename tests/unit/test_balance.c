/* SPDX-License-Identifier: Apache-2.0 */
/* How evenly the planner shares work among 1 to 64 units of a processor, most of which no test machine has. */
#include <stdio.h>

#include "core/backend.h"
#include "core/plan.h"
#include "helpers.h"
#include "suites.h"

enum { MAX_UNITS = 64 };

/* As a server processor's: a core computes and fetches for itself, so that 64 are 64 times as fast as one. */
static const fa_limits one_unit = {.units = 1,
                                   .onchip_bytes = 1 << 20,
                                   .clock_hz = 3e9,
                                   .bytes_per_second = 12e9,
                                   .sync_cycles = 300,
                                   .item_cycles = 1500,
                                   .launch_cycles = 6000};
#define KERNEL_OF_ALL_TYPES                                                              \
    .features = FA_FEATURE_ALL, .types_q = FA_TYPES_FLOAT, .types_k = FA_TYPES_FLOAT,    \
    .types_v = FA_TYPES_FLOAT, .types_o = FA_TYPES_FLOAT, .max_dim_qk = FA_MAX_HEAD_DIM, \
    .max_dim_v = FA_MAX_HEAD_DIM
static const fa_kernel many_rows = {.name = "many-rows",
                                    KERNEL_OF_ALL_TYPES,
                                    .traits = {.tile = {16, 4, 1},
                                               .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V | FA_STAGE_O,
                                               .element_bytes = 4,
                                               .score_bytes = 4,
                                               .buffers = 1,
                                               .clips = true,
                                               .exposed = 1,
                                               .flops_per_cycle = 52,
                                               .scores_per_cycle = 1.6}};
static const fa_kernel few_rows = {.name = "few-rows",
                                   KERNEL_OF_ALL_TYPES,
                                   .traits = {.tile = {1, 16, 1},
                                              .stage = FA_STAGE_Q | FA_STAGE_S | FA_STAGE_O,
                                              .element_bytes = 4,
                                              .score_bytes = 4,
                                              .buffers = 1,
                                              .max_block_q = 32,
                                              .max_block_kv = 512,
                                              .flops_per_cycle = 34,
                                              .scores_per_cycle = 2}};

/* The null backend's device with so many of those units: plans are made as for any other device. */
static fa_plan *share(const fa_attention_desc *desc, uint32_t units)
{
    fa_plan *plan;
    null_device->limits = one_unit;
    null_device->limits.units = units;
    null_device->limits.bytes_per_second *= units;
    null_device->limits.launch_cycles = units > 1 ? one_unit.launch_cycles : 0;
    null_device->kernel[0] = &many_rows;
    null_device->kernel[1] = &few_rows;
    null_device->kernels = 2;
    ck_assert_msg(fa_plan_create(null_device, desc, &plan) == FA_OK, "%s", fa_last_error());
    return plan;
}

typedef struct user_shape {
    int64_t heads_q, heads_kv, len_q, len_kv, dim;
    fa_mask_kind mask;
} user_shape;

#define SQUARE(heads, length, dim)                                     \
    {heads, heads, length, length, dim, FA_MASK_NONE},                 \
    {                                                                  \
        heads, heads, length, length, dim, FA_MASK_CAUSAL_BOTTOM_RIGHT \
    }
#define SQUARES(heads, dim) \
    SQUARE(heads, 512, dim), SQUARE(heads, 1024, dim), SQUARE(heads, 2048, dim), SQUARE(heads, 4096, dim)
#define CACHE(length)                       \
    {                                       \
        32, 8, 1, length, 128, FA_MASK_NONE \
    }

static const user_shape shapes[] = {
    SQUARES(1, 64), SQUARES(8, 64), SQUARES(32, 64), SQUARES(1, 128), SQUARES(8, 128), SQUARES(32, 128),
    CACHE(1024),    CACHE(2048),    CACHE(4096),     CACHE(8192),     CACHE(16384),
};

/* With so many blocks for each unit the busiest has at most so much more than the mean. Below, there is a block
 * more or less: units that get two while others get three. */
static const struct {
    int64_t blocks;
    double imbalance;
} bounds[] = {{8, 1.25}, {16, 1.18}, {32, 1.12}};

/* Seconds of a unit from which on the planner has no excuse, whatever blocks it chose. */
static const double enough_seconds = 4e-3, enough_imbalance = 1.16;

/* Every unit takes the next item when it is free, the longest first: none ends later than the mean and one item. */
static void check_schedule(const fa_plan *plan, uint32_t units, const char *name)
{
    const fa_schedule *s = &plan->schedule;
    const double mean = s->cycles / units;
    const int64_t blocks = s->blocks_full + s->blocks_partial;
    ck_assert_msg(s->workers >= 1 && s->workers <= units && s->workers <= s->items,
                  "%s, %u units: %u workers", name, units, s->workers);
    if (s->workers == 1)
        return;
    ck_assert_msg(s->imbalance <= 1 + s->longest * (units - 1) / s->cycles + 1e-9,
                  "%s, %u units: imbalance %g", name, units, s->imbalance);
    for (int i = 0; i < COUNT(bounds); i++)
        ck_assert_msg(blocks < bounds[i].blocks * units || s->imbalance <= bounds[i].imbalance,
                      "%s, %u units, %lld blocks: imbalance %g", name, units, (long long)blocks,
                      s->imbalance);
    ck_assert_msg(mean < enough_seconds * one_unit.clock_hz || s->imbalance <= enough_imbalance,
                  "%s, %u units, %g ms each: imbalance %g", name, units, 1e3 * mean / one_unit.clock_hz,
                  s->imbalance);
}

static void check_units(const fa_attention_desc *desc, const char *name)
{
    double alone = 0;
    for (uint32_t units = 1; units <= MAX_UNITS; units++) {
        fa_plan *plan = share(desc, units);
        check_schedule(plan, units, name);
        fa_plan_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
        alone = units == 1 ? info.seconds : alone;
        ck_assert_msg(info.seconds <= alone, "%s: %g s on %u units, %g s on one", name, info.seconds, units,
                      alone);
        fa_plan_destroy(plan);
    }
}

START_TEST(work_is_shared_evenly)
{
    const user_shape *s = &shapes[_i];
    fa_attention_desc d = make_desc(1, s->heads_q, s->heads_kv, s->len_q, s->len_kv, s->dim);
    char name[96];
    d.mask = s->mask;
    (void)snprintf(name, sizeof(name), "H%lld/%lld S%lld SK%lld D%lld%s", (long long)s->heads_q,
                   (long long)s->heads_kv, (long long)s->len_q, (long long)s->len_kv, (long long)s->dim,
                   s->mask ? " causal" : "");
    check_units(&d, name);
}
END_TEST

/* A batch of very unequal sequences: one is longer than all others together. */
START_TEST(unequal_sequences_are_shared_evenly)
{
    static const int64_t ends[] = {0, 17, 4113, 4114, 4447, 6495, 6559, 7459};
    const int64_t rows = ends[COUNT(ends) - 1];
    fa_attention_desc d = make_desc(1, 8, 8, rows, rows, 64);
    d.sequences = COUNT(ends) - 1;
    d.cu_rows_q = d.cu_rows_kv = ends;
    d.mask = _i ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    check_units(&d, _i ? "unequal, causal" : "unequal");
}
END_TEST

/* Starting others costs more than they could take over. */
START_TEST(little_work_stays_with_one_unit)
{
    static const int64_t lengths[] = {1, 4, 8, 16};
    for (int i = 0; i < COUNT(lengths); i++) {
        fa_attention_desc d = make_desc(1, 1, 1, lengths[i], lengths[i], 64);
        for (uint32_t units = 2; units <= MAX_UNITS; units++) {
            fa_plan *plan = share(&d, units);
            ck_assert_uint_eq(plan->schedule.workers, 1);
            ck_assert(plan->schedule.imbalance == 1);
            fa_plan_destroy(plan);
        }
    }
}
END_TEST

/* Others are started where that saves a fifth of the time, with what starting them takes, and only there. */
START_TEST(sharing_saves_a_fifth)
{
    int shared = 0, kept = 0;
    for (int64_t length = 1; length <= 256; length += 3) {
        fa_attention_desc d = make_desc(1, 8, 8, _i ? 1 : length, length, 64);
        double seconds[2];
        uint32_t workers = 0;
        for (uint32_t units = 1; units <= 2; units++) {
            fa_plan_info info = {.struct_size = sizeof(info)};
            fa_plan *plan = share(&d, units);
            ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
            seconds[units - 1] = info.seconds;
            workers = info.workers;
            fa_plan_destroy(plan);
        }
        shared += workers > 1;
        kept += workers == 1;
        ck_assert_msg(workers == 1 || seconds[1] < 0.8 * seconds[0], "length %d: %g s shared, %g s alone",
                      (int)length, seconds[1], seconds[0]);
    }
    ck_assert(shared > 0 && kept > 0);
}
END_TEST

Suite *balance_suite(void)
{
    Suite *suite = suite_create("balance");
    TCase *tc = add_device_case(suite, "balance");
    tcase_add_loop_test(tc, work_is_shared_evenly, 0, COUNT(shapes));
    tcase_add_loop_test(tc, unequal_sequences_are_shared_evenly, 0, 2);
    tcase_add_test(tc, little_work_stays_with_one_unit);
    tcase_add_loop_test(tc, sharing_saves_a_fifth, 0, 2);
    return suite;
}
