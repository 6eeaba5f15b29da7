/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ALiBi in the levels of a cascade. Rows of a group stand at positions of their own, which change from run to run; but all keys
 * of a level lie before all of these. So a level counts from its own end, which moves all scores of a row alike: softmax does
 * not see that, and a task behind the levels moves their LSEs back.
 */
#ifndef FA_CORE_CASCADE_SHIFT_H
#define FA_CORE_CASCADE_SHIFT_H

#include "core/cascade/cascade.h"

/* Row i of group g of a level counts from here on, in keys of the group. */
static inline int32_t fa_cascade_counts_from(const fa_cascade_level_lists *l, int64_t g)
{
    return (int32_t)(l->end[g] - l->first[g]);
}

/* Of a cascade with slopes and levels, whose plans are made. */
fa_status fa_cascade_shift_make(fa_cascade *cascade);
void fa_cascade_shift_release(fa_cascade *cascade);

/* Enqueues it behind the levels of a run whose memory is checked. Nothing where there are no slopes. */
fa_status fa_cascade_shift_run(const fa_cascade *cascade, fa_queue *queue, const fa_attention_args *args);

#endif
