/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall(), sched_getaffinity() */
#endif
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/environment.h"

#if defined(__linux__)
#include <sched.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

/* Leaf 7: of subleaf 1 in eax, of subleaf 0 in edx. Compilers disagree about their names. */
enum { CPUID_AVX512_BF16 = 1 << 5, CPUID_AMX_BF16 = 1 << 22, CPUID_AMX_TILE = 1 << 24 };
#endif

const char *const fa_isa_names[FA_ISAS] = {"scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"};

#if defined(__x86_64__) && defined(__linux__)
/* Linux saves the tiles of a process only when asked to: they are 8 KiB a thread. */
static bool permits_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#elif defined(__x86_64__)
static bool permits_amx(void)
{
    return false;
}
#endif

#if defined(__x86_64__)
static bool has_amx_units(void)
{
    const unsigned needed = CPUID_AMX_BF16 | CPUID_AMX_TILE;
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed;
}
#endif

static bool processor_has(fa_isa isa)
{
    switch (isa) {
    case FA_ISA_SCALAR: return true;
#if defined(__x86_64__)
    case FA_ISA_AVX2: {
        unsigned a, b, c, d;
        bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
        return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    case FA_ISA_AVX512:
        return processor_has(FA_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    case FA_ISA_AVX512BF16: {
        unsigned a, b, c, d;
        return processor_has(FA_ISA_AVX512) && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
               (a & CPUID_AVX512_BF16);
    }
    case FA_ISA_AMX: return processor_has(FA_ISA_AVX512BF16) && has_amx_units() && permits_amx();
#elif defined(__aarch64__)
    case FA_ISA_NEON: return true;
#endif
    default: return false;
    }
}

bool fa_cpu_slow_pairs(void)
{
#if defined(__x86_64__)
    return has_amx_units();
#else
    return false;
#endif
}

static bool is_of_this_architecture(fa_isa isa)
{
#if defined(__x86_64__)
    return isa != FA_ISA_NEON;
#elif defined(__aarch64__)
    return isa == FA_ISA_SCALAR || isa == FA_ISA_NEON;
#else
    return isa == FA_ISA_SCALAR;
#endif
}

static fa_isa find_limit(const char *text)
{
    int isa = 0;
    while (isa < FA_ISAS && strcmp(text, fa_isa_names[isa]) != 0)
        isa++;
    return (fa_isa)isa;
}

const char *fa_cpu_bad_limit(void)
{
    const char *limit = fa_environment("FASTATTN_ISA");
    if (!limit || !limit[0])
        return NULL;
    fa_isa isa = find_limit(limit);
    return isa == FA_ISAS || !is_of_this_architecture(isa) ? limit : NULL;
}

void fa_cpu_list_isas(char *text, size_t size)
{
    size_t used = 0;
    for (int isa = 0; isa < FA_ISAS && used < size; isa++) {
        if (is_of_this_architecture((fa_isa)isa))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", fa_isa_names[isa]);
    }
}

bool fa_cpu_has(fa_isa isa)
{
    const char *limit = fa_environment("FASTATTN_ISA");
    if (limit && limit[0] && isa > find_limit(limit))
        return false;
    return processor_has(isa);
}

int32_t fa_cpu_count(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set);
#endif
#if defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int32_t)info.dwNumberOfProcessors;
#else
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int32_t)count : 1;
#endif
}

size_t fa_cpu_l1_bytes(void)
{
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    if (bytes > 0)
        return (size_t)bytes;
#endif
    return (size_t)32 << 10;
}

size_t fa_cpu_l2_bytes(void)
{
#if defined(_SC_LEVEL2_CACHE_SIZE)
    long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0)
        return (size_t)bytes;
#endif
    return (size_t)512 << 10;
}

void fa_cpu_name(char *name, size_t size)
{
#if defined(__x86_64__)
    unsigned word[12];
    bool known = true;
    for (unsigned i = 0; i < 3; i++)
        known = known && __get_cpuid(0x80000002u + i, &word[4 * i], &word[4 * i + 1], &word[4 * i + 2],
                                     &word[4 * i + 3]);
    if (known) {
        const char *text = (const char *)word;
        text += strspn(text, " ");
        (void)snprintf(name, size, "%.*s", (int)(sizeof(word) - 1 - (size_t)(text - (const char *)word)),
                       text);
        return;
    }
    (void)snprintf(name, size, "x86-64");
#elif defined(__aarch64__)
    (void)snprintf(name, size, "AArch64");
#else
    (void)snprintf(name, size, "CPU");
#endif
}
