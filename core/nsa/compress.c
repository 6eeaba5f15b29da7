/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"
#include "core/nsa/nsa.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

enum { KERNEL = 32, STRIDE = 16 };

fa_status fa_nsa_check_sizes(int32_t *kernel, int32_t *stride)
{
    *kernel = *kernel ? *kernel : KERNEL;
    *stride = *stride ? *stride : STRIDE;
    FA_TRY(fa_check_limit("kernel", *kernel, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("stride", *stride, 1, FA_MAX_LENGTH));
    if (*kernel % *stride != 0)
        return fa_fail(FA_INVALID, "kernel is %d, expected a multiple of stride, %d", *kernel, *stride);
    return FA_OK;
}

int64_t fa_nsa_seen(int64_t position, int32_t kernel, int32_t stride)
{
    return position < kernel - 1 ? 0 : (position - (kernel - 1)) / stride + 1;
}

int64_t fa_nsa_compressed(int64_t keys, int32_t kernel, int32_t stride)
{
    fa_clear_error();
    if (fa_nsa_check_sizes(&kernel, &stride) != FA_OK || keys < kernel || keys > FA_MAX_LENGTH)
        return 0;
    return fa_nsa_seen(keys - 1, kernel, stride);
}

static fa_status check(fa_nsa_compress_desc *d, int64_t *count)
{
    size_t elements = 0, bytes = 0;
    FA_TRY(fa_nsa_check_sizes(&d->kernel, &d->stride));
    FA_TRY(fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("keys", d->keys, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("dim", d->dim, 1, FA_MAX_LENGTH));
    *count = fa_nsa_seen(d->keys - 1, d->kernel, d->stride);
    if (!d->x || (*count > 0 && !d->compressed))
        return fa_fail(FA_INVALID, "%s is NULL", d->x ? "compressed" : "x");
    if (!fa_grow(&elements, (size_t)d->heads * (size_t)d->keys, (size_t)d->dim) ||
        !fa_grow(&bytes, elements, sizeof(float)))
        return fa_fail(FA_OUT_OF_MEMORY, "dim is %lld: x would be larger than memory could be",
                       (long long)d->dim);
    return FA_OK;
}

/* Element n of compressed key c. */
static double compress(const fa_nsa_compress_desc *d, int64_t head, int64_t c, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < d->kernel; i++) {
        const int64_t token = head * d->keys + c * d->stride + i, within = head * d->kernel + i;
        const double weight = d->weights ? (double)d->weights[within] : 1.0 / d->kernel;
        const double position = d->positions ? (double)d->positions[within * d->dim + n] : 0;
        sum += weight * ((double)d->x[token * d->dim + n] + position);
    }
    return sum;
}

fa_status fa_nsa_compress(const fa_nsa_compress_desc *desc)
{
    fa_nsa_compress_desc d;
    int64_t count = 0;
    fa_clear_error();
    if (!desc)
        return fa_fail(FA_INVALID, "desc is NULL");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_NSA_COMPRESS_DESC_0_1, desc, "fa_nsa_compress_desc"));
    FA_TRY(check(&d, &count));
    for (int64_t line = 0; line < d.heads * count; line++) {
        for (int64_t n = 0; n < d.dim; n++)
            d.compressed[line * d.dim + n] = (float)compress(&d, line / count, line % count, n);
    }
    return FA_OK;
}
