/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and runs on the null backend, which computes nothing and checks everything. */
#include "backends/backend.h"
#include "core/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

/* Not the first row's, which another type would be needed for, but the one's that only lacks room. */
START_TEST(refusal_is_of_the_row_that_nearly_serves)
{
    fa_kernel_row halves = *null_device->row[0], small = halves;
    halves.name = "halves";
    halves.types_q = FA_TYPE(FA_F16);
    small.name = "small";
    small.traits.stage = FA_STAGE_K;
    null_device->row[0] = &halves;
    null_device->row[1] = &small;
    null_device->rows = 2;
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
    fa_kernel_row row = *null_device->row[0];
    fa_attention_desc desc = make_desc(1, 8, 8, 512, 512, 64);
    fa_plan *alone = make_plan(&desc);
    row.traits.resident = 4;
    null_device->row[0] = &row;
    null_device->rows = 1;
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
    size_t partial = 2 * 3 * 10 * 6 * 4, lse = 2 * 3 * 10 * 4;
    size_t least = 4 * 64 + partial + lse;
    ck_assert(info.workspace >= least && info.workspace < least + 128 && info.workspace % 64 == 0);
    ck_assert_uint_eq(plan->partial_offset % 64, 0);
    ck_assert(plan->partial_lse_offset >= plan->partial_offset + partial &&
              plan->partial_lse_offset % 64 == 0);
    ck_assert(plan->partial_lse_offset + lse <= plan->workspace);
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

START_TEST(kernel_rows_refuse_by_name)
{
    fa_kernel_row row = {.name = "row",
                         .features = FA_FEATURE_ALL,
                         .types_q = FA_TYPES_FLOAT,
                         .types_k = FA_TYPES_FLOAT,
                         .types_v = FA_TYPES_FLOAT,
                         .types_o = FA_TYPES_FLOAT,
                         .max_dim_qk = 64,
                         .max_dim_v = 32};
    const fa_kernel_row all = row;
    fa_attention_desc d = make_desc(1, 2, 1, 4, 4, 16);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    fa_problem p;
    ck_assert_int_eq(fa_problem_init(context, &d, &p), FA_OK);
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_OK);
    row.features &= ~(unsigned)FA_FEATURE_MASK;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "row: mask is not served");
    row = all;
    row.features &= ~(unsigned)FA_FEATURE_SPLIT;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_OK);
    p.tuning.splits = 2;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "row: split is not served");
    row = all;
    row.max_dim_qk = 15;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "row: q.shape[3] is 16, at most 15 is served");
    row = all;
    row.max_dim_v = 8;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "row: v.shape[3] is 16, at most 8 is served");
    row = all;
    row.types_o = FA_TYPE(FA_F16) | FA_TYPE(FA_BF16);
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(), "row: o.dtype f32 is not served");
    row = all;
    row.same_types = true;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_OK);
    p.tensor[FA_V].dtype = FA_BF16;
    ck_assert_int_eq(fa_kernel_supports(&row, &p), FA_UNSUPPORTED);
    ck_assert_str_eq(fa_last_error(),
                     "row: q.dtype f32, k.dtype f32 and v.dtype bf16 differ, one type is served");
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

/* Everything that a run can be given, each in its own buffer. */
enum { ELEMENTS = 2 * 2 * 8 * 4, BYTES = ELEMENTS * 4 };

typedef struct run_case {
    fa_plan *plan;
    fa_buffer *buffer[8]; /* q k v o bias keep lse workspace */
    fa_attention_args args;
} run_case;

static fa_attention_desc full_desc(void)
{
    fa_attention_desc d = make_desc(2, 2, 2, 8, 8, 4);
    d.q.dtype = FA_F16;
    d.bias = fa_tensor_make(FA_F32, 2, 2, 8, 8);
    d.keep = fa_tensor_make(FA_BOOL, 2, 2, 8, 8);
    d.want_lse = 1;
    return d;
}

