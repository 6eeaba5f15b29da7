/* SPDX-License-Identifier: Apache-2.0 */
/* What the OpenMP backend's kernels are given, and what they are. */
#ifndef FA_OPENMP_KERNEL_H
#define FA_OPENMP_KERNEL_H

#include "core/plan.h"
#include "core/tensor.h"

#include "core/portable/walk.h"

/* What core/portable/keys.h, keep.h and lists.h are written in. */
typedef struct fa_cpu_keys {
    const fa_table_params *params;
    const fa_table_sequence *sequence;
    const int32_t *pages;
    const void *keep;
    int head_kv;
    fa_walk walk;
} fa_cpu_keys;
#define FA_WORK fa_cpu_keys
#define FA_PARAM(w, member) ((w).params->member)
#define FA_SEQUENCE(w, member) ((w).sequence->member)
#define FA_LOAD_PAGE(w, n) ((w).pages[n])
#define FA_ROLLED
#define FA_LATE(x) (x)
#define FA_LOAD_KEEP(w, n) (((const uint8_t *)(w).keep)[n])
#define FA_LOAD_BITS(w, n) (((const uint32_t *)(w).keep)[n])
#define FA_LISTS(w) (((w).params->flags & FA_TABLE_LISTS) != 0)
#define FA_LIST_WORD(w, n) (((const uint32_t *)(w).params)[n])
#define FA_INDEX(x) ((int64_t)(x))
#define FA_WIDE(x) (x)
#include "core/portable/keep.h"
#include "core/portable/keys.h"

/* One run of a plan: where everything is. */
typedef struct fa_cpu_run {
    const fa_plan *plan;
    const fa_table_params *work; /* the lists are in it */
    const fa_table_sequence *sequence;
    const fa_table_item *item;
    const fa_table_merge *merge;
    const void *q, *k, *v, *bias, *keep;
    const int32_t *pages; /* the page table; NULL: keys do not lie in pages */
    const void *k_scale, *v_scale, *k_zero, *v_zero;
    void *o;
    bool cuts;      /* lists end within blocks that the mask is looked at for */
    bool near;      /* rows see a neighbourhood of keys */
    float *lse;     /* NULL: not wanted */
    float *partial; /* normalised outputs of split items, dim_v floats a row */
    fa_state *partial_state;
} fa_cpu_run;

/* A kernel executes one work item at a time, on one thread, in scratch of its own. */
typedef struct fa_cpu_kernel {
    size_t (*scratch_bytes)(const fa_plan *plan);
    void (*item)(const fa_cpu_run *run, const fa_table_item *item, void *scratch);
} fa_cpu_kernel;

/* Elements that precede a row of q or o. */
static inline int64_t fa_cpu_row_at(const fa_cpu_run *run, int operand, const fa_table_sequence *s, int head,
                                    int position)
{
    const fa_tensor *t = &run->plan->problem.tensor[operand];
    return (operand == FA_Q ? s->q_at : s->o_at) + fa_tensor_offset(t, 0, head, position);
}

/* Bit i: whether key + i is in the row's neighbourhood. */
static inline uint32_t fa_cpu_near(fa_cpu_keys w, fa_row r, int key, int count)
{
    uint32_t has = 0;
    r = fa_near_row(w, r);
    for (int i = 0; i < count; i++)
        has |= (uint32_t)fa_near_has(w, r, key + i) << i;
    return has;
}

/* Bit i: whether neither `keep` nor a list nor its neighbourhood hides key + i of the row, for `count` keys, at most 32. All where there
 * is none of them. */
static inline uint32_t fa_cpu_kept(const fa_cpu_run *run, const fa_table_sequence *s, int head, int position,
                                   int key, int count)
{
    const fa_cpu_keys w = {.params = run->work, .sequence = s};
    const fa_row r = {.head = head, .position = position};
    uint32_t kept = UINT32_MAX;
    if (run->keep)
        kept = fa_problem_kept(&run->plan->problem, run->keep, s->number, head, position, &s->mask, s->first,
                               key, count);
    for (int i = 0; run->cuts && i < count; i++) {
        if (!fa_work_lists(w, r, key + i))
            kept &= ~((uint32_t)1 << i);
    }
    return run->near ? kept & fa_cpu_near(w, r, key, count) : kept;
}

