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
    return dims_of_bytes(what, dtype, *dim, dim);
}

size_t run_format_bytes(const run_format *f, const fa_tensor *t)
{
    const int64_t *shape = t->shape;
    return f->what ? (size_t)(shape[0] * shape[1] * shape[2] * (shape[3] / fa_dtype_block(t->dtype))) *
                         fa_dtype_size(t->dtype)
                   : 0;
}

static fa_dtype type_of(const io_tensor *t)
{
    return t->type == IO_F32 ? FA_F32 : t->type == IO_F16 ? FA_F16 : FA_BF16;
}

bool run_format_apply(const run_format *f, const fa_tensor *to, io_tensor *t)
{
    enum { PIECE = 2048 }; /* whole blocks of every format */
    if (!f->what || f->raw)
        return true;
    const size_t bytes = run_format_bytes(f, to);
    const int64_t count = to->shape[0] * to->shape[1] * to->shape[2] * to->shape[3];
    io_tensor made = *t;
    made.bytes = bytes;
    if (!io_tensor_alloc(&made)) {
        cli_error(RUN_COMMAND, "%s: no memory for %zu bytes of %s", f->what, bytes, fa_dtype_name(f->to));
        return false;
    }
    for (int64_t at = 0; at < count; at += PIECE) {
        float x[PIECE];
        const int64_t end = count - at < PIECE ? count - at : PIECE;
        for (int64_t i = 0; i < end; i++)
            x[i] = fa_element(type_of(t), t->data, at + i);
        fa_elements_store(f->to, made.data, at, x, end);
    }
    io_tensor_free(t);
    *t = made;
    return true;
}
