/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of core/portable/task.h: operand n lies behind slot n + 1, parameters behind slot 0. Memory is read and
 * written in words of 32 bits, so that no device needs more.
 */
#include "address.glsl"

layout(local_size_x_id = FA_VK_GROUP, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = FA_VK_GROUP) const int GROUP = 64;
layout(constant_id = FA_VK_CONSTANT_0) const int CONSTANT_0 = 0;
layout(constant_id = FA_VK_CONSTANT_1) const int CONSTANT_1 = 0;
layout(constant_id = FA_VK_CONSTANT_2) const int CONSTANT_2 = 0;
layout(constant_id = FA_VK_CONSTANT_3) const int CONSTANT_3 = 0;

#define FA_TASK int
#define FA_TASK_CONSTANT(t, n) CONSTANT_##n
#define FA_TASK_PARAM(t, type, member) TABLE(type)[0].member
#define FA_TASK_LIST(t, type, n) TABLE(type)[n]
#define FA_TASK_HELD int
#define FA_TASK_HOLD(t) (t)
#define FA_TASK_OF(held) (held)
/* Drivers know best: some turn an array with a number that is not known into a search. */
#define FA_UNROLLED
#define FA_ROLLED
#define FA_AT address
#define FA_INDEX(x) address(x)
#define FA_WIDE(x) wide(x)

#ifdef FA_ADDRESS
layout(buffer_reference, std430, buffer_reference_align = 4) buffer words1 { uint w; };
#define FA_TASK_VIEW(type)                                                                            \
    layout(buffer_reference, std430, buffer_reference_align = 8) buffer view_##type { type entry[]; };
#define TABLE(type) view_##type(pc.at[0]).entry
#define WORD(n, p) words1(uint64_t(p)).w
#else
#define FA_OPERAND(n, slot) layout(set = 0, binding = slot, std430) buffer operand_##n { uint w[]; } m_##n;
FA_OPERAND(0, 1)
FA_OPERAND(1, 2)
FA_OPERAND(2, 3)
FA_OPERAND(3, 4)
FA_OPERAND(4, 5)
FA_OPERAND(5, 6)
FA_OPERAND(6, 7)
FA_OPERAND(7, 8)
FA_OPERAND(8, 9)
FA_OPERAND(9, 10)
FA_OPERAND(10, 11)
FA_OPERAND(11, 12)
FA_OPERAND(12, 13)
FA_OPERAND(13, 14)
#define FA_TASK_VIEW(type) layout(set = 0, binding = 0, std430) buffer view_##type { type entry[]; } table_##type;
#define TABLE(type) table_##type.entry
#define WORD(n, p) m_##n.w[(p) >> 2]
#endif

/* Programs have variables by the name of `at`. */
address start_of(int n)
{
    return at(n + 1);
}

uint shift_of(address p)
{
    return uint(p & address(2)) * 8u;
}

#define FA_PLACE(n, byte) (start_of(n) + (byte))
#define FA_GET8(t, n, byte) (WORD(n, FA_PLACE(n, byte) & ~address(3)) >> uint(FA_PLACE(n, byte) & address(3)) * 8u & 255u)
#define FA_GET32(t, n, byte) WORD(n, FA_PLACE(n, byte))
#define FA_GET16(t, n, byte) (WORD(n, FA_PLACE(n, byte) & ~address(3)) >> shift_of(FA_PLACE(n, byte)) & 0xffffu)
#define FA_PUT32(t, n, byte, bits) WORD(n, FA_PLACE(n, byte)) = bits
/* The rest of a word may be written by another invocation at the same time. */
#define FA_PUT_PART(n, byte, bits, mask)                                                               \
    {                                                                                                  \
        const address put_at = FA_PLACE(n, byte) & ~address(3);                                        \
        const uint put_shift = uint(FA_PLACE(n, byte) & address(3)) * 8u;                              \
        atomicAnd(WORD(n, put_at), ~((mask) << put_shift));                                            \
        atomicOr(WORD(n, put_at), (bits) << put_shift);                                                \
    }
#define FA_PUT8(t, n, byte, bits) FA_PUT_PART(n, byte, bits, 0xffu)
#define FA_PUT16(t, n, byte, bits) FA_PUT_PART(n, byte, bits, 0xffffu)
#define FA_TASK_BARRIER \
    {                   \
        memoryBarrierBuffer(); \
        barrier();      \
    }
#define FA_IN_WORD(t, n, byte) ((FA_PLACE(n, byte) & address(2)) == address(0))

#define FA_TASK_LOW(at) uint(at)
#ifdef FA_ADDRESS
#define FA_TASK_HIGH(at) uint((at) >> 32)
#else
#define FA_TASK_HIGH(at) 0u
#endif
/* Of programs that share: a kernel defines FA_SHARES before, and FA_SHARED_INTS if what it shares has a number of its own. */
#ifdef FA_SHARES
#include "core/portable/task.h"
#ifndef FA_SHARED_INTS
#define FA_SHARED_INTS (FA_TASK_SHARED_INTS * GROUP)
#endif
shared int task_shared[FA_SHARED_INTS];
#define FA_TASK_SHARED(t, n) task_shared[n]
#define FA_TASK_SHARED_ADD(t, n, x) atomicAdd(task_shared[n], x)
#define FA_TASK_SHARED_OR(t, n, x) atomicOr(task_shared[n], x)
#define FA_TASK_SYNC(t) barrier()
#endif

/* What a kernel's main() calls its program with. */
#define FA_TASK_RUN(program)                                                                           \
    program(0, int(gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x), int(gl_LocalInvocationID.x), GROUP)
