/* SPDX-License-Identifier: Apache-2.0 */
/* Command buffers in flight. */
#ifndef FA_VULKAN_QUEUE_H
#define FA_VULKAN_QUEUE_H

#include "backends/vulkan/vulkan.h"

enum { FA_VK_SLOTS_IN_FLIGHT = 8, FA_VK_RECORDED_SETS = 64 };

/* A command buffer with what it needs until it has run. */
typedef struct fa_vk_slot {
    VkCommandBuffer commands;
    VkDescriptorSet set; /* none with addresses */
    VkFence fence;       /* none with a timeline */
    uint64_t value;      /* of the timeline once it has run */
    bool pending;
    bool timed;
    uint32_t query; /* the first of two */
} fa_vk_slot;

/* queue->impl */
typedef struct fa_vk_queue {
    fa_vk_lane *lane; /* NULL: a queue that records */
    fa_vk_lane own;   /* the caller's queue */
    VkCommandPool pool;
    VkDescriptorPool sets;
    VkSemaphore timeline;
    uint64_t submitted; /* the timeline's last value */
    VkQueryPool queries;
    fa_vk_slot slot[FA_VK_SLOTS_IN_FLIGHT];
    int next, last_run; /* slots; last_run is -1 before the first */
    fa_buffer *staging;
    VkCommandBuffer recording; /* the caller's */
    uint32_t recorded;         /* runs in it, each with a set of its own */
} fa_vk_queue;

fa_status fa_vk_queue_create(fa_queue *queue);
/* Of the caller's VkQueue, or of a command buffer. */
fa_status fa_vk_queue_wrap(fa_queue *queue, VkQueue handle);
fa_status fa_vk_queue_record(fa_queue *queue, VkCommandBuffer commands);
fa_status fa_vk_queue_wait(fa_queue *queue);
fa_status fa_vk_queue_seconds(fa_queue *queue, double *seconds);
void fa_vk_queue_destroy(fa_queue *queue);
/* FA_UNSUPPORTED of one that records. */
fa_status fa_vk_queue_check(const fa_queue *queue);

/* A slot whose commands are being recorded: the oldest, waited for. Only runs are timed. */
fa_status fa_vk_queue_begin(fa_queue *queue, bool is_run, fa_vk_slot **slot);
fa_status fa_vk_queue_submit(fa_queue *queue, fa_vk_slot *slot);
/* A set for the next run that a recording queue records; VK_NULL_HANDLE with addresses. */
fa_status fa_vk_queue_next_set(fa_queue *queue, VkDescriptorSet *set);

/* Memory that the host reaches, for transfers. */
enum { FA_VK_STAGING_BYTES = 4 << 20 };
fa_status fa_vk_queue_staging(fa_queue *queue, fa_buffer **staging);

#endif
