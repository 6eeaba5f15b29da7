/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks on the device's threads: a work-group at a time. */
#include "core/task.h"

#include "backends/openmp/loop.h"
#include "backends/openmp/run.h"
#include "core/portable/task.h"

typedef struct task_run {
    const fa_task *task;
    fa_task_view view;
} task_run;

static void do_group(const void *of, int64_t index, void *scratch)
{
    const task_run *run = of;
    (void)scratch;
    run->task->run(&run->view, (int)index);
}

fa_status fa_openmp_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    (void)queue;
    if (task->kind == FA_TASK_APPEND || task->kind == FA_TASK_APPEND_SCALED)
        return fa_openmp_append_run(task, binding);
    const task_run run = {task, fa_task_view_of(task, binding)};
    fa_cpu_loop loop = {
        .one = do_group,
        .of = &run,
        .count = binding->groups,
        .tasks = FA_MIN(fa_cpu_loop_tasks(task->device), binding->groups),
    };
    return fa_cpu_loop_run(task->device, &loop);
}
