/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/vulkan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/gpu/cache.h"
#include "backends/gpu/lower.h"
#include "backends/vulkan/describe.h"

enum {
    MIN_GROUP = 64, /* the narrowest work-group that the kernels are written for */
    MAX_EXTENSIONS = 1024,
    MAX_FAMILIES = 32,
    MAX_SHAPES = 128,
    LLVMPIPE_TURNS = 65535, /* LP_MAX_TGSI_LOOP_ITERATIONS: turns of all loops of a kernel together */
};

/* Names of extensions that a device has. */
typedef struct extension_list {
    VkExtensionProperties *found;
    uint32_t count;
} extension_list;

static bool has(const extension_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->found[i].extensionName, name) == 0)
            return true;
    }
    return false;
}

static bool list_extensions(const fa_vk_instance *instance, VkPhysicalDevice device, extension_list *list,
                            char *reason, size_t reason_size)
{
    VkResult result;
    do {
        free(list->found);
        *list = (extension_list){NULL, 0};
        result = instance->vkEnumerateDeviceExtensionProperties(device, NULL, &list->count, NULL);
        if (result != VK_SUCCESS)
            break;
        if (list->count > MAX_EXTENSIONS)
            list->count = MAX_EXTENSIONS;
        list->found = calloc(list->count ? list->count : 1, sizeof(*list->found));
        if (!list->found)
            result = VK_ERROR_OUT_OF_HOST_MEMORY;
        else
            result = instance->vkEnumerateDeviceExtensionProperties(device, NULL, &list->count, list->found);
    } while (result == VK_INCOMPLETE && list->count < MAX_EXTENSIONS);
    if (result == VK_SUCCESS || result == VK_INCOMPLETE)
        return true;
    (void)snprintf(reason, reason_size, "vkEnumerateDeviceExtensionProperties: %s (%d)",
                   fa_vk_error_name(result), (int)result);
    return false;
}

static uint32_t version_of(const fa_vk_instance *instance, VkPhysicalDevice device)
{
    VkPhysicalDeviceProperties properties;
    instance->vkGetPhysicalDeviceProperties(device, &properties);
    return properties.apiVersion < instance->version ? properties.apiVersion : instance->version;
}

/* A struct of the chain, where the version or an extension has it. */
static void chain(fa_vk_features *f, void ***end, uint32_t version, uint32_t core, const extension_list *list,
                  const char *name, void *link, VkStructureType type)
{
    VkBaseOutStructure *base = link;
    base->sType = type;
    if (version < core) {
        if (!has(list, name))
            return;
        f->extension[f->extensions++] = name;
    }
    **end = base;
    *end = (void **)&base->pNext;
}

bool fa_vk_features_query(const fa_vk_instance *instance, VkPhysicalDevice device, fa_vk_features *f,
                          char *reason, size_t reason_size)
{
    const uint32_t version = version_of(instance, device), never = UINT32_MAX;
    extension_list list = {NULL, 0};
    *f = (fa_vk_features){.base.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    if (!list_extensions(instance, device, &list, reason, reason_size)) {
        free(list.found);
        return false;
    }
    void **end = &f->base.pNext;
    chain(f, &end, version, VK_API_VERSION_1_1, &list, "", &f->storage16,
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES);
    chain(f, &end, version, VK_API_VERSION_1_2, &list, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME,
          &f->address, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES);
    chain(f, &end, version, VK_API_VERSION_1_2, &list, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME, &f->timeline,
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES);
    chain(f, &end, version, VK_API_VERSION_1_2, &list, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME, &f->float16,
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES);
    chain(f, &end, version, VK_API_VERSION_1_2, &list, VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME,
          &f->memory_model, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES);
    chain(f, &end, version, VK_API_VERSION_1_3, &list, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME,
          &f->subgroup_size, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
    chain(f, &end, version, never, &list, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, &f->matrix,
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);
    f->portability = has(&list, "VK_KHR_portability_subset");
    f->sm_count = has(&list, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME);
    f->driver = version >= VK_API_VERSION_1_2 || has(&list, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME);
    if (f->portability)
        f->extension[f->extensions++] = "VK_KHR_portability_subset";
    free(list.found);
    instance->vkGetPhysicalDeviceFeatures2(device, &f->base);
    return true;
}

/* The first family with compute, which all devices have: one of the loader's promises that is checked nevertheless. */
static bool find_family(const fa_vk_instance *instance, VkPhysicalDevice device, fa_vk_caps *caps)
{
    VkQueueFamilyProperties found[MAX_FAMILIES];
    uint32_t count = MAX_FAMILIES;
    memset(found, 0, sizeof(found));
    instance->vkGetPhysicalDeviceQueueFamilyProperties(device, &count, found);
    for (uint32_t i = 0; i < count && i < MAX_FAMILIES; i++) {
        if (!(found[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || found[i].queueCount == 0)
            continue;
        caps->family = i;
        caps->queues = found[i].queueCount;
        caps->timestamp_bits = found[i].timestampValidBits;
        return true;
    }
    return false;
}

/* Whether all of the device's own memory is the host's too. */
static bool is_unified(const fa_vk_instance *instance, VkPhysicalDevice device)
{
    const VkMemoryPropertyFlags both = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                       VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                       VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VkPhysicalDeviceMemoryProperties memory;
    uint64_t largest = 0, reached = 0;
    instance->vkGetPhysicalDeviceMemoryProperties(device, &memory);
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++) {
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            memory.memoryHeaps[i].size > largest)
            largest = memory.memoryHeaps[i].size;
    }
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++) {
        uint64_t size = memory.memoryHeaps[memory.memoryTypes[i].heapIndex].size;
        if ((memory.memoryTypes[i].propertyFlags & both) == both && size > reached)
            reached = size;
    }
    return reached > 0 && reached >= largest;
}

/* Vulkan does not tell how many units a device has: a vendor's extension may, and else it is a guess by kind. */
static uint32_t count_units(const fa_vk_caps *caps, const VkPhysicalDeviceShaderSMBuiltinsPropertiesNV *sm)
{
    enum { DISCRETE = 32, INTEGRATED = 8 };
    if (sm->shaderSMCount > 0)
        return sm->shaderSMCount;
    if (caps->type == VK_PHYSICAL_DEVICE_TYPE_CPU) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        return cores > 0 ? (uint32_t)cores : 1;
    }
    return caps->type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU ? DISCRETE : INTEGRATED;
}

