/* SPDX-License-Identifier: Apache-2.0 */
/** Caches as ONNX has them: an output is what was there, with the new keys and values behind it. */
#include "node.h"

#define CACHE_SMALL 65536 /* bytes that one thread copies sooner than others start */

/* One head of one batch entry. */
static void join_head(void *argument, size_t index)
{
    const cache_rows *cache = argument;
    const fa_tensor *rows = &cache->rows;
    size_t element = fa_dtype_size(rows->dtype), row_bytes = (size_t)rows->shape[3] * element;
    int64_t batch = (int64_t)index / rows->shape[1], head = (int64_t)index % rows->shape[1];
    int64_t old_rows = cache->old_rows ? cache->old_rows[batch] : cache->past_keys;
    int64_t new_rows = cache->new_rows ? cache->new_rows[batch] : rows->shape[2];
    char *to = (char *)cache->present + index * (size_t)cache->present_keys * row_bytes;
    const char *from =
        (const char *)cache->data + (size_t)(batch * rows->stride[0] + head * rows->stride[1]) * element;
    size_t row_stride = (size_t)rows->stride[2] * element;

    if (cache->past != cache->present) {
        int64_t written = old_rows + new_rows;
        if (old_rows > 0)
            memcpy(to, (const char *)cache->past + index * (size_t)cache->past_keys * row_bytes,
                   (size_t)old_rows * row_bytes);
        memset(to + (size_t)written * row_bytes, 0, (size_t)(cache->present_keys - written) * row_bytes);
    }
    to += (size_t)old_rows * row_bytes;
    if (row_stride == row_bytes && new_rows > 0)
        memcpy(to, from, (size_t)new_rows * row_bytes);
    else
        for (int64_t i = 0; i < new_rows; i++)
            memcpy(to + (size_t)i * row_bytes, from + (size_t)i * row_stride, row_bytes);
}

void cache_join(node_call *call, const cache_rows *cache)
{
    const fa_tensor *rows = &cache->rows;
    int64_t heads = rows->shape[0] * rows->shape[1];
    int64_t keys = cache->past == cache->present ? rows->shape[2] : cache->present_keys;
    if (call->status)
        return;
    if (heads * keys * rows->shape[3] * (int64_t)fa_dtype_size(rows->dtype) <= CACHE_SMALL)
        for (int64_t i = 0; i < heads; i++)
            join_head((void *)cache, (size_t)i);
    else
        node_parallel(call, heads, join_head, (void *)cache);
}

int64_t cache_extend(node_call *call, int past_input, int present_output, fa_tensor *rows, const void **data)
{
    node_tensor past = node_input(call, past_input);
    int64_t dim = rows->shape[3];
    if (past.given) {
        node_rank(call, &past, 4);
        node_dim(call, &past, 0, rows->shape[0], "the batch size");
        node_dim(call, &past, 1, rows->shape[1], "the number of KV heads");
        node_dim(call, &past, 3, dim, "the head size");
        if (!call->status && node_float_type(call, &past) != rows->dtype)
            node_fail(call, "input %s is not of the type of the new keys or values", past.name);
    }
    if (call->status)
        return 0;
    int64_t old = past.given ? past.dims[2] : 0, all = old + rows->shape[2];
    int64_t dims[4] = {rows->shape[0], rows->shape[1], all, dim};
    void *present = node_output(call, present_output, rows->dtype, 4, dims);
    if (!present && past.given)
        present = node_scratch(call, dims[0] * dims[1] * dims[2] * dims[3], fa_dtype_size(rows->dtype));
    if (!present || call->status)
        return 0;
    cache_rows cache = {
        .rows = *rows,
        .data = *data,
        .past = past.data,
        .past_keys = old,
        .present = present,
        .present_keys = all,
    };
    cache_join(call, &cache);
    if (past.given) {
        *rows = node_heads_first(rows->dtype, dims[0], dims[1], all, dim);
        *data = present;
    }
    return old;
}
