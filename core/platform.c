/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _GNU_SOURCE /* dl_iterate_phdr() */
#endif
#include "core/platform.h"

#include <stdlib.h>

#if defined(_WIN32)
#include <malloc.h>

void *fa_system_allocate(size_t size, size_t alignment)
{
    return _aligned_malloc(size, alignment);
}

void fa_system_release(void *memory)
{
    _aligned_free(memory);
}
#else
void *fa_system_allocate(size_t size, size_t alignment)
{
    void *memory = NULL;
    return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

void fa_system_release(void *memory)
{
    free(memory);
}
#endif

#if defined(__linux__)
#include <link.h>
#include <sys/auxv.h>

/* The first object is the program. A loader is named in it, or was itself what the system started. */
static int find_loader(struct dl_phdr_info *program, size_t size, void *found)
{
    (void)size;
    for (int i = 0; i < program->dlpi_phnum; i++)
        *(bool *)found |= program->dlpi_phdr[i].p_type == PT_INTERP;
    return 1; /* no further objects */
}

bool fa_is_static_program(void)
{
    bool loader = getauxval(AT_BASE) != 0;
    if (!loader)
        (void)dl_iterate_phdr(find_loader, &loader);
    return !loader;
}
#else
bool fa_is_static_program(void)
{
    return false;
}
#endif

#if defined(_WIN32)
int fa_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
    return pthread_create(thread, NULL, run, argument);
}
#else
#include <signal.h>

int fa_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t blocked, before;
    (void)sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        (void)sigdelset(&blocked, own[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    const int error = pthread_create(thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
#endif
