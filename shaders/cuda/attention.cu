/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of row number FA_ROW of kernels.inc. Each has up to FA_CUDA_VARIANTS: mostly blocks of more and more rows,
 * each twice the last; backends/cuda/traits.h says what else. What a row has not is empty.
 */
#include "coded.cuh"
#include "coded_tile.cuh"
#include "decode.cuh"
#include "fma.cuh"
#include "hopper_tile.cuh"
#include "latent.cuh"
#include "merge.cuh"
#include "rows.cuh"
#include "tensor.cuh"

template <int ROW, int VARIANT>
__device__ __forceinline__ void run(const fa_cuda_args &a, float4 *room)
{
    constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    constexpr int BLOCK_Q = fa_cuda_rows_of(R, VARIANT);
    const fa_table_params *in_work = (const fa_table_params *)a.table; /* a.p is the plan's, whatever the lengths */
    if (blockIdx.x >= (R.kind == FA_CUDA_MERGE ? in_work->merges : in_work->items)) {
        if constexpr (R.kind == FA_CUDA_MERGE)
            wait_for_parts(); /* what follows in the stream waits for this kernel alone */
        return;
    }
    if constexpr (R.kind == FA_CUDA_TENSOR && BLOCK_Q <= R.most_q) {
        if constexpr (fa_cuda_takes_formats(R))
            hopper_tile_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
        else if constexpr (CODED)
            coded_tile_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
        else
            tensor_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
    } else if constexpr (R.kind == FA_CUDA_DECODE && BLOCK_Q <= R.most_q) {
        if constexpr (CODED)
            coded_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
        else
            decode_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
    } else if constexpr (R.kind == FA_CUDA_LATENT && BLOCK_Q <= R.most_q) {
        latent_attention<ROW, BLOCK_Q, VARIANT % 2 != 0>(a, room);
    } else if constexpr (R.kind == FA_CUDA_FMA && BLOCK_Q <= R.most_q) {
        fma_attention<ROW, BLOCK_Q>(a, room);
    } else if constexpr (R.kind == FA_CUDA_ROWS && BLOCK_Q <= R.most_q) {
        rows_attention<ROW, BLOCK_Q>(a, room);
    } else if constexpr (R.kind == FA_CUDA_MERGE && VARIANT == 0) {
        merge_parts<R.group>(a, room, (float *)(room + R.group));
    }
}

/* Of a variant that the row has not, it may be more than any GPU has. */
constexpr int most_threads(int variant)
{
    constexpr fa_cuda_traits R = fa_cuda_table[FA_ROW];
    if (CODED && R.kind == FA_CUDA_DECODE)
        return 32 * fa_cuda_coded_warps(R, variant);
    return FA_MIN(fa_cuda_group(R, variant), 384);
}

/*
 * Blocks that a multiprocessor must have registers for; 0: any number. Of formats, one of the most threads, or tensor: as many of
 * the fewest rows as the kernel is made for. Of others, those that look at terms of scores: for masks in bits the compiler would
 * take more registers.
 */
constexpr int resident(int variant)
{
    constexpr fa_cuda_traits R = fa_cuda_table[FA_ROW];
    if (CODED)
        return R.kind == FA_CUDA_TENSOR && variant < 2 ? R.resident : 1;
    return R.kind == FA_CUDA_LATENT || (variant == 1 && R.kind == FA_CUDA_DECODE) ? R.resident : 0;
}

#define KERNEL(name, variant)                                                                                         \
    extern "C" __global__ void __launch_bounds__(most_threads(variant), resident(variant)) name(const fa_cuda_args a) \
    {                                                                                                                 \
        extern __shared__ __align__(1024) float4 room[];                                                              \
        run<FA_ROW, variant>(a, room);                                                                                \
    }
KERNEL(fa_kernel_0, 0)
KERNEL(fa_kernel_1, 1)
KERNEL(fa_kernel_2, 2)
KERNEL(fa_kernel_3, 3)
