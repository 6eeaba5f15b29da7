/* SPDX-License-Identifier: Apache-2.0 */
/* k-means in host memory: the groups of the tasks, one after another. */
#include <string.h>

#include "core/cluster/cluster.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/sparse/mask.h"
#include "core/status.h"

/* Runs all groups of a program. Returns whether FA_CLUSTER_FIND has changed a number, where `compares`. */
FA_FLOAT_APART static bool run(const fa_cluster *c, const fa_task_view *on, int program, bool compares)
{
    const int32_t constant[] = {(int32_t)c->desc.rows.dtype, program}, groups = fa_cluster_groups(c, program);
    bool changed = false;
    fa_task_view view = *on;
    view.constant = constant;
    for (int group = 0; group < groups && fa_cluster_has(c, program); group++) {
        const int block = group % c->params.blocks, line = group / c->params.blocks;
        int32_t before[FA_CLUSTER_ROWS], *at = NULL;
        size_t bytes = 0;
        if (compares) {
            const int first = block * FA_CLUSTER_ROWS, rows = FA_MIN(c->params.rows - first, FA_CLUSTER_ROWS);
            at = (int32_t *)(void *)view.at[FA_CLUSTER_NEAREST] + (int64_t)line * c->params.rows + first;
            bytes = (size_t)rows * sizeof(*at);
            memcpy(before, at, bytes);
        }
        fa_cluster_group(&view, group, 0, 1);
        changed = changed || (at && memcmp(before, at, bytes) != 0);
    }
    return changed;
}

static fa_status check_nearest(const fa_cluster *c, const int32_t *nearest)
{
    for (int64_t n = 0; n < (int64_t)c->params.lines * c->params.rows; n++) {
        if (nearest[n] < 0 || nearest[n] >= c->params.clusters)
            return fa_fail(FA_INVALID, "nearest[%lld] is %d, expected 0 to %d", (long long)n, nearest[n],
                           c->params.clusters - 1);
    }
    return FA_OK;
}

/* Centroid c becomes a row. */
static void place(const fa_cluster *c, const fa_task_view *view, int line, int cluster, int row)
{
    const int64_t at = fa_cluster_row(view, line, row);
    const float factor = fa_cluster_factor(view, at);
    float *to = (float *)(void *)view->at[FA_CLUSTER_CENTROIDS] + FA_CLUSTER_CENTROID(view, line, cluster);
    for (int d = 0; d < c->params.dim; d++)
        to[d] = fa_cluster_element(view, at + d) * factor;
}

/* The row where the sum of weights passes a part, which is drawn, of the whole; where there is none, that of its stretch. */
static int draw(const fa_cluster *c, const fa_task_view *view, const double *weights, int line, int cluster)
{
    const uint64_t bits = fa_sparse_random(c->desc.seed, (uint64_t)line, (uint64_t)cluster, 1);
    double whole = 0, sum = 0;
    for (int row = 0; row < c->params.rows; row++)
        whole += weights[row];
    const double part = (double)(bits >> 11) * 0x1p-53 * whole;
    for (int row = 0; row < c->params.rows && whole > 0; row++) {
        sum += weights[row];
        if (sum > part)
            return row;
    }
    return fa_cluster_drawn(view, line, cluster);
}

static void spread(const fa_cluster *c, const fa_task_view *view, double *weights, int line)
{
    for (int row = 0; row < c->params.rows; row++)
        weights[row] = 1;
    for (int n = 0; n < c->params.clusters; n++) {
        place(c, view, line, n, draw(c, view, weights, line, n));
        for (int row = 0; row < c->params.rows; row++) {
            const int64_t at = fa_cluster_row(view, line, row);
            const double distance = (double)fa_cluster_distance(view, at, fa_cluster_factor(view, at),
                                                                FA_CLUSTER_CENTROID(view, line, n));
            weights[row] = !(distance < INFINITY)              ? 0
                           : n == 0 || distance < weights[row] ? distance
                                                               : weights[row];
        }
    }
}

FA_FLOAT_APART static void spread_all(const fa_cluster *c, const fa_task_view *on, double *weights)
{
    const int32_t constant[] = {(int32_t)c->desc.rows.dtype, FA_CLUSTER_FIND};
    fa_task_view view = *on;
    view.constant = constant;
    for (int line = 0; line < c->params.lines; line++)
        spread(c, &view, weights, line);
}

FA_FLOAT_APART static void iterate(const fa_cluster *c, const fa_task_view *view)
{
    bool changed = true;
    (void)run(c, view, FA_CLUSTER_DRAW, false);
    for (int64_t n = 0; n < c->desc.iterations && changed; n++) {
        changed = run(c, view, FA_CLUSTER_FIND, n > 0) || n == 0;
        (void)run(c, view, FA_CLUSTER_MEAN, false);
    }
}

fa_status fa_cluster_host(fa_context *context, const fa_cluster_desc *desc, const void *rows,
                          int32_t *nearest, float *centroids, int32_t *counts)
{
    fa_cluster c = {.device = NULL};
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    FA_TRY(fa_cluster_init(&c, desc));
    if (!rows || !nearest || !centroids)
        return fa_fail(FA_INVALID, "%s is NULL", !rows ? "rows" : !nearest ? "nearest" : "centroids");
    if (!counts != (c.desc.steps == FA_CLUSTER_NEAREST))
        return fa_fail(FA_INVALID, "counts is %s as steps is %d", counts ? "given, expected NULL" : "NULL",
                       (int)c.desc.steps);
    if (c.desc.steps == FA_CLUSTER_MEANS)
        FA_TRY(check_nearest(&c, nearest));
    const size_t bytes = c.desc.start == FA_CLUSTER_PLUS_PLUS ? (size_t)c.params.rows * sizeof(double) : 0;
    double *weights = bytes > 0 ? fa_alloc(context, bytes) : NULL;
    if (bytes > 0 && !weights)
        return FA_OUT_OF_MEMORY;
    const fa_task_view view = {
        .params = &c.params,
        .at = {(char *)rows, (char *)nearest, (char *)centroids, (char *)counts}, /* the first is read only */
    };
    const fa_float_state before = fa_float_enter();
    if (weights)
        spread_all(&c, &view, weights);
    iterate(&c, &view);
    fa_float_leave(before);
    fa_release(context, weights, bytes);
    return FA_OK;
}
