/* SPDX-License-Identifier: Apache-2.0 */
/* The instance, its one kind of device, and what is made of it. */
#include "tests/vulkan/stub_internal.h"

static object the_queue = {.kind = QUEUE};
static object physical_devices[4];
static int instance_place;

VkResult vkEnumerateInstanceVersion(uint32_t *version)
{
    MAY_FAIL();
    *version = VK_API_VERSION_1_3;
    return VK_SUCCESS;
}

VkResult vkEnumerateInstanceExtensionProperties(const char *layer, uint32_t *count,
                                                VkExtensionProperties *found)
{
    (void)layer;
    (void)found;
    *count = 0;
    return VK_SUCCESS;
}

VkResult vkCreateInstance(const VkInstanceCreateInfo *info, const VkAllocationCallbacks *a, VkInstance *made)
{
    (void)info;
    (void)a;
    MAY_FAIL();
    *made = (VkInstance)(void *)&instance_place;
    return VK_SUCCESS;
}

void vkDestroyInstance(VkInstance instance, const VkAllocationCallbacks *a)
{
    (void)instance;
    (void)a;
}

VkResult vkEnumeratePhysicalDevices(VkInstance instance, uint32_t *count, VkPhysicalDevice *ids)
{
    (void)instance;
    MAY_FAIL();
    *count = *count < stub.device_count ? *count : stub.device_count;
    for (uint32_t i = 0; i < *count; i++)
        ids[i] = (VkPhysicalDevice)(void *)&physical_devices[i];
    return VK_SUCCESS;
}

void vkGetPhysicalDeviceProperties(VkPhysicalDevice device, VkPhysicalDeviceProperties *p)
{
    (void)device;
    memset(p, 0, sizeof(*p));
    p->apiVersion = stub.device_version;
    p->deviceType = stub.device_type;
    strcpy(p->deviceName, "Stub");
    p->limits.maxComputeSharedMemorySize = 32768;
    p->limits.maxComputeWorkGroupInvocations = 256;
    p->limits.maxComputeWorkGroupSize[0] = 256;
    for (int i = 0; i < 3; i++)
        p->limits.maxComputeWorkGroupCount[i] = 65535;
    p->limits.maxStorageBufferRange = 1 << 27;
    p->limits.maxPerStageDescriptorStorageBuffers = p->limits.maxDescriptorSetStorageBuffers = 24;
    p->limits.minStorageBufferOffsetAlignment = 256; /* the most */
    p->limits.timestampPeriod = 1;
}

void vkGetPhysicalDeviceProperties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *p)
{
    vkGetPhysicalDeviceProperties(device, &p->properties);
    for (VkBaseOutStructure *s = p->pNext; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES)
            ((VkPhysicalDeviceMaintenance3Properties *)(void *)s)->maxMemoryAllocationSize = (VkDeviceSize)1
                                                                                             << 31;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES) {
            VkPhysicalDeviceSubgroupProperties *g = (VkPhysicalDeviceSubgroupProperties *)(void *)s;
            g->subgroupSize = 32;
            g->supportedStages = VK_SHADER_STAGE_COMPUTE_BIT;
            g->supportedOperations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT |
                                     VK_SUBGROUP_FEATURE_BALLOT_BIT;
        }
    }
}

void vkGetPhysicalDeviceFeatures2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *f)
{
    (void)device;
    f->features.shaderInt64 = VK_TRUE;
    for (VkBaseOutStructure *s = f->pNext; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES)
            ((VkPhysicalDeviceBufferDeviceAddressFeatures *)(void *)s)->bufferDeviceAddress = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES)
            ((VkPhysicalDeviceTimelineSemaphoreFeatures *)(void *)s)->timelineSemaphore = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES) {
            VkPhysicalDeviceSubgroupSizeControlFeatures *g =
                (VkPhysicalDeviceSubgroupSizeControlFeatures *)(void *)s;
            g->subgroupSizeControl = g->computeFullSubgroups = VK_TRUE;
        }
    }
}

void vkGetPhysicalDeviceMemoryProperties(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties *m)
{
    (void)device;
    memset(m, 0, sizeof(*m));
    m->memoryTypeCount = m->memoryHeapCount = 2;
    m->memoryTypes[0] = (VkMemoryType){VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0};
    m->memoryTypes[1] =
        (VkMemoryType){VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, 1};
    m->memoryHeaps[0] = (VkMemoryHeap){(VkDeviceSize)1 << 28, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    m->memoryHeaps[1] = (VkMemoryHeap){(VkDeviceSize)1 << 28, 0};
}

void vkGetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice device, uint32_t *count,
                                              VkQueueFamilyProperties *f)
{
    (void)device;
    *count = 1;
    *f = (VkQueueFamilyProperties){VK_QUEUE_COMPUTE_BIT, 2, 64, {1, 1, 1}};
}

