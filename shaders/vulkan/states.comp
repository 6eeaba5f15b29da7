#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* The merge of partial states. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/merge.h"

void main()
{
    FA_TASK_RUN(fa_merge_group);
}
