/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/gpu/kernels.h"

#include "core/backend.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

enum {
    LARGE_GROUP = 256, /* beyond it a work-item has too few registers                                   */
    SMALL_GROUP = 64,  /* the least that a tile is made for                                             */
    PAD_STAGE = 6,     /* floats that the lines of a step are longer than what they hold                */
    PAD_EXCHANGE = 4,
    PAD_LINES = 16,    /* floats after each four lines of a step of the yardstick                       */
    UNSAFE_BYTES = 16, /* a flag in local memory                                                        */
    ROW_ALIGN = 16,    /* bytes that rows read by vectors lie at multiples of                           */
    DIM_ALIGN = 8,     /* elements, likewise                                                            */
    MOST_ROWS = 8,     /* standard: of a work-item, in registers                                        */
    MOST_COLS = 8,
    LEAST_COLS = 4, /* a vector                                                                      */
    SCORE_VECTOR = 4,
};

/*
 * Best first: name, what it is, most dims of v, most keys of a block. How many rows a block of a tile kernel may have, and
 * how deep its steps are, follows from the device.
 */
static const fa_gpu_entry entries[] = {
    {"tile8", {.kind = FA_GPU_TILE, .lanes = 8}, 64, 64},
    {"tile16", {.kind = FA_GPU_TILE, .lanes = 16}, 128, 128},
    {"tile32", {.kind = FA_GPU_TILE, .lanes = 32}, 256, 128},
    {"tile64", {.kind = FA_GPU_TILE, .lanes = 64}, FA_MAX_HEAD_DIM, 256},
    {"rows128", {.kind = FA_GPU_ROWS, .group = 128, .split = 4}, FA_MAX_HEAD_DIM, 256},
    {"rows64", {.kind = FA_GPU_ROWS, .group = 64, .split = 4}, FA_MAX_HEAD_DIM, 256},
    {"standard", {.kind = FA_GPU_STANDARD, .lanes = 16, .depth = 8}, FA_MAX_HEAD_DIM, 0},
};

fa_kernel_row fa_gpu_common_row(const fa_gpu_entry *entry)
{
    return (fa_kernel_row){
        .name = entry->name,
        .features = FA_FEATURE_ALL,
        .types_q = FA_TYPES_FLOAT,
        .types_k = FA_TYPES_FLOAT,
        .types_v = FA_TYPES_FLOAT,
        .types_o = FA_TYPES_FLOAT,
        .max_dim_qk = FA_MAX_HEAD_DIM,
        .max_dim_v = entry->max_dim_v,
        .p_type = FA_F32,
    };
}

/* Steps as deep as local memory allows for the largest block, and two of them if it does. */
static void choose_depth(fa_gpu_kernel *kernel, const fa_gpu_entry *entry, int32_t rows, size_t local_bytes)
{
    static const struct {
        int32_t depth, stages;
    } choice[] = {{16, 2}, {8, 2}, {8, 1}};
    int32_t wide = FA_MAX(entry->max_block_kv, entry->max_dim_v);
    for (size_t i = 0; i < sizeof(choice) / sizeof(choice[0]); i++) {
        kernel->depth = choice[i].depth;
        kernel->stages = choice[i].stages;
        size_t stage = (size_t)kernel->depth * (size_t)(rows + wide + PAD_STAGE) * sizeof(float);
        if ((size_t)kernel->stages * stage + UNSAFE_BYTES <= local_bytes)
            return;
    }
}

/* False where work-groups of the device are too small. */
static bool tile_row(const fa_gpu_limits *limits, const fa_gpu_entry *entry, fa_gpu_kernel *kernel,
                     fa_kernel_row *row)
{
    int32_t group = (int32_t)FA_MIN(limits->group_size, LARGE_GROUP), lines = group / kernel->lanes;
    if (lines == 0)
        return false;
    int32_t rows = lines * FA_GPU_TILE_ROWS,
            least = FA_MIN(lines, FA_MAX(SMALL_GROUP / kernel->lanes, 1)) * FA_GPU_TILE_ROWS;
    choose_depth(kernel, entry, rows, limits->local_bytes);
    *row = fa_gpu_common_row(entry);
    row->traits = (fa_tile_traits){
        .tile = {least, 4 * kernel->lanes, 4 * kernel->lanes},
        .element_bytes = sizeof(float),
        .buffers = kernel->stages,
        .slice = kernel->depth,
        .exchange = kernel->lanes,
        .fixed_bytes = UNSAFE_BYTES + kernel->stages *
                                          (kernel->depth * PAD_STAGE + kernel->lanes * PAD_EXCHANGE) *
                                          (int32_t)sizeof(float),
        .max_block_q = rows,
        .max_block_kv = entry->max_block_kv,
        .key_turns = 16,
        .exposed = 0.4,
        .flops_per_cycle = 140,
        .scores_per_cycle = 8,
    };
    return true;
}

