/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where operands begin, by their slots. With FA_ADDRESS an address counts from the beginning of memory, else from that of
 * the descriptor.
 */
#ifdef FA_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif

#include "constants.h"
#define FA_LANG_GLSL

layout(push_constant) uniform run {
    uvec2 at[FA_VK_SLOTS];
} pc;

#ifdef FA_ADDRESS
#define address int64_t

address at(int slot)
{
    return address(packUint2x32(pc.at[slot]));
}

address wide(uvec2 x)
{
    return address(packUint2x32(x));
}
#else
#define address uint

address at(int slot)
{
    return pc.at[slot].x;
}

/* What lies behind one descriptor has addresses of 32 bits. */
address wide(uvec2 x)
{
    return x.x;
}
#endif
