#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of core/portable, as GLSL for Vulkan. */
#extension GL_GOOGLE_include_directive : require
#include "core/portable/args.h"
#include "core/portable/mask.h"
#include "core/portable/score.h"
#include "core/portable/softmax.h"

layout(local_size_x = 8, local_size_y = 8) in;

layout(set = 0, binding = 0) readonly buffer Constants
{
    fa_args args;
    fa_mask mask;
    fa_score score;
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
    fa_state a = states[0], b = states[1];
    int position = fa_args_position(args, row), head = fa_args_head(args, 1, row);
    int keys = fa_mask_end(mask, position) - fa_mask_begin(mask, position);
    bool visible = fa_mask_visible(mask, position, key);
    int tile = fa_mask_classify(mask, position, position + args.block_q, key, FA_MIN(key + args.block_kv, mask.len_kv));
    if (tile == FA_CLASS_SKIP || (tile == FA_CLASS_PARTIAL && !visible) || mask.left == FA_UNLIMITED)
        a = fa_state_empty();
    fa_state s;
    s.max = FA_MAX(a.max, b.max);
    s.sum = fa_part_weight(a, fa_safe_max(s.max), score.unit) + fa_part_weight(b, fa_safe_max(s.max), score.unit);
    fa_terms terms = fa_terms_none();
    terms.distance = position - key;
    s.max = fa_score_of(score, terms, s.max) + fa_weight(a.max, fa_safe_max(b.max), score.unit);
    float lse = fa_is_finite(s.max) ? fa_state_close(s, score.natural, a.max).lse : FA_FLOAT(fa_is_nan(s.max));
    results[row] = tile == FA_CLASS_FULL ? lse : FA_MAX(lse, float(head + keys));
}
