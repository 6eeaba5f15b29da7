#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* The status of a run whose keys lie in pages. */
#extension GL_GOOGLE_include_directive : require
#define FA_SHARES
#include "task.glsl"
#include "core/portable/pages.h"

void main()
{
    FA_TASK_RUN(fa_pages_group);
}
