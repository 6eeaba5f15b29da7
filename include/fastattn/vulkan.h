/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own Vulkan instance, device, queues, command buffers and memory, used in place. This header does not
 * include vulkan.h. It declares the structs that Vulkan's handles point to, and takes a VkBuffer as a 64-bit integer,
 * since it is one on 32-bit machines.
 *
 * These functions exist in every build. In a library that was built without Vulkan, they return FA_UNSUPPORTED. If
 * Vulkan itself fails, they return FA_OUT_OF_MEMORY or FA_DEVICE_LOST, and the message names the call. Vulkan cannot
 * tell a wrong handle from a right one. Handles must be valid, and must outlive what is made of them.
 * examples/vulkan_commands.c uses all of this.
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

/**
 * What the caller's device was created with. None is required; each makes faster or more general kernels available.
 * Set only what was enabled.
 */
enum {
    FA_VULKAN_BUFFER_DEVICE_ADDRESS = 1 << 0, /* bufferDeviceAddress */
    FA_VULKAN_INT64 = 1 << 1,                 /* shaderInt64; without it addresses are not used */
    FA_VULKAN_TIMELINE = 1 << 2,              /* timelineSemaphore */
    FA_VULKAN_SUBGROUP_SIZE_CONTROL = 1 << 3, /* subgroupSizeControl and computeFullSubgroups */
    /** cooperativeMatrix, shaderFloat16, shaderInt16, storageBuffer16BitAccess and vulkanMemoryModel */
    FA_VULKAN_COOPERATIVE_MATRIX = 1 << 4,
    FA_VULKAN_NOTHING = 1 << 30 /* none of these */
};

/** The caller's device. */
typedef struct fa_vulkan_device_desc {
    size_t struct_size; /* sizeof(fa_vulkan_device_desc) */
    struct VkInstance_T *instance;
    struct VkPhysicalDevice_T *physical_device;
    struct VkDevice_T *device;
    uint32_t api_version; /* that the instance was made with, such as VK_API_VERSION_1_2; at least 1.1 */
    /** A family with compute. Queue 0 of it must exist: fa_queue_create() uses that one. */
    uint32_t queue_family;
    uint32_t features; /* FA_VULKAN_* bits; at least one */
    /** The loader that made the instance. NULL: fastattn's, libvulkan.so.1 or what FASTATTN_VULKAN_LIBRARY names. */
    void (*(*get_instance_proc_addr)(struct VkInstance_T *, const char *))(void);
} fa_vulkan_device_desc;

/**
 * Opens the caller's device, which must outlive the fa_device. Close that with fa_device_close(). *device is NULL on
 * failure. FA_INVALID: NULL, or a wrong struct_size, api_version or features. FA_NO_DEVICE: the device cannot run
 * fastattn's kernels; the message says why. Thread-safe.
 */
FA_API fa_status fa_device_open_vulkan(fa_context *context, const fa_vulkan_device_desc *desc,
                                       fa_device **device);

/**
 * Makes a queue of the caller's VkQueue, which is of the family that the device was opened with. Runs and copies are
 * submitted to it in turn with the caller's own work. No other thread may use it at the same time. Destroy with
 * fa_queue_destroy(), which waits for what was submitted through the fa_queue. *queue is NULL on failure. FA_INVALID:
 * NULL, or a device of another backend.
 */
FA_API fa_status fa_queue_wrap_vulkan(fa_device *device, struct VkQueue_T *vk_queue, fa_queue **queue);

/**
 * Makes a queue that records runs into the caller's command buffer and submits nothing. The command buffer must be in
 * the recording state. Each run begins with a barrier that waits for earlier compute and transfer commands. The caller
 * makes its results visible to later commands, by a barrier of its own. The command buffer may be executed any number
 * of times, as long as the fa_queue, the plans and the buffers live.
 *
 * On such a queue, fa_buffer_write(), fa_buffer_read() and fa_queue_seconds() are FA_UNSUPPORTED, and fa_queue_wait()
 * returns at once. Destroy with fa_queue_destroy(). *queue is NULL on failure. FA_INVALID: NULL, or a device of another
 * backend.
 */
FA_API fa_status fa_queue_record_vulkan(fa_device *device, struct VkCommandBuffer_T *vk_command_buffer,
                                        fa_queue **queue);

/**
 * Makes a buffer of `size` bytes of the caller's VkBuffer of `vk_size` bytes, from byte `offset` on. A size of 0 means
 * all that follows. `offset` is a multiple of 64. A tensor that begins elsewhere has its offset in fa_attention_args.
 * Destroy with fa_buffer_destroy().
 *
 * The VkBuffer is bound to memory. It has the usages STORAGE_BUFFER, TRANSFER_SRC and TRANSFER_DST, and
 * SHADER_DEVICE_ADDRESS if the device was opened with FA_VULKAN_BUFFER_DEVICE_ADDRESS. A run that would overwrite its
 * own input is refused, also between wraps of one VkBuffer. Work (fa_plan_schedule()) lies at a multiple of the device's
 * minStorageBufferOffsetAlignment, counted from the first byte of the VkBuffer; with FA_VULKAN_BUFFER_DEVICE_ADDRESS it
 * need not. *buffer is NULL on failure. FA_INVALID: NULL, or a range
 * outside the VkBuffer.
 */
FA_API fa_status fa_buffer_wrap_vulkan(fa_device *device, uint64_t vk_buffer, size_t vk_size, size_t offset,
                                       size_t size, fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
