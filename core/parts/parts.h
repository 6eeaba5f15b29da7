/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans over the same rows, each for some of their keys, and the merge of what they make: the levels of a cascade, the segments
 * of a cache.
 */
#ifndef FA_CORE_PARTS_H
#define FA_CORE_PARTS_H

#include <fastattn/merge.h>
#include <fastattn/plan.h>

enum { FA_PARTS_MOST = 8 };

/* A workspace has the states of all parts, outputs and then LSEs, and behind them that of the plans, of one at a time. */
typedef struct fa_parts {
    int64_t count;
    fa_plan *plan[FA_PARTS_MOST];
    fa_merge *merge; /* NULL: one plan, which writes the outputs itself */
    size_t part_bytes, part_lse_bytes, lse_offset, scratch_offset, workspace;
} fa_parts;

/* What each part has of a description: it writes states. */
fa_attention_desc fa_parts_desc(const fa_attention_desc *desc);

/*
 * Makes the merge, and lays out the workspace, of plans that are made: of fa_parts_desc(), or where there is no merge one
 * of `desc` itself. `factors` and their stride are those of fa_merge_desc. What is made is released whatever this returns.
 */
fa_status fa_parts_merged(fa_parts *parts, fa_device *device, const fa_attention_desc *desc,
                          const fa_tensor *factors, int64_t factor_stride);
void fa_parts_alone(fa_parts *parts);
void fa_parts_release(fa_parts *parts);

/* The arguments of part n's run, which writes its state into the workspace where there is a merge. */
fa_attention_args fa_parts_args(const fa_parts *parts, const fa_attention_args *args, int64_t n);

/* Enqueues the merge into the outputs of `args`. Without a merge there is nothing left to do. */
fa_status fa_parts_merge(const fa_parts *parts, fa_queue *queue, const fa_attention_args *args,
                         fa_buffer *factors, size_t factors_offset);

#endif
