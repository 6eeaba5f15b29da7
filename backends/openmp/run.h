/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_OPENMP_RUN_H
#define FA_OPENMP_RUN_H

#include "backends/openmp/kernel.h"
#include "backends/openmp/pool.h"
#include "core/backend.h"

/* What a device of this backend has of its own. */
typedef struct fa_cpu_device {
    fa_pool *pool;                   /* NULL: the context's executor shares work */
    int32_t runtime_threads;         /* what OpenMP allowed when it was opened */
    fa_cpu_append_rows *append_rows; /* of the best instruction set, see append.c */
} fa_cpu_device;

size_t fa_openmp_scratch_bytes(const fa_plan *plan);
fa_status fa_openmp_plan_prepare(fa_plan *plan);
void fa_openmp_plan_release(fa_plan *plan);
fa_status fa_openmp_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

/* task.c */
fa_status fa_openmp_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

/* append.c: in vectors, by the best instruction set. To find it takes microseconds in a virtual machine. */
fa_cpu_append_rows *fa_openmp_best_append(void);
fa_status fa_openmp_append_run(const fa_task *task, const fa_task_binding *binding);

#endif
