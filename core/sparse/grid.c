/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sparse/grid.h"

#include <stdio.h>

#include "core/attention/checks.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

/* Of entry n of a field that has one for each axis. */
static fa_status check_field(const char *name, int n, int64_t value, int64_t least, int64_t most)
{
    char field[48];
    (void)snprintf(field, sizeof(field), "neighbourhood->%s[%d]", name, n);
    return fa_check_limit(field, value, least, most);
}

static fa_status read_axis(const fa_neighbourhood *d, int n, fa_axis *a)
{
    static const int tiles[] = {64, 8, 4};
    *a = (fa_axis){
        .size = d->size[n],
        .kernel = d->kernel[n],
        .stride = d->stride[n] ? d->stride[n] : 1,
        .dilation = d->dilation[n] ? d->dilation[n] : 1,
        .tile = d->tile[n] ? d->tile[n] : tiles[d->axes - 1],
        .causal = d->causal[n] == 1,
    };
    FA_TRY(check_field("size", n, a->size, 1, FA_MAX_LENGTH));
    FA_TRY(check_field("dilation", n, a->dilation, 1, a->size));
    FA_TRY(check_field("kernel", n, a->kernel, 1, a->size / a->dilation));
    FA_TRY(check_field("stride", n, a->stride, 1, a->kernel));
    FA_TRY(check_field("causal", n, d->causal[n], 0, 1));
    FA_TRY(check_field("tile", n, a->tile, 1, FA_MAX_LENGTH));
    a->tile = FA_MIN(a->tile, fa_axis_length(a, 0)); /* group 0 is the longest */
    return FA_OK;
}

fa_status fa_grid_read(const fa_neighbourhood *given, fa_grid *g)
{
    fa_neighbourhood d;
    int64_t tokens = 1;
    if (!given)
        return fa_fail(FA_INVALID, "neighbourhood is NULL");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_NEIGHBOURHOOD_0_1, given, "fa_neighbourhood"));
    FA_TRY(fa_check_limit("neighbourhood->axes", d.axes, 1, FA_AXES));
    for (int n = 0; n < FA_AXES; n++) {
        const int from = n - (FA_AXES - d.axes);
        fa_axis *a = &g->axis[n];
        *a = (fa_axis){.size = 1, .kernel = 1, .stride = 1, .dilation = 1, .tile = 1};
        if (from >= 0)
            FA_TRY(read_axis(&d, from, a));
        tokens *= a->size;
        if (tokens > FA_MAX_LENGTH)
            return fa_fail(FA_INVALID, "neighbourhood->size[%d] is %d: the grid has more than %d tokens",
                           from, a->size, FA_MAX_LENGTH);
    }
    g->tokens = (int)tokens;
    return FA_OK;
}
