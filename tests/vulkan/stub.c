/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vulkan/stub.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef enum object_kind {
    DEVICE = 0x5101,
    MEMORY,
    BUFFER,
    SEMAPHORE,
    FENCE,
    MODULE,
    SET_LAYOUT,
    LAYOUT,
    CACHE,
    PIPELINE,
    SET_POOL,
    SET,
    COMMAND_POOL,
    COMMANDS,
    QUERIES,
    QUEUE
} object_kind;

/* Any object. The loader writes into the first word of a dispatchable one, so the kind comes second. */
typedef struct object {
    void *loader;
    object_kind kind;
    char *bytes; /* of memory, and what is bound to a buffer */
    size_t size;
    bool recording;           /* of commands */
    uint64_t pushed[16];      /* its push constants */
    struct object *child[64]; /* of a pool */
    int children;
} object;

static atomic_long live, misuses, dispatches;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char failing[64], hidden[64];
static int failing_nth;
static VkResult failing_result;
static bool has_failed;
static VkPhysicalDeviceType device_type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
static uint32_t device_version = VK_API_VERSION_1_3, device_count = 1;
static object the_queue = {.kind = QUEUE};
static object physical_devices[4];
static int instance_place;
static object *buffers[1024]; /* that have memory */

EXPORT void stub_fail(const char *function, int nth, VkResult result)
{
    (void)pthread_mutex_lock(&lock);
    strncpy(failing, function ? function : "", sizeof(failing) - 1);
    failing_nth = nth;
    failing_result = result;
    has_failed = false;
    (void)pthread_mutex_unlock(&lock);
}

EXPORT int stub_has_failed(void)
{
    return has_failed;
}

EXPORT void stub_hide(const char *function)
{
    strncpy(hidden, function ? function : "", sizeof(hidden) - 1);
}

EXPORT void stub_set_device(VkPhysicalDeviceType type, uint32_t api_version)
{
    device_type = type;
    device_version = api_version;
}

EXPORT void stub_set_devices(uint32_t count)
{
    device_count = count;
}

EXPORT long stub_live(void)
{
    return live;
}

EXPORT long stub_misuses(void)
{
    return misuses;
}

EXPORT long stub_dispatches(void)
{
    return dispatches;
}

static VkResult next_result(const char *function)
{
    VkResult result = VK_SUCCESS;
    (void)pthread_mutex_lock(&lock);
    if (strcmp(failing, function) == 0 && --failing_nth == 0) {
        result = failing_result;
        has_failed = true;
    }
    (void)pthread_mutex_unlock(&lock);
    return result;
}

#define MAY_FAIL()                                \
    do {                                          \
        VkResult result_ = next_result(__func__); \
        if (result_ != VK_SUCCESS)                \
            return result_;                       \
    } while (0)

static object *make(object_kind of)
{
    object *made = calloc(1, sizeof(*made));
    made->kind = of;
    live++;
    return made;
}

/* Handles are pointers here, as on every 64-bit machine; the test is built for no other. */
#define OBJECT(handle) ((object *)(void *)(handle))

static void check(const object *o, object_kind of)
{
    if (!o || o->kind != of)
        misuses++;
}

static void drop(object *o, object_kind of)
{
    if (!o)
        return;
    check(o, of);
    if (o->kind != of)
        return;
    for (int i = 0; i < o->children; i++) {
        free(o->child[i]);
        live--;
    }
    o->kind = (object_kind)0;
    if (of == MEMORY)
        free(o->bytes);
    free(o);
    live--;
}

/* --- The instance and its one kind of device ------------------------------------------------------------- */

static VkResult vkEnumerateInstanceVersion(uint32_t *version)
{
    MAY_FAIL();
    *version = VK_API_VERSION_1_3;
    return VK_SUCCESS;
}

static VkResult vkEnumerateInstanceExtensionProperties(const char *layer, uint32_t *count,
                                                       VkExtensionProperties *found)
{
    (void)layer;
    (void)found;
    *count = 0;
    return VK_SUCCESS;
}

static VkResult vkCreateInstance(const VkInstanceCreateInfo *info, const VkAllocationCallbacks *a,
                                 VkInstance *made)
{
    (void)info;
    (void)a;
    MAY_FAIL();
    *made = (VkInstance)(void *)&instance_place;
    return VK_SUCCESS;
}

