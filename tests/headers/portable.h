/* SPDX-License-Identifier: Apache-2.0 */
/* A function that calls every function of core/portable, to be compiled in each of its languages. */
#include "core/portable/decode.h"
#include "core/portable/encode.h"
#include "core/portable/format.h"
#include "core/portable/prune.h"
#include "core/portable/row.h"
#include "core/portable/score.h"
#include "core/portable/softmax.h"
#include "core/portable/table.h"
#include "core/portable/walk.h"

FA_FN float use_portable(fa_mask mask, fa_score score, fa_state a, fa_state b, int row, int key)
{
    const int group = 2, rows = 8, keys = 4;
    fa_row r = fa_row_of(mask, group, 1, row, row + rows);
    fa_walk walk = fa_walk_of(mask, group, row, row + rows, mask.len_kv);
    int block = fa_walk_next(walk, key, keys),
        kind = fa_walk_class(walk, block, FA_MIN(block + keys, mask.len_kv));
    bool visible = fa_mask_visible(mask, r.position, key) && fa_row_sees(r, mask, key);
    if (kind == FA_CLASS_SKIP || (kind == FA_CLASS_PARTIAL && !visible) || mask.left == FA_UNLIMITED)
        a = fa_state_empty();
    fa_state s;
    s.max = FA_MAX(a.max, b.max);
    s.sum =
        fa_part_weight(a, fa_safe_max(s.max), score.unit) + fa_part_weight(b, fa_safe_max(s.max), score.unit);
    s.max = fa_score_biased(fa_score_sloped(fa_score_scaled(score, s.max), 0.5f, r.position - key), b.sum);
    s.max += fa_weight(a.max, fa_safe_max(b.max), score.unit) * fa_state_weight(a.max, b.max, score.unit);
    float lse =
        fa_is_finite(s.max) ? fa_state_close(s, score.natural, a.max).lse : FA_FLOAT(fa_is_nan(s.max));
    lse += fa_bf16_widen(fa_bf16_narrow(lse)) + FA_FLOAT(fa_f16_narrow(lse));
    lse += fa_float_widen(row, fa_float_narrow(row, lse)) + fa_state_of_lse(lse, visible).max;
    lse += FA_FLOAT(FA_TYPE_BYTES(row)) + FA_FLOAT(FA_TYPE_SPAN(row, key));
    lse += fa_f16_widen(fa_f16_narrow(lse)) + fa_e4m3_widen(FA_UINT(row)) +
           FA_FLOAT(fa_iq4_nl_number(FA_UINT(row)));
    fa_scaling scaling;
    scaling.scale = scaling.offset = lse;
    fa_coder coder = fa_coder_of(row, fa_block_refine(fa_block_range_with(fa_block_range_of(lse), s.max),
                                                      fa_coder_of(row, fa_block_range_of(lse)), lse));
    lse += fa_decoded(row, fa_fp8_halves(row, fa_fifths(fa_code_of(row, coder, lse))), 1, scaling);
    lse += FA_FLOAT(fa_e4m3_narrow(lse) + fa_e5m2_narrow(lse)) * FA_FP8_FACTOR(row);
    lse += fa_bare_number(row, fa_nibbles(fa_e2m1_narrow(lse)) + fa_pairs(fa_e8m0_narrow(lse)));
    lse += fa_mla_four(row, FA_UINT(row), fa_mla_code(lse, s.max), fa_mla_scale(fa_block_range_of(lse))).x[1];
    fa_uint bits[FA_PRUNE_MOST];
    bits[0] = fa_prune_key(FA_UINT(row));
    lse += FA_FLOAT(fa_prune_least(bits, 1, FA_BITMAP_ROOM(row, key)));
    lse += FA_FLOAT(fa_mla_byte(row) + fa_mla_scale_byte(row));
    lse += FA_FLOAT(fa_whole_code(row, lse)) + fa_corrected_quotient(lse, s.max, fa_significand(lse));
    return kind == FA_CLASS_FULL ? fa_normalised(lse, s.sum) : FA_MAX(lse, FA_FLOAT(r.head));
}
