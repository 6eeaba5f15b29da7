/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of a device, from the lines of kernels.inc. */
#define FA_CUDA_DEFINE_TABLE
#include <math.h>

#include "backends/cuda/cuda.h"
#include "core/size.h"

enum {
    TABLE_LINES = sizeof(fa_cuda_table) / sizeof(fa_cuda_table[0]),
    DRIVER_SHARED = 1024, /* bytes of shared memory that the driver takes of each block */
};
/* The formats of caches that kernels on tensor cores serve without scales in tensors of their own. */
#define TYPES_CODED ((FA_TYPE(FA_IQ4_NL + 1) - 1) & ~(FA_TYPE(FA_E4M3) - 1))

_Static_assert(FA_CUDA_MOST_DIM >= FA_MAX_HEAD_DIM, "a row of NaNs is as long as any");

static fa_tile_traits tensor_traits(const fa_cuda_traits *t, int32_t most_q)
{
    const bool stages_q = 16 * t->tensor.held * t->tensor.split < t->dim_qk;
    return (fa_tile_traits){
        .tile = {t->block_q, t->block_kv, 16},
        .least_dim_qk = t->dim_qk,
        .least_dim_v = t->dim_v,
        .stage = FA_STAGE_K | FA_STAGE_V | (stages_q ? FA_STAGE_Q : 0),
        .element_bytes = 2,
        .buffers = 2,
        .fixed_bytes = fa_cuda_shared_bytes(*t, FA_F16, fa_cuda_variant_of(*t, most_q)) -
                       2 * t->block_kv * t->dim_v * (int32_t)sizeof(float) -
                       (stages_q ? most_q * t->dim_qk * 2 : 0),
        .max_block_q = most_q,
        .max_block_kv = t->block_kv,
        .exposed = 0.1,
        .flops_per_cycle = t->unit >= 90   ? 2400
                           : t->unit >= 80 ? 1800
                           : t->unit >= 75 ? 1200
                                           : 600,
        .scores_per_cycle = 16,
    };
}

static fa_tile_traits latent_traits(const fa_cuda_traits *t)
{
    return (fa_tile_traits){
        .tile = {t->block_q, t->block_kv, 16},
        .least_dim_qk = t->dim_qk,
        .least_dim_v = t->dim_v,
        .stage = FA_STAGE_K,
        .element_bytes = 2,
        .buffers = 2,
        .fixed_bytes = t->block_q * t->dim_qk * 2,
        .max_block_q = t->most_q,
        .max_block_kv = t->block_kv,
        .v_in_k = true,
        .exposed = 0.1,
        .flops_per_cycle = 1800,
        .scores_per_cycle = 16,
    };
}

static fa_tile_traits decode_traits(const fa_cuda_traits *t, int32_t most_q)
{
    return (fa_tile_traits){
        .tile = {t->block_q, t->block_kv, 16},
        .least_dim_qk = t->dim_qk,
        .least_dim_v = t->dim_v,
        .element_bytes = 2,
        .fixed_bytes = fa_cuda_shared_bytes(*t, FA_F16, 0),
        .max_block_q = most_q,
        .max_block_kv = t->block_kv,
        .resident = t->resident,
        .exposed = 0.1,
        .flops_per_cycle = t->unit >= 80 ? 1000 : 800,
        .scores_per_cycle = 32,
    };
}

static fa_tile_traits fma_traits(const fa_cuda_traits *t, int32_t most_q)
{
    return (fa_tile_traits){
        .tile = {t->block_q, t->block_kv, 4 * t->fma.lanes},
        .least_dim_v = t->dim_v,
        .element_bytes = sizeof(float),
        .buffers = 2,
        .slice = t->fma.depth,
        .fixed_bytes = (int32_t)sizeof(float) * (4 + 2 * (4 * t->fma.depth + FA_CUDA_BANKS)),
        .max_block_q = most_q,
        .max_block_kv = t->block_kv,
        .exposed = 0.4,
        .flops_per_cycle = t->fma.rows == 8 ? 150 : 100,
        .scores_per_cycle = 8,
    };
}

static fa_tile_traits rows_traits(const fa_cuda_traits *t, int32_t most_q)
{
    return (fa_tile_traits){
        .tile = {1, t->block_kv, 8 * t->share},
        .stage = FA_STAGE_Q | FA_STAGE_S,
        .element_bytes = sizeof(float),
        .score_bytes = (t->share + 1) * (int32_t)sizeof(float),
        .fixed_bytes = (t->group * 9 + 8) * (int32_t)sizeof(float),
        .max_block_q = most_q,
        .max_block_kv = t->block_kv,
        .resident = t->resident,
        .exposed = 0.3,
        .flops_per_cycle = 40,
        .scores_per_cycle = 2,
    };
}