/* In which page a key of the item's sequence lies, and where there. */
static inline fa_key_place fa_cpu_place(const fa_cpu_run *run, const fa_table_item *item, int key)
{
    const fa_cpu_keys keys = {
        .params = run->work, .sequence = &run->sequence[item->sequence], .pages = run->pages};
    return fa_work_place(keys, key);
}

/* The item, for fa_work_next(). */
static inline fa_cpu_keys fa_cpu_item(const fa_cpu_run *run, const fa_table_item *item)
{
    const fa_table_sequence *s = &run->sequence[item->sequence];
    return (fa_cpu_keys){
        .params = run->work,
        .sequence = s,
        .keep = run->keep,
        .head_kv = item->head_kv,
        .walk = fa_walk_of(s->mask, run->plan->args.group, item->row_begin, item->row_end, item->key_end)};
}

/* Where its scale lies, by batch entry or page and by row there. */
static inline fa_key_place fa_cpu_scale_place(const fa_cpu_run *run, const fa_table_item *item, int key)
{
    const fa_table_sequence *s = &run->sequence[item->sequence];
    return run->pages ? fa_cpu_place(run, item, key) : (fa_key_place){s->number, s->row + key};
}

/* Elements that precede the row of k or v in that place. */
static inline int64_t fa_cpu_place_at(const fa_cpu_run *run, int operand, const fa_table_item *item,
                                      fa_key_place at)
{
    const fa_table_sequence *s = &run->sequence[item->sequence];
    const fa_tensor *t = &run->plan->problem.tensor[operand];
    return (operand == FA_K ? s->k_at : s->v_at) + fa_tensor_offset(t, at.page, item->head_kv, at.within);
}

/* Elements that precede a key's row of k or v. */
static inline int64_t fa_cpu_key_at(const fa_cpu_run *run, int operand, const fa_table_item *item, int key)
{
    fa_key_place at = {0, key};
    if (run->pages)
        at = fa_cpu_place(run, item, key);
    return fa_cpu_place_at(run, operand, item, at);
}

/* Of the keys [key, end), how many lie evenly apart from the first on: those of its page. */
static inline int fa_cpu_even_keys(const fa_cpu_run *run, const fa_table_item *item, int key, int end)
{
    if (!run->pages)
        return end - key;
    return FA_MIN(end - key, run->work->page_size - fa_cpu_place(run, item, key).within);
}

/* Elements that precede a row's LSE. */
static inline int64_t fa_cpu_lse_at(const fa_cpu_run *run, const fa_table_sequence *s, int head, int position)
{
    return s->lse_at + (int64_t)head * run->work->lse_rows + position;
}

/* Rows of one type and `dim` elements into a cache of any. Element `at` is the first, `stride` elements from row to row. */
typedef void fa_cpu_append_rows(fa_dtype source, const void *from, int64_t at, int64_t stride, fa_dtype dtype,
                                void *to, int64_t index, int64_t to_stride, int rows, int dim);

/* fa_<isa>_<kernel>, one object per instruction set. */
#define FA_CPU_ISA(isa)                                                               \
    extern const fa_cpu_kernel fa_##isa##_tile, fa_##isa##_rows, fa_##isa##_standard; \
    fa_cpu_append_rows fa_##isa##_append_rows;
FA_CPU_ISA(scalar)
FA_CPU_ISA(avx2)
FA_CPU_ISA(avx512)
FA_CPU_ISA(neon)
#undef FA_CPU_ISA
extern const fa_cpu_kernel fa_avx512bf16_tile, fa_amx_tile;

#endif
