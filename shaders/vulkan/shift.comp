#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* What LSEs of levels with ALiBi lack. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/shift.h"

void main()
{
    FA_TASK_RUN(fa_shift_group);
}
