/* SPDX-License-Identifier: Apache-2.0 */
/* Where operands lie in the chunks of their buffers. */
#include "backends/opencl/plan.h"

bool fa_cl_crosses(const fa_cl_operand *o)
{
    const fa_cl_buffer *b = o->buffer ? o->buffer->impl : NULL;
    if (!b || o->span == 0 || b->whole)
        return false;
    size_t begin = b->origin + o->offset;
    return begin / b->chunk_bytes != (begin + o->span - 1) / b->chunk_bytes;
}

fa_cl_place fa_cl_find_place(const fa_cl_operand *o, int chunks)
{
    fa_cl_place out = {.at = 0};
    if (!o->buffer || o->span == 0)
        return out;
    const fa_cl_buffer *b = o->buffer->impl;
    size_t begin = b->origin + o->offset, end = begin + o->span;
    size_t first = begin / b->chunk_bytes, last = (end - 1) / b->chunk_bytes;
    if (chunks == 1 && b->whole) {
        out.chunk[0] = b->whole;
        out.at = (cl_long)(begin / o->element);
        return out;
    }
    for (size_t i = 0; i < (size_t)chunks; i++)
        out.chunk[i] = b->chunk[FA_MIN(first + i, last)];
    out.at = (cl_long)((begin - first * b->chunk_bytes) / o->element);
    return out;
}

bool fa_cl_wrap_same(const fa_buffer *a, const fa_buffer *b)
{
    const fa_cl_buffer *first = a->impl, *second = b->impl;
    return a != b && first->host && second->host && (uintptr_t)a->address < (uintptr_t)b->address + b->size &&
           (uintptr_t)b->address < (uintptr_t)a->address + a->size;
}

int fa_cl_count_chunks(const fa_device *device, size_t largest)
{
    const int shift = fa_cl_chunk_shift(&fa_cl_device_of(device)->caps);
    if (largest >> shift == 0)
        return 1;
    const size_t chunks = (largest >> shift) + 2;
    return chunks <= FA_CL_FEW_CHUNKS ? FA_CL_FEW_CHUNKS : FA_CL_MAX_CHUNKS;
}
