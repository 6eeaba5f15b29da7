/* SPDX-License-Identifier: Apache-2.0 */
/* Plans on the null backend, which computes nothing. */
#include "core/backend.h"
#include "core/plan.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "helpers.h"
#include "suites.h"

static fa_plan_info info_of(const fa_plan *plan)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
    return info;
}

START_TEST(what_a_plan_tells)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 20, .block_kv = 16, .splits = 1};
    fa_attention_desc d = make_desc(2, 6, 3, 64, 80, 24);
    d.v.shape[3] = d.o.shape[3] = 8;
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    d.tuning = &tuning;
    d.want_lse = 1;
    fa_plan *plan = make_plan(&d);
    fa_plan_info info = info_of(plan);
    ck_assert_str_eq(info.kernel, "null");
    ck_assert_int_eq(info.block_q, 32); /* 20 rows, up to tiles of 16 */
    ck_assert_int_eq(info.block_kv, 16);
    ck_assert_int_eq(info.splits, 1);
    ck_assert_int_eq(info.group, 2);
    ck_assert_int_eq(info.sequences, 2);
    ck_assert_int_eq(info.heads_kv, 3);
    ck_assert_int_eq(info.items, 2 * 3 * 4); /* 128 packed rows in blocks of 32 */
    ck_assert_int_eq(info.merge_items, 0);
    ck_assert_uint_eq(info.pairs, 2 * 6 * 64 * 65 / 2);
    ck_assert(info.flops == 2.0 * (double)info.pairs * (24 + 8));
    ck_assert_int_eq(info.blocks_full + info.blocks_partial + info.blocks_skipped, 2 * 3 * 4 * 5);
    ck_assert_int_eq(info.blocks_full, 2 * 3 * (0 + 1 + 2 + 3));
    ck_assert_int_eq(info.blocks_partial, 2 * 3 * 4);
    double q = 2 * 6 * 64 * 24 * 4, o = 2 * 6 * 64 * 8 * 4, kv = 2 * 3 * 80 * 32 * 4, lse = 2 * 6 * 64 * 4;
    ck_assert(info.bytes_compulsory == q + o + kv + lse);
    /* Blocks of keys that a row block visits: 1, 2, 3, 4. */
    ck_assert(info.bytes_moved == q + o + lse + 2 * 3 * (1 + 2 + 3 + 4) * 16 * 32 * 4);
    ck_assert(info.syncs == 2 * 3 * (1 + 2 + 3 + 4) + 2 * 3 * 4);
    ck_assert(info.rescales == 2 * 3 * (1 + 2 + 3 + 4) * 32);
    ck_assert(info.imbalance >= 1 && info.seconds > 0 && isfinite(info.bytes_lower_bound));
    ck_assert_uint_eq(info.workspace, fa_plan_workspace(plan));
    ck_assert_uint_eq(info.workspace, 4 * 64); /* four units, 64 bytes of scratch each */
    fa_plan_destroy(plan);
}
END_TEST

/* Not the first kernel's, which another type would be needed for, but the one's that only lacks room. */
START_TEST(refusal_is_of_the_kernel_that_nearly_serves)
{
    fa_kernel halves = *null_device->kernel[0], small = halves;
    halves.name = "halves";
    halves.types_q = FA_TYPE(FA_F16);
    small.name = "small";
    small.traits.stage = FA_STAGE_K;
    null_device->kernel[0] = &halves;
    null_device->kernel[1] = &small;
    null_device->kernels = 2;
    null_device->limits.onchip_bytes = 16;
    fa_tensor t = fa_tensor_make(FA_F32, 1, 1, 64, 64);
    fa_attention_desc desc = {.struct_size = sizeof(desc), .q = t, .k = t, .v = t, .o = t};
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(null_device, &desc, &plan), FA_UNSUPPORTED);
    ck_assert_msg(strncmp(fa_last_error(), "small: a block of ", 18) == 0, "%s", fa_last_error());
}
END_TEST

