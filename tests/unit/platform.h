/* SPDX-License-Identifier: Apache-2.0 */
/* Whole pages of memory, and one behind them that cannot be touched, as the system gives them. For helpers.c. */
#ifndef FASTATTN_TESTS_UNIT_PLATFORM_H
#define FASTATTN_TESTS_UNIT_PLATFORM_H

#include <stddef.h>

#if defined(_WIN32)
#include <windows.h>

static size_t platform_page(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

static char *platform_fenced(size_t usable)
{
    DWORD before;
    char *pages = VirtualAlloc(NULL, usable + platform_page(), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    return pages && VirtualProtect(pages + usable, platform_page(), PAGE_NOACCESS, &before) ? pages : NULL;
}

static void platform_fenced_release(char *pages, size_t usable)
{
    (void)usable;
    (void)VirtualFree(pages, 0, MEM_RELEASE);
}
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t platform_page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static char *platform_fenced(size_t usable)
{
    int zero = open("/dev/zero", O_RDWR);
    if (zero < 0)
        return NULL;
    char *pages = mmap(NULL, usable + platform_page(), PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    (void)close(zero);
    return pages != MAP_FAILED && mprotect(pages + usable, platform_page(), PROT_NONE) == 0 ? pages : NULL;
}

static void platform_fenced_release(char *pages, size_t usable)
{
    (void)munmap(pages, usable + platform_page());
}
#endif

#endif