static void vkDestroyInstance(VkInstance instance, const VkAllocationCallbacks *a)
{
    (void)instance;
    (void)a;
}

static VkResult vkEnumeratePhysicalDevices(VkInstance instance, uint32_t *count, VkPhysicalDevice *ids)
{
    (void)instance;
    MAY_FAIL();
    *count = *count < device_count ? *count : device_count;
    for (uint32_t i = 0; i < *count; i++)
        ids[i] = (VkPhysicalDevice)(void *)&physical_devices[i];
    return VK_SUCCESS;
}

static void vkGetPhysicalDeviceProperties(VkPhysicalDevice device, VkPhysicalDeviceProperties *p)
{
    (void)device;
    memset(p, 0, sizeof(*p));
    p->apiVersion = device_version;
    p->deviceType = device_type;
    strcpy(p->deviceName, "Stub");
    p->limits.maxComputeSharedMemorySize = 32768;
    p->limits.maxComputeWorkGroupInvocations = 256;
    p->limits.maxComputeWorkGroupSize[0] = 256;
    for (int i = 0; i < 3; i++)
        p->limits.maxComputeWorkGroupCount[i] = 65535;
    p->limits.maxStorageBufferRange = 1 << 27;
    p->limits.minStorageBufferOffsetAlignment = 64;
    p->limits.timestampPeriod = 1;
}

static void vkGetPhysicalDeviceProperties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *p)
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
            g->supportedOperations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
        }
    }
}

static void vkGetPhysicalDeviceFeatures2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *f)
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

static void vkGetPhysicalDeviceMemoryProperties(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties *m)
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

static void vkGetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice device, uint32_t *count,
                                                     VkQueueFamilyProperties *f)
{
    (void)device;
    *count = 1;
    *f = (VkQueueFamilyProperties){VK_QUEUE_COMPUTE_BIT, 2, 64, {1, 1, 1}};
}

static VkResult vkEnumerateDeviceExtensionProperties(VkPhysicalDevice device, const char *layer,
                                                     uint32_t *count, VkExtensionProperties *found)
{
    (void)device;
    (void)layer;
    (void)found;
    MAY_FAIL();
    *count = 0;
    return VK_SUCCESS;
}

/* --- Objects --------------------------------------------------------------------------------------------- */

#define CREATES(function, info_type, handle_type, kind_)                                             \
    static VkResult function(VkDevice device, const info_type *info, const VkAllocationCallbacks *a, \
                             handle_type *made)                                                      \
    {                                                                                                \
        (void)info;                                                                                  \
        (void)a;                                                                                     \
        check(OBJECT(device), DEVICE);                                                               \
        MAY_FAIL();                                                                                  \
        *made = (handle_type)(void *)make(kind_);                                                    \
        return VK_SUCCESS;                                                                           \
    }
#define DESTROYS(function, handle_type, kind_)                                                \
    static void function(VkDevice device, handle_type handle, const VkAllocationCallbacks *a) \
    {                                                                                         \
        (void)a;                                                                              \
        check(OBJECT(device), DEVICE);                                                        \
        drop(OBJECT(handle), kind_);                                                          \
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

static void vkDestroyBuffer(VkDevice device, VkBuffer buffer, const VkAllocationCallbacks *a)
{
    (void)a;
    check(OBJECT(device), DEVICE);
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        if (buffers[i] == OBJECT(buffer))
            buffers[i] = NULL;
    }
    (void)pthread_mutex_unlock(&lock);
    drop(OBJECT(buffer), BUFFER);
}

static VkResult vkCreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                               const VkAllocationCallbacks *a, VkDevice *made)
{
    (void)physical;
    (void)info;
    (void)a;
    MAY_FAIL();
    *made = (VkDevice)(void *)make(DEVICE);
    return VK_SUCCESS;
}

static void vkDestroyDevice(VkDevice device, const VkAllocationCallbacks *a)
{
    (void)a;
    drop(OBJECT(device), DEVICE);
}

static void vkGetDeviceQueue(VkDevice device, uint32_t family, uint32_t index, VkQueue *queue)
{
    (void)family;
    (void)index;
    check(OBJECT(device), DEVICE);
    *queue = (VkQueue)(void *)&the_queue;
}

