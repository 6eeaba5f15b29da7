/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_RANKS_LAYER_H
#define FA_CORE_RANKS_LAYER_H

#include <fastattn/ranks.h>

#include "core/attention/problem.h"
#include "core/ranks/transport.h"

struct fa_sharded_layer {
    fa_device *device;
    fa_transport transport;
    fa_sharded_layer_desc desc; /* `attention` is the caller's, and not looked at once the layer is made */
    fa_problem problem;         /* of all tokens */
    int64_t inner, w_stride, o_stride; /* o_stride: from a token's row of o to the next one's */
    int64_t cut[FA_SHARDED_MAX_CHUNKS + 1];
    int64_t chunks;
    fa_plan *plan[FA_SHARDED_MAX_CHUNKS];
    /* A workspace has that of the plans, of one at a time; then, of other types than f32, w and a chunk of y as f32. */
    size_t w_offset, y_offset, workspace;
    bool failed;       /* a run did: ranks may stand at different chunks */
    const char *cblas; /* NULL: the plain product, or the caller's */
    fa_sharded_layer_info info;
};

/* Where rows lie among the tokens, in one number, which ranks compare. */
int64_t fa_rank_rows(const fa_problem *problem);

/* Bytes of w and y. */
size_t fa_sharded_layer_w_bytes(const fa_sharded_layer *layer);
size_t fa_sharded_layer_y_bytes(const fa_sharded_layer *layer);

#endif
