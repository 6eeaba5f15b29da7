/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel of a task is given. C11 and CUDA C++. */
#ifndef FA_CUDA_TASK_H
#define FA_CUDA_TASK_H

#include "core/portable/task.h"

/* In the place of an element type: the module of the task whose number is in the place of a line. */
enum { FA_CUDA_TASK = 4 };

typedef struct fa_cuda_task {
    const unsigned char *params;
    unsigned char *at[14]; /* where operands begin; NULL: absent */
    int constant[4];
} fa_cuda_task;

#endif
