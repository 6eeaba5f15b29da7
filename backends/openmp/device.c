/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/host_memory.h"
#include "backends/openmp/cpu.h"
#include "backends/openmp/kernel.h"
#include "backends/openmp/pool.h"
#include "backends/openmp/run.h"
#include "backends/openmp/runtime.h"
#include "core/context.h"
#include "core/environment.h"
#include "core/status.h"

/* Of a kernel whose speed depends on it: where it is offered. */
enum { PAIRS_ANY, PAIRS_SLOW, PAIRS_FAST };

typedef struct kernel_entry {
    fa_isa isa;
    int pairs;
    fa_kernel kernel;
} kernel_entry;

/* What a kernel's name decides. clang-format would give each of these lines of its own: */
/* clang-format off */
#define FEATURES_tile .features = FA_FEATURE_ALL
#define FEATURES_rows .features = FA_FEATURE_ALL
#define FEATURES_standard                                               \
    .features = FA_FEATURE_MASK | FA_FEATURE_LSE | FA_FEATURE_GROUPS | FA_FEATURE_SCALES | FA_FEATURE_V_IN_K, \
    .baseline = true

#define TRAITS_tile(lanes, vecs)                                        \
    .tile = {lanes, 4, 1}, .clips = true,                               \
    .exposed = 1, .in_place_bytes = sizeof(float),                      \
    .score_rows = (lanes) * (vecs),                                     \
    .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V | FA_STAGE_S |        \
             FA_STAGE_O
#define TRAITS_rows(lanes, vecs)                                        \
    .tile = {1, 4, lanes}, .max_block_q = 32, .max_block_kv = 512,      \
    .stage = FA_STAGE_Q | FA_STAGE_S | FA_STAGE_O
#define TRAITS_standard(lanes, vecs)                                    \
    .tile = {(lanes) * (vecs), 1, 1}, .exposed = 1

#define ISA_scalar FA_ISA_SCALAR
#define ISA_avx2 FA_ISA_AVX2
#define ISA_avx512 FA_ISA_AVX512
#define ISA_avx512bf16 FA_ISA_AVX512BF16
#define ISA_amx FA_ISA_AMX
#define ISA_neon FA_ISA_NEON

