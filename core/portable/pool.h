/* SPDX-License-Identifier: Apache-2.0 */
/* Means of chunks of rows, in the words of task.h. A work-group does a chunk of a head, a work-item FA_POOL_DIMS dims of it. */
#ifndef FA_PORTABLE_POOL_H
#define FA_PORTABLE_POOL_H

#include "format.h"
#include "task.h"

#ifdef FA_TASK_ALONE
#define FA_POOL_DIMS 64
#else
#define FA_POOL_DIMS 1 /* neighbours read neighbours */
#endif

/* Operands. Constant 0 is the type of x. */
#define FA_POOL_X 0
#define FA_POOL_MEANS 1

FA_STRUCT(fa_pooling_params)
    fa_long stride[3]; /* of x: batch, head, token              */
    int heads, tokens, dim;
    int chunk, chunks; /* tokens of one, and how many of a head */
    int lines;         /* heads of all batch entries            */
    float whole, last; /* 1 / tokens of a chunk, of the last    */
FA_STRUCT_END(fa_pooling_params)
FA_TASK_VIEW(fa_pooling_params)

#define FA_POOL_IS(t, name) FA_TASK_PARAM(t, fa_pooling_params, name)

/* Dims d to d + count - 1 of the mean of so many tokens, of which the first begins at element `from`, to element `to`. */
FA_KERNEL_FN void fa_pooling_dims(FA_TASK t, FA_AT from, FA_AT to, int tokens, float factor, int count)
{
    float sum[FA_POOL_DIMS];
    int i;
    for (i = 0; i < FA_POOL_DIMS; i++)
        sum[i] = 0.0f;
    for (int n = 0; n < tokens; n++) {
        const FA_AT at = from + FA_INDEX(n) * FA_WIDE(FA_POOL_IS(t, stride)[2]);
        for (i = 0; i < count; i++)
            sum[i] += FA_GET_ELEMENT(t, 0, FA_TASK_CONSTANT(t, 0), at + FA_INDEX(i));
    }
    for (i = 0; i < count; i++)
        FA_PUT32(t, 1, (to + FA_INDEX(i)) * FA_INDEX(4), FA_AS_UINT(sum[i] * factor));
}

/* The chunk of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_pooling_group(FA_TASK t, int group, int item, int items)
{
    const int chunks = FA_POOL_IS(t, chunks), heads = FA_POOL_IS(t, heads), dim = FA_POOL_IS(t, dim);
    const int line = group / chunks, chunk = group - line * chunks, batch = line / heads,
              head = line - batch * heads;
    const int first = chunk * FA_POOL_IS(t, chunk),
              tokens = FA_MIN(FA_POOL_IS(t, chunk), FA_POOL_IS(t, tokens) - first);
    const float factor = chunk == chunks - 1 ? FA_POOL_IS(t, last) : FA_POOL_IS(t, whole);
    if (line >= FA_POOL_IS(t, lines))
        return;
    const FA_AT from = FA_INDEX(batch) * FA_WIDE(FA_POOL_IS(t, stride)[0]) +
                       FA_INDEX(head) * FA_WIDE(FA_POOL_IS(t, stride)[1]) +
                       FA_INDEX(first) * FA_WIDE(FA_POOL_IS(t, stride)[2]);
    for (int d = item * FA_POOL_DIMS; d < dim; d += items * FA_POOL_DIMS)
        fa_pooling_dims(t, from + FA_INDEX(d), FA_INDEX(group) * FA_INDEX(dim) + FA_INDEX(d), tokens, factor,
                        FA_MIN(dim - d, FA_POOL_DIMS));
}

#endif
