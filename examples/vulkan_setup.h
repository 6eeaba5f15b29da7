/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Vulkan program has before it meets fastattn: a device with a compute queue, a command buffer, and one buffer
 * that the host can read and write. Only vulkan_commands.c includes this file.
 */
#include <stdio.h>
#include <vulkan/vulkan.h>

typedef struct setup {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    uint32_t family;
    VkQueue queue;
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkBuffer buffer;
    VkDeviceMemory memory;
    void *mapped;
} setup;

static int vk_ok(const char *call, VkResult result)
{
    if (result != VK_SUCCESS)
        fprintf(stderr, "%s: VkResult %d\n", call, (int)result);
    return result == VK_SUCCESS;
}
#define VK_OK(function, ...) vk_ok(#function, function(__VA_ARGS__))

/* The first device, and its first queue family with compute. */
static int choose_device(setup *s)
{
    VkQueueFamilyProperties families[16];
    uint32_t count = 1;
    VkResult result = vkEnumeratePhysicalDevices(s->instance, &count, &s->physical);
    if ((result != VK_SUCCESS && result != VK_INCOMPLETE) || count == 0)
        return fprintf(stderr, "no Vulkan device\n"), 0;
    count = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(s->physical, &count, families);
    while (s->family < count && !(families[s->family].queueFlags & VK_QUEUE_COMPUTE_BIT))
        s->family++;
    return s->family < count ? 1 : (fprintf(stderr, "no compute queue\n"), 0);
}

static int create_device(setup *s)
{
    const float priority = 1;
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo instance = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                           .pApplicationInfo = &application};
    if (!VK_OK(vkCreateInstance, &instance, NULL, &s->instance) || !choose_device(s))
        return 0;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = s->family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                       .queueCreateInfoCount = 1,
                                       .pQueueCreateInfos = &queue};
    if (!VK_OK(vkCreateDevice, s->physical, &device, NULL, &s->device))
        return 0;
    vkGetDeviceQueue(s->device, s->family, 0, &s->queue);
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .queueFamilyIndex = s->family};
    if (!VK_OK(vkCreateCommandPool, s->device, &pool, NULL, &s->pool))
        return 0;
    const VkCommandBufferAllocateInfo commands = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                  .commandPool = s->pool,
                                                  .commandBufferCount = 1};
    return VK_OK(vkAllocateCommandBuffers, s->device, &commands, &s->commands);
}

/* With the usages that fa_buffer_wrap_vulkan() asks for. */
static int create_buffer(setup *s, VkDeviceSize size)
{
    const VkMemoryPropertyFlags wanted =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkBufferCreateInfo buffer = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                       .size = size,
                                       .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                                VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                                VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkPhysicalDeviceMemoryProperties types;
    VkMemoryRequirements needs;
    uint32_t type = 0;
    if (!VK_OK(vkCreateBuffer, s->device, &buffer, NULL, &s->buffer))
        return 0;
    vkGetBufferMemoryRequirements(s->device, s->buffer, &needs);
    vkGetPhysicalDeviceMemoryProperties(s->physical, &types);
    while (!(needs.memoryTypeBits >> type & 1) || (types.memoryTypes[type].propertyFlags & wanted) != wanted)
        type++; /* Vulkan guarantees that there is one */
    const VkMemoryAllocateInfo memory = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                         .allocationSize = needs.size,
                                         .memoryTypeIndex = type};
    return VK_OK(vkAllocateMemory, s->device, &memory, NULL, &s->memory) &&
           VK_OK(vkBindBufferMemory, s->device, s->buffer, s->memory, 0) &&
           VK_OK(vkMapMemory, s->device, s->memory, 0, VK_WHOLE_SIZE, 0, &s->mapped);
}

static void destroy(setup *s)
{
    if (s->device) {
        vkDestroyBuffer(s->device, s->buffer, NULL);
        vkFreeMemory(s->device, s->memory, NULL);
        vkDestroyCommandPool(s->device, s->pool, NULL);
        vkDestroyDevice(s->device, NULL);
    }
    if (s->instance)
        vkDestroyInstance(s->instance, NULL);
}
