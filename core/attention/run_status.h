/* SPDX-License-Identifier: Apache-2.0 */
/* The status of runs whose keys lie in pages: a task behind each run, core/portable/pages.h. */
#ifndef FA_CORE_ATTENTION_RUN_STATUS_H
#define FA_CORE_ATTENTION_RUN_STATUS_H

#include "core/plan.h"

/* The bytes that a run writes; 0 where the description does not ask for a status. */
size_t fa_run_status_bytes(const fa_problem *problem);

/* Of a plan whose description asks for it and whose own work is written. */
fa_status fa_run_status_make(fa_plan *plan);
void fa_run_status_release(fa_plan *plan);

/* Enqueues it, for a run whose buffers are checked. */
fa_status fa_run_status_write(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

/* Compiles what fa_run_status_make() needs, and keeps it with the device. */
fa_status fa_run_status_compile(fa_device *device);

#endif
