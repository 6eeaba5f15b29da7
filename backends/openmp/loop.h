/* SPDX-License-Identifier: Apache-2.0 */
/* A list of work that the device's threads, or the caller's executor, share. */
#ifndef FA_OPENMP_LOOP_H
#define FA_OPENMP_LOOP_H

#include <stdatomic.h>

#include "core/backend.h"

/* Tasks take from it, one after the other. */
typedef struct fa_cpu_loop {
    void (*one)(const void *of, int64_t index, void *scratch);
    const void *of;
    int64_t count;
    char *scratch; /* of each task, scratch_bytes apart; NULL: none */
    size_t scratch_bytes;
    int32_t tasks; /* at least 1 */
    atomic_llong next;
    atomic_int begun, ended;
} fa_cpu_loop;

/* Goes through the list. FA_INVALID: the caller's executor left something out. */
fa_status fa_cpu_loop_run(const fa_device *device, fa_cpu_loop *loop);

/* The most tasks that a loop of the device should have now: its threads, or those of the executor. */
int32_t fa_cpu_loop_tasks(const fa_device *device);

#endif
