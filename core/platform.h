/* SPDX-License-Identifier: Apache-2.0 */
/* What operating systems do in different ways. */
#ifndef FA_CORE_PLATFORM_H
#define FA_CORE_PLATFORM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* Memory aligned to a power of two no smaller than a pointer; NULL where there is none. */
void *fa_system_allocate(size_t size, size_t alignment);
void fa_system_release(void *memory);

/*
 * Whether this program was linked without a dynamic loader. It can dlopen() at best a library that needs the C library
 * of another program beside its own: drivers crash there.
 */
bool fa_is_static_program(void);

/*
 * pthread_create() of a thread of the library's own. Signals of the process are for threads of the program: it takes none but
 * those that a thread's own fault raises.
 */
int fa_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument);

#endif
