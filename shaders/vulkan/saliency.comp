#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* The mean weight of each key. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/saliency.h"

void main()
{
    FA_TASK_RUN(fa_saliency_group);
}
