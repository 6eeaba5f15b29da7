/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { ALIGNMENT = 64, PART = 1024 };

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [IO_F32] = {"f32", 4}, [IO_F16] = {"f16", 2},     [IO_BF16] = {"bf16", 2},
    [IO_U8] = {"u8", 1},   [IO_I64] = {"integer", 8},
};

static bool type_known(io_type type)
{
    return (size_t)type < sizeof(types) / sizeof(types[0]);
}

size_t io_type_size(io_type type)
{
    return type_known(type) ? types[type].size : 0;
}

const char *io_type_name(io_type type)
{
    return type_known(type) ? types[type].name : "unknown";
}

bool io_shape_bytes(const int64_t *shape, int rank, size_t element, size_t *bytes)
{
    /* Room is left for rounding up to the alignment. */
    const uint64_t max = (uint64_t)PTRDIFF_MAX - ALIGNMENT;
    uint64_t total = element;
    bool empty = false;

    for (int d = 0; d < rank; d++) {
        if (shape[d] < 0)
            return false;
        /* An empty dimension must not hide an overflow among the others: the strides that a
         * caller derives from them would overflow all the same. */
        if (shape[d] == 0) {
            empty = true;
        } else if (total > max / (uint64_t)shape[d]) {
            return false;
        } else {
            total *= (uint64_t)shape[d];
        }
    }
    *bytes = empty ? 0 : (size_t)total;
    return true;
}

bool io_tensor_check(const io_tensor *t, const char *file, const char *field, io_error *err)
{
    size_t bytes;

    if (!type_known(t->type))
        return io_fail(err, file, field, "type is %d, expected an io_type", (int)t->type);
    if (t->rank < 0 || t->rank > IO_MAX_RANK)
        return io_fail(err, file, field, "rank is %d, expected 0 to %d", t->rank, IO_MAX_RANK);
    if (!io_shape_bytes(t->shape, t->rank, io_type_size(t->type), &bytes))
        return io_fail(err, file, field,
                       "shape has a negative dimension or overflows, expected "
                       "one that memory can hold");
    if (t->bytes != bytes)
        return io_fail(err, file, field, "bytes is %zu, expected the shape's %zu", t->bytes, bytes);
    if (!t->data && bytes)
        return io_fail(err, file, field, "data is NULL, expected %zu bytes", bytes);
    return true;
}

/* Not every system has aligned_alloc(). */
bool io_tensor_alloc(io_tensor *t)
{
    t->memory = malloc(t->bytes + ALIGNMENT);
    if (t->memory)
        t->data = (char *)t->memory + (ALIGNMENT - (uintptr_t)t->memory % ALIGNMENT);
    return t->memory != NULL;
}

/* From the last element down, so that no stored one is overwritten before it is read. */
static void widen_i32(unsigned char *data, size_t count)
{
    while (count-- > 0) {
        int32_t narrow;
        memcpy(&narrow, data + count * sizeof(narrow), sizeof(narrow));
        const int64_t wide = narrow;
        memcpy(data + count * sizeof(wide), &wide, sizeof(wide));
    }
}

static void fortran_to_c(const io_tensor *t, const unsigned char *src, unsigned char *dst)
{
    const size_t element = io_type_size(t->type);
    size_t stride[IO_MAX_RANK], from = 0;
    int64_t index[IO_MAX_RANK] = {0};

    stride[0] = element;
    for (int d = 1; d < t->rank; d++)
        stride[d] = stride[d - 1] * (size_t)t->shape[d - 1];

    for (size_t to = 0; to < t->bytes; to += element) {
        memcpy(dst + to, src + from, element);
        for (int d = t->rank - 1; d >= 0; d--) {
            from += stride[d];
            if (++index[d] < t->shape[d])
                break;
            from -= stride[d] * (size_t)t->shape[d];
            index[d] = 0;
        }
    }
}

static bool to_c_order(io_tensor *t, const char *file, io_error *err)
{
    io_tensor ordered = *t;
    if (!io_tensor_alloc(&ordered))
        return io_fail(err, file, "fortran_order",
                       "found True, expected room for another %zu "
                       "bytes to bring the data into C order",
                       t->bytes);
    fortran_to_c(t, t->data, ordered.data);
    free(t->memory);
    *t = ordered;
    return true;
}

/* Rounds to nearest, as the default of a conversion is. */
static bool load_doubles(io_tensor *t, io_source *s, uint64_t offset, io_error *err)
{
    double part[PART];
    float *to = t->data;
    const size_t count = t->bytes / sizeof(*to);

    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < PART ? count - done : PART;
        if (!io_source_read(s, offset + done * sizeof(*part), part, n * sizeof(*part), err))
            return false;
        for (size_t i = 0; i < n; i++) {
            to[done + i] = (float)part[i];
            t->overflows += isinf(to[done + i]) && !isinf(part[i]);
        }
    }
    t->narrowed = true;
    return true;
}

bool io_load(io_source *s, const io_found *found, io_tensor *out, io_error *err)
{
    const size_t element = io_type_size(found->tensor.type);
    const size_t count = found->tensor.bytes / element;

    *out = found->tensor;
    bool ok = io_tensor_alloc(out) || io_fail(err, s->name, "data",
                                              "found %zu bytes, expected no more than "
                                              "the memory that is free",
                                              out->bytes);
    if (found->stored > element)
        ok = ok && load_doubles(out, s, found->offset, err);
    else
        ok = ok && io_source_read(s, found->offset, out->data, count * found->stored, err);
    if (ok && found->stored < element)
        widen_i32(out->data, count);
    if (ok && found->fortran && out->rank > 1)
        ok = to_c_order(out, s->name, err);
    if (!ok)
        io_tensor_free(out);
    return ok;
}

void io_tensor_free(io_tensor *t)
{
    free(t->memory);
    *t = (io_tensor){0};
}