static void make_run(run_case *r)
{
    const fa_attention_desc d = full_desc();
    r->plan = make_plan(&d);
    const size_t size[8] = {BYTES / 2, BYTES,     BYTES,     BYTES,
                            2 * BYTES, BYTES / 2, BYTES / 4, fa_plan_workspace(r->plan)};
    ck_assert_uint_gt(size[7], 0);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(fa_buffer_create(null_device, size[i], &r->buffer[i]), FA_OK);
    fa_buffer *const *b = r->buffer;
    r->args = (fa_attention_args){.struct_size = sizeof(r->args),
                                  .q = b[0],
                                  .k = b[1],
                                  .v = b[2],
                                  .o = b[3],
                                  .bias = b[4],
                                  .keep = b[5],
                                  .lse = b[6],
                                  .workspace = b[7]};
}

static void free_run(run_case *r)
{
    for (int i = 0; i < 8; i++)
        fa_buffer_destroy(r->buffer[i]);
    fa_plan_destroy(r->plan);
}

/* The i-th buffer of the arguments and its offset, in the order of `buffer` above. */
static fa_buffer **buffer_of(fa_attention_args *a, int i)
{
    fa_buffer **const of[8] = {&a->q, &a->k, &a->v, &a->o, &a->bias, &a->keep, &a->lse, &a->workspace};
    return of[i];
}

static size_t *offset_of(fa_attention_args *a, int i)
{
    size_t *const of[8] = {&a->q_offset,    &a->k_offset,    &a->v_offset,   &a->o_offset,
                           &a->bias_offset, &a->keep_offset, &a->lse_offset, &a->workspace_offset};
    return of[i];
}

static const char *const operand[8] = {"q", "k", "v", "o", "bias", "keep", "lse", "workspace"};

static void refuse_run(const run_case *r, const fa_attention_args *args, const char *format, int i)
{
    char message[120];
    snprintf(message, sizeof(message), format, operand[i], operand[i]);
    fa_status status = fa_plan_run(r->plan, null_queue, args);
    ck_assert_msg(status == FA_INVALID, "%s: %s", message, fa_status_name(status));
    assert_message(message);
}

START_TEST(runs)
{
    run_case r;
    make_run(&r);
    long calls = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &r.args), FA_OK);
    ck_assert_int_eq(fa_queue_wait(null_queue), FA_OK);
    ck_assert_int_eq(atomic_load(&memory.calls), calls); /* a run allocates nothing */
    /* Inputs may share memory. */
    r.args.v = r.args.k;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &r.args), FA_OK);
    free_run(&r);
}
END_TEST

START_TEST(runs_refused_by_name)
{
    run_case r;
    make_run(&r);
    fa_device *other = open_null();
    for (int i = 0; i < 8; i++) {
        fa_attention_args a = r.args;
        *buffer_of(&a, i) = NULL;
        refuse_run(&r, &a, "args.%s is NULL, expected a buffer of at least ", i);
        a = r.args;
        *offset_of(&a, i) = i == 7 ? 64 : 4;
        refuse_run(&r, &a, "args.%s has ", i);
        *offset_of(&a, i) = (SIZE_MAX - 63) / 64 * 64;
        refuse_run(&r, &a, "args.%s has 0 bytes behind offset ", i);
        a = r.args;
        *offset_of(&a, i) = i == 7 ? 32 : 1;
        if (i != 5) /* bytes lie anywhere */
            refuse_run(&r, &a, "args.%s_offset is ", i);
        fa_buffer *foreign;
        ck_assert_int_eq(fa_buffer_create(other, 1 << 16, &foreign), FA_OK);
        a = r.args;
        *buffer_of(&a, i) = foreign;
        refuse_run(&r, &a, "args.%s belongs to another device", i);
        fa_buffer_destroy(foreign);
    }
    fa_device_close(other);
    free_run(&r);
}
END_TEST

