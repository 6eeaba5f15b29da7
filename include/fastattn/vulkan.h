/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own Vulkan instance, device, queues, command buffers and memory, used in place. vulkan.h is not included:
 * its handle types are pointers to the structs declared here, and a VkBuffer is passed as a 64-bit integer, as it is one
 * on 32-bit machines.
 *
 * The functions are always there; all are FA_UNSUPPORTED in a library that was built without Vulkan. Failures of Vulkan
 * itself are FA_OUT_OF_MEMORY or FA_DEVICE_LOST and name the call. Vulkan cannot tell a wrong handle from a right one:
 * handles must be valid, and outlive what is made of them.
 */
#ifndef FASTATTN_VULKAN_H
#define FASTATTN_VULKAN_H

#include "buffer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct VkInstance_T;
struct VkPhysicalDevice_T;
struct VkDevice_T;
struct VkQueue_T;
struct VkCommandBuffer_T;

/** What a caller's device was created with. More makes faster or more general kernels available; none is required. */
enum {
    FA_VULKAN_BUFFER_DEVICE_ADDRESS = 1 << 0, /* bufferDeviceAddress */
    FA_VULKAN_INT64 = 1 << 1,                 /* shaderInt64, without which addresses are not used */
    FA_VULKAN_TIMELINE = 1 << 2,              /* timelineSemaphore */
    FA_VULKAN_SUBGROUP_SIZE_CONTROL = 1 << 3, /* subgroupSizeControl and computeFullSubgroups */
    /** cooperativeMatrix, shaderFloat16, shaderInt16, storageBuffer16BitAccess and vulkanMemoryModel */
    FA_VULKAN_COOPERATIVE_MATRIX = 1 << 4,
    FA_VULKAN_NOTHING = 1 << 30 /* none of these */
};

typedef struct fa_vulkan_device_desc {
    size_t struct_size; /* sizeof(fa_vulkan_device_desc) */
    struct VkInstance_T *instance;
    struct VkPhysicalDevice_T *physical_device;
    struct VkDevice_T *device;
    uint32_t api_version; /* that the instance was made with, such as VK_API_VERSION_1_2; at least 1.1 */
    /** One with compute. Its queue 0 must exist; queues of fa_queue_create() use it. */
    uint32_t queue_family;
    uint32_t features; /* FA_VULKAN_* bits; at least one */
    /** Of the loader that made the instance; NULL: fastattn's, libvulkan.so.1 or what FASTATTN_VULKAN_LIBRARY names. */
    void (*(*get_instance_proc_addr)(struct VkInstance_T *, const char *))(void);
} fa_vulkan_device_desc;

/**
 * Opens the caller's device, which must outlive it; close with fa_device_close(). FA_INVALID: NULL, a struct_size, an
 * api_version or features that are off. FA_NO_DEVICE: it cannot run fastattn's kernels, and the message says why.
 * *device is NULL then.
 */
FA_API fa_status fa_device_open_vulkan(fa_context *context, const fa_vulkan_device_desc *desc,
                                       fa_device **device);

/**
 * Makes a queue of the caller's VkQueue, of the family that the device was opened with. Runs and copies are submitted to
 * it in turn with the caller's own work; no other thread may use it meanwhile. FA_INVALID: NULL, or a device of another
 * backend. *queue is NULL then. Destroy with fa_queue_destroy(), which waits for what was submitted through it.
 */
FA_API fa_status fa_queue_wrap_vulkan(fa_device *device, struct VkQueue_T *vk_queue, fa_queue **queue);

/**
 * Makes a queue that records runs into the caller's command buffer, which must be in the recording state, and submits
 * nothing. Each run begins with a barrier that waits for earlier compute and transfer commands; making its results
 * visible to later commands is the caller's. The command buffer may be executed any number of times, as long as the fa_queue,
 * the plans and the buffers live. fa_buffer_write(), fa_buffer_read() and fa_queue_seconds() are FA_UNSUPPORTED on it,
 * and fa_queue_wait() returns at once. FA_INVALID: NULL, or a device of another backend. *queue is NULL then.
 */
FA_API fa_status fa_queue_record_vulkan(fa_device *device, struct VkCommandBuffer_T *vk_command_buffer,
                                        fa_queue **queue);

/**
 * Makes a buffer of `size` bytes behind `offset` of the caller's VkBuffer of `vk_size` bytes; size 0 is all that follows.
 * `offset` is a multiple of 64. The VkBuffer is bound to memory and has the usages STORAGE_BUFFER, TRANSFER_SRC and
 * TRANSFER_DST, and SHADER_DEVICE_ADDRESS where the device was opened with FA_VULKAN_BUFFER_DEVICE_ADDRESS. Runs that
 * would overwrite their own input are refused between wraps of one VkBuffer too. FA_INVALID: NULL, or a range outside
 * it. *buffer is NULL then. Destroy with fa_buffer_destroy().
 */
FA_API fa_status fa_buffer_wrap_vulkan(fa_device *device, uint64_t vk_buffer, size_t vk_size, size_t offset,
                                       size_t size, fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
