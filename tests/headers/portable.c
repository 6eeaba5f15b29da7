/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as C11. */
#include "portable.h"

float use(fa_mask mask, fa_score score, const fa_state state[2], int row, int key);

float use(fa_mask mask, fa_score score, const fa_state state[2], int row, int key)
{
    return use_portable(mask, score, state[0], state[1], row, key);
}
