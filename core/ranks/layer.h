/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_RANKS_LAYER_H
#define FA_CORE_RANKS_LAYER_H

#include <fastattn/ranks.h>

#include "core/attention/problem.h"
#include "core/ranks/transport.h"

enum { FA_LAYER_LANES = 2 };

/* Who multiplies o by w. */
typedef enum fa_projection { FA_PROJECT_CALLER, FA_PROJECT_HOST, FA_PROJECT_DEVICE } fa_projection;

struct fa_sharded_layer {
    fa_device *device;
    fa_transport transport;
    fa_sharded_layer_desc desc; /* `attention` is the caller's, and not looked at once the layer is made */
    fa_problem problem;         /* of all tokens */
    int64_t inner, w_stride, o_stride; /* o_stride: from a token's row of o to the next one's */
    int64_t cut[FA_SHARDED_MAX_CHUNKS + 1];
    int64_t chunks;
    fa_plan *plan[FA_SHARDED_MAX_CHUNKS];
    /* The transport sums behind marks, and the host waits at the end. */
    bool enqueues;
    void *computed[FA_SHARDED_MAX_CHUNKS];
    /* Then, of several chunks: attention goes through two queues in turn, so that a chunk begins where the one before leaves
     * units of the device idle, and products go through a third one, which is the caller's where the caller projects. */
    fa_queue *lane[FA_LAYER_LANES], *products;
    void *begun, *attended[FA_SHARDED_MAX_CHUNKS];
    size_t lane_bytes; /* of the workspace */
    /* A workspace has that of the plans, of one at a time; then, of other types than f32, w and a chunk of y as f32. */
    size_t w_offset, y_offset, workspace;
    bool failed; /* a run did: ranks may stand at different chunks */
    fa_projection projection;
    const char *library; /* that multiplies; NULL: the plain product, or the caller's */
    fa_sharded_layer_info info;
};

/* Where rows lie among the tokens, in one number, which ranks compare. */
int64_t fa_rank_rows(const fa_problem *problem);

/* Bytes of w and y. */
size_t fa_sharded_layer_w_bytes(const fa_sharded_layer *layer);
size_t fa_sharded_layer_y_bytes(const fa_sharded_layer *layer);

#endif
