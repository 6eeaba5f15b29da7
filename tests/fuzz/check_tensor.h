/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_FUZZ_CHECK_TENSOR_H
#define FASTATTN_TESTS_FUZZ_CHECK_TENSOR_H

#include <stdlib.h>

#include "tensor_file.h"

/* Not assert: a build with NDEBUG must not fuzz without its checks. */
static inline void check(bool ok)
{
    if (!ok)
        abort();
}

/* Every element of the claimed shape is touched, so that a sanitizer sees a buffer that is
 * shorter, or was never filled. */
static inline void check_tensor(const io_tensor *t)
{
    const unsigned char *data = t->data;
    size_t expected = io_type_size(t->type);
    unsigned sum = 0;

    check(t->rank >= 0 && t->rank <= IO_MAX_RANK);
    for (int d = 0; d < t->rank; d++) {
        check(t->shape[d] >= 0);
        expected *= (size_t)t->shape[d];
    }
    check(t->bytes == expected && data && (uintptr_t)data % 64 == 0);
    for (size_t i = 0; i < t->bytes; i++)
        sum = (sum << 1 | sum >> 31) ^ data[i];

    volatile unsigned keep = sum;
    (void)keep;
}

#endif
