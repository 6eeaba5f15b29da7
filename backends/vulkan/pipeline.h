/* SPDX-License-Identifier: Apache-2.0 */
/* Pipelines, made once for each kind of problem: the cache of compiled code. */
#ifndef FA_VULKAN_PIPELINE_H
#define FA_VULKAN_PIPELINE_H

#include "backends/vulkan/vulkan.h"

/* The push constants of every kernel. `at` are addresses, or without them, bytes behind a descriptor's offset. */
typedef struct fa_vk_push {
    uint64_t at[FA_VK_SLOTS];
} fa_vk_push;

/* Specialisation constants, by number. */
typedef struct fa_vk_constants {
    uint32_t value[FA_VK_CONSTANTS];
} fa_vk_constants;

/* The layouts that all pipelines share; part of a device that is being made. */
fa_status fa_vk_layouts_make(fa_vk_device *device);
void fa_vk_layouts_drop(fa_vk_device *device);

/* Whether this library has the module in the variant that the device takes. `name` as fa_vk_pipeline_get() has it. */
bool fa_vk_has_module(const fa_vk_device *device, const char *name);

/*
 * The pipeline of a module with these constants, from the device's list, or made with what the cache on disk has of it;
 * shared, and destroyed with the device. `name` is without the variant, of which `subgroups` is a part. Kernels with
 * FA_VK_SUBGROUP above 1 get whole subgroups of the device's size. FA_COMPILE where the driver refuses it.
 */
fa_status fa_vk_pipeline_get(fa_device *device, const char *name, bool subgroups,
                             const fa_vk_constants *constants, VkPipeline *pipeline);
void fa_vk_pipelines_release(fa_device *device);

#endif
