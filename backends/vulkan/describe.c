/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/describe.h"

#include <stdio.h>
#include <string.h>

#include "backends/vulkan/pipeline.h"
#include "core/context.h"
#include "core/status.h"

enum { MAX_DEVICES = 64 };

typedef struct entry {
    VkPhysicalDevice id;
    bool usable;
    char name[sizeof((fa_device_info *)0)->name];
    char reason[sizeof((fa_device_info *)0)->reason];
    fa_vk_caps caps; /* before FASTATTN_VULKAN_LIMITS */
} entry;

/* Of the process, since the instance is. Devices beyond the last are not seen. */
static struct {
    pthread_once_t once;
    const fa_vk_instance *instance;
    entry device[MAX_DEVICES];
    int count;
    char reason[256]; /* of count 0 */
} list = {.once = PTHREAD_ONCE_INIT};

static void describe_device(const fa_vk_instance *instance, VkPhysicalDevice id, uint32_t enabled, entry *e)
{
    VkPhysicalDeviceProperties properties;
    *e = (entry){.id = id};
    instance->vkGetPhysicalDeviceProperties(id, &properties);
    (void)snprintf(e->name, sizeof(e->name), "%.120s", properties.deviceName);
    e->usable = fa_vk_caps_query(instance, id, enabled, &e->caps, e->reason, sizeof(e->reason));
}

static void make_list(void)
{
    const fa_vk_instance *instance = list.instance = fa_vk_load(list.reason, sizeof(list.reason));
    if (!instance)
        return;
    VkPhysicalDevice ids[MAX_DEVICES];
    uint32_t count = MAX_DEVICES;
    VkResult result = instance->vkEnumeratePhysicalDevices(instance->handle, &count, ids);
    if ((result != VK_SUCCESS && result != VK_INCOMPLETE) || count == 0) {
        (void)snprintf(list.reason, sizeof(list.reason),
                       "no Vulkan device (is a driver installed?): vkEnumeratePhysicalDevices: %s (%d)",
                       result == VK_SUCCESS ? "none" : fa_vk_error_name(result), (int)result);
        return;
    }
    for (uint32_t i = 0; i < count && i < MAX_DEVICES; i++)
        describe_device(instance, ids[i], 0, &list.device[list.count++]);
}

int fa_vk_device_count(const fa_context *context, char *reason, size_t reason_size)
{
    (void)context;
    (void)pthread_once(&list.once, make_list);
    if (list.count == 0)
        (void)snprintf(reason, reason_size, "%s", list.reason);
    return list.count;
}

static void fill_info(const entry *e, fa_device_info *info)
{
    fa_vk_caps caps = e->caps;
    bool layout;
    (void)snprintf(info->name, sizeof(info->name), "%s", e->name);
    (void)snprintf(info->reason, sizeof(info->reason), "%s", e->reason);
    info->available = e->usable && fa_vk_caps_limit(&caps, &layout, info->reason, sizeof(info->reason));
    info->automatic = info->available && caps.type != VK_PHYSICAL_DEVICE_TYPE_CPU;
    info->host_memory = 0;
    info->units = caps.units;
    info->onchip_bytes = caps.local_bytes;
}

void fa_vk_device_describe(const fa_context *context, int index, fa_device_info *info)
{
    (void)context;
    (void)pthread_once(&list.once, make_list);
    fill_info(&list.device[index], info);
}

void fa_vk_describe_import(const fa_vk_import *import, fa_device_info *info)
{
    entry e;
    describe_device(&import->instance, import->physical, import->enabled, &e);
    fill_info(&e, info);
    (void)snprintf(info->backend, sizeof(info->backend), "vulkan");
    info->struct_size = sizeof(*info);
    info->index = -1;
}

