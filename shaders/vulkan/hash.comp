#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of rows by signs. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/hash.h"

void main()
{
    FA_TASK_RUN(fa_hash_group);
}
