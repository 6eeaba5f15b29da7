/* SPDX-License-Identifier: Apache-2.0 */
/* Appends after validation. */
#ifndef FA_CORE_APPEND_H
#define FA_CORE_APPEND_H

#include <fastattn/append.h>
#include <stdbool.h>

/* The operands: new rows, the cache, slots. K and V of each in this order. */
enum { FA_APPEND_K, FA_APPEND_V, FA_APPEND_CACHE_K, FA_APPEND_CACHE_V, FA_APPEND_SLOTS, FA_APPEND_OPERANDS };

struct fa_append {
    fa_device *device;
    fa_tensor tensor[FA_APPEND_OPERANDS]; /* normalised; no elements where there is no v */
    size_t span[FA_APPEND_OPERANDS];
    int64_t batch, heads, rows; /* new ones           */
    int64_t entries, keys;      /* of the cache       */
    bool has_v;
    void *impl; /* the backend's own */
};

/* The buffers of one run, each checked. */
typedef struct fa_append_binding {
    fa_buffer *buffer[FA_APPEND_OPERANDS];
    size_t offset[FA_APPEND_OPERANDS];
} fa_append_binding;

#endif
