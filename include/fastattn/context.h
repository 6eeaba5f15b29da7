/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_CONTEXT_H
#define FASTATTN_CONTEXT_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Log callback, allocator and the list of backends: what every other object hangs on.
 * Immutable once made; any number of threads may use one at the same time. It must outlive the
 * devices opened from it.
 */
typedef struct fa_context fa_context;

typedef enum fa_log_level {
    FA_LOG_NONE = 0,
    FA_LOG_WARN = 1, /* something works, but worse than it could                  */
    FA_LOG_INFO = 2, /* decisions: which device, which kernel                     */
    FA_LOG_DEBUG = 3 /* every plan                                                */
} fa_log_level;

/** Receives one message, without a newline, valid during the call only. May be called from any thread. */
typedef void (*fa_log_fn)(void *user, fa_log_level level, const char *message);

/**
 * Where the library takes host memory from. Both functions or neither; they may be called from any
 * thread. `alignment` is a power of two; `allocate` returns NULL when it cannot. `release` gets the
 * size that was asked for.
 */
typedef struct fa_allocator {
    void *(*allocate)(void *user, size_t size, size_t alignment);
    void (*release)(void *user, void *memory, size_t size);
    void *user;
} fa_allocator;

/**
 * The caller's own parallel for. An engine that has a thread pool gives it here; the library then starts no
 * thread for computing. `parallel_for` calls task(argument, i) once for each i in 0 to count - 1, on any threads,
 * in any order, at the same time or one after the other, and returns when all these calls have returned.
 *
 * fa_plan_run() and fa_attention_host() call it on their caller's thread, at most twice a run, with no lock held,
 * and only where the plan has work for more than one thread. `count` is at most fa_plan_info.workers. Runs on
 * several threads call it on several threads at the same time. It must not throw, and must not leave by longjmp().
 * A task neither blocks nor calls back. Results do not depend on how tasks are spread, bit for bit.
 */
typedef struct fa_executor {
    void (*parallel_for)(void *user, int32_t count, void (*task)(void *argument, int32_t index),
                         void *argument);
    void *user;
} fa_executor;

/** The most threads that fa_context_options.threads and FASTATTN_THREADS may ask for. */
#define FA_MAX_THREADS 1024

typedef struct fa_context_options {
    size_t struct_size;     /* sizeof(fa_context_options)                                        */
    fa_log_fn log;          /* NULL: silence; the library itself never prints                    */
    void *log_user;         /* handed to `log`                                                   */
    fa_log_level log_level; /* the most detailed level delivered; 0 with a callback: FA_LOG_INFO */
    int32_t threads;        /* of the OpenMP-SIMD backend, the caller's included: plans are made */
                            /* for so many. 0: FASTATTN_THREADS, else what OpenMP would use,     */
                            /* else one for each CPU that the process may use. See threads.md    */
    fa_allocator allocator; /* zero: the C library's                                             */
    fa_executor executor;   /* zero: threads of the library's own, which sleep between runs      */
} fa_context_options;

/**
 * Makes a context. `options` may be NULL: all defaults. Nothing is opened yet: a driver is first
 * looked for when devices are listed or opened.
 * Returns FA_INVALID (context NULL, half an allocator, threads out of range, struct_size off) or
 * FA_OUT_OF_MEMORY; *context is then NULL.
 */
FA_API fa_status fa_context_create(const fa_context_options *options, fa_context **context);

/** Destroys a context whose devices are all closed. NULL is allowed. */
FA_API void fa_context_destroy(fa_context *context);

#ifdef __cplusplus
}
#endif
#endif
