#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* The best columns of each row of scores. */
#extension GL_GOOGLE_include_directive : require
#define FA_SHARES
#define FA_SHARED_INTS FA_SELECT_SHARED
#include "task.glsl"
#include "core/portable/select.h"

void main()
{
    FA_TASK_RUN(fa_select_group);
}
