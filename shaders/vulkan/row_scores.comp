#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Products of rows and keys. */
#extension GL_GOOGLE_include_directive : require
#define FA_SHARES
#define FA_SHARED_INTS FA_ROW_SCORES_SHARED
#include "task.glsl"
#include "core/portable/row_scores.h"

void main()
{
    FA_TASK_RUN(fa_row_scores_group);
}
