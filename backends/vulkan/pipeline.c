/* SPDX-License-Identifier: Apache-2.0 */
/* Pipelines: made once for each kind of problem, and kept. */
#include "backends/vulkan/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "backends/gpu/cache.h"
#include "backends/vulkan/module.h"
#include "core/context.h"
#include "core/status.h"

_Static_assert(sizeof(fa_vk_push) <= 128, "what every device takes as push constants");

typedef struct fa_vk_pipeline {
    struct fa_vk_pipeline *next;
    const fa_vk_module *module;
    fa_vk_constants constants;
    VkPipeline handle;
} fa_vk_pipeline;

fa_status fa_vk_layouts_make(fa_vk_device *d)
{
    VkDescriptorSetLayoutBinding binding[FA_VK_SLOTS];
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < FA_VK_SLOTS; i++)
        binding[i] = (VkDescriptorSetLayoutBinding){i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1,
                                                    VK_SHADER_STAGE_COMPUTE_BIT, NULL};
    const VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = FA_VK_SLOTS,
        .pBindings = binding,
    };
    if (!d->caps.address)
        result = d->vk.vkCreateDescriptorSetLayout(d->handle, &set, NULL, &d->set_layout);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkCreateDescriptorSetLayout");
    const VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(fa_vk_push)};
    const VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = d->set_layout ? 1 : 0,
        .pSetLayouts = &d->set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    result = d->vk.vkCreatePipelineLayout(d->handle, &info, NULL, &d->layout);
    return result == VK_SUCCESS ? FA_OK : fa_vk_fail(result, "vkCreatePipelineLayout");
}

void fa_vk_layouts_drop(fa_vk_device *d)
{
    if (d->layout)
        d->vk.vkDestroyPipelineLayout(d->handle, d->layout, NULL);
    if (d->set_layout)
        d->vk.vkDestroyDescriptorSetLayout(d->handle, d->set_layout, NULL);
}

static const fa_vk_module *find_module(const fa_vk_device *d, const char *name, bool subgroups)
{
    char full[32];
    (void)snprintf(full, sizeof(full), "%s.%s%s", name, d->caps.address ? "a" : "", subgroups ? "s" : "");
    for (size_t i = 0; i < fa_vk_modules_count; i++) {
        if (strcmp(fa_vk_modules[i].name, full) == 0)
            return &fa_vk_modules[i];
    }
    return NULL;
}

bool fa_vk_has_module(const fa_vk_device *d, const char *name)
{
    return find_module(d, name, false) != NULL;
}

/* Matrix kernels and the probe of their layout use subgroups without saying so in their variant. */
static bool is_whole(const fa_vk_device *d, const fa_vk_pipeline *p)
{
    return d->caps.full_subgroups && p->constants.value[FA_VK_SUBGROUP] > 1;
}

/* *call names what failed. */
static VkResult create(const fa_vk_device *d, const fa_vk_pipeline *p, VkPipelineCache cache,
                       VkPipeline *made, const char **call)
{
    VkSpecializationMapEntry entry[FA_VK_CONSTANTS];
    for (uint32_t i = 0; i < FA_VK_CONSTANTS; i++)
        entry[i] = (VkSpecializationMapEntry){i, i * (uint32_t)sizeof(uint32_t), sizeof(uint32_t)};
    const VkSpecializationInfo constants = {FA_VK_CONSTANTS, entry, sizeof(p->constants), &p->constants};
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = d->caps.subgroup_size,
    };
    const VkShaderModuleCreateInfo module = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = p->module->bytes,
        .pCode = p->module->words,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .pNext = is_whole(d, p) ? &size : NULL,
                .flags = is_whole(d, p) ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .pName = "main",
                .pSpecializationInfo = &constants,
            },
        .layout = d->layout,
    };
    *call = "vkCreateShaderModule";
    VkResult result = d->vk.vkCreateShaderModule(d->handle, &module, NULL, &info.stage.module);
    if (result != VK_SUCCESS)
        return result;
    *made = VK_NULL_HANDLE;
    *call = "vkCreateComputePipelines";
    result = d->vk.vkCreateComputePipelines(d->handle, cache, 1, &info, NULL, made);
    d->vk.vkDestroyShaderModule(d->handle, info.stage.module, NULL);
    return result == VK_SUCCESS && !*made ? VK_ERROR_UNKNOWN : result;
}

static void store(const fa_device *device, VkPipelineCache cache, const char *key)
{
    const fa_vk_device *d = fa_vk_device_of(device);
    size_t size = 0;
    if (d->vk.vkGetPipelineCacheData(d->handle, cache, &size, NULL) != VK_SUCCESS || size == 0)
        return;
    void *blob = fa_alloc(device->context, size);
    size_t got = size;
    if (blob && d->vk.vkGetPipelineCacheData(d->handle, cache, &got, blob) == VK_SUCCESS && got <= size)
        fa_cache_store(device->context, key, blob, got);
    fa_release(device->context, blob, size);
}

