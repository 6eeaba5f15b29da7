/* SPDX-License-Identifier: Apache-2.0 */
/* What every kernel of every backend is told about the problem, beside its buffers. */
#ifndef FA_PORTABLE_ARGS_H
#define FA_PORTABLE_ARGS_H

#include "lang.h"
#include "mask.h"

FA_STRUCT(fa_args)
    int group; /* heads_q / heads_kv: rows of a block are (position, head of the group), group innermost */
    int dim_qk;
    int dim_v;
    int block_q; /* level-1 block */
    int block_kv;
FA_STRUCT_END(fa_args)

/* The query position and the query head that packed row r of a KV head stands for. */
FA_FN int fa_args_position(fa_args a, int r)
{
    return r / a.group;
}

FA_FN int fa_args_head(fa_args a, int head_kv, int r)
{
    return head_kv * a.group + r % a.group;
}

#endif
