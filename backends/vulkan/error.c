/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/vulkan.h"
#include "core/status.h"

#define ENTRY(name) \
    {               \
        name, #name \
    }

static const struct {
    VkResult result;
    const char *name;
} names[] = {
    ENTRY(VK_NOT_READY),
    ENTRY(VK_TIMEOUT),
    ENTRY(VK_INCOMPLETE),
    ENTRY(VK_ERROR_OUT_OF_HOST_MEMORY),
    ENTRY(VK_ERROR_OUT_OF_DEVICE_MEMORY),
    ENTRY(VK_ERROR_INITIALIZATION_FAILED),
    ENTRY(VK_ERROR_DEVICE_LOST),
    ENTRY(VK_ERROR_MEMORY_MAP_FAILED),
    ENTRY(VK_ERROR_LAYER_NOT_PRESENT),
    ENTRY(VK_ERROR_EXTENSION_NOT_PRESENT),
    ENTRY(VK_ERROR_FEATURE_NOT_PRESENT),
    ENTRY(VK_ERROR_INCOMPATIBLE_DRIVER),
    ENTRY(VK_ERROR_TOO_MANY_OBJECTS),
    ENTRY(VK_ERROR_FRAGMENTED_POOL),
    ENTRY(VK_ERROR_UNKNOWN),
    ENTRY(VK_ERROR_OUT_OF_POOL_MEMORY),
    ENTRY(VK_ERROR_FRAGMENTATION),
    ENTRY(VK_ERROR_INVALID_SHADER_NV),
};

const char *fa_vk_error_name(VkResult result)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].result == result)
            return names[i].name;
    }
    return "unknown error";
}

static fa_status status_of(VkResult result)
{
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_MEMORY_MAP_FAILED:
    case VK_ERROR_TOO_MANY_OBJECTS:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTATION: return FA_OUT_OF_MEMORY;
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT: return FA_UNSUPPORTED;
    default: return FA_DEVICE_LOST;
    }
}

fa_status fa_vk_fail(VkResult result, const char *call)
{
    return fa_fail(status_of(result), "%s: %s (%d)", call, fa_vk_error_name(result), (int)result);
}
