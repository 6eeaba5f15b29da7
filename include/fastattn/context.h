/* SPDX-License-Identifier: Apache-2.0 */
/** The context: where messages go, where memory comes from, which threads compute. */
#ifndef FASTATTN_CONTEXT_H
#define FASTATTN_CONTEXT_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Log callback, allocator and executor. Devices are listed and opened from a context, and it must outlive them.
 * It never changes: any number of threads may use one at the same time.
 */
typedef struct fa_context fa_context;

/** How detailed a message is. */
typedef enum fa_log_level {
    FA_LOG_NONE = 0,
    FA_LOG_WARN = 1, /* something works, but worse than it could                  */
    FA_LOG_INFO = 2, /* decisions: which device, which kernel                     */
    FA_LOG_DEBUG = 3 /* every plan                                                */
} fa_log_level;

/** Receives one message, without a newline. The text is valid during the call only. Any thread may call it. */
typedef void (*fa_log_fn)(void *user, fa_log_level level, const char *message);

/**
 * Where the library takes host memory from. Give both functions or neither. Any thread may call them.
 * `alignment` is a power of two. `allocate` returns NULL when there is no memory. `release` gets the size that was
 * asked for.
 */
typedef struct fa_allocator {
    void *(*allocate)(void *user, size_t size, size_t alignment);
    void (*release)(void *user, void *memory, size_t size);
    void *user;
} fa_allocator;

/**
 * The caller's own parallel for. An engine with a thread pool gives it here; the library then starts no threads for
 * computing. `parallel_for` calls task(argument, i) once for each i from 0 to count - 1. It may do so on any threads,
 * in any order, at the same time or one after the other. It returns when all these calls have returned.
 *
 * fa_plan_run(), fa_plan_run_host() and fa_attention_host() call it on their caller's thread, at most twice a run, with
 * no lock held, and only if the plan has work for more than one thread. `count` is at most fa_plan_info.workers. Runs
 * on several threads call it on several threads at the same time. It must not throw, and must not leave by longjmp(). A
 * task does not block, and does not call the caller's code. How tasks are spread does not change the result, not in one
 * bit.
 */
typedef struct fa_executor {
    void (*parallel_for)(void *user, int32_t count, void (*task)(void *argument, int32_t index),
                         void *argument);
    void *user;
} fa_executor;

/** The most threads that fa_context_options.threads and FASTATTN_THREADS may ask for. */
#define FA_MAX_THREADS 1024

/** Options of a context. Zero means default. */
typedef struct fa_context_options {
    size_t struct_size;     /* sizeof(fa_context_options)                                        */
    fa_log_fn log;          /* NULL: silence; the library itself never prints                    */
    void *log_user;         /* passed to `log`                                                   */
    fa_log_level log_level; /* the most detailed level delivered; 0: FA_LOG_INFO                 */
    int32_t threads;        /* threads of the OpenMP-SIMD backend, the caller's included; plans  */
                            /* are made for this many. 0: FASTATTN_THREADS, else what OpenMP     */
                            /* would use, else one for each CPU of the process. See threads.md   */
    fa_allocator allocator; /* zero: the C library's                                             */
    fa_executor executor;   /* zero: the library's own threads, which sleep between runs         */
} fa_context_options;

/**
 * Makes a context. `options` may be NULL, which means all defaults; it is copied. No driver is opened yet: that happens
 * when devices are listed or opened. Destroy with fa_context_destroy(). Thread-safe.
 *
 * FA_INVALID: context is NULL, the allocator lacks a function, log_level or threads is out of range, or struct_size is
 * wrong. FA_OUT_OF_MEMORY.
 */
FA_API fa_status fa_context_create(const fa_context_options *options, fa_context **context);

/** Destroys a context. Its devices must all be closed before. NULL is allowed. */
FA_API void fa_context_destroy(fa_context *context);

#ifdef __cplusplus
}
#endif
#endif
