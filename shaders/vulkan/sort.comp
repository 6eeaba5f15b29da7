#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* A counting sort. */
#extension GL_GOOGLE_include_directive : require
#define FA_SHARES
#include "task.glsl"
#include "core/portable/sort.h"

void main()
{
    FA_TASK_RUN(fa_sort_group);
}
