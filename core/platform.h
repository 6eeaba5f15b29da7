/* SPDX-License-Identifier: Apache-2.0 */
/* What operating systems do in different ways. */
#ifndef FA_CORE_PLATFORM_H
#define FA_CORE_PLATFORM_H

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

#endif
