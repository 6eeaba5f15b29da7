/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as OpenCL C 1.2. */
#include "portable.h"

__kernel void use(fa_mask mask, fa_score score, __global const fa_state *state, __global float *out)
{
    int row = (int)get_global_id(0), key = (int)get_global_id(1);
    out[row] = use_portable(mask, score, state[0], state[1], row, key);
}
