/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as C11. portable.cl, .comp and .cu say the same in their languages. */
#include "core/portable/args.h"
#include "core/portable/mask.h"
#include "core/portable/score.h"
#include "core/portable/softmax.h"

float use_portable(fa_args args, fa_mask mask, fa_score score, fa_state a, fa_state b, int row, int key);

float use_portable(fa_args args, fa_mask mask, fa_score score, fa_state a, fa_state b, int row, int key)
{
    int position = fa_args_position(args, row), head = fa_args_head(args, 1, row);
    int keys = fa_mask_end(mask, position) - fa_mask_begin(mask, position);
    bool visible = fa_mask_visible(mask, position, key);
    int tile = fa_mask_classify(mask, position, position + args.block_q, key,
                                FA_MIN(key + args.block_kv, mask.len_kv));
    if (tile == FA_CLASS_SKIP || (tile == FA_CLASS_PARTIAL && !visible) || mask.left == FA_UNLIMITED)
        a = fa_state_empty();
    fa_state s;
    s.max = FA_MAX(a.max, b.max);
    s.sum =
        fa_part_weight(a, fa_safe_max(s.max), score.unit) + fa_part_weight(b, fa_safe_max(s.max), score.unit);
    fa_terms terms = fa_terms_none();
    terms.distance = position - key;
    s.max = fa_score_of(score, terms, s.max) + fa_weight(a.max, fa_safe_max(b.max), score.unit);
    float lse =
        fa_is_finite(s.max) ? fa_state_close(s, score.natural, a.max).lse : FA_FLOAT(fa_is_nan(s.max));
    return tile == FA_CLASS_FULL ? lse : FA_MAX(lse, (float)(head + keys));
}