static VkResult vkAllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info,
                                 const VkAllocationCallbacks *a, VkDeviceMemory *made)
{
    (void)a;
    check(OBJECT(device), DEVICE);
    MAY_FAIL();
    object *memory = make(MEMORY);
    memory->size = (size_t)info->allocationSize;
    memory->bytes = calloc(1, memory->size);
    *made = (VkDeviceMemory)(void *)memory;
    return VK_SUCCESS;
}

static VkResult vkMapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size,
                            VkMemoryMapFlags flags, void **mapped)
{
    (void)size;
    (void)flags;
    check(OBJECT(device), DEVICE);
    check(OBJECT(memory), MEMORY);
    MAY_FAIL();
    *mapped = OBJECT(memory)->bytes + offset;
    return VK_SUCCESS;
}

static VkResult vkCreateBuffer(VkDevice device, const VkBufferCreateInfo *info,
                               const VkAllocationCallbacks *a, VkBuffer *made)
{
    (void)a;
    check(OBJECT(device), DEVICE);
    MAY_FAIL();
    object *buffer = make(BUFFER);
    buffer->size = (size_t)info->size;
    *made = (VkBuffer)(void *)buffer;
    return VK_SUCCESS;
}

static void vkGetBufferMemoryRequirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *needs)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(buffer), BUFFER);
    *needs = (VkMemoryRequirements){OBJECT(buffer)->size, 256, 3};
}

static VkResult vkBindBufferMemory(VkDevice device, VkBuffer buffer, VkDeviceMemory memory,
                                   VkDeviceSize offset)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(buffer), BUFFER);
    check(OBJECT(memory), MEMORY);
    MAY_FAIL();
    if (offset % 256 != 0 || offset + OBJECT(buffer)->size > OBJECT(memory)->size)
        misuses++;
    OBJECT(buffer)->bytes = OBJECT(memory)->bytes + offset;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        if (!buffers[i]) {
            buffers[i] = OBJECT(buffer);
            break;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return VK_SUCCESS;
}

static VkDeviceAddress vkGetBufferDeviceAddress(VkDevice device, const VkBufferDeviceAddressInfo *info)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(info->buffer), BUFFER);
    return (VkDeviceAddress)(uintptr_t)OBJECT(info->buffer)->bytes;
}

static VkResult vkGetPipelineCacheData(VkDevice device, VkPipelineCache cache, size_t *size, void *data)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(cache), CACHE);
    MAY_FAIL();
    *size = 16;
    if (data)
        memset(data, 0x5a, 16);
    return VK_SUCCESS;
}

static VkResult vkCreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                         const VkComputePipelineCreateInfo *info,
                                         const VkAllocationCallbacks *a, VkPipeline *made)
{
    (void)a;
    (void)count;
    check(OBJECT(device), DEVICE);
    check(OBJECT(info->stage.module), MODULE);
    check(OBJECT(info->layout), LAYOUT);
    if (cache)
        check(OBJECT(cache), CACHE);
    MAY_FAIL();
    *made = (VkPipeline)(void *)make(PIPELINE);
    return VK_SUCCESS;
}

static object *make_child(object *pool, object_kind of)
{
    object *made = make(of);
    if (pool->children < 64)
        pool->child[pool->children++] = made;
    else
        misuses++;
    return made;
}

static VkResult vkAllocateDescriptorSets(VkDevice device, const VkDescriptorSetAllocateInfo *info,
                                         VkDescriptorSet *set)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(info->descriptorPool), SET_POOL);
    check(OBJECT(info->pSetLayouts[0]), SET_LAYOUT);
    MAY_FAIL();
    *set = (VkDescriptorSet)(void *)make_child(OBJECT(info->descriptorPool), SET);
    return VK_SUCCESS;
}

static void vkUpdateDescriptorSets(VkDevice device, uint32_t writes, const VkWriteDescriptorSet *write,
                                   uint32_t copies, const VkCopyDescriptorSet *copy)
{
    (void)copies;
    (void)copy;
    check(OBJECT(device), DEVICE);
    for (uint32_t i = 0; i < writes; i++) {
        const VkDescriptorBufferInfo *b = write[i].pBufferInfo;
        check(OBJECT(write[i].dstSet), SET);
        check(OBJECT(b->buffer), BUFFER);
        if (b->offset % 64 != 0 || b->range == 0 || b->offset + b->range > OBJECT(b->buffer)->size)
            misuses++;
    }
}