/* Whether a block's shared memory suffices, and a multiprocessor's for as many blocks as the kernel is made for. */
static bool has_room(const fa_cu_caps *caps, const fa_cuda_traits *t, int variant)
{
    const size_t bytes = (size_t)fa_cuda_shared_bytes(*t, FA_F16, variant),
                 blocks = t->kind == FA_CUDA_TENSOR ? (size_t)t->resident : 1;
    return bytes <= caps->shared_bytes &&
           (blocks == 1 || blocks * (bytes + DRIVER_SHARED) <= caps->unit_shared_bytes);
}

/* The most rows of a block for which there is room; 0: not even for the fewest. */
static int32_t most_rows(const fa_cu_caps *caps, const fa_cuda_traits *t)
{
    int32_t most = 0;
    for (int variant = 0; fa_cuda_rows_of(*t, variant) <= t->most_q; variant++) {
        if (has_room(caps, t, variant))
            most = fa_cuda_rows_of(*t, variant);
    }
    return most;
}

/* The most shared memory that a block takes, whatever formats of caches k and v are in. */
static size_t most_coded_bytes(const fa_cuda_traits *t, int variant)
{
    int most = 0;
    for (int k = FA_E4M3; k <= FA_IQ4_NL; k++) {
        for (int v = FA_E4M3; v <= FA_IQ4_NL; v++)
            most = FA_MAX(most, fa_cuda_shared_bytes(*t, fa_cuda_coded_type(FA_F16, k, v), variant));
    }
    return (size_t)most;
}

/*
 * Why a kernel on tensor cores does not decode; NULL: it does. Modules that do are compiled when they are first used. GPUs
 * of 8.0 or later do without Turing's tiles, as each has modules for as many formats.
 */
static const char *declines_formats(const fa_cu_caps *caps, const fa_cuda_traits *t, int32_t most_q)
{
    const bool tiles = t->kind == FA_CUDA_TENSOR;
    const size_t least = most_coded_bytes(t, 0), most = most_coded_bytes(t, fa_cuda_variant_of(*t, most_q));
    if (t->kind == FA_CUDA_LATENT)
        return "rows are multiplied as they lie in memory";
    if (t->unit < 75)
        return "there is no decoder for operands of m8n8k4";
    if (t->unit < 80 && !tiles)
        return "rows of codes are copied as GPUs of 8.0 or later do";
    if (t->unit < 80 && caps->arch >= 80)
        return "this GPU decodes for its newest tensor cores";
    if (t->unit == 90 && !caps->compiles_hopper)
        return "NVRTC 12 or later, which compiles for Hopper, is not there";
    if (!caps->compiles)
        return "decoders are compiled by NVRTC, which is not there for this GPU";
    if ((tiles ? least : most) > caps->shared_bytes ||
        (tiles && t->resident > 1 && (size_t)t->resident * (most + DRIVER_SHARED) > caps->unit_shared_bytes))
        return "its blocks have no shared memory left for codes";
    return NULL;
}

/* Blocks of so many warps, of a decoding kernel that serves formats, on a multiprocessor; 0: a block has no room. */
static int32_t coded_blocks(const fa_cu_caps *caps, const fa_cuda_traits *t, int type, int variant, int warps)
{
    const size_t bytes = (size_t)fa_cuda_decode_bytes(*t, type, variant, warps);
    if (bytes > caps->shared_bytes)
        return 0;
    const size_t room = caps->unit_shared_bytes / (bytes + DRIVER_SHARED);
    return FA_MAX(FA_MIN(fa_cuda_coded_warps(*t, variant) / warps, (int32_t)FA_MIN(room, 16)), 1);
}

int fa_cu_coded_warps(const fa_cu_caps *caps, const fa_cuda_traits *t, int type, int variant, double items,
                      double keys)
{
    int warps = t->group / 32;
    int32_t blocks = coded_blocks(caps, t, type, variant, warps);
    for (int next = 2 * warps; next <= fa_cuda_coded_warps(*t, variant) && 32 * next <= keys; next *= 2) {
        const int32_t fewer = coded_blocks(caps, t, type, variant, next);
        if (fewer * next < blocks * warps || (double)fewer * caps->units < items)
            break;
        warps = next;
        blocks = fewer;
    }
    return warps;
}

/* Blocks of a kernel on tensor cores that decodes which a multiprocessor works on, if they are as large as they may be. */
static int32_t resident_coded(const fa_cu_caps *caps, const fa_cuda_traits *t)
{
    const int type = fa_cuda_coded_type(FA_F16, FA_Q8_0, FA_Q8_0); /* no row of codes takes more */
    if (t->kind == FA_CUDA_TENSOR)
        return 1;
    return FA_MAX(coded_blocks(caps, t, type, 0, fa_cu_coded_warps(caps, t, type, 0, 0, INFINITY)), 1);
}

/* Bytes that a block takes more there. */
static int32_t coded_bytes(const fa_cuda_traits *t, int32_t most_q)
{
    const int variant = fa_cuda_variant_of(*t, most_q);
    return (int32_t)most_coded_bytes(t, variant) - fa_cuda_shared_bytes(*t, FA_F16, variant);
}