static bool rows_row(const fa_gpu_limits *limits, const fa_gpu_entry *entry, const fa_gpu_kernel *kernel,
                     fa_kernel_row *row)
{
    if (limits->group_size < (size_t)kernel->group)
        return false;
    *row = fa_gpu_common_row(entry);
    row->traits = (fa_tile_traits){
        .tile = {1, kernel->group / kernel->split, 8 * kernel->split},
        .stage = FA_STAGE_Q | FA_STAGE_S,
        .element_bytes = sizeof(float),
        .score_bytes = (kernel->split + 1) * (int32_t)sizeof(float),
        .fixed_bytes = (kernel->group * 9 + 8) * (int32_t)sizeof(float),
        .max_block_q = 8,
        .max_block_kv = entry->max_block_kv,
        .key_turns = 8,
        .resident = 2,
        .flops_per_cycle = 40,
        .scores_per_cycle = 2,
    };
    return true;
}

/* The yardstick: tiles of both products in local memory, whole groups that a reduction can halve. */
static bool standard_row(const fa_gpu_limits *limits, const fa_gpu_entry *entry, fa_gpu_kernel *kernel,
                         fa_kernel_row *row)
{
    kernel->group = SMALL_GROUP;
    while (kernel->group < LARGE_GROUP && (size_t)kernel->group * 2 <= limits->group_size)
        kernel->group *= 2;
    int32_t lines = kernel->group / kernel->lanes, wide = FA_GPU_TILE_ROWS * (lines + kernel->lanes);
    *row = fa_gpu_common_row(entry);
    row->features = FA_FEATURE_MASK | FA_FEATURE_LSE | FA_FEATURE_GROUPS;
    row->baseline = true;
    row->traits = (fa_tile_traits){
        .tile = {lines, 4 * kernel->lanes, 4 * kernel->lanes},
        .element_bytes = sizeof(float),
        .score_bytes = sizeof(float),
        .buffers = 1,
        .fixed_bytes = UNSAFE_BYTES + 2 * (kernel->depth * wide + kernel->depth / 4 * 2 * PAD_LINES) *
                                          (int32_t)sizeof(float),
        .key_turns = 2,
        .exposed = 1,
        .flops_per_cycle = 100,
        .scores_per_cycle = 4,
    };
    return (size_t)row->traits.fixed_bytes <= limits->local_bytes;
}

static bool make_row(const fa_gpu_limits *limits, const fa_gpu_entry *entry, fa_gpu_kernel *kernel,
                     fa_kernel_row *row)
{
    *kernel = entry->kernel;
    switch (kernel->kind) {
    case FA_GPU_TILE: return tile_row(limits, entry, kernel, row);
    case FA_GPU_ROWS: return rows_row(limits, entry, kernel, row);
    default: return standard_row(limits, entry, kernel, row);
    }
}

void fa_gpu_rows_add(fa_device *device, const fa_gpu_limits *limits, fa_gpu_kernel kernels[FA_MAX_ROWS],
                     fa_kernel_row rows[FA_MAX_ROWS])
{
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        if (make_row(limits, &entries[i], &kernels[device->rows], &rows[device->rows]))
            fa_gpu_row_add(device, kernels, rows);
    }
}

void fa_gpu_row_add(fa_device *device, fa_gpu_kernel kernels[FA_MAX_ROWS], fa_kernel_row rows[FA_MAX_ROWS])
{
    rows[device->rows].impl = &kernels[device->rows];
    device->row[device->rows] = &rows[device->rows];
    device->rows++;
}

fa_limits fa_gpu_limits_of(const fa_gpu_limits *limits)
{
    /* A driver does not say how fast its memory is. Round numbers: they weigh compute against memory. */
    const double bytes_per_cycle = 16, start_seconds = 1e-5;
    return (fa_limits){
        .units = limits->units,
        .onchip_bytes = limits->local_bytes,
        .clock_hz = limits->clock_hz,
        .bytes_per_second = bytes_per_cycle * limits->clock_hz * limits->units,
        .sync_cycles = 1000,
        .item_cycles = 2000,
        .run_cycles = start_seconds * limits->clock_hz,
        .tensor_bytes = limits->tensor_bytes,
        .loop_turns = limits->loop_turns,
    };
}

bool fa_gpu_in_parts(const fa_problem *p)
{
    enum { LONG_DIM = 128 };
    return p->dim_qk > LONG_DIM;
}

bool fa_gpu_can_align(const fa_problem *p)
{
    if (p->dim_qk % DIM_ALIGN != 0 || p->dim_v % DIM_ALIGN != 0)
        return false;
    for (int t = FA_Q; t <= FA_O; t++) {
        const fa_tensor *tensor = &p->tensor[t];
        for (int axis = 0; axis < 3; axis++) {
            if (tensor->stride[axis] * (int64_t)fa_dtype_size(tensor->dtype) % ROW_ALIGN != 0)
                return false;
        }
    }
    return true;
}

