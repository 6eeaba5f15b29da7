/* SPDX-License-Identifier: Apache-2.0 */
/* A program with its own Vulkan instance, device, queue, command buffer and memory, on whatever driver there is. */
#include <dlfcn.h>
#include <fastattn/reference.h>
#include <fastattn/vulkan.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/loader.h"
#include "tests/unit/helpers.h"

enum { HEADS = 2, ROWS = 37, KEYS = 53, DIM = 32, Q = 0, K = 1, V = 2, O = 3, TENSORS = 4 };
enum { ELEMENTS = HEADS * KEYS * DIM, BYTES = ELEMENTS * (int)sizeof(float), OUTPUTS = HEADS * ROWS * DIM };

static PFN_vkGetInstanceProcAddr entry;
static fa_vk_instance instance;
static fa_vk vk;
static VkPhysicalDevice physical;

/* The caller's, made before each test. */
static VkDevice own_device;
static VkQueue own_queue;
static VkBuffer own_buffer[TENSORS];
static VkDeviceMemory own_memory[TENSORS];
static float *mapped[TENSORS];
static VkCommandPool own_pool;

/* fastattn's, of the above. */
static fa_device *device;
static fa_buffer *buffer[TENSORS];
static fa_plan *plan;
static fa_attention_desc desc;

/* Why there is nothing to test with; NULL: there is. */
static const char *load(void)
{
    static char reason[256];
    const char *forced = getenv("FASTATTN_VULKAN_LIBRARY");
    void *library = dlopen(forced && forced[0] ? forced : "libvulkan.so.1", RTLD_NOW);
    void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
    if (!symbol)
        return "no libvulkan.so.1";
    memcpy(&entry, &symbol, sizeof(entry));
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)entry(NULL, "vkCreateInstance");
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_2};
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                       .pApplicationInfo = &application};
    VkInstance made;
    uint32_t count = 1;
    if (!create || create(&info, NULL, &made) != VK_SUCCESS)
        return "no Vulkan instance";
    if (!fa_vk_load_instance(made, entry, VK_API_VERSION_1_2, &instance, reason, sizeof(reason)))
        return reason;
    VkResult result = instance.vkEnumeratePhysicalDevices(made, &count, &physical);
    return (result == VK_SUCCESS || result == VK_INCOMPLETE) && count == 1 ? NULL : "no Vulkan device";
}

/* With or without what fastattn can make use of. */
static void make_device(bool features)
{
    char reason[256];
    const float priority = 1;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, .timelineSemaphore = VK_TRUE};
    VkPhysicalDeviceBufferDeviceAddressFeatures address = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
        .pNext = &timeline,
        .bufferDeviceAddress = VK_TRUE};
    const VkPhysicalDeviceFeatures core = {.shaderInt64 = features};
    const VkDeviceQueueCreateInfo queues = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = features ? &address : NULL,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queues,
                                     .pEnabledFeatures = &core};
    ck_assert_int_eq(instance.vkCreateDevice(physical, &info, NULL, &own_device), VK_SUCCESS);
    ck_assert_msg(fa_vk_load_device(&instance, own_device, &vk, reason, sizeof(reason)), "%s", reason);
    vk.vkGetDeviceQueue(own_device, 0, 0, &own_queue);
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    ck_assert_int_eq(vk.vkCreateCommandPool(own_device, &pool, NULL, &own_pool), VK_SUCCESS);
}

static uint32_t host_type(uint32_t types)
{
    const VkMemoryPropertyFlags wanted =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VkPhysicalDeviceMemoryProperties memory_types;
    instance.vkGetPhysicalDeviceMemoryProperties(physical, &memory_types);
    for (uint32_t i = 0; i < memory_types.memoryTypeCount; i++) {
        if ((types >> i & 1) && (memory_types.memoryTypes[i].propertyFlags & wanted) == wanted)
            return i;
    }
    return 0;
}