/* A unit that holds four blocks at a time is planned for as four units of a quarter of its speed. */
START_TEST(resident_blocks_share_a_unit)
{
    fa_kernel kernel = *null_device->kernel[0];
    fa_attention_desc desc = make_desc(1, 8, 8, 512, 512, 64);
    fa_plan *alone = make_plan(&desc);
    kernel.traits.resident = 4;
    null_device->kernel[0] = &kernel;
    null_device->kernels = 1;
    fa_plan *shared = make_plan(&desc);
    ck_assert_uint_eq(shared->limits.units, 4 * alone->limits.units);
    ck_assert_double_eq_tol(shared->limits.clock_hz, alone->limits.clock_hz / 4, 1);
    /* The same work at the same speed: work for all, so that only what a unit waits for can differ. */
    double ratio = info_of(shared).seconds / info_of(alone).seconds;
    ck_assert_msg(ratio > 0.7 && ratio < 1.3, "%g", ratio);
    fa_plan_destroy(shared);
    fa_plan_destroy(alone);
}
END_TEST

/* More pairs than a number holds: as many as it holds, and the right FLOPs. */
START_TEST(pairs_beyond_64_bits)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 1 << 20, .block_kv = 1 << 20};
    static const int64_t heads[] = {1, 255, 256, 1024, 16384};
    null_device->limits.onchip_soft = true; /* blocks as large as that */
    for (int i = 0; i < COUNT(heads); i++) {
        fa_attention_desc d = make_desc(1, heads[i], heads[i], FA_MAX_LENGTH, FA_MAX_LENGTH, 1);
        d.tuning = &tuning;
        fa_plan *plan = make_plan(&d);
        fa_plan_info info = info_of(plan);
        double pairs = 0x1p56 * (double)heads[i];
        ck_assert_uint_eq(info.pairs, heads[i] < 256 ? (uint64_t)heads[i] << 56 : UINT64_MAX);
        ck_assert_double_eq_tol(info.flops, 4 * pairs, 1e-12 * pairs);
        ck_assert(info.bytes_lower_bound > 0 && info.seconds > 0);
        fa_plan_destroy(plan);
    }
}
END_TEST

/* Whatever a driver claims to have, a plan is made, in little time, and its numbers are numbers. */
START_TEST(devices_that_cannot_be)
{
    static const double numbers[] = {0,      -1,    (double)NAN, (double)INFINITY, -(double)INFINITY,
                                     1e-300, 1e300, 0x1p40};
    static const uint32_t units[] = {0, 1, 1u << 20, 1u << 31, UINT32_MAX};
    static const uint64_t bytes[] = {1 << 16, UINT64_MAX, (uint64_t)1 << 63};
    const fa_limits real = null_device->limits;
    fa_kernel kernel = *null_device->kernel[0];
    null_device->kernel[0] = &kernel;
    clock_t start = clock();
    for (int n = 0; n < COUNT(units) * COUNT(numbers) * COUNT(bytes); n++) {
        const double number = numbers[n / COUNT(units) % COUNT(numbers)];
        kernel.traits.resident = n % 2 ? 32 : 0; /* 2^31 times 32 is 0 in 32 bits */
        fa_limits *l = &null_device->limits;
        *l = real;
        l->units = units[n % COUNT(units)];
        l->onchip_bytes = bytes[n / COUNT(units) / COUNT(numbers)];
        l->clock_hz = l->bytes_per_second = l->sync_cycles = l->item_cycles = l->launch_cycles =
            l->run_cycles = number;
        /* One query that reads many keys, and many that read few: where the planner looks for parts. */
        const fa_attention_desc few = make_desc(1, 1, 1, 1, 1 << 20, 64),
                                many = make_desc(2, 8, 8, 4096, 4096, 64);
        for (int i = 0; i < 2; i++) {
            fa_plan *plan = make_plan(i ? &many : &few);
            fa_plan_info info = info_of(plan);
            ck_assert_msg(isfinite(info.seconds) && isfinite(info.imbalance) && info.imbalance >= 1 &&
                              info.workers >= 1 && info.items >= 1,
                          "%u units, %g: %g s, imbalance %g, %u workers", l->units, number, info.seconds,
                          info.imbalance, info.workers);
            fa_plan_destroy(plan);
        }
    }
    ck_assert_msg(clock() - start < 60 * CLOCKS_PER_SEC, "planning takes too long");
}
END_TEST

