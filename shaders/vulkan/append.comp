#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* New rows into a cache. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/append.h"

void main()
{
    FA_TASK_RUN(fa_append_group);
}
