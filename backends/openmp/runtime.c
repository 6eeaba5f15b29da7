/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _GNU_SOURCE /* pthread_setaffinity_np() */
#endif
#include "backends/openmp/runtime.h"

#include "backends/openmp/cpu.h"

#if FA_WITH_OMP_RUNTIME
#include <omp.h>

int32_t fa_runtime_threads(void)
{
    int most = omp_get_max_threads(), limit = omp_get_thread_limit();
    most = most < limit ? most : limit;
    return omp_in_parallel() || most < 1 ? 1 : most;
}
#else
int32_t fa_runtime_threads(void)
{
    return fa_cpu_count();
}
#endif

#if FA_WITH_OMP_RUNTIME && defined(__linux__)
#include <pthread.h>
#include <sched.h>

/* OpenMP binds the thread that calls, and threads begin where the one that starts them may run. */
void fa_runtime_bind(int number)
{
    enum { MOST = CPU_SETSIZE };
    int places = omp_get_num_places(), processor[MOST];
    if (places < 1 || omp_get_proc_bind() == omp_proc_bind_false)
        return;
    int place = number % places, count = omp_get_place_num_procs(place);
    if (count < 1 || count > MOST)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    omp_get_place_proc_ids(place, processor);
    for (int i = 0; i < count; i++) {
        if (processor[i] < CPU_SETSIZE)
            CPU_SET((unsigned)processor[i], &set);
    }
    (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}
#else
void fa_runtime_bind(int number)
{
    (void)number;
}
#endif