VkResult vkEnumerateDeviceExtensionProperties(VkPhysicalDevice device, const char *layer, uint32_t *count,
                                              VkExtensionProperties *found)
{
    (void)device;
    (void)layer;
    (void)found;
    MAY_FAIL();
    *count = 0;
    return VK_SUCCESS;
}

#define CREATES(function, info_type, handle_type, kind_)                                      \
    VkResult function(VkDevice device, const info_type *info, const VkAllocationCallbacks *a, \
                      handle_type *made)                                                      \
    {                                                                                         \
        (void)info;                                                                           \
        (void)a;                                                                              \
        stub_check(OBJECT(device), DEVICE);                                                   \
        MAY_FAIL();                                                                           \
        *made = (handle_type)(void *)stub_make(kind_);                                        \
        return VK_SUCCESS;                                                                    \
    }
#define DESTROYS(function, handle_type, kind_)                                         \
    void function(VkDevice device, handle_type handle, const VkAllocationCallbacks *a) \
    {                                                                                  \
        (void)a;                                                                       \
        stub_check(OBJECT(device), DEVICE);                                            \
        stub_drop(OBJECT(handle), kind_);                                              \
    }

CREATES(vkCreateSemaphore, VkSemaphoreCreateInfo, VkSemaphore, SEMAPHORE)
DESTROYS(vkDestroySemaphore, VkSemaphore, SEMAPHORE)
CREATES(vkCreateFence, VkFenceCreateInfo, VkFence, FENCE)
DESTROYS(vkDestroyFence, VkFence, FENCE)
CREATES(vkCreateShaderModule, VkShaderModuleCreateInfo, VkShaderModule, MODULE)
DESTROYS(vkDestroyShaderModule, VkShaderModule, MODULE)
CREATES(vkCreateDescriptorSetLayout, VkDescriptorSetLayoutCreateInfo, VkDescriptorSetLayout, SET_LAYOUT)
DESTROYS(vkDestroyDescriptorSetLayout, VkDescriptorSetLayout, SET_LAYOUT)
CREATES(vkCreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout, LAYOUT)
DESTROYS(vkDestroyPipelineLayout, VkPipelineLayout, LAYOUT)
CREATES(vkCreatePipelineCache, VkPipelineCacheCreateInfo, VkPipelineCache, CACHE)
DESTROYS(vkDestroyPipelineCache, VkPipelineCache, CACHE)
CREATES(vkCreateDescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool, SET_POOL)
DESTROYS(vkDestroyDescriptorPool, VkDescriptorPool, SET_POOL)
CREATES(vkCreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool, COMMAND_POOL)
DESTROYS(vkDestroyCommandPool, VkCommandPool, COMMAND_POOL)
CREATES(vkCreateQueryPool, VkQueryPoolCreateInfo, VkQueryPool, QUERIES)
DESTROYS(vkDestroyQueryPool, VkQueryPool, QUERIES)
DESTROYS(vkDestroyPipeline, VkPipeline, PIPELINE)
DESTROYS(vkFreeMemory, VkDeviceMemory, MEMORY)

void vkDestroyBuffer(VkDevice device, VkBuffer buffer, const VkAllocationCallbacks *a)
{
    (void)a;
    stub_check(OBJECT(device), DEVICE);
    (void)pthread_mutex_lock(&stub.lock);
    for (size_t i = 0; i < STUB_BUFFERS; i++) {
        if (stub.buffers[i] == OBJECT(buffer))
            stub.buffers[i] = NULL;
    }
    (void)pthread_mutex_unlock(&stub.lock);
    stub_drop(OBJECT(buffer), BUFFER);
}

VkResult vkCreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                        const VkAllocationCallbacks *a, VkDevice *made)
{
    (void)physical;
    (void)info;
    (void)a;
    MAY_FAIL();
    *made = (VkDevice)(void *)stub_make(DEVICE);
    return VK_SUCCESS;
}

void vkDestroyDevice(VkDevice device, const VkAllocationCallbacks *a)
{
    (void)a;
    stub_drop(OBJECT(device), DEVICE);
}

void vkGetDeviceQueue(VkDevice device, uint32_t family, uint32_t index, VkQueue *queue)
{
    (void)family;
    (void)index;
    stub_check(OBJECT(device), DEVICE);
    *queue = (VkQueue)(void *)&the_queue;
}