int64_t fa_gpu_padded_dim_v(const fa_plan *plan, const fa_gpu_kernel *kernel)
{
    return fa_round_up(plan->problem.dim_v, 4 * kernel->lanes);
}

/* Enough that the second product, which has few tiles for each row, is work for all units. */
static const size_t most_scratch = (size_t)1 << 30;

static int64_t score_stride(const fa_problem *p)
{
    return FA_MAX(fa_round_up(p->max_len_kv, SCORE_VECTOR), SCORE_VECTOR);
}

static int32_t few_or_most(int32_t lanes, int32_t cols)
{
    return cols > LEAST_COLS * lanes ? MOST_COLS : LEAST_COLS;
}

/* Tiles of a work-group: as many rows as there are, up to the most. */
static void choose_tiles(const fa_plan *plan, const fa_gpu_kernel *kernel, int64_t rows, fa_gpu_standard *s)
{
    const fa_problem *p = &plan->problem;
    int32_t lines = kernel->group / kernel->lanes, each = 1;
    while (each < MOST_ROWS && (int64_t)lines * each < rows)
        each *= 2;
    s->tile_rows = lines * each;
    s->tile_keys = kernel->lanes * few_or_most(kernel->lanes, p->max_len_kv);
    s->tile_dims = kernel->lanes * few_or_most(kernel->lanes, p->dim_v);
}

/* How much of the work is one launch: the launches are few, and about equal. */
static fa_status choose_launches(fa_plan *plan, int64_t rows, size_t most_bytes, fa_gpu_standard *s)
{
    const size_t limit = FA_MIN(most_bytes / 4, most_scratch);
    const int64_t stride = score_stride(&plan->problem);
    const int64_t most = (int64_t)(limit / ((size_t)stride * sizeof(float)));
    if (most < FA_MIN(rows, s->tile_rows))
        return fa_fail(
            FA_UNSUPPORTED,
            "%s: the scores of %d rows and %d keys do not fit in %zu bytes of scratch, a quarter of what %s "
            "allocates at once or 1 GiB",
            plan->row->name, (int)FA_MIN(rows, s->tile_rows), plan->problem.max_len_kv, limit,
            plan->device->info.name);
    int64_t launches = fa_ceil_div(rows, most >= rows ? rows : most - most % s->tile_rows);
    s->rows = (int32_t)FA_MIN(fa_round_up(fa_ceil_div(rows, launches), s->tile_rows), rows);
    launches = fa_ceil_div(plan->schedule.items, FA_MAX(most / rows, 1));
    s->items = (int32_t)fa_ceil_div(plan->schedule.items, launches);
    /* The workspace is laid out as so many bytes for each worker, whatever they are used for. */
    const size_t count = (size_t)s->items * (size_t)s->rows, scores = count * (size_t)stride;
    const size_t bytes = fa_align64((scores + count) * sizeof(float));
    s->factors_at = scores;
    plan->scratch_bytes = fa_align64((size_t)fa_ceil_div((int64_t)bytes, plan->schedule.workers));
    return FA_OK;
}

fa_status fa_gpu_standard_choose(fa_plan *plan, const fa_gpu_kernel *kernel, size_t most_bytes,
                                 fa_gpu_standard *s)
{
    const int64_t rows = (int64_t)plan->problem.max_len_q * plan->problem.group;
    choose_tiles(plan, kernel, rows, s);
    return choose_launches(plan, rows, most_bytes, s);
}

bool fa_gpu_standard_next(const fa_plan *plan, const fa_gpu_standard *s, fa_gpu_launch *l)
{
    const fa_problem *p = &plan->problem;
    const int64_t items = plan->schedule.items, rows = (int64_t)p->max_len_q * p->group;
    const bool next_rows = l->items > 0 && l->row_begin + l->rows < rows;
    const int64_t first = next_rows ? l->first : l->first + l->items,
                  row_begin = next_rows ? l->row_begin + l->rows : 0;
    if (first >= items || rows == 0)
        return false;
    *l = (fa_gpu_launch){
        .first = (int32_t)first,
        .row_begin = (int32_t)row_begin,
        .rows = (int32_t)FA_MIN(s->rows, rows - row_begin),
        .items = FA_MIN(s->items, items - first),
        .starts = first == 0 && row_begin == 0,
    };
    const int64_t tiles = l->items * fa_ceil_div(l->rows, s->tile_rows);
    l->scores = p->max_len_kv > 0 ? tiles * fa_ceil_div(p->max_len_kv, s->tile_keys) : 0;
    l->softmax = l->items * l->rows;
    l->output = tiles * fa_ceil_div(p->dim_v, s->tile_dims);
    l->ends = first + l->items >= items && row_begin + l->rows >= rows;
    return true;
}
