/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's own threads, which help a calling thread through its tasks. They are started by the first run that has
 * tasks for them, spin for some microseconds when they run out of tasks, then sleep, and end with the pool.
 *
 * A calling thread never waits for a helper that has not begun: what nobody else has begun, it does itself. Where threads
 * cannot be started, in a child after fork(), and while too many other threads call, it does all of it.
 */
#ifndef FA_OPENMP_POOL_H
#define FA_OPENMP_POOL_H

#include <fastattn/context.h>

typedef struct fa_pool fa_pool;

/* For `threads` of 1 to FA_MAX_THREADS, the calling one included. Starts none yet. NULL: no memory. */
fa_pool *fa_pool_create(const fa_context *context, int32_t threads);

/* What fa_executor.parallel_for does. Any number of threads may call it at the same time. */
void fa_pool_run(fa_pool *pool, int32_t count, void (*task)(void *argument, int32_t index), void *argument);

/* Ends the threads and waits for that. No run may be under way. NULL is allowed. */
void fa_pool_destroy(fa_pool *pool);

#endif
