#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as GLSL for Vulkan. */
#extension GL_GOOGLE_include_directive : require
#include "portable.h"

layout(local_size_x = 8, local_size_y = 8) in;

layout(set = 0, binding = 0) readonly buffer Constants
{
    fa_table_params params;
    fa_mask mask;
};
layout(set = 0, binding = 1) readonly buffer States
{
    fa_state states[];
};
layout(set = 0, binding = 2) writeonly buffer Results
{
    float results[];
};

void main()
{
    int row = int(gl_GlobalInvocationID.x), key = int(gl_GlobalInvocationID.y);
    results[row] = use_portable(mask, params.score, states[0], states[1], row, key);
}
