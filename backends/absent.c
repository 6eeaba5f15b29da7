/* SPDX-License-Identifier: Apache-2.0 */
/* The backends that this library was built without: each is listed, and says what it lacked. The CPU is always there. */
#include <stdio.h>

#include "core/backend.h"

/* FA_LACKS_... come from meson.build. */
#define FA_ABSENT(backend, lacks)                                                               \
    static int count_##backend(const fa_context *context, char *reason, size_t reason_size)     \
    {                                                                                           \
        (void)context;                                                                          \
        (void)snprintf(reason, reason_size, "left out when this library was built: %s", lacks); \
        return 0;                                                                               \
    }                                                                                           \
    const fa_backend fa_backend_##backend = {                                                   \
        .abi = FA_BACKEND_ABI, .name = #backend, .count = count_##backend};

#if !FA_WITH_CUDA
FA_ABSENT(cuda, FA_LACKS_CUDA)
#endif
#if !FA_WITH_OPENCL
FA_ABSENT(opencl, FA_LACKS_OPENCL)
#endif
#if !FA_WITH_VULKAN
FA_ABSENT(vulkan, FA_LACKS_VULKAN)
#endif
#if !FA_WITH_NULL
FA_ABSENT(null, FA_LACKS_NULL)
#endif
