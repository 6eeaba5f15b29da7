/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "check_tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    io_tensor t;
    io_error err = {""};

    if (io_npy_parse(data, size, "fuzz.npy", &t, &err)) {
        check_tensor(&t);
        io_tensor_free(&t);
    } else {
        check(memchr(err.text, '\0', sizeof(err.text)) && !strncmp(err.text, "fuzz.npy: ", 10));
    }
    check(!t.data && !t.bytes);
    return 0;
}
