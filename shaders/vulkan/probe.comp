#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells how a subgroup holds fragments: of each work-item, for each element of an accumulator and then of a first
 * operand of 16 by 16, its place, 16 row + column.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "memory.glsl"

layout(local_size_x_id = FA_VK_GROUP, local_size_y = 1, local_size_z = 1) in;

shared float numbers[256];
shared float16_t half_numbers[256];

#define PLACE(n) WORD1(0, at(FA_VK_SLOT_TABLE) + address(n) * 4)

void main()
{
    const uint id = gl_LocalInvocationIndex;
    for (uint n = id; n < 256; n += gl_WorkGroupSize.x) {
        numbers[n] = float(n);
        half_numbers[n] = float16_t(n);
    }
    barrier();
    coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> accumulator;
    coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> operand;
    coopMatLoad(accumulator, numbers, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(operand, half_numbers, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
    const uint count = 256 / gl_WorkGroupSize.x;
    for (uint i = 0; i < count; i++) {
        PLACE(id * 2 * count + i) = i < accumulator.length() ? uint(accumulator[i]) : 256u;
        PLACE(id * 2 * count + count + i) = i < operand.length() && operand.length() == count ? uint(operand[i]) : 256u;
    }
}