static VkResult vkAllocateCommandBuffers(VkDevice device, const VkCommandBufferAllocateInfo *info,
                                         VkCommandBuffer *made)
{
    check(OBJECT(device), DEVICE);
    check(OBJECT(info->commandPool), COMMAND_POOL);
    MAY_FAIL();
    *made = (VkCommandBuffer)(void *)make_child(OBJECT(info->commandPool), COMMANDS);
    return VK_SUCCESS;
}

/* --- Commands: done when recorded -------------------------------------------------------------------------- */

static void check_recording(VkCommandBuffer commands)
{
    check(OBJECT(commands), COMMANDS);
    if (!OBJECT(commands)->recording)
        misuses++;
}

static VkResult vkResetCommandBuffer(VkCommandBuffer commands, VkCommandBufferResetFlags flags)
{
    (void)flags;
    check(OBJECT(commands), COMMANDS);
    MAY_FAIL();
    OBJECT(commands)->recording = false;
    return VK_SUCCESS;
}

static VkResult vkBeginCommandBuffer(VkCommandBuffer commands, const VkCommandBufferBeginInfo *info)
{
    (void)info;
    check(OBJECT(commands), COMMANDS);
    MAY_FAIL();
    OBJECT(commands)->recording = true;
    return VK_SUCCESS;
}

static VkResult vkEndCommandBuffer(VkCommandBuffer commands)
{
    check_recording(commands);
    MAY_FAIL();
    OBJECT(commands)->recording = false;
    return VK_SUCCESS;
}

static void vkCmdBindPipeline(VkCommandBuffer commands, VkPipelineBindPoint point, VkPipeline pipeline)
{
    (void)point;
    check_recording(commands);
    check(OBJECT(pipeline), PIPELINE);
}

static void vkCmdBindDescriptorSets(VkCommandBuffer commands, VkPipelineBindPoint point,
                                    VkPipelineLayout layout, uint32_t first, uint32_t count,
                                    const VkDescriptorSet *set, uint32_t offsets, const uint32_t *offset)
{
    (void)point;
    (void)first;
    (void)count;
    (void)offsets;
    (void)offset;
    check_recording(commands);
    check(OBJECT(layout), LAYOUT);
    check(OBJECT(*set), SET);
}

static void vkCmdPushConstants(VkCommandBuffer commands, VkPipelineLayout layout, VkShaderStageFlags stages,
                               uint32_t offset, uint32_t size, const void *values)
{
    (void)stages;
    check_recording(commands);
    check(OBJECT(layout), LAYOUT);
    if (offset != 0 || size > sizeof(OBJECT(commands)->pushed))
        misuses++;
    else
        memcpy(OBJECT(commands)->pushed, values, size);
}

/* The buffer that an address lies in, if any; the lock is taken. */
static object *buffer_at(uint64_t address)
{
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        if (buffers[i] && address - (uint64_t)(uintptr_t)buffers[i]->bytes < buffers[i]->size)
            return buffers[i];
    }
    return NULL;
}

static void vkCmdDispatch(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z)
{
    check_recording(commands);
    if (x == 0 || y == 0 || z == 0 || x > 65535 || y > 65535 || z > 65535)
        misuses++;
    dispatches++;
    /* Something that is the same in every run: o becomes q, where both are told by their addresses. */
    (void)pthread_mutex_lock(&lock);
    const object *q = buffer_at(OBJECT(commands)->pushed[1]), *o = buffer_at(OBJECT(commands)->pushed[4]);
    if (q && o && q != o)
        memcpy(o->bytes, q->bytes, q->size < o->size ? q->size : o->size);
    (void)pthread_mutex_unlock(&lock);
}

static void vkCmdPipelineBarrier(VkCommandBuffer commands, VkPipelineStageFlags from, VkPipelineStageFlags to,
                                 VkDependencyFlags flags, uint32_t barriers, const VkMemoryBarrier *barrier,
                                 uint32_t b, const VkBufferMemoryBarrier *buffer_barriers, uint32_t i,
                                 const VkImageMemoryBarrier *images)
{
    (void)from;
    (void)to;
    (void)flags;
    (void)barriers;
    (void)barrier;
    (void)b;
    (void)buffer_barriers;
    (void)i;
    (void)images;
    check_recording(commands);
}