/* A workspace that a descriptor of the device cannot reach is refused when the plan is made, not when it runs. */
START_TEST(workspaces_larger_than_the_device_allows)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 16, .block_kv = 16, .splits = 4};
    fa_attention_desc d = make_desc(1, 2, 2, 16, 64, 64);
    d.tuning = &tuning;
    fa_plan *plan = make_plan(&d);
    size_t workspace = fa_plan_workspace(plan);
    fa_plan_destroy(plan);
    null_device->limits.tensor_bytes = workspace;
    fa_plan_destroy(make_plan(&d));
    null_device->limits.tensor_bytes--;
    ck_assert_int_eq(fa_device_supports(null_device, &d, NULL, 0), FA_UNSUPPORTED);
    assert_message("the workspace for 128 rows in parts has ");
}
END_TEST

START_TEST(operands_larger_than_the_device_allows)
{
    fa_attention_desc desc = make_desc(1, 2, 2, 16, 64, 32);
    null_device->limits.tensor_bytes = 2 * 64 * 32 * 4;
    ck_assert_int_eq(fa_device_supports(null_device, &desc, NULL, 0), FA_OK);
    null_device->limits.tensor_bytes--;
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(null_device, &desc, &plan), FA_UNSUPPORTED);
    ck_assert_msg(strncmp(fa_last_error(), "k spans 16384 bytes, ", 21) == 0, "%s", fa_last_error());
    ck_assert_msg(strstr(fa_last_error(), " serves at most 16383") != NULL, "%s", fa_last_error());
}
END_TEST

START_TEST(workspace_holds_the_parts)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 16, .block_kv = 16, .splits = 3};
    fa_attention_desc d = make_desc(1, 2, 2, 10, 64, 6);
    d.tuning = &tuning;
    fa_plan *plan = make_plan(&d);
    fa_plan_info info = info_of(plan);
    ck_assert_int_eq(info.splits, 3);
    ck_assert_int_eq(info.merge_items, 2);
    size_t partial = 2 * 3 * 10 * 6 * 4, states = 2 * 3 * 10 * 8;
    size_t least = 4 * 64 + partial + states;
    ck_assert(info.workspace >= least && info.workspace < least + 128 && info.workspace % 64 == 0);
    ck_assert_uint_eq(plan->partial_offset % 64, 0);
    ck_assert(plan->partial_state_offset >= plan->partial_offset + partial &&
              plan->partial_state_offset % 64 == 0);
    ck_assert(plan->partial_state_offset + states <= plan->workspace);
    fa_plan_destroy(plan);
}
END_TEST

START_TEST(grid_and_tiles)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 16, .block_kv = 16};
    const int64_t cu[] = {0, 0, 40};
    fa_attention_desc d = make_desc(2, 2, 1, 40, 50, 4);
    d.q.shape[0] = d.o.shape[0] = 1;
    d.cu_rows_q = cu;
    d.sequences = 2;
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    d.tuning = &tuning;
    fa_plan *plan = make_plan(&d);
    int64_t rows = 7, columns = 7;
    ck_assert_int_eq(fa_plan_grid(plan, 0, &rows, &columns), FA_OK);
    ck_assert(rows == 0 && columns == 4);
    ck_assert_int_eq(fa_plan_grid(plan, 1, &rows, &columns), FA_OK);
    ck_assert(rows == 5 && columns == 4); /* 40 rows of 2 heads in blocks of 16 */
    static const char picture[] = "/..."
                                  "/..."
                                  "#/.." /* rows 16 to 23 */
                                  "#/.."
                                  "##/.";
    fa_tile_class tile;
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(fa_plan_tile(plan, 1, i / 4, i % 4, &tile), FA_OK);
        ck_assert_msg("./#"[tile] == picture[i], "row %d, column %d: class %d", i / 4, i % 4, (int)tile);
    }
    static const int64_t outside[][3] = {{1, 5, 0}, {1, -1, 0}, {1, 0, 4}, {1, 0, -1}, {0, 0, 0}};
    for (int i = 0; i < COUNT(outside); i++) {
        ck_assert_int_eq(fa_plan_tile(plan, outside[i][0], outside[i][1], outside[i][2], &tile), FA_INVALID);
        assert_message("expected less than");
    }
    ck_assert_int_eq(fa_plan_tile(plan, 2, 0, 0, &tile), FA_INVALID);
    assert_message("sequence is 2, expected 0 to 1");
    ck_assert_int_eq(fa_plan_grid(plan, -1, &rows, &columns), FA_INVALID);
    assert_message("sequence is -1, expected 0 to 1");
    ck_assert_int_eq(fa_plan_tile(plan, 1, 0, 0, NULL), FA_INVALID);
    assert_message("tile is NULL");
    ck_assert_int_eq(fa_plan_grid(NULL, 0, &rows, &columns), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_grid(plan, 0, NULL, &columns), FA_INVALID);
    assert_message("rows is NULL");
    ck_assert_int_eq(fa_plan_grid(plan, 0, &rows, NULL), FA_INVALID);
    assert_message("columns is NULL");
    fa_plan_destroy(plan);
}
END_TEST

