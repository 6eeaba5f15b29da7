/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Vulkan devices there are, what each offers, and why one cannot be used.
 *
 * FASTATTN_VULKAN_LIMITS makes a device look smaller than it is, so that what a small one would run can be run on a
 * large one: a comma-separated list of
 *     local=BYTES     shared memory of a work-group, at least 1024
 *     group=N         most work-items of a work-group, at least 1
 *     range=BYTES     most bytes behind one descriptor, at least 4096
 *     address=0       buffers are reached through descriptors, not by address
 *     subgroups=0     no subgroup operations
 *     matrix=0        no cooperative matrices
 *     layout=0        how a subgroup holds their fragments is not looked into
 *     timeline=0      fences, no timeline semaphores
 *     loops=N         loops end after N turns, at least 4096: work items have fewer keys
 *     unified=0       the host does not reach the device's memory: every transfer is staged
 *     near=0          strides and places of keys take 64 bits, as those of the largest caches do
 * A value above the driver's changes nothing. With an unknown key or a bad number no Vulkan device is available, and the
 * reason names it. It is read whenever a device is described or opened.
 */
#ifndef FA_VULKAN_DESCRIBE_H
#define FA_VULKAN_DESCRIBE_H

#include "backends/vulkan/vulkan.h"

/* Everything that is asked about a device, and asked for when one is made: one chain of structs. */
typedef struct fa_vk_features {
    VkPhysicalDeviceFeatures2 base;
    VkPhysicalDevice16BitStorageFeatures storage16;
    VkPhysicalDeviceBufferDeviceAddressFeatures address;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline;
    VkPhysicalDeviceShaderFloat16Int8Features float16;
    VkPhysicalDeviceVulkanMemoryModelFeatures memory_model;
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    bool portability;         /* an extension without features that matter here */
    bool sm_count;            /* VK_NV_shader_sm_builtins */
    bool driver;              /* VK_KHR_driver_properties */
    const char *extension[8]; /* to be enabled: what is not core in the device's version */
    uint32_t extensions;
} fa_vk_features;

/* caps.c */

/* What the device has. False with the reason where a query fails. `features` must not move: it points into itself. */
bool fa_vk_features_query(const fa_vk_instance *instance, VkPhysicalDevice device, fa_vk_features *features,
                          char *reason, size_t reason_size);

/* What the kernels can use of it; `enabled`, where not 0, is a caller's FA_VULKAN_* bits. False with the reason where
 * the device cannot run them. */
bool fa_vk_caps_query(const fa_vk_instance *instance, VkPhysicalDevice device, uint32_t enabled,
                      fa_vk_caps *caps, char *reason, size_t reason_size);

/* Lowers it by FASTATTN_VULKAN_LIMITS. False with the reason: the variable is wrong, or too little is left. */
bool fa_vk_caps_limit(fa_vk_caps *caps, bool *layout, char *reason, size_t reason_size);

/* describe.c: entries of the vtable */

/* All devices, usable or not, enumerated at the first call. 0 with the reason: no library, no device. Thread-safe. */
int fa_vk_device_count(const fa_context *context, char *reason, size_t reason_size);
void fa_vk_device_describe(const fa_context *context, int index, fa_device_info *info);

/* fa_device_entry.import: the caller's device, and what it was made of. */
typedef struct fa_vk_import {
    fa_vk_instance instance;
    VkPhysicalDevice physical;
    VkDevice handle;
    uint32_t family, enabled;
} fa_vk_import;

/* The whole of `info` for such a device. */
void fa_vk_describe_import(const fa_vk_import *import, fa_device_info *info);

/*
 * Makes device->impl with everything but the kernels: the VkDevice, functions, capabilities, queues, layouts.
 * `import` NULL: a VkDevice of our own. *layout: fragments may be looked into. FA_NO_DEVICE where it cannot be
 * used any more.
 */
fa_status fa_vk_device_start(fa_device *device, const fa_vk_import *import, bool *layout);
/* Releases it, its pipelines and its memory. */
void fa_vk_device_stop(fa_device *device);

#endif
