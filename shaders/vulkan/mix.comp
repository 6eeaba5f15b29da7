#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that are weighted sums of others. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/mix.h"

void main()
{
    FA_TASK_RUN(fa_mix_group);
}