#define KERNEL(isa_name, kernel, lanes, vecs, flops, scores)            \
    {ISA_##isa_name, PAIRS_ANY,                                         \
     {.name = #isa_name "-" #kernel,                                    \
      FEATURES_##kernel,                                                \
      .types_q = FA_TYPES_FLOAT,                                        \
      .types_k = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,                \
      .types_v = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,                \
      .types_o = FA_TYPES_FLOAT,                                        \
      .max_dim_qk = FA_MAX_HEAD_DIM,                                    \
      .max_dim_v = FA_MAX_HEAD_DIM,                                     \
      .p_type = FA_F32,                                                 \
      .traits = {TRAITS_##kernel(lanes, vecs),                          \
                 .element_bytes = sizeof(float),                        \
                 .score_bytes = sizeof(float),                          \
                 .buffers = 1,                                          \
                 .flops_per_cycle = flops,                              \
                 .scores_per_cycle = scores},                           \
      .impl = &fa_##isa_name##_##kernel}},

#define PAIRS_KERNEL(isa_name, grain_kv, grain_d, flops, scores, pairs) \
    {ISA_##isa_name, PAIRS_##pairs,                                     \
     {.name = #isa_name "-tile",                                        \
      FEATURES_tile,                                                    \
      .types_q = FA_TYPE(FA_BF16),                                      \
      .types_k = FA_TYPE(FA_BF16),                                      \
      .types_v = FA_TYPE(FA_BF16),                                      \
      .declines = "what is decoded would be rounded to bf16",           \
      .types_o = FA_TYPES_FLOAT,                                        \
      .max_dim_qk = FA_MAX_HEAD_DIM,                                    \
      .max_dim_v = FA_MAX_HEAD_DIM,                                     \
      .p_type = FA_BF16,                                                \
      .traits = {.tile = {16, grain_kv, grain_d},                       \
                 .clips = true,                                         \
                 .exposed = 0.3,                                        \
                 .rescales_per_cycle = 4,                               \
                 .score_rows = 64,                                      \
                 .stage = FA_STAGE_Q | FA_STAGE_K | FA_STAGE_V |        \
                          FA_STAGE_S | FA_STAGE_O,                      \
                 .element_bytes = 2,                                    \
                 .score_bytes = sizeof(float),                          \
                 .buffers = 1,                                          \
                 .flops_per_cycle = flops,                              \
                 .scores_per_cycle = scores},                           \
      .impl = &fa_##isa_name##_tile}},
/* clang-format on */

static const kernel_entry kernels[] = {
#include "kernels.inc"
};
#undef KERNEL
#undef PAIRS_KERNEL

/* Threads of the device; 0: FASTATTN_THREADS is no such number. */
static int32_t thread_count(const fa_context *context)
{
    if (context->options.threads > 0)
        return context->options.threads;
    const char *text = fa_environment("FASTATTN_THREADS");
    if (!text || !text[0]) {
        int32_t threads = fa_runtime_threads();
        return threads < FA_MAX_THREADS ? threads : FA_MAX_THREADS;
    }
    char *end;
    long count = strtol(text, &end, 10);
    return *end == '\0' && count >= 1 && count <= FA_MAX_THREADS ? (int32_t)count : 0;
}

static int openmp_count(const fa_context *context, char *reason, size_t reason_size)
{
    (void)context;
    (void)reason;
    (void)reason_size;
    return 1;
}

static void openmp_describe(const fa_context *context, int index, fa_device_info *info)
{
    (void)index;
    int32_t threads = thread_count(context);
    fa_cpu_name(info->name, sizeof(info->name));
    info->automatic = 1;
    info->host_memory = 1;
    info->units = (uint32_t)threads;
    info->onchip_bytes = fa_cpu_l2_bytes();
    if (threads == 0)
        (void)snprintf(info->reason, sizeof(info->reason), "FASTATTN_THREADS is \"%.32s\", expected 1 to %d",
                       fa_environment("FASTATTN_THREADS"), FA_MAX_THREADS);
    else if (fa_cpu_bad_limit()) {
        char sets[64];
        fa_cpu_list_isas(sets, sizeof(sets));
        (void)snprintf(info->reason, sizeof(info->reason), "FASTATTN_ISA is \"%.32s\", expected one of: %s",
                       fa_cpu_bad_limit(), sets);
    } else
        info->available = 1;
}

static fa_status openmp_open(fa_device *device, void *import)
{
    (void)import;
    device->limits = (fa_limits){
        .units = device->info.units,
        /* Half: the rest of L2 belongs to what streams through, and to the neighbours. */
        .onchip_bytes = device->info.onchip_bytes / 2,
        .onchip_soft = true,
        .near_bytes = fa_cpu_l1_bytes(),
        /* Round numbers: they weigh compute against memory and synchronisation, nothing finer. */
        .clock_hz = 3e9,
        .bytes_per_second = 12e9 * device->info.units,
        .sync_cycles = 300,
        .item_cycles = 150,
        /* Between 1 us where a helper looks for work and 20 us where it sleeps: docs/threads.md. */
        .launch_cycles = device->info.units > 1 ? 18000 : 0,
    };
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]) && device->kernels < FA_MAX_KERNELS; i++) {
        bool suits = kernels[i].pairs == PAIRS_ANY || (kernels[i].pairs == PAIRS_SLOW) == fa_cpu_slow_pairs();
        if (suits && fa_cpu_has(kernels[i].isa))
            device->kernel[device->kernels++] = &kernels[i].kernel;
    }
    fa_cpu_device *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->runtime_threads = fa_runtime_threads();
    made->append_rows = fa_openmp_best_append();
    if (!device->context->options.executor.parallel_for) {
        made->pool = fa_pool_create(device->context, (int32_t)device->info.units);
        if (!made->pool) {
            fa_release(device->context, made, sizeof(*made));
            return FA_OUT_OF_MEMORY;
        }
    }
    device->impl = made;
    return FA_OK;
}

static void openmp_close(fa_device *device)
{
    fa_cpu_device *d = device->impl;
    fa_pool_destroy(d->pool);
    fa_release(device->context, d, sizeof(*d));
}

extern const fa_backend fa_backend_openmp;
const fa_backend fa_backend_openmp = {
    .abi = FA_BACKEND_ABI,
    .name = "openmp",
    .count = openmp_count,
    .describe = openmp_describe,
    .open = openmp_open,
    .close = openmp_close,
    .buffer_create = fa_host_buffer_create,
    .buffer_wrap = fa_host_buffer_wrap,
    .buffer_destroy = fa_host_buffer_destroy,
    .buffer_write = fa_host_buffer_write,
    .buffer_read = fa_host_buffer_read,
    .queue_create = fa_host_queue_create,
    .queue_wait = fa_host_queue_wait,
    .queue_destroy = fa_host_queue_destroy,
    .host_pointers = true,
    .forks = true,
    .scratch_bytes = fa_openmp_scratch_bytes,
    .plan_prepare = fa_openmp_plan_prepare,
    .plan_release = fa_openmp_plan_release,
    .plan_run = fa_openmp_plan_run,
    .task_run = fa_openmp_task_run,
};
