/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as CUDA C++. */
#include "portable.h"

extern "C" __global__ void use(fa_mask mask, fa_score score, const fa_state *state, float *out)
{
    int row = (int)(blockIdx.x * blockDim.x + threadIdx.x), key = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    out[row] = use_portable(mask, score, state[0], state[1], row, key);
}
