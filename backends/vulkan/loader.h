/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vulkan, opened at run time: nothing is linked against it. Which library: FASTATTN_VULKAN_LIBRARY if that is set, else
 * the loader under its usual names. Only vkGetInstanceProcAddr is looked up in it; all else comes from there.
 */
#ifndef FA_VULKAN_LOADER_H
#define FA_VULKAN_LOADER_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/vulkan/compat.h"

#define FA_VK_GLOBAL_FUNCTIONS(X) \
    X(vkCreateInstance)           \
    X(vkEnumerateInstanceExtensionProperties)

#define FA_VK_INSTANCE_FUNCTIONS(X)             \
    X(vkDestroyInstance)                        \
    X(vkEnumeratePhysicalDevices)               \
    X(vkGetPhysicalDeviceProperties2)           \
    X(vkGetPhysicalDeviceProperties)            \
    X(vkGetPhysicalDeviceFeatures2)             \
    X(vkGetPhysicalDeviceMemoryProperties)      \
    X(vkGetPhysicalDeviceQueueFamilyProperties) \
    X(vkEnumerateDeviceExtensionProperties)     \
    X(vkCreateDevice)                           \
    X(vkGetDeviceProcAddr)

#define FA_VK_DEVICE_FUNCTIONS(X)    \
    X(vkDestroyDevice)               \
    X(vkGetDeviceQueue)              \
    X(vkAllocateMemory)              \
    X(vkFreeMemory)                  \
    X(vkMapMemory)                   \
    X(vkCreateBuffer)                \
    X(vkDestroyBuffer)               \
    X(vkGetBufferMemoryRequirements) \
    X(vkBindBufferMemory)            \
    X(vkCreateSemaphore)             \
    X(vkDestroySemaphore)            \
    X(vkCreateFence)                 \
    X(vkDestroyFence)                \
    X(vkResetFences)                 \
    X(vkWaitForFences)               \
    X(vkCreateShaderModule)          \
    X(vkDestroyShaderModule)         \
    X(vkCreateDescriptorSetLayout)   \
    X(vkDestroyDescriptorSetLayout)  \
    X(vkCreatePipelineLayout)        \
    X(vkDestroyPipelineLayout)       \
    X(vkCreatePipelineCache)         \
    X(vkDestroyPipelineCache)        \
    X(vkGetPipelineCacheData)        \
    X(vkCreateComputePipelines)      \
    X(vkDestroyPipeline)             \
    X(vkCreateDescriptorPool)        \
    X(vkDestroyDescriptorPool)       \
    X(vkAllocateDescriptorSets)      \
    X(vkUpdateDescriptorSets)        \
    X(vkCreateCommandPool)           \
    X(vkDestroyCommandPool)          \
    X(vkAllocateCommandBuffers)      \
    X(vkResetCommandBuffer)          \
    X(vkBeginCommandBuffer)          \
    X(vkEndCommandBuffer)            \
    X(vkCmdBindPipeline)             \
    X(vkCmdBindDescriptorSets)       \
    X(vkCmdPushConstants)            \
    X(vkCmdDispatch)                 \
    X(vkCmdPipelineBarrier)          \
    X(vkCmdCopyBuffer)               \
    X(vkCreateQueryPool)             \
    X(vkDestroyQueryPool)            \
    X(vkCmdResetQueryPool)           \
    X(vkCmdWriteTimestamp)           \
    X(vkGetQueryPoolResults)         \
    X(vkQueueSubmit)

#define FA_VK_MEMBER(name) PFN_##name name;

/* Of an instance, ours or a caller's. */
typedef struct fa_vk_instance {
    VkInstance handle;
    PFN_vkGetInstanceProcAddr get;
    uint32_t version; /* of Vulkan, that was asked for */
    FA_VK_INSTANCE_FUNCTIONS(FA_VK_MEMBER)
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR
        vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR; /* or NULL */
} fa_vk_instance;

/* Of a device: vk->vkQueueSubmit(...). */
typedef struct fa_vk {
    FA_VK_DEVICE_FUNCTIONS(FA_VK_MEMBER)
    /* NULL where neither Vulkan 1.2 nor the extension is there. */
    PFN_vkGetBufferDeviceAddress vkGetBufferDeviceAddress;
    PFN_vkWaitSemaphores vkWaitSemaphores;
} fa_vk;
#undef FA_VK_MEMBER

/*
 * The instance of this process, made at the first call and never destroyed: drivers leave threads behind. NULL with the
 * reason where there is none or where something is missing. Thread-safe.
 */
const fa_vk_instance *fa_vk_load(char *reason, size_t reason_size);

/* The library's own vkGetInstanceProcAddr; NULL with the reason. Thread-safe. */
PFN_vkGetInstanceProcAddr fa_vk_entry(char *reason, size_t reason_size);

/* Fill a table. False with the reason: a function is missing. */
bool fa_vk_load_instance(VkInstance handle, PFN_vkGetInstanceProcAddr get, uint32_t version,
                         fa_vk_instance *instance, char *reason, size_t reason_size);
bool fa_vk_load_device(const fa_vk_instance *instance, VkDevice device, fa_vk *vk, char *reason,
                       size_t reason_size);

#endif