VkResult vkAllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *a,
                          VkDeviceMemory *made)
{
    (void)a;
    stub_check(OBJECT(device), DEVICE);
    MAY_FAIL();
    object *memory = stub_make(MEMORY);
    if (!stub_allocate(memory, (size_t)info->allocationSize)) {
        stub_drop(memory, MEMORY);
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    }
    *made = (VkDeviceMemory)(void *)memory;
    return VK_SUCCESS;
}

VkResult vkMapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size,
                     VkMemoryMapFlags flags, void **mapped)
{
    (void)size;
    (void)flags;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(memory), MEMORY);
    MAY_FAIL();
    *mapped = OBJECT(memory)->bytes + offset;
    return VK_SUCCESS;
}

VkResult vkCreateBuffer(VkDevice device, const VkBufferCreateInfo *info, const VkAllocationCallbacks *a,
                        VkBuffer *made)
{
    (void)a;
    stub_check(OBJECT(device), DEVICE);
    MAY_FAIL();
    object *buffer = stub_make(BUFFER);
    buffer->size = (size_t)info->size;
    *made = (VkBuffer)(void *)buffer;
    return VK_SUCCESS;
}

void vkGetBufferMemoryRequirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *needs)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(buffer), BUFFER);
    *needs = (VkMemoryRequirements){OBJECT(buffer)->size, 256, 3};
}

VkResult vkBindBufferMemory(VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(buffer), BUFFER);
    stub_check(OBJECT(memory), MEMORY);
    MAY_FAIL();
    if (offset % 256 != 0 || offset + OBJECT(buffer)->size > OBJECT(memory)->size)
        stub.misuses++;
    OBJECT(buffer)->bytes = OBJECT(memory)->bytes + offset;
    (void)pthread_mutex_lock(&stub.lock);
    for (size_t i = 0; i < STUB_BUFFERS; i++) {
        if (!stub.buffers[i]) {
            stub.buffers[i] = OBJECT(buffer);
            break;
        }
    }
    (void)pthread_mutex_unlock(&stub.lock);
    return VK_SUCCESS;
}

VkDeviceAddress vkGetBufferDeviceAddress(VkDevice device, const VkBufferDeviceAddressInfo *info)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(info->buffer), BUFFER);
    return (VkDeviceAddress)(uintptr_t)OBJECT(info->buffer)->bytes;
}

VkResult vkGetPipelineCacheData(VkDevice device, VkPipelineCache cache, size_t *size, void *data)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(cache), CACHE);
    MAY_FAIL();
    *size = 16;
    if (data)
        memset(data, 0x5a, 16);
    return VK_SUCCESS;
}

VkResult vkCreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                  const VkComputePipelineCreateInfo *info, const VkAllocationCallbacks *a,
                                  VkPipeline *made)
{
    (void)a;
    (void)count;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(info->stage.module), MODULE);
    stub_check(OBJECT(info->layout), LAYOUT);
    if (cache)
        stub_check(OBJECT(cache), CACHE);
    MAY_FAIL();
    stub.compiles++;
    *made = (VkPipeline)(void *)stub_make(PIPELINE);
    return VK_SUCCESS;
}

static object *make_child(object *pool, object_kind of)
{
    object *made = stub_make(of);
    if (pool->children < 64)
        pool->child[pool->children++] = made;
    else
        stub.misuses++;
    return made;
}

VkResult vkAllocateDescriptorSets(VkDevice device, const VkDescriptorSetAllocateInfo *info,
                                  VkDescriptorSet *set)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(info->descriptorPool), SET_POOL);
    stub_check(OBJECT(info->pSetLayouts[0]), SET_LAYOUT);
    MAY_FAIL();
    *set = (VkDescriptorSet)(void *)make_child(OBJECT(info->descriptorPool), SET);
    return VK_SUCCESS;
}

void vkUpdateDescriptorSets(VkDevice device, uint32_t writes, const VkWriteDescriptorSet *write,
                            uint32_t copies, const VkCopyDescriptorSet *copy)
{
    (void)copies;
    (void)copy;
    stub_check(OBJECT(device), DEVICE);
    for (uint32_t i = 0; i < writes; i++) {
        const VkDescriptorBufferInfo *b = write[i].pBufferInfo;
        stub_check(OBJECT(write[i].dstSet), SET);
        stub_check(OBJECT(b->buffer), BUFFER);
        if (b->offset % 64 != 0 || b->range == 0 || b->offset + b->range > OBJECT(b->buffer)->size)
            stub.misuses++;
    }
}

VkResult vkAllocateCommandBuffers(VkDevice device, const VkCommandBufferAllocateInfo *info,
                                  VkCommandBuffer *made)
{
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(info->commandPool), COMMAND_POOL);
    MAY_FAIL();
    *made = (VkCommandBuffer)(void *)make_child(OBJECT(info->commandPool), COMMANDS);
    return VK_SUCCESS;
}
