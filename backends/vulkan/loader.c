/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/loader.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "core/library.h"

enum { MAX_EXTENSIONS = 512 };

static const char *const usual_names[] = {"libvulkan.so.1", "libvulkan.so", NULL};
static fa_library loader = {
    .variable = "FASTATTN_VULKAN_LIBRARY", .names = usual_names, .what = "the Vulkan library"};

static pthread_once_t entry_once = PTHREAD_ONCE_INIT, instance_once = PTHREAD_ONCE_INIT;
static PFN_vkGetInstanceProcAddr entry;
static fa_vk_instance process_instance;
static char instance_failure[256];

static void find_entry(void)
{
    void *library = fa_library_open(&loader);
    if (!library)
        return;
    void *symbol = dlsym(library, "vkGetInstanceProcAddr");
    if (symbol) /* POSIX promises that a function's address fits; ISO C has no cast for it. */
        memcpy(&entry, &symbol, sizeof(entry));
    else
        (void)snprintf(loader.failure, sizeof(loader.failure), "%s has no vkGetInstanceProcAddr",
                       loader.what);
}

PFN_vkGetInstanceProcAddr fa_vk_entry(char *reason, size_t reason_size)
{
    (void)pthread_once(&entry_once, find_entry);
    if (!entry)
        (void)snprintf(reason, reason_size, "%s", loader.failure);
    return entry;
}

/* One function of a table. Functions are of one size, but of many types. */
static bool take(PFN_vkVoidFunction function, const char *name, void *member, char *reason,
                 size_t reason_size)
{
    memcpy(member, &function, sizeof(function));
    if (!function)
        (void)snprintf(reason, reason_size, "the Vulkan driver has no function %s", name);
    return function != NULL;
}

bool fa_vk_load_instance(VkInstance handle, PFN_vkGetInstanceProcAddr get, uint32_t version,
                         fa_vk_instance *instance, char *reason, size_t reason_size)
{
    bool good = true;
    *instance = (fa_vk_instance){.handle = handle, .get = get, .version = version};
#define FA_VK_TAKE(name) good = good && take(get(handle, #name), #name, &instance->name, reason, reason_size);
    FA_VK_INSTANCE_FUNCTIONS(FA_VK_TAKE)
#undef FA_VK_TAKE
    PFN_vkVoidFunction optional = get(handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    memcpy(&instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR, &optional, sizeof(optional));
    return good;
}

/* Core since a version, and an extension's before. */
static PFN_vkVoidFunction find_either(const fa_vk_instance *instance, VkDevice device, const char *core,
                                      const char *extension)
{
    PFN_vkVoidFunction function = instance->vkGetDeviceProcAddr(device, core);
    return function ? function : instance->vkGetDeviceProcAddr(device, extension);
}

bool fa_vk_load_device(const fa_vk_instance *instance, VkDevice device, fa_vk *vk, char *reason,
                       size_t reason_size)
{
    bool good = true;
#define FA_VK_TAKE(name) \
    good = good && take(instance->vkGetDeviceProcAddr(device, #name), #name, &vk->name, reason, reason_size);
    FA_VK_DEVICE_FUNCTIONS(FA_VK_TAKE)
#undef FA_VK_TAKE
    PFN_vkVoidFunction function =
        find_either(instance, device, "vkGetBufferDeviceAddress", "vkGetBufferDeviceAddressKHR");
    memcpy(&vk->vkGetBufferDeviceAddress, &function, sizeof(function));
    function = find_either(instance, device, "vkWaitSemaphores", "vkWaitSemaphoresKHR");
    memcpy(&vk->vkWaitSemaphores, &function, sizeof(function));
    return good;
}

/* Drivers that are Vulkan on top of something else are listed only to those who say that they know. */
static VkResult find_portability(PFN_vkEnumerateInstanceExtensionProperties enumerate, bool *portability)
{
    uint32_t count = MAX_EXTENSIONS;
    VkExtensionProperties *found = calloc(count, sizeof(*found)); /* too much for a thread's stack */
    if (!found)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    VkResult result = enumerate(NULL, &count, found);
    *portability = false;
    for (uint32_t i = 0; (result == VK_SUCCESS || result == VK_INCOMPLETE) && i < count; i++) {
        if (strcmp(found[i].extensionName, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME) == 0)
            *portability = true;
    }
    free(found);
    return VK_SUCCESS; /* a library that cannot tell has none */
}

static VkResult create_instance(uint32_t version, PFN_vkCreateInstance create, bool portability,
                                VkInstance *made)
{
    static const char *const names[] = {VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME};
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "fastattn",
        .pEngineName = "fastattn",
        .apiVersion = version,
    };
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .flags = portability ? VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR : 0,
        .pApplicationInfo = &application,
        .enabledExtensionCount = portability,
        .ppEnabledExtensionNames = names,
    };
    return create(&info, NULL, made);
}

static void make_instance(void)
{
    char *reason = instance_failure;
    const size_t size = sizeof(instance_failure);
    PFN_vkGetInstanceProcAddr get = fa_vk_entry(reason, size);
    if (!get)
        return;
    PFN_vkEnumerateInstanceVersion ask =
        (PFN_vkEnumerateInstanceVersion)get(NULL, "vkEnumerateInstanceVersion");
    uint32_t version = VK_API_VERSION_1_0;
    if (ask && ask(&version) != VK_SUCCESS)
        version = VK_API_VERSION_1_0;
    if (version < VK_API_VERSION_1_1) {
        (void)snprintf(reason, size, "the Vulkan library is of version 1.0, expected 1.1 or later");
        return;
    }
    version = version < VK_API_VERSION_1_3 ? version : VK_API_VERSION_1_3;
#define FA_VK_TAKE(name)                                     \
    PFN_##name name;                                         \
    if (!take(get(NULL, #name), #name, &name, reason, size)) \
        return;
    FA_VK_GLOBAL_FUNCTIONS(FA_VK_TAKE)
#undef FA_VK_TAKE
    VkInstance made = VK_NULL_HANDLE;
    bool portability = false;
    VkResult result = find_portability(vkEnumerateInstanceExtensionProperties, &portability);
    if (result == VK_SUCCESS)
        result = create_instance(version, vkCreateInstance, portability, &made);
    if (result != VK_SUCCESS)
        (void)snprintf(reason, size, "no Vulkan instance (is a driver installed?): vkCreateInstance: %s (%d)",
                       fa_vk_error_name(result), (int)result);
    else if (!fa_vk_load_instance(made, get, version, &process_instance, reason, size) &&
             process_instance.vkDestroyInstance)
        process_instance.vkDestroyInstance(made, NULL);
}

const fa_vk_instance *fa_vk_load(char *reason, size_t reason_size)
{
    (void)pthread_once(&instance_once, make_instance);
    if (instance_failure[0] == '\0')
        return &process_instance;
    (void)snprintf(reason, reason_size, "%s", instance_failure);
    return NULL;
}