static void make_buffer(int t, bool features)
{
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = BYTES,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (features ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : (VkBufferUsageFlags)0)};
    ck_assert_int_eq(vk.vkCreateBuffer(own_device, &info, NULL, &own_buffer[t]), VK_SUCCESS);
    VkMemoryRequirements needs;
    vk.vkGetBufferMemoryRequirements(own_device, own_buffer[t], &needs);
    const VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                             .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    const VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                           .pNext = features ? &flags : NULL,
                                           .allocationSize = needs.size,
                                           .memoryTypeIndex = host_type(needs.memoryTypeBits)};
    ck_assert_int_eq(vk.vkAllocateMemory(own_device, &allocate, NULL, &own_memory[t]), VK_SUCCESS);
    ck_assert_int_eq(vk.vkBindBufferMemory(own_device, own_buffer[t], own_memory[t], 0), VK_SUCCESS);
    void *at;
    ck_assert_int_eq(vk.vkMapMemory(own_device, own_memory[t], 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    mapped[t] = at;
}

static fa_vulkan_device_desc device_desc(bool features)
{
    return (fa_vulkan_device_desc){
        .struct_size = sizeof(fa_vulkan_device_desc),
        .instance = instance.handle,
        .physical_device = physical,
        .device = own_device,
        .api_version = VK_API_VERSION_1_2,
        .features = features
                        ? (uint32_t)(FA_VULKAN_BUFFER_DEVICE_ADDRESS | FA_VULKAN_INT64 | FA_VULKAN_TIMELINE)
                        : (uint32_t)FA_VULKAN_NOTHING,
    };
}

static void set_up(bool features)
{
    random_state random = {7};
    make_device(features);
    const fa_vulkan_device_desc d = device_desc(features);
    ck_assert_msg(fa_device_open_vulkan(context, &d, &device) == FA_OK, "%s", fa_last_error());
    for (int t = 0; t < TENSORS; t++) {
        make_buffer(t, features);
        for (int i = 0; i < ELEMENTS; i++)
            mapped[t][i] = random_float(&random, -1, 1);
        ck_assert_msg(fa_buffer_wrap_vulkan(device, (uint64_t)(uintptr_t)own_buffer[t], BYTES, 0, 0,
                                            &buffer[t]) == FA_OK,
                      "%s", fa_last_error());
        ck_assert_uint_eq(fa_buffer_size(buffer[t]), BYTES);
    }
    desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    ck_assert_msg(fa_plan_create(device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_uint_eq(fa_plan_workspace(plan), 0);
}

static void tear_down(void)
{
    fa_plan_destroy(plan);
    for (int t = 0; t < TENSORS; t++) {
        fa_buffer_destroy(buffer[t]);
        vk.vkDestroyBuffer(own_device, own_buffer[t], NULL);
        vk.vkFreeMemory(own_device, own_memory[t], NULL);
    }
    fa_device_close(device);
    vk.vkDestroyCommandPool(own_device, own_pool, NULL);
    vk.vkDestroyDevice(own_device, NULL);
}

static const fa_attention_args *arguments(void)
{
    static fa_attention_args args;
    args = (fa_attention_args){
        .struct_size = sizeof(args), .q = buffer[Q], .k = buffer[K], .v = buffer[V], .o = buffer[O]};
    return &args;
}

/* What the caller's memory holds is the attention of what it held. */
static void check_output(void)
{
    static double expected[OUTPUTS];
    const fa_inputs inputs = {.q = mapped[Q], .k = mapped[K], .v = mapped[V]};
    ck_assert_msg(fa_reference_attention(context, &desc, &inputs, expected, NULL) == FA_OK, "%s",
                  fa_last_error());
    for (int i = 0; i < OUTPUTS; i++)
        ck_assert_msg(fabs(mapped[O][i] - expected[i]) < 2e-6, "o[%d] is %g, expected %g", i,
                      (double)mapped[O][i], expected[i]);
}

START_TEST(in_the_callers_queue)
{
    fa_queue *queue = NULL;
    set_up(_i);
    ck_assert_msg(fa_queue_wrap_vulkan(device, own_queue, &queue) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_run(plan, queue, arguments()) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_queue_wait(queue) == FA_OK, "%s", fa_last_error());
    check_output();
    static float copied[ELEMENTS], other[ELEMENTS];
    ck_assert_msg(fa_buffer_read(queue, buffer[O], 0, copied, BYTES) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(memcmp(copied, mapped[O], BYTES), 0);
    for (int i = 0; i < ELEMENTS; i++)
        other[i] = (float)i / ELEMENTS;
    ck_assert_msg(fa_buffer_write(queue, buffer[V], 0, other, BYTES) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_run(plan, queue, arguments()) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_queue_wait(queue) == FA_OK, "%s", fa_last_error());
    check_output();
    fa_queue_destroy(queue);
    tear_down();
}
END_TEST

static VkCommandBuffer begin_commands(void)
{
    VkCommandBuffer commands;
    const VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                  .commandPool = own_pool,
                                                  .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                                  .commandBufferCount = 1};
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    ck_assert_int_eq(vk.vkAllocateCommandBuffers(own_device, &allocate, &commands), VK_SUCCESS);
    ck_assert_int_eq(vk.vkBeginCommandBuffer(commands, &begin), VK_SUCCESS);
    return commands;
}

static void submit_and_wait(VkCommandBuffer commands)
{
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
    VkFence done;
    ck_assert_int_eq(vk.vkCreateFence(own_device, &info, NULL, &done), VK_SUCCESS);
    ck_assert_int_eq(vk.vkQueueSubmit(own_queue, 1, &submit, done), VK_SUCCESS);
    ck_assert_int_eq(vk.vkWaitForFences(own_device, 1, &done, VK_TRUE, UINT64_MAX), VK_SUCCESS);
    vk.vkDestroyFence(own_device, done, NULL);
}

START_TEST(in_the_callers_command_buffer)
{
    fa_queue *queue = NULL;
    double seconds;
    static float unused[ELEMENTS];
    set_up(_i);
    VkCommandBuffer commands = begin_commands();
    ck_assert_msg(fa_queue_record_vulkan(device, commands, &queue) == FA_OK, "%s", fa_last_error());
    /* The second reads what the first wrote: q is its output. */
    fa_attention_args again = *arguments();
    ck_assert_msg(fa_plan_run(plan, queue, arguments()) == FA_OK, "%s", fa_last_error());
    again.q = buffer[O];
    again.o = buffer[Q];
    ck_assert_msg(fa_plan_run(plan, queue, &again) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_write(queue, buffer[V], 0, unused, BYTES), FA_UNSUPPORTED);
    ck_assert_int_eq(fa_buffer_read(queue, buffer[V], 0, unused, BYTES), FA_UNSUPPORTED);
    ck_assert_int_eq(fa_queue_seconds(queue, &seconds), FA_UNSUPPORTED);
    assert_message("records");
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    ck_assert_int_eq(vk.vkEndCommandBuffer(commands), VK_SUCCESS);
    static float first_q[ELEMENTS], second_q[OUTPUTS];
    memcpy(first_q, mapped[Q], BYTES);
    submit_and_wait(commands);
    memcpy(second_q, mapped[Q], sizeof(second_q));
    memcpy(mapped[Q], first_q, BYTES);
    check_output();
    /* Once more with q and o in each other's place. */
    memcpy(mapped[Q], mapped[O], sizeof(second_q));
    memcpy(mapped[O], second_q, sizeof(second_q));
    check_output();
    fa_queue_destroy(queue);
    tear_down();
}
END_TEST

/* Rows of v become keys, and are attended to in the same command buffer. */
START_TEST(an_append_in_the_callers_command_buffer)
{
    static const int32_t slots[] = {5, 1};
    fa_queue *recorder = NULL, *queue = NULL;
    fa_append *append = NULL;
    set_up(_i);
    fa_append_desc d = {.struct_size = sizeof(d), .k = desc.v, .cache_k = desc.k};
    d.k.shape[2] = COUNT(slots);
    for (int axis = 3, stride = 1; axis >= 0; axis--) {
        d.k.stride[axis] = stride;
        stride *= (int)desc.v.shape[axis];
    }
    fa_append_args args = {.struct_size = sizeof(args), .k = buffer[V], .cache_k = buffer[K]};
    ck_assert_msg(fa_append_create(device, &d, &append) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wrap_vulkan(device, own_queue, &queue), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, sizeof(slots), &args.slots), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, args.slots, 0, slots, sizeof(slots)), FA_OK);
    VkCommandBuffer commands = begin_commands();
    ck_assert_int_eq(fa_queue_record_vulkan(device, commands, &recorder), FA_OK);
    ck_assert_msg(fa_append_run(append, recorder, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_run(plan, recorder, arguments()) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(vk.vkEndCommandBuffer(commands), VK_SUCCESS);
    submit_and_wait(commands);
    for (int i = 0; i < COUNT(slots); i++)
        ck_assert_mem_eq(mapped[K] + slots[i] * d.k.stride[2], mapped[V] + i * d.k.stride[2],
                         (size_t)d.k.stride[2] * sizeof(float));
    check_output();
    fa_append_destroy(append);
    fa_queue_destroy(recorder);
    fa_queue_destroy(queue);
    fa_buffer_destroy(args.slots);
    tear_down();
}
END_TEST

/* Recorded once, submitted with one length of the cache after the other. */
START_TEST(commands_are_replayed_with_other_lengths)
{
    static const int64_t lengths[] = {KEYS, 1, 20, 0, 52};
    fa_queue *recorder = NULL, *queue = NULL;
    fa_plan *dynamic = NULL;
    fa_buffer *work = NULL, *workspace = NULL;
    set_up(_i);
    desc.dynamic_lengths = 1;
    ck_assert_msg(fa_plan_create(device, &desc, &dynamic) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(dynamic), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(dynamic), &workspace), FA_OK);
    ck_assert_int_eq(fa_queue_wrap_vulkan(device, own_queue, &queue), FA_OK);
    VkCommandBuffer commands = begin_commands();
    ck_assert_int_eq(fa_queue_record_vulkan(device, commands, &recorder), FA_OK);
    fa_attention_args args = *arguments();
    args.work = work;
    args.workspace = workspace;
    ck_assert_msg(fa_plan_run(dynamic, recorder, &args) == FA_OK, "%s", fa_last_error());
    fa_lengths now = {.struct_size = sizeof(now)};
    ck_assert_int_eq(fa_plan_schedule(dynamic, recorder, &now, work, 0), FA_UNSUPPORTED);
    ck_assert_int_eq(vk.vkEndCommandBuffer(commands), VK_SUCCESS);
    for (int i = 0; i < COUNT(lengths); i++) {
        now.lens_kv = desc.lens_kv = &lengths[i];
        ck_assert_msg(fa_plan_schedule(dynamic, queue, &now, work, 0) == FA_OK, "%s", fa_last_error());
        memset(mapped[O], 0xff, BYTES);
        submit_and_wait(commands);
        check_output();
    }
    fa_queue_destroy(recorder);
    fa_queue_destroy(queue);
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_plan_destroy(dynamic);
    tear_down();
}
END_TEST

/* Recorded once with what makes its work: the host writes lengths for the device to read, and learns no schedule. */
START_TEST(commands_read_their_lengths)
{
    static const int64_t most[] = {KEYS};
    static const int32_t lengths[] = {KEYS, 1, 20, 0, 52};
    fa_queue *recorder = NULL, *queue = NULL;
    fa_plan *dynamic = NULL;
    fa_buffer *work = NULL, *workspace = NULL, *lens = NULL;
    set_up(_i);
    desc.dynamic_lengths = 2;
    desc.lens_kv = most;
    ck_assert_msg(fa_plan_create(device, &desc, &dynamic) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(dynamic), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(dynamic), &workspace), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, 2 * sizeof(int32_t), &lens), FA_OK);
    ck_assert_int_eq(fa_queue_wrap_vulkan(device, own_queue, &queue), FA_OK);
    VkCommandBuffer commands = begin_commands();
    ck_assert_int_eq(fa_queue_record_vulkan(device, commands, &recorder), FA_OK);
    fa_attention_args args = *arguments();
    args.work = work;
    args.workspace = workspace;
    const fa_device_lengths now = {
        .struct_size = sizeof(now), .lens_kv = lens, .lens_kv_offset = sizeof(int32_t)};
    ck_assert_msg(fa_plan_schedule_device(dynamic, recorder, &now, work, 0) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_run(dynamic, recorder, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(vk.vkEndCommandBuffer(commands), VK_SUCCESS);
    for (int i = 0; i < COUNT(lengths); i++) {
        const int64_t keys = lengths[i];
        ck_assert_int_eq(fa_buffer_write(queue, lens, sizeof(int32_t), &lengths[i], sizeof(int32_t)), FA_OK);
        memset(mapped[O], 0xff, BYTES);
        submit_and_wait(commands);
        desc.lens_kv = &keys;
        check_output();
    }
    fa_queue_destroy(recorder);
    fa_queue_destroy(queue);
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(lens);
    fa_plan_destroy(dynamic);
    tear_down();
}
END_TEST

START_TEST(mistakes_are_named)
{
    fa_queue *queue = NULL;
    fa_buffer *made = NULL;
    fa_device *other = NULL;
    set_up(true);
    const uint64_t handle = (uint64_t)(uintptr_t)own_buffer[Q];
    ck_assert_int_eq(fa_queue_wrap_vulkan(device, NULL, &queue), FA_INVALID);
    assert_message("vk_queue is NULL");
    ck_assert_int_eq(fa_queue_record_vulkan(NULL, NULL, &queue), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_buffer_wrap_vulkan(device, 0, BYTES, 0, 0, &made), FA_INVALID);
    assert_message("vk_buffer is NULL");
    ck_assert_int_eq(fa_buffer_wrap_vulkan(device, handle, BYTES, 4, 0, &made), FA_INVALID);
    assert_message("offset is 4, expected a multiple of 64");
    ck_assert_int_eq(fa_buffer_wrap_vulkan(device, handle, BYTES, 64, BYTES, &made), FA_INVALID);
    assert_message("is outside vk_buffer's");
    fa_device *null = open_null();
    ck_assert_int_eq(fa_buffer_wrap_vulkan(null, handle, BYTES, 0, 0, &made), FA_INVALID);
    assert_message("device is of the null backend, expected vulkan");
    fa_device_close(null);
    fa_vulkan_device_desc d = device_desc(true);
    d.api_version = VK_API_VERSION_1_0;
    ck_assert_int_eq(fa_device_open_vulkan(context, &d, &other), FA_INVALID);
    assert_message("desc.api_version is 1.0");
    d = device_desc(true);
    d.features = 0;
    ck_assert_int_eq(fa_device_open_vulkan(context, &d, &other), FA_INVALID);
    assert_message("desc.features is 0x0");
    d = device_desc(true);
    d.device = NULL;
    ck_assert_int_eq(fa_device_open_vulkan(context, &d, &other), FA_INVALID);
    assert_message("desc.device is NULL");
    ck_assert_ptr_null(other);
    ck_assert_ptr_null(made);
    ck_assert_ptr_null(queue);
    tear_down();
}
END_TEST

int main(void)
{
    const char *reason = load();
    if (reason) {
        (void)printf("skipped: %s\n", reason);
        return 77;
    }
    Suite *suite = suite_create("vulkan interop");
    TCase *tc = add_context_case(suite, "the caller's device");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, in_the_callers_queue, 0, 2);
    tcase_add_loop_test(tc, in_the_callers_command_buffer, 0, 2);
    tcase_add_loop_test(tc, an_append_in_the_callers_command_buffer, 0, 2);
    tcase_add_loop_test(tc, commands_are_replayed_with_other_lengths, 0, 2);
    tcase_add_loop_test(tc, commands_read_their_lengths, 0, 2);
    tcase_add_test(tc, mistakes_are_named);
    int result = run_unforked(suite);
    instance.vkDestroyInstance(instance.handle, NULL);
    return result;
}