static bool has_matrix_shape(const fa_vk_instance *instance, VkPhysicalDevice device)
{
    VkCooperativeMatrixPropertiesKHR shapes[MAX_SHAPES];
    uint32_t count = MAX_SHAPES;
    if (!instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)
        return false;
    memset(shapes, 0, sizeof(shapes));
    for (int i = 0; i < MAX_SHAPES; i++)
        shapes[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    VkResult result = instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, shapes);
    for (uint32_t i = 0; (result == VK_SUCCESS || result == VK_INCOMPLETE) && i < count && i < MAX_SHAPES;
         i++) {
        const VkCooperativeMatrixPropertiesKHR *s = &shapes[i];
        if (s->MSize == 16 && s->NSize == 16 && s->KSize == 16 && s->AType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
            s->BType == VK_COMPONENT_TYPE_FLOAT16_KHR && s->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            s->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && s->scope == VK_SCOPE_SUBGROUP_KHR)
            return true;
    }
    return false;
}

static void name_driver(const VkPhysicalDeviceProperties *p, fa_vk_caps *caps)
{
    const uint64_t cache = fa_cache_hash(p->pipelineCacheUUID, VK_UUID_SIZE);
    (void)snprintf(caps->driver, sizeof(caps->driver), "%.120s; %x:%x; %u; %u; %016llx", p->deviceName,
                   p->vendorID, p->deviceID, p->driverVersion, p->apiVersion, (unsigned long long)cache);
}

static size_t clamp_size(uint64_t bytes)
{
    return bytes < PTRDIFF_MAX ? (size_t)bytes : PTRDIFF_MAX;
}

static void read_limits(const VkPhysicalDeviceProperties *p, fa_vk_caps *caps)
{
    const VkPhysicalDeviceLimits *l = &p->limits;
    caps->type = p->deviceType;
    caps->local_bytes = l->maxComputeSharedMemorySize;
    caps->group_size = l->maxComputeWorkGroupInvocations < l->maxComputeWorkGroupSize[0]
                           ? l->maxComputeWorkGroupInvocations
                           : l->maxComputeWorkGroupSize[0];
    memcpy(caps->groups, l->maxComputeWorkGroupCount, sizeof(caps->groups));
    caps->range = l->maxStorageBufferRange / 4 * 4; /* kernels read whole words */
    caps->align = l->minStorageBufferOffsetAlignment > 4 ? clamp_size(l->minStorageBufferOffsetAlignment) : 4;
    caps->buffers = l->maxPerStageDescriptorStorageBuffers < l->maxDescriptorSetStorageBuffers
                        ? l->maxPerStageDescriptorStorageBuffers
                        : l->maxDescriptorSetStorageBuffers;
    caps->timestamp_seconds = (double)l->timestampPeriod * 1e-9;
}

