/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the OpenMP runtime of the process is asked. It tells how many threads its user wants and where; no parallel region
 * of its own is started, since a region ends the process where no thread can be created, hangs in a child after fork(),
 * and waits at its end for threads that have not begun. In a library that was built without OpenMP the CPUs decide.
 */
#ifndef FA_OPENMP_RUNTIME_H
#define FA_OPENMP_RUNTIME_H

#include <stdint.h>

/* Threads that a parallel region of the calling thread would have, at least 1. Within one there are no others. */
int32_t fa_runtime_threads(void);

/* Puts the calling thread, the `number`-th helper from 1, on its place where OpenMP's user has named places. */
void fa_runtime_bind(int number);

#endif