START_TEST(creation_refused_by_name)
{
    fa_plan *plan = (fa_plan *)(uintptr_t)&memory;
    fa_attention_desc d = make_desc(1, 1, 1, 4, 4, 4);
    ck_assert_int_eq(fa_plan_create(null_device, &d, NULL), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_create(NULL, &d, &plan), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_ptr_null(plan);
    plan = (fa_plan *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_plan_create(null_device, NULL, &plan), FA_INVALID);
    assert_message("desc is NULL");
    ck_assert_ptr_null(plan);
    d.k.shape[3] = 5;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_INVALID);
    assert_message("k.shape[3] is 5");
    ck_assert_ptr_null(plan);
    fa_plan_destroy(NULL);
    ck_assert_uint_eq(fa_plan_workspace(NULL), 0);
    fa_plan_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_plan_get_info(NULL, &info), FA_INVALID);
    assert_message("plan is NULL");
    d = make_desc(1, 1, 1, 4, 4, 4);
    plan = make_plan(&d);
    ck_assert_int_eq(fa_plan_get_info(plan, NULL), FA_INVALID);
    assert_message("info is NULL");
    info.struct_size = 10;
    ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_INVALID);
    assert_message("fa_plan_info.struct_size is 10");
    fa_plan_destroy(plan);
}
END_TEST

/* The capability query and plan creation say the same, with the same words. */
START_TEST(supports_says_what_create_does)
{
    fa_tuning tuning = {.struct_size = sizeof(tuning)};
    fa_attention_desc good = make_desc(1, 2, 1, 4, 4, 4), bad[4];
    for (int i = 0; i < COUNT(bad); i++) {
        bad[i] = good;
        bad[i].tuning = &tuning;
    }
    bad[0].q.shape[0] = -1;
    bad[1].scale = NAN;
    bad[2].struct_size = 1;
    tuning.kernel = "absent";
    char reason[300];
    memset(reason, 'x', sizeof(reason));
    ck_assert_int_eq(fa_device_supports(null_device, &good, reason, sizeof(reason)), FA_OK);
    ck_assert_str_eq(reason, "");
    ck_assert_str_eq(fa_last_error(), "");
    for (int i = 0; i < COUNT(bad); i++) {
        fa_plan *plan;
        fa_status status = fa_device_supports(null_device, &bad[i], reason, sizeof(reason));
        ck_assert_int_eq(status, i == 3 ? FA_UNSUPPORTED : FA_INVALID);
        ck_assert_int_eq(fa_plan_create(null_device, &bad[i], &plan), status);
        ck_assert_str_eq(fa_last_error(), reason);
    }
    ck_assert_str_eq(reason, "tuning.kernel is \"absent\", expected one of: null");
    tuning.kernel = "null";
    ck_assert_int_eq(fa_device_supports(null_device, &bad[3], NULL, 0), FA_OK);
    tuning.kernel = "absent";
    char small[8];
    ck_assert_int_eq(fa_device_supports(null_device, &bad[3], small, sizeof(small)), FA_UNSUPPORTED);
    ck_assert_str_eq(small, "tuning.");
    ck_assert_int_eq(fa_device_supports(null_device, &bad[3], small, 0), FA_UNSUPPORTED);
    ck_assert_int_eq(fa_device_supports(null_device, &bad[3], NULL, 100), FA_UNSUPPORTED);
    ck_assert_int_eq(fa_device_supports(NULL, &good, small, sizeof(small)), FA_INVALID);
    ck_assert_str_eq(small, "device ");
    /* A block that no on-chip memory holds. */
    tuning = (fa_tuning){.struct_size = sizeof(tuning), .block_q = 16, .block_kv = 1 << 20};
    ck_assert_int_eq(fa_device_supports(null_device, &bad[3], reason, sizeof(reason)), FA_UNSUPPORTED);
    assert_message(
        "null: a block of 16 rows and 1048576 keys needs 33554432 bytes on chip, 1048576 there are");
}
END_TEST

