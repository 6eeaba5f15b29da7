/* SPDX-License-Identifier: Apache-2.0 */
/* What the system tells of this machine's memory and caches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/io/memory.h"

/* The first number after `key` in a small text file, 0 when there is none. */
static unsigned long long read_number(const char *path, const char *key)
{
    char line[256];
    unsigned long long number = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        if (!strncmp(line, key, strlen(key))) {
            char *end;
            number = strtoull(line + strlen(key), &end, 10);
            number *= *end == 'K' ? 1024 : *end == 'M' ? 1024 * 1024 : 1;
            break;
        }
    }
    (void)fclose(file);
    return number;
}

size_t bench_memory_available(void)
{
    io_memory memory;
    io_memory_available(&memory);
    return memory.bytes < SIZE_MAX ? (size_t)memory.bytes : SIZE_MAX;
}

/* The highest level of cache of one CPU. A cache that several CPUs share counts for the first of them. */
static size_t cpu_cache_bytes(long cpu)
{
    char path[128];
    unsigned long long top = 0, bytes = 0;
    for (int index = 0; index < 8; index++) {
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/level", cpu, index);
        unsigned long long level = read_number(path, "");
        if (level <= top)
            continue;
        top = level;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/shared_cpu_list",
                       cpu, index);
        bool first = read_number(path, "") == (unsigned long long)cpu;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/size", cpu, index);
        bytes = first ? read_number(path, "") : 0;
    }
    return (size_t)bytes;
}

size_t bench_cache_bytes(void)
{
    size_t bytes = 0;
#if defined(_SC_NPROCESSORS_CONF)
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
#else
    long cpus = 0; /* where nothing tells of their caches either */
#endif
    for (long cpu = 0; cpu < cpus; cpu++)
        bytes += cpu_cache_bytes(cpu);
    return bytes;
}
