/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in an OpenCL command queue of the caller, on its cl_mem: nothing is copied, and nothing waits between the
 * caller's commands and fastattn's.
 *
 *   cc opencl_queue.c $(pkg-config --cflags --libs fastattn) -lOpenCL -lm -o opencl_queue && ./opencl_queue
 *
 * Exit status 77: there is no OpenCL device, none that runs fastattn's kernels, or no OpenCL in this fastattn. The reason
 * is printed.
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { HEADS = 4, ROWS = 100, DIM = 32, SIZE = HEADS * ROWS * DIM, BYTES = SIZE * (int)sizeof(float) };
enum { Q, K, V, O, TENSORS };

static float host[SIZE];

static int ok(fa_status status)
{
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    return status == FA_OK;
}

static int ok_cl(const char *call, cl_int error)
{
    if (error != CL_SUCCESS)
        fprintf(stderr, "%s: error %d\n", call, (int)error);
    return error == CL_SUCCESS;
}

/* q and k are 0, so all scores are 0 and each row of o is the mean of the values. The last command waits for all. */
static int compute(cl_command_queue commands, const cl_mem memory[TENSORS], const fa_plan *plan,
                   fa_queue *queue, const fa_attention_args *args)
{
    const float zero = 0;
    return ok_cl("clEnqueueFillBuffer",
                 clEnqueueFillBuffer(commands, memory[Q], &zero, sizeof(zero), 0, BYTES, 0, NULL, NULL)) &&
           ok_cl("clEnqueueFillBuffer",
                 clEnqueueFillBuffer(commands, memory[K], &zero, sizeof(zero), 0, BYTES, 0, NULL, NULL)) &&
           ok_cl("clEnqueueWriteBuffer",
                 clEnqueueWriteBuffer(commands, memory[V], CL_FALSE, 0, BYTES, host, 0, NULL, NULL)) &&
           ok(fa_plan_run(plan, queue, args)) &&
           ok_cl("clEnqueueReadBuffer",
                 clEnqueueReadBuffer(commands, memory[O], CL_TRUE, 0, BYTES, host, 0, NULL, NULL));
}

/* fastattn's view of the caller's objects, which it retains as long as it needs them. */
static int use(fa_device *device, cl_command_queue commands, const cl_mem memory[TENSORS])
{
    const fa_tensor tensor = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM);
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc), .q = tensor, .k = tensor, .v = tensor, .o = tensor};
    fa_attention_args args = {.struct_size = sizeof(args)};
    fa_buffer **const buffer[TENSORS] = {&args.q, &args.k, &args.v, &args.o};
    fa_queue *queue = NULL;
    fa_plan *plan = NULL;
    int good = ok(fa_queue_wrap_opencl(device, commands, &queue)) &&
               ok(fa_plan_create(device, &desc, &plan)) &&
               ok(fa_buffer_create(device, fa_plan_workspace(plan), &args.workspace));
    for (int t = 0; t < TENSORS && good; t++)
        good = ok(fa_buffer_wrap_opencl(device, memory[t], 0, 0, buffer[t]));
    good = good && compute(commands, memory, plan, queue, &args);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    fa_buffer_destroy(args.workspace);
    for (int t = 0; t < TENSORS; t++)
        fa_buffer_destroy(*buffer[t]);
    return good;
}

int main(void)
{
    cl_platform_id platform = NULL;
    cl_device_id id = NULL;
    cl_int error = clGetPlatformIDs(1, &platform, NULL);
    if (error == CL_SUCCESS)
        error = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &id, NULL);
    if (!ok_cl("skipped: no OpenCL device", error))
        return 77;
    for (int i = 0; i < SIZE; i++)
        host[i] = (float)(i / DIM % ROWS);
    cl_context cl = clCreateContext(NULL, 1, &id, NULL, NULL, &error);
    cl_command_queue commands = error == CL_SUCCESS ? clCreateCommandQueue(cl, id, 0, &error) : NULL;
    cl_mem memory[TENSORS] = {0};
    for (int t = 0; t < TENSORS && error == CL_SUCCESS; t++)
        memory[t] = clCreateBuffer(cl, CL_MEM_READ_WRITE, BYTES, NULL, &error);
    fa_context *context = NULL;
    fa_device *device = NULL;
    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK && error == CL_SUCCESS)
        status = fa_device_open_opencl(context, cl, id, &device);
    int good = ok_cl("creating OpenCL objects", error) && ok(status) && use(device, commands, memory);
    fa_device_close(device);
    fa_context_destroy(context);
    for (int t = 0; t < TENSORS && memory[t]; t++)
        clReleaseMemObject(memory[t]);
    if (commands)
        clReleaseCommandQueue(commands);
    if (cl)
        clReleaseContext(cl);
    for (int i = 0; i < SIZE && good; i++)
        good = fabsf(host[i] - (ROWS - 1) / 2.0F) <= 1e-3F;
    if (status == FA_OK)
        printf("o[0] is %g, expected %g\n", (double)host[0], (ROWS - 1) / 2.0);
    return status == FA_NO_DEVICE || status == FA_UNSUPPORTED ? 77 : !good;
}
