#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables of rows that have lists of single keys. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/key_list.h"

void main()
{
    FA_TASK_RUN(fa_key_list_group);
}
