/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <sys/mman.h>

#include "tests/vulkan/stub_internal.h"

enum { PAGES_FROM = 1 << 20, PAGE = 1 << 16 };

stub_state stub = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .device_type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    .device_version = VK_API_VERSION_1_3,
    .device_count = 1,
};
static char failing[64], hidden[64];
static int failing_nth;
static VkResult failing_result;
static bool has_failed;

EXPORT void stub_fail(const char *function, int nth, VkResult result)
{
    (void)pthread_mutex_lock(&stub.lock);
    strncpy(failing, function ? function : "", sizeof(failing) - 1);
    failing_nth = nth;
    failing_result = result;
    has_failed = false;
    (void)pthread_mutex_unlock(&stub.lock);
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
    stub.device_type = type;
    stub.device_version = api_version;
}

EXPORT void stub_set_devices(uint32_t count)
{
    stub.device_count = count;
}

EXPORT long stub_live(void)
{
    return stub.live;
}

EXPORT long stub_misuses(void)
{
    return stub.misuses;
}

EXPORT long stub_compiles(void)
{
    return stub.compiles;
}

EXPORT long stub_dispatches(void)
{
    return stub.dispatches;
}

VkResult stub_result(const char *function)
{
    VkResult result = VK_SUCCESS;
    (void)pthread_mutex_lock(&stub.lock);
    if (strcmp(failing, function) == 0 && --failing_nth == 0) {
        result = failing_result;
        has_failed = true;
    }
    (void)pthread_mutex_unlock(&stub.lock);
    return result;
}

object *stub_make(object_kind of)
{
    object *made = calloc(1, sizeof(*made));
    made->kind = of;
    stub.live++;
    return made;
}

/*
 * Each plan allocates two blocks of 32 MiB. Those are pages of their own, which cost nothing until they are touched, where a
 * sanitizer would mark all of a malloc(): one that cannot be touched follows what was asked for, and none of them is left
 * when they are freed. What is in them is undefined, as on a device.
 */
static size_t pages_of(size_t size)
{
    return size < PAGES_FROM ? 0 : (size + PAGE - 1) / PAGE * PAGE;
}

bool stub_allocate(object *o, size_t size)
{
    size_t pages = pages_of(size);
    o->size = size;
    if (pages == 0) {
        o->bytes = malloc(size);
        return o->bytes != NULL;
    }
    char *made = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return false;
    o->bytes = made;
    return mprotect(made + pages, PAGE, PROT_NONE) == 0;
}

static void release(object *o)
{
    size_t pages = pages_of(o->size);
    if (pages == 0)
        free(o->bytes);
    else if (o->bytes)
        (void)munmap(o->bytes, pages + PAGE);
}

void stub_check(const object *o, object_kind of)
{
    if (!o || o->kind != of)
        stub.misuses++;
}

void stub_drop(object *o, object_kind of)
{
    if (!o)
        return;
    stub_check(o, of);
    if (o->kind != of)
        return;
    for (int i = 0; i < o->children; i++) {
        free(o->child[i]);
        stub.live--;
    }
    o->kind = (object_kind)0;
    if (of == MEMORY)
        release(o);
    free(o);
    stub.live--;
}

/* --- By name ----------------------------------------------------------------------------------------------- */

static PFN_vkVoidFunction find(const char *name);

PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char *name)
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

static PFN_vkVoidFunction find(const char *name)
{
#define ENTRY(function) {#function, (PFN_vkVoidFunction)function},
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } all[] = {STUB_FUNCTIONS(ENTRY)};
#undef ENTRY
    if (strcmp(name, hidden) == 0)
        return NULL;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i].name, name) == 0)
            return all[i].function;
    }
    return NULL;
}