/* o, lse and workspace share no byte with anything. */
START_TEST(overlapping_outputs_are_refused)
{
    static const size_t alignment[8] = {2, 4, 4, 4, 4, 1, 4, 64};
    run_case r;
    make_run(&r);
    fa_buffer *big;
    ck_assert_int_eq(fa_buffer_create(null_device, 1 << 16, &big), FA_OK);
    for (int written = 3; written < 8; written++) {
        if (written == 4 || written == 5)
            continue;
        for (int i = 0; i < 8; i++) {
            if (i == written)
                continue;
            fa_attention_args a = r.args;
            *buffer_of(&a, written) = *buffer_of(&a, i) = big;
            *offset_of(&a, written) = 1024;
            size_t size = fa_buffer_size(r.buffer[written]);
            *offset_of(&a, i) =
                1024 + (size - 1) / alignment[i] * alignment[i]; /* the last element's worth */
            fa_status status = fa_plan_run(r.plan, null_queue, &a);
            ck_assert_msg(status == FA_INVALID, "%s and %s", operand[written], operand[i]);
            assert_message("overlaps args.");
            assert_message(operand[written]);
            assert_message(operand[i]);
            *offset_of(&a, i) = 1024 + (size + alignment[i] - 1) / alignment[i] * alignment[i];
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
            /* The same from the other side. */
            *offset_of(&a, i) = 1024 + alignment[i] - fa_buffer_size(r.buffer[i]);
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
            assert_message("overlaps args.");
            *offset_of(&a, i) = 1024 - fa_buffer_size(r.buffer[i]);
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
        }
    }
    fa_buffer_destroy(big);
    free_run(&r);
}
END_TEST

/* The same address means the same bytes only in the same memory. */
START_TEST(other_storage_does_not_overlap)
{
    static const char memory_of_a_device[2];
    run_case r;
    make_run(&r);
    fa_buffer o = *r.buffer[3], q = *r.buffer[0];
    q.address = o.address = (void *)(uintptr_t)64; /* an offset; the null backend touches nothing */
    fa_attention_args a = r.args;
    a.o = &o;
    a.q = &q;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("args.o overlaps args.q");
    o.storage = &memory_of_a_device[0];
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
    q.storage = &memory_of_a_device[1];
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
    q.storage = o.storage;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("args.o overlaps args.q");
    free_run(&r);
}
END_TEST

START_TEST(what_is_not_asked_for_is_refused)
{
    run_case r;
    make_run(&r);
    const fa_attention_desc d = make_desc(2, 2, 2, 8, 8, 4);
    fa_plan *plain = make_plan(&d);
    fa_attention_args a = r.args;
    for (int i = 4; i < 7; i++) {
        char message[80];
        a = r.args;
        a.bias = a.keep = a.lse = NULL;
        a.q = a.k; /* f32 here */
        ck_assert_int_eq(fa_plan_run(plain, null_queue, &a), FA_OK);
        *buffer_of(&a, i) = r.buffer[i];
        snprintf(message, sizeof(message), "args.%s is given, expected NULL", operand[i]);
        ck_assert_int_eq(fa_plan_run(plain, null_queue, &a), FA_INVALID);
        assert_message(message);
    }
    ck_assert_int_eq(fa_plan_run(NULL, null_queue, &r.args), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_run(r.plan, NULL, &r.args), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, NULL), FA_INVALID);
    assert_message("args is NULL");
    a = r.args;
    a.struct_size = 16;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("fa_attention_args.struct_size is 16");
    fa_device *other = open_null();
    fa_queue *foreign;
    ck_assert_int_eq(fa_queue_create(other, &foreign), FA_OK);
    ck_assert_int_eq(fa_plan_run(r.plan, foreign, &r.args), FA_INVALID);
    assert_message("queue belongs to device");
    fa_queue_destroy(foreign);
    fa_device_close(other);
    fa_plan_destroy(plain);
    free_run(&r);
}
END_TEST

