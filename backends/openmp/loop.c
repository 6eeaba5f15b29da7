/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/openmp/loop.h"

#include "backends/openmp/run.h"
#include "backends/openmp/runtime.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/status.h"

int32_t fa_cpu_loop_tasks(const fa_device *device)
{
    const fa_cpu_device *d = device->impl;
    const int32_t units = (int32_t)device->limits.units;
    const int32_t allowed = d->pool ? fa_runtime_threads() : units;
    return FA_MAX(FA_MIN(allowed, units), 1);
}

/* Each takes the next of the list; the longest come first, so that all end close together. */
static void take(void *argument, int32_t index)
{
    (void)index; /* an executor may give it twice: scratch goes by who comes first */
    fa_cpu_loop *l = argument;
    int task = atomic_fetch_add_explicit(&l->begun, 1, memory_order_relaxed);
    if (task >= l->tasks)
        return;
    fa_float_state before = fa_float_enter();
    for (;;) {
        long long i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        if (i >= l->count)
            break;
        l->one(l->of, i, l->scratch ? l->scratch + (size_t)task * l->scratch_bytes : NULL);
    }
    fa_float_leave(before);
    (void)atomic_fetch_add_explicit(&l->ended, 1, memory_order_release);
}

static void do_alone(const fa_cpu_loop *l)
{
    fa_float_state before = fa_float_enter();
    for (int64_t i = 0; i < l->count; i++)
        l->one(l->of, i, l->scratch);
    fa_float_leave(before);
}

fa_status fa_cpu_loop_run(const fa_device *device, fa_cpu_loop *l)
{
    const fa_cpu_device *d = device->impl;
    const fa_executor *executor = &device->context->options.executor;
    if (l->tasks == 1) {
        do_alone(l);
        return FA_OK;
    }
    if (d->pool) {
        fa_pool_run(d->pool, l->tasks, take, l);
        return FA_OK;
    }
    executor->parallel_for(executor->user, l->tasks, take, l);
    int ended = atomic_load_explicit(&l->ended, memory_order_acquire), begun = atomic_load(&l->begun);
    if (atomic_load(&l->next) < l->count || ended < (begun < l->tasks ? begun : l->tasks))
        return fa_fail(FA_INVALID, "executor.parallel_for returned when %d of %d tasks were done", ended,
                       l->tasks);
    return FA_OK;
}
