#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* The work of a run, of lengths on the device. */
#extension GL_GOOGLE_include_directive : require
#define FA_SHARES
#include "task.glsl"
#include "core/portable/fill.h"

void main()
{
    FA_TASK_RUN(fa_fill_group);
}