static void vkCmdCopyBuffer(VkCommandBuffer commands, VkBuffer from, VkBuffer to, uint32_t count,
                            const VkBufferCopy *region)
{
    (void)count;
    check_recording(commands);
    check(OBJECT(from), BUFFER);
    check(OBJECT(to), BUFFER);
    if (region->srcOffset + region->size > OBJECT(from)->size ||
        region->dstOffset + region->size > OBJECT(to)->size) {
        misuses++;
        return;
    }
    memcpy(OBJECT(to)->bytes + region->dstOffset, OBJECT(from)->bytes + region->srcOffset,
           (size_t)region->size);
}

static void vkCmdResetQueryPool(VkCommandBuffer commands, VkQueryPool pool, uint32_t first, uint32_t count)
{
    (void)first;
    (void)count;
    check_recording(commands);
    check(OBJECT(pool), QUERIES);
}

static void vkCmdWriteTimestamp(VkCommandBuffer commands, VkPipelineStageFlagBits stage, VkQueryPool pool,
                                uint32_t query)
{
    (void)stage;
    (void)query;
    check_recording(commands);
    check(OBJECT(pool), QUERIES);
}

static VkResult vkGetQueryPoolResults(VkDevice device, VkQueryPool pool, uint32_t first, uint32_t count,
                                      size_t size, void *data, VkDeviceSize stride, VkQueryResultFlags flags)
{
    (void)first;
    (void)count;
    (void)size;
    (void)stride;
    (void)flags;
    check(OBJECT(device), DEVICE);
    check(OBJECT(pool), QUERIES);
    MAY_FAIL();
    const uint64_t times[2] = {1000, 3000};
    memcpy(data, times, sizeof(times));
    return VK_SUCCESS;
}

static VkResult vkQueueSubmit(VkQueue queue, uint32_t count, const VkSubmitInfo *info, VkFence fence)
{
    (void)count;
    check(OBJECT(queue), QUEUE);
    check(OBJECT(info->pCommandBuffers[0]), COMMANDS);
    if (OBJECT(info->pCommandBuffers[0])->recording || (!fence && info->signalSemaphoreCount != 1))
        misuses++;
    if (fence)
        check(OBJECT(fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}

static VkResult vkWaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    (void)timeout;
    check(OBJECT(device), DEVICE);
    check(OBJECT(info->pSemaphores[0]), SEMAPHORE);
    MAY_FAIL();
    return VK_SUCCESS;
}

static VkResult vkWaitForFences(VkDevice device, uint32_t count, const VkFence *fence, VkBool32 all,
                                uint64_t timeout)
{
    (void)count;
    (void)all;
    (void)timeout;
    check(OBJECT(device), DEVICE);
    check(OBJECT(*fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}

static VkResult vkResetFences(VkDevice device, uint32_t count, const VkFence *fence)
{
    (void)count;
    check(OBJECT(device), DEVICE);
    check(OBJECT(*fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}

/* --- By name ----------------------------------------------------------------------------------------------- */

static PFN_vkVoidFunction find(const char *name);

static PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char *name)
{
    (void)device;
    return find(name);
}

EXPORT PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char *name);
EXPORT PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char *name)
{
    (void)instance;
    return find(name);
}

#include "backends/vulkan/loader.h"

static PFN_vkVoidFunction find(const char *name)
{
#define ENTRY(function) {#function, (PFN_vkVoidFunction)function},
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } all[] = {FA_VK_GLOBAL_FUNCTIONS(ENTRY) FA_VK_INSTANCE_FUNCTIONS(ENTRY) FA_VK_DEVICE_FUNCTIONS(ENTRY)
                   ENTRY(vkEnumerateInstanceVersion) ENTRY(vkGetBufferDeviceAddress) ENTRY(vkWaitSemaphores)};
#undef ENTRY
    if (strcmp(name, hidden) == 0)
        return NULL;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i].name, name) == 0)
            return all[i].function;
    }
    return NULL;
}
