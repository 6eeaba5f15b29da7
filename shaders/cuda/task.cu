/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: the words of core/portable/task.h, and the kernel of task number FA_ROW. Its constants are FA_CONSTANT_0 to 3; where
 * those are not defined, as in the library's images, they are read from each launch. No products and sums are fused: codes are
 * what ggml's quantiser makes, to the bit.
 */
#include "backends/cuda/task.h"

#define FA_TASK const fa_cuda_task &
#define FA_TASK_VIEW(type)
#define FA_TASK_PARAM(t, type, member) (((const type *)(t).params)->member)
#define FA_TASK_LIST(t, type, n) (((const type *)(t).params)[n])
#define FA_TASK_HELD const fa_cuda_task *
#define FA_TASK_HOLD(t) (&(t))
#define FA_TASK_OF(held) (*(held))
#define FA_UNROLLED _Pragma("unroll")
#ifdef FA_CONSTANT_0
/* Where no loop stays one, elements are in registers; a loop would have them in memory. */
#define FA_TASK_CONSTANT(t, n) FA_CONSTANT_##n
#define FA_ROLLED _Pragma("unroll")
#else
#define FA_TASK_CONSTANT(t, n) ((t).constant[n])
#define FA_ROLLED _Pragma("unroll 1")
#endif
#define FA_AT fa_long
#define FA_INDEX(x) ((fa_long)(x))
#define FA_WIDE(x) (x)
#define FA_GET8(t, n, byte) fa_uint((t).at[n][byte])
#define FA_GET16(t, n, byte) fa_uint(*(const unsigned short *)((t).at[n] + (byte)))
#define FA_GET32(t, n, byte) (*(const fa_uint *)((t).at[n] + (byte)))
#define FA_PUT8(t, n, byte, bits) (t).at[n][byte] = (unsigned char)(bits)
#define FA_PUT16(t, n, byte, bits) *(unsigned short *)((t).at[n] + (byte)) = (unsigned short)(bits)
#define FA_PUT32(t, n, byte, bits) *(fa_uint *)((t).at[n] + (byte)) = (bits)
#define FA_TASK_BARRIER __syncthreads()
#define FA_IN_WORD(t, n, byte) (((unsigned long long)((t).at[n] + (byte)) & 2) == 0)

#define FA_TASK_LOW(at) fa_uint(at)
#define FA_TASK_HIGH(at) fa_uint((at) >> 32)
#define FA_TASK_SHARED(t, n) task_shared()[n]
#define FA_TASK_SHARED_ADD(t, n, x) atomicAdd(&task_shared()[n], x)
#define FA_TASK_SHARED_OR(t, n, x) atomicOr(&task_shared()[n], x)
#define FA_TASK_SYNC(t) __syncthreads()

constexpr int MOST_THREADS = 256;

__device__ int *task_shared();

/* What programs share; then one. */
#include "core/portable/decode.h"
#include "core/portable/scales.h"
#include "core/portable/softmax.h"
#include "core/portable/table.h"
#include "core/portable/task.h"
#include "core/portable/visible.h"
#if FA_ROW == FA_TASK_APPEND || FA_ROW == FA_TASK_APPEND_SCALED
#if FA_ROW == FA_TASK_APPEND_SCALED
#define FA_APPEND_SCALES
#endif
#include "core/portable/append.h"
#define FA_TASK_RUN fa_append_group
#elif FA_ROW == FA_TASK_FILL
#include "core/portable/fill.h"
#define FA_TASK_RUN fa_fill_group
#elif FA_ROW == FA_TASK_MERGE
#include "core/portable/merge.h"
#define FA_TASK_RUN fa_merge_group
#elif FA_ROW == FA_TASK_PAGES
#include "core/portable/pages.h"
#define FA_TASK_RUN fa_pages_group
#elif FA_ROW == FA_TASK_SALIENCY
#include "core/portable/saliency.h"
#define FA_TASK_RUN fa_saliency_group
#elif FA_ROW == FA_TASK_SHIFT
#include "core/portable/shift.h"
#define FA_TASK_RUN fa_shift_group
#elif FA_ROW == FA_TASK_RELIST
#include "core/portable/relist.h"
#define FA_TASK_RUN fa_relist_group
#elif FA_ROW == FA_TASK_MIX
#include "core/portable/mix.h"
#define FA_TASK_RUN fa_mix_group
#elif FA_ROW == FA_TASK_POOL
#include "core/portable/pool.h"
#define FA_TASK_RUN fa_pooling_group
#elif FA_ROW == FA_TASK_ROW_SCORES
#include "core/portable/row_scores.h"
#define FA_TASK_RUN fa_row_scores_group
#define FA_SHARED_INTS FA_ROW_SCORES_SHARED
#elif FA_ROW == FA_TASK_SELECT
#include "core/portable/select.h"
#define FA_TASK_RUN fa_select_group
#define FA_SHARED_INTS FA_SELECT_SHARED
#elif FA_ROW == FA_TASK_KEY_LIST
#include "core/portable/key_list.h"
#define FA_TASK_RUN fa_key_list_group
#elif FA_ROW == FA_TASK_GATHER
#include "core/portable/gather.h"
#define FA_TASK_RUN fa_gather_group
#elif FA_ROW == FA_TASK_SORT
#include "core/portable/sort.h"
#define FA_TASK_RUN fa_sort_group
#elif FA_ROW == FA_TASK_HASH
#include "core/portable/hash.h"
#define FA_TASK_RUN fa_hash_group
#elif FA_ROW == FA_TASK_CLUSTER
#include "core/portable/cluster.h"
#define FA_TASK_RUN fa_cluster_group
#endif
#ifndef FA_SHARED_INTS
#define FA_SHARED_INTS (FA_TASK_SHARED_INTS * MOST_THREADS)
#endif

__device__ __forceinline__ int *task_shared()
{
    __shared__ int room[FA_SHARED_INTS];
    return room;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) fa_task(const fa_cuda_task t)
{
    FA_TASK_RUN(t, (int)blockIdx.x, (int)threadIdx.x, (int)blockDim.x);
}
