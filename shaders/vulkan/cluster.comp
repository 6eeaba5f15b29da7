#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* A step of k-means. */
#extension GL_GOOGLE_include_directive : require
#include "task.glsl"
#include "core/portable/cluster.h"

void main()
{
    FA_TASK_RUN(fa_cluster_group);
}