/* Of what the device has, what is used. */
static VkResult create_device(fa_vk_device *d, char *reason, size_t reason_size)
{
    const fa_vk_caps *caps = &d->caps;
    fa_vk_features f;
    if (!fa_vk_features_query(&d->instance, d->physical, &f, reason, reason_size))
        return VK_ERROR_INITIALIZATION_FAILED;
    f.base.features = (VkPhysicalDeviceFeatures){.shaderInt64 = caps->address, .shaderInt16 = caps->matrix};
    f.storage16 = (VkPhysicalDevice16BitStorageFeatures){
        .sType = f.storage16.sType, .pNext = f.storage16.pNext, .storageBuffer16BitAccess = caps->matrix};
    f.address.bufferDeviceAddressCaptureReplay = f.address.bufferDeviceAddressMultiDevice = VK_FALSE;
    f.address.bufferDeviceAddress = caps->address;
    f.float16.shaderInt8 = VK_FALSE;
    f.float16.shaderFloat16 = caps->matrix;
    f.memory_model.vulkanMemoryModelAvailabilityVisibilityChains = VK_FALSE;
    f.memory_model.vulkanMemoryModelDeviceScope = f.memory_model.vulkanMemoryModelDeviceScope && caps->matrix;
    f.memory_model.vulkanMemoryModel = caps->matrix;
    f.timeline.timelineSemaphore = caps->timeline;
    f.matrix.cooperativeMatrixRobustBufferAccess = VK_FALSE;
    f.matrix.cooperativeMatrix = caps->matrix;
    float priority[FA_VK_MAX_QUEUES] = {1, 1, 1, 1};
    const VkDeviceQueueCreateInfo queues = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = caps->family,
        .queueCount = caps->queues < FA_VK_MAX_QUEUES ? caps->queues : FA_VK_MAX_QUEUES,
        .pQueuePriorities = priority,
    };
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &f.base,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queues,
        .enabledExtensionCount = f.extensions,
        .ppEnabledExtensionNames = f.extension,
    };
    VkResult result = d->instance.vkCreateDevice(d->physical, &info, NULL, &d->handle);
    d->lanes = queues.queueCount;
    return result;
}

static void take_queues(fa_vk_device *d)
{
    for (uint32_t i = 0; i < d->lanes; i++) {
        (void)pthread_mutex_init(&d->lane[i].lock, NULL);
        d->vk.vkGetDeviceQueue(d->handle, d->caps.family, i, &d->lane[i].handle);
    }
}

/* The device of a caller, or one of our own. */
static fa_status connect(const fa_device *device, fa_vk_device *d, const fa_vk_import *import, bool *layout)
{
    char reason[256] = "";
    VkResult result = VK_SUCCESS;
    bool good = fa_vk_caps_query(&d->instance, d->physical, import ? import->enabled : 0, &d->caps, reason,
                                 sizeof(reason)) &&
                fa_vk_caps_limit(&d->caps, layout, reason, sizeof(reason));
    if (!good)
        return fa_fail(FA_NO_DEVICE, "%s: %s", device->info.name, reason);
    d->instance.vkGetPhysicalDeviceMemoryProperties(d->physical, &d->memory);
    if (import) {
        d->handle = import->handle;
        d->caps.family = import->family;
        d->lanes = 1;
    } else {
        result = create_device(d, reason, sizeof(reason));
        if (result != VK_SUCCESS) {
            d->handle = VK_NULL_HANDLE;
            return reason[0] ? fa_fail(FA_NO_DEVICE, "%s: %s", device->info.name, reason)
                             : fa_vk_fail(result, "vkCreateDevice");
        }
        d->owned = true;
    }
    if (!fa_vk_load_device(&d->instance, d->handle, &d->vk, reason, sizeof(reason)))
        return fa_fail(FA_NO_DEVICE, "%s: %s", device->info.name, reason);
    d->caps.address = d->caps.address && d->vk.vkGetBufferDeviceAddress;
    d->caps.timeline = d->caps.timeline && d->vk.vkWaitSemaphores;
    take_queues(d);
    return fa_vk_layouts_make(d);
}

fa_status fa_vk_device_start(fa_device *device, const fa_vk_import *import, bool *layout)
{
    fa_vk_device *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->instance = import ? import->instance : *list.instance;
    made->physical = import ? import->physical : list.device[device->info.index].id;
    (void)pthread_mutex_init(&made->lock, NULL);
    device->impl = made;
    fa_status status = connect(device, made, import, layout);
    if (status != FA_OK)
        fa_vk_device_stop(device);
    return status;
}

void fa_vk_device_stop(fa_device *device)
{
    fa_vk_device *d = device->impl;
    if (!d)
        return;
    fa_vk_pipelines_release(device);
    fa_vk_layouts_drop(d);
    for (uint32_t i = 0; i < d->lanes && d->lane[i].handle; i++)
        (void)pthread_mutex_destroy(&d->lane[i].lock);
    if (d->owned && d->vk.vkDestroyDevice)
        d->vk.vkDestroyDevice(d->handle, NULL);
    (void)pthread_mutex_destroy(&d->lock);
    fa_release(device->context, d, sizeof(*d));
    device->impl = NULL;
}
