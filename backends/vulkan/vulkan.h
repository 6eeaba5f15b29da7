/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the Vulkan backend share. Vulkan 1.1 is all that is needed; what later versions have is asked for. */
#ifndef FA_VULKAN_VULKAN_H
#define FA_VULKAN_VULKAN_H

#include <pthread.h>

#include "backends/gpu/kernels.h"
#include "backends/vulkan/loader.h"
#include "backends/vulkan/memory.h"
#include "core/backend.h"
#include "shaders/vulkan/constants.h"

/* What of a device the kernels depend on: as the driver tells it, lowered by FASTATTN_VULKAN_LIMITS. */
typedef struct fa_vk_caps {
    VkPhysicalDeviceType type;
    uint32_t version; /* the device's, or the instance's if that is less */
    uint32_t units;
    size_t local_bytes;  /* shared memory of a work-group                                  */
    size_t group_size;   /* most work-items of a work-group, in its first dimension too    */
    uint32_t groups[3];  /* most work-groups of a dispatch                                 */
    size_t range;        /* bytes behind one descriptor                                    */
    size_t alloc_bytes;  /* most bytes of one allocation                                   */
    size_t align;        /* of a descriptor's offset                                       */
    size_t buffers;      /* behind descriptors, most of a kernel                           */
    size_t loop_turns;   /* of all loops of a kernel, after which the driver ends them     */
    bool unified;        /* the host reaches all of the device's memory                    */
    bool near;           /* strides and places of keys may be numbers of 32 bits           */
    bool address;        /* buffers are reached by address, and not by descriptors         */
    bool timeline;       /* timeline semaphores                                            */
    bool subgroups;      /* shuffles in compute kernels                                    */
    bool full_subgroups; /* a kernel can ask for whole subgroups of a size                 */
    bool matrix;         /* cooperative matrices of 16 by 16 by 16, f16 and f32            */
    bool portability;    /* VK_KHR_portability_subset                                      */
    uint32_t subgroup_size;
    uint32_t family;         /* of queues                                                      */
    uint32_t queues;         /* of that family                                                 */
    uint32_t timestamp_bits; /* 0: queues are not timed                                        */
    double timestamp_seconds;
    char driver[256]; /* device, driver, versions: what a pipeline cache is good for */
} fa_vk_caps;

/* How a subgroup holds fragments: the values of FA_VK_LAYOUT_ROWS and what follows it. All 0: not known. */
typedef struct fa_vk_layout {
    uint32_t rows, slots, lanes, elements, columns;
} fa_vk_layout;

enum { FA_VK_MAX_QUEUES = 4 };

/* A queue of the driver's, which one thread at a time may use. */
typedef struct fa_vk_lane {
    VkQueue handle;
    pthread_mutex_t lock;
} fa_vk_lane;

/* device->impl */
typedef struct fa_vk_device {
    fa_vk_instance instance;
    fa_vk vk;
    VkPhysicalDevice physical;
    VkDevice handle;
    bool owned; /* ours to destroy */
    fa_vk_caps caps;
    fa_vk_lane lane[FA_VK_MAX_QUEUES];
    uint32_t lanes, next_lane;
    VkPhysicalDeviceMemoryProperties memory;
    VkDescriptorSetLayout set_layout; /* without addresses */
    VkPipelineLayout layout;
    fa_vk_layout fragments;
    pthread_mutex_t lock; /* of what follows */
    struct fa_vk_pipeline *pipelines;
    fa_vk_heap heap;
    fa_kernel kernels[FA_MAX_KERNELS];   /* what fa_device.kernel points to */
    fa_gpu_kernel impls[FA_MAX_KERNELS]; /* what the impl of those points to */
} fa_vk_device;

static inline fa_vk_device *fa_vk_device_of(const fa_device *device)
{
    return device->impl;
}

/* buffer->impl. fa_buffer.storage is the VkBuffer, fa_buffer.address the offset in it. */
typedef struct fa_vk_buffer {
    VkBuffer handle;   /* VK_NULL_HANDLE where the size is 0 */
    uint64_t address;  /* of the VkBuffer's first byte; 0 without addresses */
    size_t origin;     /* where the fa_buffer begins in it */
    size_t bytes;      /* of the VkBuffer */
    char *mapped;      /* the VkBuffer's first byte; NULL: not reachable */
    fa_vk_piece piece; /* of the device's memory; nothing where the caller's is wrapped */
} fa_vk_buffer;

/* device.c */
extern const fa_backend fa_backend_vulkan;

/* buffer.c: entries of the vtable */
fa_status fa_vk_buffer_create(fa_buffer *buffer);
/* The caller's VkBuffer; storage and address are the caller's to set. */
fa_status fa_vk_buffer_wrap_handle(fa_buffer *buffer, VkBuffer handle, size_t bytes, size_t origin);
/* Memory that the host reaches, whatever the device's own is. */
fa_status fa_vk_staging_create(fa_buffer *buffer);
void fa_vk_buffer_destroy(fa_buffer *buffer);
/* A buffer of the backend's own, by one of the two functions that create one; and its end. NULL is fine there. */
fa_status fa_vk_buffer_make(fa_device *device, size_t size, fa_status (*create)(fa_buffer *buffer),
                            fa_buffer **buffer);
void fa_vk_buffer_drop(fa_buffer *buffer);

/* transfer.c: entries of the vtable */
fa_status fa_vk_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size);
fa_status fa_vk_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size);

/* error.c */

/* What a result of a Vulkan call means: FA_OUT_OF_MEMORY, FA_UNSUPPORTED or FA_DEVICE_LOST (all else), with
 * "CALL: NAME (number)". */
fa_status fa_vk_fail(VkResult result, const char *call);
const char *fa_vk_error_name(VkResult result);

#endif