/* The field that gives sequences, and the heads that are grouped. */
START_TEST(kernels_refuse_fields)
{
    static const int64_t cu[] = {0, 4}, lens[] = {4}, first[] = {1};
    const struct {
        const int64_t *cu_q, *cu_kv, *lens_q, *lens_kv, *first;
        int32_t dynamic;
        const char *message;
    } row[] = {
        {cu, NULL, NULL, NULL, NULL, 0, "some: cu_rows_q is given, lengths of each sequence are not served"},
        {NULL, cu, NULL, NULL, NULL, 0, "some: cu_rows_kv is given"},
        {NULL, NULL, lens, NULL, NULL, 0, "some: lens_q is given"},
        {NULL, NULL, NULL, lens, NULL, 0, "some: lens_kv is given"},
        {NULL, NULL, NULL, NULL, first, 0, "some: first_kv is given"},
        {NULL, NULL, NULL, NULL, NULL, 1, "some: dynamic_lengths is 1, 0 is served"},
        {NULL, NULL, NULL, NULL, NULL, 0, "some: q.shape[1] is 2, served is k.shape[1], 1"},
    };
    const fa_kernel kernel = {.name = "some", .features = FA_FEATURE_MASK};
    for (int i = 0; i < COUNT(row); i++) {
        fa_attention_desc d = make_desc(1, 2, i == COUNT(row) - 1 ? 1 : 2, 4, 4, 16);
        fa_problem p;
        d.cu_rows_q = row[i].cu_q;
        d.cu_rows_kv = row[i].cu_kv;
        d.sequences = row[i].cu_q || row[i].cu_kv;
        d.lens_q = row[i].lens_q;
        d.lens_kv = row[i].lens_kv;
        d.first_kv = row[i].first;
        d.dynamic_lengths = row[i].dynamic;
        ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
        ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
        assert_message(row[i].message);
        fa_problem_release(context, &p);
    }
}
END_TEST