/* Later GPUs have the instructions of earlier ones, but for 9.0's own, whose code must be there or be compiled. */
static bool has_instructions(const fa_cu_caps *caps, const fa_cuda_traits *t)
{
    if (t->unit != 90)
        return t->unit <= caps->arch;
    return caps->arch == 90 && caps->hopper;
}

/*
 * A decoding kernel that serves formats of caches also serves codes alone, and where there is room for plain rows of k, which
 * take more than any codes, one format beside plain rows. No other kernel on tensor cores knows scales in tensors of their own.
 */
static void take_scales(const fa_cu_caps *caps, const fa_cuda_traits *t, int32_t most_q, fa_kernel *kernel)
{
    if (t->kind != FA_CUDA_DECODE || kernel->resident_coded == 0) {
        kernel->features &= ~(unsigned)FA_FEATURE_SCALES;
        return;
    }
    const int type = fa_cuda_coded_type(FA_F16, FA_F16, FA_Q8_0);
    kernel->types_k = kernel->types_v = kernel->types_q | (FA_TYPES_CACHE & ~(unsigned)FA_TYPES_FLOAT);
    kernel->scale_dims = 32;
    kernel->mixes_coded =
        (size_t)fa_cuda_shared_bytes(*t, type, fa_cuda_variant_of(*t, most_q)) <= caps->shared_bytes;
}

/* Kernels that read lists of key blocks are compiled when they are first used, so that others have nothing of that. */
static const char *declines_lists(const fa_cu_caps *caps, const fa_cuda_traits *t)
{
    if (t->unit == 90 && !caps->compiles_hopper)
        return "NVRTC 12 or later, which compiles for Hopper, is not there";
    return caps->compiles ? NULL
                          : "kernels that read them are compiled by NVRTC, which is not there for this GPU";
}

/* False where the device does not run it, or it is no kernel of its own. */
static bool make_kernel(const fa_cu_caps *caps, const fa_cuda_traits *t, fa_kernel *kernel)
{
    const int32_t most_q = t->most_q > 0 ? most_rows(caps, t) : 1;
    if (t->kind == FA_CUDA_MERGE || most_q == 0 || !has_instructions(caps, t))
        return false;
    *kernel = (fa_kernel){
        .name = t->name,
        .features = FA_FEATURE_ALL,
        .declines_lists = declines_lists(caps, t),
        .types_q = FA_TYPES_FLOAT,
        .types_k = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,
        .types_v = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,
        .types_o = FA_TYPES_FLOAT,
        .max_dim_qk = t->dim_qk > 0 ? t->dim_qk : FA_MAX_HEAD_DIM,
        .max_dim_v = t->dim_v > 0 ? FA_MIN(t->dim_v, FA_MAX_HEAD_DIM) : FA_MAX_HEAD_DIM,
        .p_type = FA_F32,
        .impl = t,
    };
    if (kernel->declines_lists)
        kernel->features &= ~(unsigned)(FA_FEATURE_LISTS | FA_FEATURE_NEIGHBOURHOOD);
    switch (t->kind) {
    case FA_CUDA_TENSOR:
    case FA_CUDA_DECODE:
    case FA_CUDA_LATENT:
        kernel->traits = t->kind == FA_CUDA_TENSOR   ? tensor_traits(t, most_q)
                         : t->kind == FA_CUDA_DECODE ? decode_traits(t, most_q)
                                                     : latent_traits(t);
        kernel->needs = t->kind == FA_CUDA_LATENT ? FA_FEATURE_V_IN_K : 0;
        kernel->types_q = kernel->types_k = kernel->types_v =
            FA_TYPE(FA_F16) | (t->unit >= 80 ? FA_TYPE(FA_BF16) : 0);
        kernel->declines = declines_formats(caps, t, most_q);
        kernel->resident_coded = kernel->declines ? 0 : resident_coded(caps, t);
        if (t->kind == FA_CUDA_TENSOR && kernel->resident_coded > 0)
            kernel->coded_bytes = coded_bytes(t, most_q);
        if (fa_cuda_takes_formats(*t))
            kernel->types_k = kernel->types_v = TYPES_CODED;
        else if (kernel->resident_coded > 0)
            kernel->types_k = kernel->types_v = kernel->types_q | TYPES_CODED;
        kernel->same_types = true;
        kernel->mixes_coded = t->kind == FA_CUDA_TENSOR && t->unit >= 80 && !fa_cuda_takes_formats(*t);
        kernel->p_as_q = true;
        take_scales(caps, t, most_q, kernel);
        if (!kernel->declines)
            kernel->declines = "there is no decoder of it for tensor cores";
        break;
    case FA_CUDA_FMA: kernel->traits = fma_traits(t, most_q); break;
    default: kernel->traits = rows_traits(t, most_q); break;
    }
    return !fa_cuda_takes_formats(*t) || kernel->resident_coded > 0;
}

int fa_cu_kernels_list(const fa_cu_caps *caps, fa_kernel kernels[FA_MAX_KERNELS])
{
    int made = 0;
    for (int i = 0; i < TABLE_LINES; i++)
        made += make_kernel(caps, &fa_cuda_table[i], &kernels[made]);
    return made;
}
