/* SPDX-License-Identifier: Apache-2.0 */
#include "core/structs.h"

#include <string.h>

#include "core/status.h"

/* No struct will be that large: struct_size was not set. */
#define MAX_STRUCT ((size_t)1 << 16)

static fa_status read_size(const void *theirs, size_t our_size, size_t oldest_size, const char *name,
                           size_t *size)
{
    memcpy(size, theirs, sizeof(*size));
    if (*size < oldest_size || *size > MAX_STRUCT)
        return fa_fail(FA_INVALID, "%s.struct_size is %zu, expected sizeof(%s), %zu", name, *size, name,
                       our_size);
    return FA_OK;
}

fa_status fa_copy_struct(void *ours, size_t our_size, size_t oldest_size, const void *theirs,
                         const char *name)
{
    size_t size;
    fa_status status = read_size(theirs, our_size, oldest_size, name, &size);
    if (status != FA_OK)
        return status;
    const unsigned char *bytes = theirs;
    for (size_t i = our_size; i < size; i++) {
        if (bytes[i] != 0)
            return fa_fail(FA_UNSUPPORTED,
                           "%s: byte %zu is not 0, a field that this library (%s) does not know", name, i,
                           fa_version());
    }
    memset(ours, 0, our_size);
    memcpy(ours, theirs, size < our_size ? size : our_size);
    return FA_OK;
}

fa_status fa_fill_struct(const void *ours, size_t our_size, size_t oldest_size, void *theirs,
                         const char *name)
{
    size_t size;
    fa_status status = read_size(theirs, our_size, oldest_size, name, &size);
    if (status != FA_OK)
        return status;
    memset(theirs, 0, size);
    memcpy(theirs, ours, size < our_size ? size : our_size);
    memcpy(theirs, &size, sizeof(size));
    return FA_OK;
}