/* What of the features is there, and if it is a caller's device, was enabled. */
static void read_features(const fa_vk_instance *instance, VkPhysicalDevice device, const fa_vk_features *f,
                          const VkPhysicalDeviceSubgroupProperties *subgroup, uint32_t enabled,
                          fa_vk_caps *caps)
{
    const VkSubgroupFeatureFlags shuffles = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    const uint32_t on = enabled ? enabled : UINT32_MAX;
    caps->address = f->address.bufferDeviceAddress && f->base.features.shaderInt64 &&
                    (on & FA_VULKAN_BUFFER_DEVICE_ADDRESS) && (on & FA_VULKAN_INT64);
    caps->timeline = f->timeline.timelineSemaphore && (on & FA_VULKAN_TIMELINE);
    caps->full_subgroups = f->subgroup_size.subgroupSizeControl && f->subgroup_size.computeFullSubgroups &&
                           (on & FA_VULKAN_SUBGROUP_SIZE_CONTROL);
    /* Rows of work-items are told by a subgroup's number, so subgroups must be whole. */
    caps->subgroup_size = subgroup->subgroupSize;
    caps->subgroups = caps->full_subgroups && (subgroup->supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
                      (subgroup->supportedOperations & shuffles) == shuffles && subgroup->subgroupSize >= 4 &&
                      subgroup->subgroupSize <= MIN_GROUP;
    caps->matrix = f->matrix.cooperativeMatrix && f->float16.shaderFloat16 &&
                   f->memory_model.vulkanMemoryModel && f->storage16.storageBuffer16BitAccess &&
                   caps->subgroups && (subgroup->supportedOperations & VK_SUBGROUP_FEATURE_BALLOT_BIT) &&
                   (on & FA_VULKAN_COOPERATIVE_MATRIX) && f->base.features.shaderInt16 &&
                   subgroup->subgroupSize >= 16 && has_matrix_shape(instance, device);
    caps->portability = f->portability;
}

bool fa_vk_caps_query(const fa_vk_instance *instance, VkPhysicalDevice device, uint32_t enabled,
                      fa_vk_caps *caps, char *reason, size_t reason_size)
{
    *caps = (fa_vk_caps){0};
    caps->version = version_of(instance, device);
    if (caps->version < VK_API_VERSION_1_1) {
        (void)snprintf(reason, reason_size, "its version is %u.%u, expected Vulkan 1.1 or later",
                       VK_API_VERSION_MAJOR(caps->version), VK_API_VERSION_MINOR(caps->version));
        return false;
    }
    fa_vk_features features;
    if (!fa_vk_features_query(instance, device, &features, reason, reason_size))
        return false;
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV sm = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
                                               .pNext = features.sm_count ? &sm : NULL};
    VkPhysicalDeviceMaintenance3Properties maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
        .pNext = features.driver ? &driver : driver.pNext};
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &maintenance};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &subgroup};
    instance->vkGetPhysicalDeviceProperties2(device, &properties);
    read_limits(&properties.properties, caps);
    caps->alloc_bytes = clamp_size(maintenance.maxMemoryAllocationSize);
    caps->units = count_units(caps, &sm);
    caps->loop_turns = driver.driverID == VK_DRIVER_ID_MESA_LLVMPIPE ? LLVMPIPE_TURNS : SIZE_MAX;
    caps->unified = is_unified(instance, device);
    caps->near = true;
    read_features(instance, device, &features, &subgroup, enabled, caps);
    name_driver(&properties.properties, caps);
    if (find_family(instance, device, caps))
        return true;
    (void)snprintf(reason, reason_size, "it has no queue for compute");
    return false;
}

bool fa_vk_caps_limit(fa_vk_caps *caps, bool *layout, char *reason, size_t reason_size)
{
    const fa_gpu_key keys[] = {
        {"local=", 1024, &caps->local_bytes, NULL}, {"group=", 1, &caps->group_size, NULL},
        {"range=", 4096, &caps->range, NULL},       {"loops=", 4096, &caps->loop_turns, NULL},
        {"address=", 0, NULL, &caps->address},      {"subgroups=", 0, NULL, &caps->subgroups},
        {"matrix=", 0, NULL, &caps->matrix},        {"layout=", 0, NULL, layout},
        {"timeline=", 0, NULL, &caps->timeline},    {"unified=", 0, NULL, &caps->unified},
        {"buffers=", 1, &caps->buffers, NULL},      {"near=", 0, NULL, &caps->near},
    };
    *layout = true;
    if (!fa_gpu_lower("FASTATTN_VULKAN_LIMITS", keys, sizeof(keys) / sizeof(keys[0]), reason, reason_size))
        return false;
    caps->matrix = caps->matrix && caps->subgroups;
    if (!caps->address && caps->buffers < FA_VK_SLOTS) {
        (void)snprintf(reason, reason_size,
                       "it has no buffer addresses and at most %zu storage buffers for a kernel, expected %d",
                       caps->buffers, FA_VK_SLOTS);
        return false;
    }
    if (caps->group_size >= MIN_GROUP)
        return true;
    (void)snprintf(reason, reason_size, "its work-groups have at most %zu items, expected at least %d",
                   caps->group_size, MIN_GROUP);
    return false;
}
