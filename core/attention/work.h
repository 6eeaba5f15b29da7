/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run does, as words in memory: core/portable/table.h, filled. It is a pure function of a plan and of lengths. Each
 * plan has the work of its own lengths; fa_plan_schedule() makes that of others, of the same layout.
 */
#ifndef FA_CORE_ATTENTION_WORK_H
#define FA_CORE_ATTENTION_WORK_H

#include "core/attention/schedule.h"
#include "core/portable/table.h"

struct fa_plan;

/* Parameters, then lists: where each begins, in bytes. Those whose length differs most from run to run come last. */
typedef struct fa_work_layout {
    size_t slopes, sinks, factors, lists, near, sequences, merges, items;
    size_t bytes; /* of all */
} fa_work_layout;

/* Room for what the plan's capacity allows. FA_OUT_OF_MEMORY where the device has no memory that large in one piece. */
fa_status fa_work_lay_out(const struct fa_plan *plan, fa_work_layout *layout);

/* Writes the work of lengths: `problem` is the plan's but for them, `schedule` is of them. Returns how many bytes of `work`
 * hold something: to the end of the last item. */
size_t fa_work_write(const struct fa_plan *plan, const fa_problem *problem, const fa_schedule *schedule,
                     void *work);

/* What of the table a problem alone says: all but where lists lie, counts of these, and the score. And its sequences. */
void fa_work_describe(const fa_problem *problem, fa_table_params *params);
void fa_work_sequences(const fa_problem *problem, fa_table_sequence *sequences);

#endif
