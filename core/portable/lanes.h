/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges among work-items beside each other. Written in words that each language defines before:
 *   FA_UNROLL                precedes a loop over registers, which have no index
 *   FA_SHUFFLE_XOR(x, mask)  x of the work-item whose number in the sub-group differs by the bits of `mask`
 * Where there are no sub-groups it is x itself, and nothing here may be called for more than one lane.
 */
#ifndef FA_PORTABLE_LANES_H
#define FA_PORTABLE_LANES_H

#include "lang.h"

/* The greatest x of so many work-items, a power of two, and the sum: each of them gets it. */
FA_KERNEL_FN float fa_lanes_max(float x, int lanes)
{
    FA_UNROLL
    for (int mask = 1; mask < lanes; mask *= 2)
        x = FA_FMAX(x, FA_SHUFFLE_XOR(x, mask));
    return x;
}

FA_KERNEL_FN float fa_lanes_sum(float x, int lanes)
{
    FA_UNROLL
    for (int mask = 1; mask < lanes; mask *= 2)
        x += FA_SHUFFLE_XOR(x, mask);
    return x;
}

#endif
