/* SPDX-License-Identifier: Apache-2.0 */
/* k and v in formats of caches: given as bytes, or quantised on their way in. */
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/run/run.h"

/* The dims that a row of so many bytes holds. */
static bool dims_of_bytes(const char *what, fa_dtype dtype, int64_t bytes, int64_t *dims)
{
    const int64_t size = (int64_t)fa_dtype_size(dtype);
    *dims = bytes / size * fa_dtype_block(dtype);
    if (bytes % size == 0)
        return true;
    cli_error(RUN_COMMAND, "%s has rows of %lld bytes, expected a multiple of the %lld of a block of %s",
              what, (long long)bytes, (long long)size, fa_dtype_name(dtype));
    return false;
}

bool run_format_find(const char *what, fa_dtype dtype, io_tensor *t, run_format *f)
{
    int64_t *dim = &t->shape[t->rank - 1];
    *f = (run_format){.what = what, .to = dtype, .raw = t->type == IO_U8};
    if (!f->raw)
        return true;
    if (dtype != FA_BITMAP_F16)
        return dims_of_bytes(what, dtype, *dim, dim);
    cli_error(RUN_COMMAND,
              "%s has type u8, expected f32, f16 or bf16: bytes of bitmap_f16 do not tell the dims", what);
    return false;
}

size_t run_format_bytes(const run_format *f, const fa_tensor *t)
{
    const int64_t *shape = t->shape, rows = shape[0] * shape[1] * shape[2];
    if (t->dtype == FA_BITMAP_F16)
        return f->what ? (size_t)(rows * t->stride[3]) : 0;
    return f->what ? (size_t)(rows * (shape[3] / fa_dtype_block(t->dtype))) * fa_dtype_size(t->dtype) : 0;
}

static fa_dtype type_of(const io_tensor *t)
{
    return t->type == IO_F32 ? FA_F32 : t->type == IO_F16 ? FA_F16 : FA_BF16;
}

bool run_format_apply(const run_format *f, const fa_tensor *to, io_tensor *t)
{
    enum { PIECE = 2304 }; /* whole blocks of every format, and any row */
    if (!f->what || f->raw)
        return true;
    const size_t bytes = run_format_bytes(f, to);
    const bool prunes = to->dtype == FA_BITMAP_F16;
    const int64_t count = to->shape[0] * to->shape[1] * to->shape[2] * to->shape[3],
                  piece = prunes ? to->shape[3] : PIECE;
    io_tensor made = *t;
    made.bytes = bytes;
    if (!io_tensor_alloc(&made)) {
        cli_error(RUN_COMMAND, "%s: no memory for %zu bytes of %s", f->what, bytes, fa_dtype_name(f->to));
        return false;
    }
    memset(made.data, 0, bytes); /* padding of rows too */
    for (int64_t at = 0; at < count; at += piece) {
        float x[PIECE];
        const int64_t end = count - at < piece ? count - at : piece;
        for (int64_t i = 0; i < end; i++)
            x[i] = fa_element(type_of(t), t->data, at + i);
        if (prunes)
            (void)fa_bitmap_store((char *)made.data + at / piece * to->stride[3], to->stride[3], x, end);
        else
            fa_elements_store(f->to, made.data, at, x, end);
    }
    io_tensor_free(t);
    *t = made;
    return true;
}

/* Where an element lies in a tensor that may have no strides given, which means contiguous. */
static int64_t place_of(const fa_tensor *t, const int64_t index[4])
{
    const bool given = t->stride[0] || t->stride[1] || t->stride[2] || t->stride[3];
    int64_t at = 0, stride = 1;
    for (int axis = 3; axis >= 0; axis--) {
        at += index[axis] * (given ? t->stride[axis] : stride);
        stride *= t->shape[axis];
    }
    return at;
}

/* The next element of a box, in place; false behind the last. */
static bool step(const int64_t size[4], int64_t index[4])
{
    for (int axis = 3; axis >= 0; axis--) {
        if (++index[axis] < size[axis])
            return true;
        index[axis] = 0;
    }
    return false;
}

static bool make_numbers(const fa_tensor *t, io_tensor *out)
{
    *out = (io_tensor){.type = IO_U8, .rank = 4};
    for (int axis = 0; axis < 4; axis++)
        out->shape[axis] = t->shape[axis];
    out->bytes = (size_t)(t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]) * fa_dtype_size(t->dtype) /
                 (size_t)fa_dtype_block(t->dtype);
    return io_tensor_alloc(out);
}

static float rounded(const fa_tensor *t, io_tensor *to, int64_t at, float x)
{
    fa_elements_store(t->dtype, to->data, at, &x, 1);
    return fa_element(t->dtype, to->data, at);
}

/* Of u2u1, whose blocks of 32 begin with 16 codes of two bits: the type of codes of so many dims. One bit, where some have one. */
static fa_dtype codes_of(fa_dtype dtype, int64_t first, int64_t dims)
{
    return dtype == FA_U2U1 && first % 32 + dims <= 16 ? FA_U2 : dtype;
}

bool run_format_scale(const run_format *f, const fa_tensor *to, const fa_tensor *scale, const fa_tensor *zero,
                      io_tensor *t, io_tensor *scales, io_tensor *zeros)
{
    const bool has_zeros = zero->shape[0] > 0;
    int64_t group[4], count = 1, first[4] = {0};
    if (!f->what || f->raw || scale->shape[0] == 0)
        return true;
    for (int axis = 0; axis < 4; axis++) {
        group[axis] = to->shape[axis] / scale->shape[axis];
        count *= group[axis];
    }
    const fa_tensor numbers_of =
        fa_tensor_make(FA_F32, to->shape[0], to->shape[1], to->shape[2], to->shape[3]);
    io_tensor numbers;
    float *x = malloc((size_t)count * sizeof(*x));
    const bool made = make_numbers(&numbers_of, &numbers) && make_numbers(scale, scales) &&
                      (!has_zeros || make_numbers(zero, zeros)) && x;
    if (!made)
        cli_error(RUN_COMMAND, "%s: no memory for its scales", f->what);
    do {
        int64_t inner[4] = {0}, index[4], n = 0;
        const int64_t at = place_of(scale, first);
        float s, z = 0;
        if (!made)
            break;
        do {
            for (int axis = 0; axis < 4; axis++)
                index[axis] = first[axis] * group[axis] + inner[axis];
            x[n++] = fa_element(type_of(t), t->data, place_of(to, index));
        } while (step(group, inner));
        fa_elements_fit(codes_of(f->to, first[3] * group[3], group[3]), x, count, 1, &s,
                        has_zeros ? &z : NULL);
        s = rounded(scale, scales, at, s);
        z = has_zeros ? rounded(zero, zeros, at, z) : 0;
        n = 0;
        do {
            for (int axis = 0; axis < 4; axis++)
                index[axis] = first[axis] * group[axis] + inner[axis];
            ((float *)numbers.data)[place_of(to, index)] = s != 0 ? (x[n] - z) * (1 / s) : 0;
            n++;
        } while (step(group, inner));
    } while (step(scale->shape, first));
    free(x);
    if (!made) {
        io_tensor_free(&numbers);
        return false;
    }
    numbers.type = IO_F32;
    numbers.rank = t->rank;
    memcpy(numbers.shape, t->shape, sizeof(t->shape));
    io_tensor_free(t);
    *t = numbers;
    return true;
}
