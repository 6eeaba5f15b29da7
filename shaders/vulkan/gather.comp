#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Rows in the order of lists. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/gather.h"

void main()
{
    FA_TASK_RUN(fa_gather_group);
}