START_TEST(kernels_refuse_by_name)
{
    fa_kernel kernel = {.name = "some",
                        .features = FA_FEATURE_ALL,
                        .types_q = FA_TYPES_FLOAT,
                        .types_k = FA_TYPES_FLOAT,
                        .types_v = FA_TYPES_FLOAT,
                        .types_o = FA_TYPES_FLOAT,
                        .max_dim_qk = 64,
                        .max_dim_v = 32};
    const fa_kernel all = kernel;
    fa_attention_desc d = make_desc(1, 2, 1, 4, 4, 16);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    fa_problem p;
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    kernel.features &= ~(unsigned)FA_FEATURE_MASK;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: mask is not served");
    kernel = all;
    kernel.features &= ~(unsigned)FA_FEATURE_SOFTCAP;
    p.features |= FA_FEATURE_SOFTCAP;
    p.softcap = 2.5f;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: softcap is 2.5, 0 is served");
    p.features &= ~(unsigned)FA_FEATURE_SOFTCAP;
    kernel = all;
    kernel.features &= ~(unsigned)FA_FEATURE_SPLIT;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    p.tuning.splits = 2;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: tuning.splits is 2, at most 1 is served");
    p.tuning.splits = 0;
    kernel = all;
    kernel.needs = FA_FEATURE_MASK | FA_FEATURE_V_IN_K;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: a problem without v_in_k is not served");
    p.features |= FA_FEATURE_V_IN_K;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    kernel = all;
    kernel.types_k |= FA_TYPES_ROW;
    const fa_dtype plain = p.tensor[FA_K].dtype;
    p.tensor[FA_K].dtype = FA_FP8_DS_MLA;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    p.features &= ~(unsigned)FA_FEATURE_V_IN_K;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: k.dtype fp8_ds_mla is served with v_in_k alone");
    p.tensor[FA_K].dtype = plain;
    p.features |= FA_FEATURE_V_IN_K;
    kernel = all;
    kernel.max_dim_qk = 15;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: q.shape[3] is 16, at most 15 is served");
    kernel = all;
    kernel.max_dim_v = 8;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: v.shape[3] is 16, at most 8 is served");
    kernel = all;
    kernel.types_o = FA_TYPE(FA_F16) | FA_TYPE(FA_BF16);
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: o.dtype f32 is not served");
    kernel = all;
    kernel.declines = "it has no decoder";
    kernel.types_o = FA_TYPE(FA_F16);
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: o.dtype f32 is not served");
    p.tensor[FA_V].dtype = FA_Q8_0;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "some: v.dtype q8_0 is not served: it has no decoder");
    kernel = all;
    kernel.same_types = true;
    p.tensor[FA_V].dtype = FA_F32;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    p.tensor[FA_V].dtype = FA_BF16;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(),
                     "some: q.dtype f32, k.dtype f32 and v.dtype bf16 differ, one type is served");
    kernel.types_k = kernel.types_v = FA_TYPES_CACHE;
    p.tensor[FA_V].dtype = FA_Q8_0; /* k is not in a format of caches too */
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    kernel.mixes_coded = true; /* but of q's type */
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    p.tensor[FA_K].dtype = FA_F16;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    kernel.mixes_coded = false;
    p.tensor[FA_K].dtype = FA_E4M3;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    const fa_limits device = {.units = 10, .onchip_bytes = 1000};
    kernel.traits.resident = 3;
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).units, 30);
    kernel.resident_coded = 4;
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).units, 40);
    kernel.coded_bytes = 300;
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).onchip_bytes, 700);
    kernel.coded_bytes = 1300;
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).onchip_bytes, 0);
    p.tensor[FA_K].dtype = FA_F32; /* v is in one alone */
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).units, 40);
    p.tensor[FA_V].dtype = FA_F32;
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).units, 30);
    ck_assert_uint_eq(fa_kernel_limits(&kernel, &p, &device).onchip_bytes, 1000);
    const fa_limits loops = {.units = 10, .loop_turns = 58000};
    const int32_t dim_qk = p.dim_qk, dim_v = p.dim_v;
    kernel.traits.key_turns = 16;
    p.dim_qk = p.dim_v = 576;
    ck_assert_int_eq(fa_kernel_limits(&kernel, &p, &loops).loop_turns, 58000);
    p.tensor[FA_K].dtype = p.tensor[FA_V].dtype = FA_BITMAP_F16; /* 21 turns of each to count bits */
    ck_assert_int_eq(fa_kernel_limits(&kernel, &p, &loops).loop_turns, 16000);
    p.dim_qk = dim_qk;
    p.dim_v = dim_v;
    kernel.scale_dims = 32;
    p.tensor[FA_K].dtype = p.tensor[FA_V].dtype = FA_E4M3;
    p.k_scales.scale_type = FA_F32;
    p.k_scales.dims = 16; /* the whole row */
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    p.k_scales.dims = 8;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(),
                     "some: 8 dims share an element of k_scale, multiples of 32 are served or all 16");
    p.k_scales.dims = 64;
    ck_assert_int_eq(fa_kernel_supports(&kernel, &p), FA_OK);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(features_have_names)
{
    for (unsigned bit = 1; bit < FA_FEATURE_ALL; bit <<= 1)
        ck_assert_str_ne(fa_feature_name(bit), "unknown");
    ck_assert_str_eq(fa_feature_name(FA_FEATURE_MASK), "mask");
    ck_assert_str_eq(fa_feature_name(FA_FEATURE_SPLIT), "split");
    ck_assert_str_eq(fa_feature_name(FA_FEATURE_ALL + 1), "unknown");
    ck_assert_str_eq(fa_feature_name(0), "unknown");
}
END_TEST

Suite *plan_suite(void)
{
    Suite *suite = suite_create("plan");
    TCase *plan = add_device_case(suite, "plan");
    tcase_add_test(plan, refusal_is_of_the_kernel_that_nearly_serves);
    tcase_add_test(plan, resident_blocks_share_a_unit);
    tcase_add_test(plan, operands_larger_than_the_device_allows);
    tcase_add_test(plan, workspaces_larger_than_the_device_allows);
    tcase_add_test(plan, pairs_beyond_64_bits);
    tcase_add_test(plan, devices_that_cannot_be);
    tcase_add_test(plan, what_a_plan_tells);
    tcase_add_test(plan, workspace_holds_the_parts);
    tcase_add_test(plan, grid_and_tiles);
    tcase_add_test(plan, creation_refused_by_name);
    tcase_add_test(plan, supports_says_what_create_does);
    tcase_add_test(plan, kernels_refuse_by_name);
    tcase_add_test(plan, kernels_refuse_fields);
    tcase_add_test(plan, features_have_names);
    return suite;
}