/* No rows, no heads, no batch: a run needs no memory and does nothing. */
START_TEST(empty_problems_run)
{
    for (int zero = 1; zero < 8; zero++) {
        int64_t heads = zero & 2 ? 0 : 2;
        fa_attention_desc d = make_desc(zero & 1 ? 0 : 2, heads, heads, zero & 4 ? 0 : 8, 0, 16);
        fa_plan *plan = make_plan(&d);
        const fa_attention_args none = {.struct_size = sizeof(none)};
        fa_status status = fa_plan_run(plan, null_queue, &none);
        ck_assert_msg(status == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_attention_host(null_device, &d, NULL, NULL, NULL, NULL, NULL, NULL, NULL), FA_OK);
        fa_plan_destroy(plan);
    }
    /* An empty output shares no byte with the keys in whose buffer it is said to lie. */
    const fa_attention_desc d = make_desc(1, 2, 2, 0, 8, 4);
    fa_plan *plan = make_plan(&d);
    fa_buffer *buffer;
    ck_assert_int_eq(fa_buffer_create(null_device, 1024, &buffer), FA_OK);
    const fa_attention_args args = {
        .struct_size = sizeof(args), .q = buffer, .k = buffer, .v = buffer, .o = buffer, .o_offset = 64};
    fa_status status = fa_plan_run(plan, null_queue, &args);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    fa_buffer_destroy(buffer);
    fa_plan_destroy(plan);
}
END_TEST

START_TEST(host_calls)
{
    static float q[ELEMENTS], k[ELEMENTS], v[ELEMENTS], o[ELEMENTS], bias[2 * ELEMENTS], lse[ELEMENTS];
    static unsigned char keep[2 * ELEMENTS];
    const fa_attention_desc d = full_desc();
    for (int i = 0; i < ELEMENTS; i++)
        o[i] = lse[i] = 7;
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, o, lse), FA_OK);
    const void *in[5] = {q, k, v, bias, keep};
    static const char *const name[5] = {"q", "k", "v", "bias", "keep"};
    for (int i = 0; i < 5; i++) {
        const void *a[5];
        char message[64];
        memcpy(a, in, sizeof(a));
        a[i] = NULL;
        snprintf(message, sizeof(message), "args.%s is NULL", name[i]);
        ck_assert_int_eq(fa_attention_host(null_device, &d, a[0], a[1], a[2], a[3], a[4], o, lse),
                         FA_INVALID);
        assert_message(message);
    }
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, NULL, lse), FA_INVALID);
    assert_message("args.o is NULL");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, o, NULL), FA_INVALID);
    assert_message("args.lse is NULL");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, k, lse), FA_INVALID);
    assert_message("overlaps");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, (char *)o + 1, lse), FA_INVALID);
    assert_message("args.o lies at address ");
    ck_assert_int_eq(fa_attention_host(null_device, NULL, q, k, v, bias, keep, o, lse), FA_INVALID);
    assert_message("desc is NULL");
    ck_assert_int_eq(fa_attention_host(NULL, &d, q, k, v, bias, keep, o, lse), FA_INVALID);
    assert_message("device is NULL");
    const fa_attention_desc plain = make_desc(2, 2, 2, 8, 8, 4);
    ck_assert_int_eq(fa_attention_host(null_device, &plain, q, k, v, NULL, NULL, o, lse), FA_INVALID);
    assert_message("args.lse is given, expected NULL");
    for (int i = 0; i < ELEMENTS; i++)
        ck_assert(o[i] == 7 && lse[i] == 7);
}
END_TEST

Suite *plan_suite(void)
{
    Suite *suite = suite_create("plan");
    TCase *plan = add_device_case(suite, "plan");
    tcase_add_test(plan, refusal_is_of_the_row_that_nearly_serves);
    tcase_add_test(plan, resident_blocks_share_a_unit);
    tcase_add_test(plan, operands_larger_than_the_device_allows);
    tcase_add_test(plan, what_a_plan_tells);
    tcase_add_test(plan, workspace_holds_the_parts);
    tcase_add_test(plan, grid_and_tiles);
    tcase_add_test(plan, creation_refused_by_name);
    tcase_add_test(plan, supports_says_what_create_does);
    tcase_add_test(plan, kernel_rows_refuse_by_name);
    tcase_add_test(plan, features_have_names);
    TCase *run = add_device_case(suite, "run");
    tcase_add_test(run, runs);
    tcase_add_test(run, runs_refused_by_name);
    tcase_add_test(run, overlapping_outputs_are_refused);
    tcase_add_test(run, other_storage_does_not_overlap);
    tcase_add_test(run, what_is_not_asked_for_is_refused);
    tcase_add_test(run, empty_problems_run);
    tcase_add_test(run, host_calls);
    return suite;
}
