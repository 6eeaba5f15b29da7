/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the stub share. */
#ifndef FASTATTN_TESTS_VULKAN_STUB_INTERNAL_H
#define FASTATTN_TESTS_VULKAN_STUB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/loader.h"
#include "tests/vulkan/stub.h"

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

/* Handles are pointers here, as on every 64-bit machine; the test is built for no other. */
#define OBJECT(handle) ((object *)(void *)(handle))

enum { STUB_BUFFERS = 1024 };

typedef struct stub_state {
    pthread_mutex_t lock;
    atomic_long live, misuses, dispatches, compiles;
    VkPhysicalDeviceType device_type;
    uint32_t device_version, device_count;
    object *buffers[STUB_BUFFERS]; /* that have memory */
} stub_state;
extern stub_state stub;

/* What a call is to return: see stub_fail(). */
VkResult stub_result(const char *function);

#define MAY_FAIL()                                \
    do {                                          \
        VkResult result_ = stub_result(__func__); \
        if (result_ != VK_SUCCESS)                \
            return result_;                       \
    } while (0)

object *stub_make(object_kind of);
void stub_check(const object *o, object_kind of);
void stub_drop(object *o, object_kind of);

/* Memory for an object of that kind. False: there is none. */
bool stub_allocate(object *o, size_t size);

/* Every function of the driver. */
#define STUB_FUNCTIONS(X)       \
    FA_VK_GLOBAL_FUNCTIONS(X)   \
    FA_VK_INSTANCE_FUNCTIONS(X) \
    FA_VK_DEVICE_FUNCTIONS(X)   \
    X(vkEnumerateInstanceVersion) X(vkGetBufferDeviceAddress) X(vkWaitSemaphores)
#define STUB_DECLARE(name) __typeof__(*(PFN_##name)NULL) name;
STUB_FUNCTIONS(STUB_DECLARE)
#undef STUB_DECLARE

#endif