/* Each pipeline has a cache of its own: a file is then as large as what it saves. */
static fa_status make(const fa_device *device, fa_vk_pipeline *p, bool *cached)
{
    const fa_vk_device *d = fa_vk_device_of(device);
    char key[sizeof(d->caps.driver) + FA_VK_CONSTANTS * 9 + 96];
    int used = snprintf(key, sizeof(key), "vulkan\n%s\n%s %016llx\n", d->caps.driver, p->module->name,
                        (unsigned long long)fa_cache_hash(p->module->words, p->module->bytes));
    for (int i = 0; i < FA_VK_CONSTANTS; i++)
        used += snprintf(key + used, sizeof(key) - (size_t)used, "%x ", (unsigned)p->constants.value[i]);
    void *blob = NULL;
    size_t size = 0;
    *cached = fa_cache_load(device->context, key, &blob, &size);
    const VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = size,
        .pInitialData = blob,
    };
    VkPipelineCache cache = VK_NULL_HANDLE;
    /* Without one, pipelines are made all the same. */
    if (d->vk.vkCreatePipelineCache(d->handle, &info, NULL, &cache) != VK_SUCCESS)
        cache = VK_NULL_HANDLE;
    fa_release(device->context, blob, size);
    const char *call;
    VkResult result = create(d, p, cache, &p->handle, &call);
    if (cache && result == VK_SUCCESS && !*cached)
        store(device, cache, key);
    if (cache)
        d->vk.vkDestroyPipelineCache(d->handle, cache, NULL);
    if (result == VK_SUCCESS)
        return FA_OK;
    if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
        result == VK_ERROR_DEVICE_LOST)
        return fa_vk_fail(result, call);
    return fa_fail(FA_COMPILE, "%s: %s (%d) with module %s on %s", call, fa_vk_error_name(result),
                   (int)result, p->module->name, device->info.name);
}

static void drop_pipeline(const fa_device *device, fa_vk_pipeline *pipeline)
{
    const fa_vk_device *d = fa_vk_device_of(device);
    d->vk.vkDestroyPipeline(d->handle, pipeline->handle, NULL);
    fa_release(device->context, pipeline, sizeof(*pipeline));
}

/* The pipeline in the device's list; where there is none, `added`, unless that is NULL. */
static fa_vk_pipeline *find_pipeline(fa_vk_device *d, const fa_vk_module *module,
                                     const fa_vk_constants *constants, fa_vk_pipeline *added)
{
    (void)pthread_mutex_lock(&d->lock);
    fa_vk_pipeline *found = d->pipelines;
    while (found &&
           (found->module != module || memcmp(&found->constants, constants, sizeof(*constants)) != 0))
        found = found->next;
    if (!found && added) {
        added->next = d->pipelines;
        d->pipelines = found = added;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return found;
}

/* Not under the lock: the caller's allocator and log are called. Another thread may be making the same. */
static fa_status add_pipeline(fa_device *device, const fa_vk_module *module, const fa_vk_constants *constants,
                              fa_vk_pipeline **added)
{
    bool cached = false;
    fa_vk_pipeline *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->module = module;
    made->constants = *constants;
    fa_status status = make(device, made, &cached);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    fa_clear_error(); /* of what the cache met on its way */
    *added = find_pipeline(fa_vk_device_of(device), module, constants, made);
    if (*added != made)
        drop_pipeline(device, made);
    else
        fa_log(device->context, FA_LOG_DEBUG, "vulkan: pipeline of %s: %s", module->name,
               cached ? "from the cache" : "compiled");
    return FA_OK;
}

fa_status fa_vk_pipeline_get(fa_device *device, const char *name, bool subgroups,
                             const fa_vk_constants *constants, VkPipeline *pipeline)
{
    fa_vk_device *d = fa_vk_device_of(device);
    const fa_vk_module *module = find_module(d, name, subgroups);
    if (!module)
        return fa_fail(FA_UNSUPPORTED, "this library was built without the kernel %s", name);
    fa_vk_pipeline *found = find_pipeline(d, module, constants, NULL);
    fa_status status = found ? FA_OK : add_pipeline(device, module, constants, &found);
    if (status == FA_OK)
        *pipeline = found->handle;
    return status;
}

void fa_vk_pipelines_release(fa_device *device)
{
    fa_vk_device *d = fa_vk_device_of(device);
    while (d->pipelines) {
        fa_vk_pipeline *next = d->pipelines->next;
        drop_pipeline(device, d->pipelines);
        d->pipelines = next;
    }
}
