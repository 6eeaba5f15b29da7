/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: the words of core/portable/task.h, and the kernel of the task that the host (backends/opencl/task.c) names. */
#define FA_RESTRICT /* an output may be an input */
#include "chunks.cl"

/* Operands, and the byte where each begins. */
typedef struct task {
    __global const uchar *params;
    memory m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13;
    long at0, at1, at2, at3, at4, at5, at6, at7, at8, at9, at10, at11, at12, at13;
    __local int *shared;
} task;

#define FA_TASK const task *
#define FA_TASK_CONSTANT(t, n) FA_CAT(FA_CONSTANT_, n)
#define FA_TASK_VIEW(type)
#define FA_TASK_PARAM(t, type, member) ((__global const type *)(t)->params)->member
#define FA_TASK_LIST(t, type, n) ((__global const type *)(t)->params)[n]
#define FA_TASK_HELD const task *
#define FA_TASK_HOLD(t) (t)
#define FA_TASK_OF(held) (held)
#ifdef FA_COMPACT /* as in memory.cl */
#define FA_UNROLLED
#else
#define FA_UNROLLED _Pragma("unroll")
#endif
#define FA_ROLLED _Pragma("unroll 1")
#define FA_AT long
#define FA_INDEX(x) ((long)(x))
#define FA_WIDE(x) (x)
#define FA_BYTE(t, n, byte) memory_at((t)->FA_CAT(m, n), (t)->FA_CAT(at, n) + (byte))
#define FA_GET8(t, n, byte) FA_UINT(*FA_BYTE(t, n, byte))
#define FA_GET16(t, n, byte) FA_UINT(*(__global const ushort *)FA_BYTE(t, n, byte))
#define FA_GET32(t, n, byte) *(__global const uint *)FA_BYTE(t, n, byte)
#define FA_PUT8(t, n, byte, bits) *FA_BYTE(t, n, byte) = (uchar)(bits)
#define FA_PUT16(t, n, byte, bits) *(__global ushort *)FA_BYTE(t, n, byte) = (ushort)(bits)
#define FA_PUT32(t, n, byte, bits) *(__global uint *)FA_BYTE(t, n, byte) = (bits)
#define FA_TASK_BARRIER barrier(CLK_GLOBAL_MEM_FENCE)
#define FA_IN_WORD(t, n, byte) (((uintptr_t)FA_BYTE(t, n, byte) & 2) == 0)

#define FA_TASK_LOW(at) ((uint)(at))
#define FA_TASK_HIGH(at) ((uint)((at) >> 32))
#define FA_TASK_SHARED(t, n) ((t)->shared)[n]
#define FA_TASK_SHARED_ADD(t, n, x) (void)atomic_add(&((t)->shared)[n], x)
#define FA_TASK_SHARED_OR(t, n, x) (void)atomic_or(&((t)->shared)[n], x)
#define FA_TASK_SYNC(t) barrier(CLK_LOCAL_MEM_FENCE)

#pragma OPENCL FP_CONTRACT OFF /* codes are what ggml's quantiser makes, to the bit */
/* What programs share; then one. */
#include "core/portable/decode.h"
#include "core/portable/scales.h"
#include "core/portable/softmax.h"
#include "core/portable/table.h"
#include "core/portable/task.h"
#include "core/portable/visible.h"
#if FA_TASK_KIND == FA_TASK_APPEND || FA_TASK_KIND == FA_TASK_APPEND_SCALED
#if FA_TASK_KIND == FA_TASK_APPEND_SCALED
#define FA_APPEND_SCALES
#endif
#include "core/portable/append.h"
#define FA_TASK_RUN fa_append_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_FILL
#include "core/portable/fill.h"
#define FA_TASK_RUN fa_fill_group
#define FA_SHARED_INTS (FA_TASK_SHARED_INTS * FA_GROUP)
#elif FA_TASK_KIND == FA_TASK_MERGE
#include "core/portable/merge.h"
#define FA_TASK_RUN fa_merge_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_PAGES
#include "core/portable/pages.h"
#define FA_TASK_RUN fa_pages_group
#define FA_SHARED_INTS (FA_TASK_SHARED_INTS * FA_GROUP)
#elif FA_TASK_KIND == FA_TASK_SALIENCY
#include "core/portable/saliency.h"
#define FA_TASK_RUN fa_saliency_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_SHIFT
#include "core/portable/shift.h"
#define FA_TASK_RUN fa_shift_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_RELIST
#include "core/portable/relist.h"
#define FA_TASK_RUN fa_relist_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_MIX
#include "core/portable/mix.h"
#define FA_TASK_RUN fa_mix_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_POOL
#include "core/portable/pool.h"
#define FA_TASK_RUN fa_pooling_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_ROW_SCORES
#include "core/portable/row_scores.h"
#define FA_TASK_RUN fa_row_scores_group
#define FA_SHARED_INTS FA_ROW_SCORES_SHARED
#elif FA_TASK_KIND == FA_TASK_SELECT
#include "core/portable/select.h"
#define FA_TASK_RUN fa_select_group
#define FA_SHARED_INTS FA_SELECT_SHARED
#elif FA_TASK_KIND == FA_TASK_KEY_LIST
#include "core/portable/key_list.h"
#define FA_TASK_RUN fa_key_list_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_GATHER
#include "core/portable/gather.h"
#define FA_TASK_RUN fa_gather_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_SORT
#include "core/portable/sort.h"
#define FA_TASK_RUN fa_sort_group
#define FA_SHARED_INTS (FA_TASK_SHARED_INTS * FA_GROUP)
#elif FA_TASK_KIND == FA_TASK_HASH
#include "core/portable/hash.h"
#define FA_TASK_RUN fa_hash_group
#define FA_SHARED_INTS 1
#elif FA_TASK_KIND == FA_TASK_CLUSTER
#include "core/portable/cluster.h"
#define FA_TASK_RUN fa_cluster_group
#define FA_SHARED_INTS 1
#endif

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_task(
    __global const uchar *params, FA_MEMORY(a), FA_MEMORY(b), FA_MEMORY(c), FA_MEMORY(d), FA_MEMORY(e), FA_MEMORY(f),
    FA_MEMORY(g), FA_MEMORY(h), FA_MEMORY(i), FA_MEMORY(j), FA_MEMORY(k), FA_MEMORY(l), FA_MEMORY(m), FA_MEMORY(n),
    long a_at, long b_at, long c_at, long d_at, long e_at, long f_at, long g_at, long h_at, long i_at, long j_at,
    long k_at, long l_at, long m_at, long n_at)
{
    __local int shared[FA_SHARED_INTS];
    FA_GATHER(a);
    FA_GATHER(b);
    FA_GATHER(c);
    FA_GATHER(d);
    FA_GATHER(e);
    FA_GATHER(f);
    FA_GATHER(g);
    FA_GATHER(h);
    FA_GATHER(i);
    FA_GATHER(j);
    FA_GATHER(k);
    FA_GATHER(l);
    FA_GATHER(m);
    FA_GATHER(n);
    const task t = {params, a, b, c, d, e, f, g, h, i, j, k, l, m, n, a_at, b_at, c_at, d_at, e_at, f_at, g_at, h_at,
                    i_at, j_at, k_at, l_at, m_at, n_at, shared};
    FA_TASK_RUN(&t, (int)get_group_id(0), (int)get_local_id(0), FA_GROUP);
}
