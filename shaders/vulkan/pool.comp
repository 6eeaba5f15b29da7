#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Means of chunks of rows. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/pool.h"

void main()
{
    FA_TASK_RUN(fa_pooling_group);
}
