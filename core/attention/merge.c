/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/merge.h"

#include <math.h>

#include "core/floating.h"
#include "core/half.h"

FA_FLOAT_APART float fa_merge_parts(const fa_parts *p, int64_t dim, fa_dtype dtype, void *o, int64_t at)
{
    enum { CHUNK = 64 };
    fa_state whole = fa_state_empty();
    for (int64_t i = 0; i < p->parts; i++)
        whole.max = fmaxf(whole.max, p->state[i * p->state_stride].max);
    const float max = fa_safe_max(whole.max);
    for (int64_t i = 0; i < p->parts; i++)
        whole.sum += fa_part_weight(p->state[i * p->state_stride], max, p->unit);
    const fa_closed closed = fa_state_close(whole, p->natural, p->sink);

    for (int64_t d = 0; d < dim; d += CHUNK) {
        float total[CHUNK] = {0};
        int64_t width = dim - d < CHUNK ? dim - d : CHUNK;
        for (int64_t i = 0; i < p->parts; i++) {
            fa_state part = p->state[i * p->state_stride];
            if (part.max == -INFINITY && part.sum == 0)
                continue; /* an empty state: its output is not looked at */
            float weight = fa_part_weight(part, max, p->unit) * closed.factor;
            for (int64_t e = 0; e < width; e++)
                total[e] += weight * fa_load(p->dtype, p->base, p->first + i * p->stride + d + e);
        }
        for (int64_t e = 0; e < width; e++)
            fa_store(dtype, o, at + d + e, closed.factor == 0 ? 0 : total[e]);
    }
    return closed.lse;
}
