#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks that lie on the device. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/relist.h"

void main()
{
    FA_TASK_RUN(fa_relist_group);
}
