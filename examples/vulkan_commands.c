/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention recorded into a Vulkan command buffer of the caller, on memory of the caller. The command buffer can be
 * submitted any number of times: this program submits it twice, with other values.
 *
 *   cc vulkan_commands.c $(pkg-config --cflags --libs fastattn) -lvulkan -lm -o vulkan_commands && ./vulkan_commands
 *
 * Exit status 77: there is no Vulkan device, none that runs fastattn's kernels, or no Vulkan in this fastattn. The reason
 * is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>

#include "vulkan_setup.h"

enum { HEADS = 4, ROWS = 50, DIM = 32, SIZE = HEADS * ROWS * DIM };
enum { Q, K, V, O, TENSORS }; /* one behind the other in one VkBuffer */

static int ok(fa_status status)
{
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    return status == FA_OK;
}

/* fastattn's view of the caller's device. Features that the device was created with make faster kernels available. */
static fa_status open_device(fa_context *context, const setup *s, fa_device **device)
{
    const fa_vulkan_device_desc desc = {
        .struct_size = sizeof(desc),
        .instance = s->instance,
        .physical_device = s->physical,
        .device = s->device,
        .api_version = VK_API_VERSION_1_1,
        .queue_family = s->family,
        .features = FA_VULKAN_NOTHING,
        .get_instance_proc_addr = vkGetInstanceProcAddr,
    };
    return fa_device_open_vulkan(context, &desc, device);
}

/* Runs begin with a barrier of their own. The one at the end shows the result to the host. */
static int record(const setup *s, const fa_plan *plan, fa_queue *queue, const fa_attention_args *args)
{
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    const VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                     .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                                     .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    if (!VK_OK(vkBeginCommandBuffer, s->commands, &begin) || !ok(fa_plan_run(plan, queue, args)))
        return 0;
    vkCmdPipelineBarrier(s->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                         &barrier, 0, NULL, 0, NULL);
    return VK_OK(vkEndCommandBuffer, s->commands);
}

/* q and k are 0, so all scores are 0 and each row of o is the mean of the values: `first` + (ROWS - 1) / 2. */
static int submit(const setup *s, float first)
{
    const float *o = (float *)s->mapped + O * SIZE, mean = first + (ROWS - 1) / 2.0F;
    for (int i = 0; i < TENSORS * SIZE; i++)
        ((float *)s->mapped)[i] = i / SIZE == V ? first + (float)(i / DIM % ROWS) : 0;
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &s->commands};
    if (!VK_OK(vkQueueSubmit, s->queue, 1, &info, VK_NULL_HANDLE) || !VK_OK(vkQueueWaitIdle, s->queue))
        return 0;
    for (int i = 0; i < SIZE; i++) {
        if (!(fabsf(o[i] - mean) <= 1e-5F * mean))
            return fprintf(stderr, "o[%d] is %g, expected %g\n", i, (double)o[i], (double)mean), 0;
    }
    return printf("every element is %g\n", (double)o[0]) > 0;
}

static int compute(fa_device *device, const setup *s)
{
    const fa_tensor tensor = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM);
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc), .q = tensor, .k = tensor, .v = tensor, .o = tensor};
    fa_attention_args args = {.struct_size = sizeof(args)};
    const size_t bytes = SIZE * sizeof(float);
    fa_plan *plan = NULL;
    fa_queue *queue = NULL;
    fa_buffer *all = NULL;
    int done = ok(fa_plan_create(device, &desc, &plan)) &&
               ok(fa_queue_record_vulkan(device, s->commands, &queue)) &&
               ok(fa_buffer_wrap_vulkan(device, (uint64_t)s->buffer, TENSORS * bytes, 0, 0, &all)) &&
               ok(fa_buffer_create(device, fa_plan_workspace(plan), &args.workspace));
    args.q = args.k = args.v = args.o = all;
    args.q_offset = Q * bytes;
    args.k_offset = K * bytes;
    args.v_offset = V * bytes;
    args.o_offset = O * bytes;
    /* The plan, the buffers and the queue live as long as the command buffer is used. */
    done = done && record(s, plan, queue, &args) && submit(s, 1) && submit(s, 100);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    fa_buffer_destroy(args.workspace);
    fa_buffer_destroy(all);
    return done;
}

int main(void)
{
    setup s = {0};
    fa_context *context = NULL;
    fa_device *device = NULL;
    int done = 0, found = create_device(&s);
    if (found && create_buffer(&s, TENSORS * SIZE * sizeof(float)) && ok(fa_context_create(NULL, &context))) {
        fa_status status = open_device(context, &s, &device);
        found = status != FA_NO_DEVICE && status != FA_UNSUPPORTED;
        done = ok(status) && compute(device, &s);
    }
    fa_device_close(device);
    fa_context_destroy(context);
    destroy(&s);
    return found ? !done : 77;
}
