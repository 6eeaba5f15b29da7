/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "check_tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The seeds hold q, some of them v, and none the last, which reaches the list of names. */
    static const char *const names[] = {"q", "v", "absent"};
    static const char prefix[] = "fuzz.safetensors: ";

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        io_tensor t;
        io_error err = {""};

        if (io_safetensors_parse(data, size, "fuzz.safetensors", names[i], &t, &err)) {
            check_tensor(&t);
            io_tensor_free(&t);
        } else {
            check(memchr(err.text, '\0', sizeof(err.text)) && !strncmp(err.text, prefix, sizeof(prefix) - 1));
        }
        check(!t.data && !t.bytes);
    }
    return 0;
}
