/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in a CUDA stream of the caller, on memory of the caller: nothing is copied, and nothing waits between the
 * caller's commands and fastattn's.
 *
 *   cc cuda_stream.c $(pkg-config --cflags --libs fastattn) -I/usr/local/cuda/include -L/usr/local/cuda/lib64 \
 *       -lcudart -lm -o cuda_stream && ./cuda_stream
 *
 * Exit status 77: there is no GPU, or no driver, or no kernels for it. The reason is printed.
 */
#include <cuda_runtime_api.h>
#include <fastattn/cuda.h>
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { HEADS = 8, ROWS = 300, DIM = 64, SIZE = HEADS * ROWS * DIM, BYTES = SIZE * (int)sizeof(float) };
enum { Q, K, V, O, TENSORS };

static float host[SIZE];

static int failed_cuda(const char *call, cudaError_t error)
{
    if (error != cudaSuccess)
        fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
    return error != cudaSuccess;
}

static int failed(fa_status status)
{
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    return status != FA_OK;
}

/* All that is enqueued goes into `stream`. The caller waits for it at the end, once. */
static int compute(fa_device *device, cudaStream_t stream, float *const memory[TENSORS])
{
    const fa_tensor tensor = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM);
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc), .q = tensor, .k = tensor, .v = tensor, .o = tensor};
    fa_buffer *buffer[TENSORS] = {0}, *workspace = NULL;
    fa_queue *queue = NULL;
    fa_plan *plan = NULL;
    int bad = failed(fa_queue_wrap_cuda(device, stream, &queue)) ||
              failed(fa_plan_create(device, &desc, &plan)) ||
              failed(fa_buffer_create(device, fa_plan_workspace(plan), &workspace));
    for (int t = 0; t < TENSORS && !bad; t++)
        bad = failed(fa_buffer_wrap_cuda(device, (uint64_t)(uintptr_t)memory[t], BYTES, &buffer[t]));
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = buffer[Q],
        .k = buffer[K],
        .v = buffer[V],
        .o = buffer[O],
        .workspace = workspace,
    };
    bad = bad || failed_cuda("cudaMemsetAsync", cudaMemsetAsync(memory[Q], 0, BYTES, stream)) ||
          failed_cuda("cudaMemsetAsync", cudaMemsetAsync(memory[K], 0, BYTES, stream)) ||
          failed_cuda("cudaMemcpyAsync",
                      cudaMemcpyAsync(memory[V], host, BYTES, cudaMemcpyHostToDevice, stream)) ||
          failed(fa_plan_run(plan, queue, &args)) ||
          failed_cuda("cudaMemcpyAsync",
                      cudaMemcpyAsync(host, memory[O], BYTES, cudaMemcpyDeviceToHost, stream)) ||
          failed_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    fa_queue_destroy(queue); /* waits; the stream stays the caller's */
    fa_plan_destroy(plan);
    fa_buffer_destroy(workspace);
    for (int t = 0; t < TENSORS; t++)
        fa_buffer_destroy(buffer[t]); /* so does the memory */
    return bad;
}

/* With the CUDA runtime's context current, which is the one that "cuda:0" opens. */
static int use(fa_device *device)
{
    float *memory[TENSORS] = {0};
    cudaStream_t stream = NULL;
    int bad = failed_cuda("cudaStreamCreate", cudaStreamCreate(&stream));
    for (int t = 0; t < TENSORS && !bad; t++)
        bad = failed_cuda("cudaMalloc", cudaMalloc((void **)&memory[t], BYTES));
    bad = bad || compute(device, stream, memory);
    for (int t = 0; t < TENSORS; t++)
        (void)cudaFree(memory[t]);
    if (stream)
        (void)cudaStreamDestroy(stream);
    return bad;
}

int main(void)
{
    /* Scores are 0, so each row of o is the mean of 0 to ROWS - 1. */
    for (int i = 0; i < SIZE; i++)
        host[i] = (float)(i / DIM % ROWS);
    fa_context *context = NULL;
    fa_device *device = NULL;
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (failed_cuda("skipped: no CUDA device", error))
        return 77;
    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK)
        status = fa_device_open(context, "cuda:0", NULL, &device);
    int bad = failed(status) || use(device);
    fa_device_close(device);
    fa_context_destroy(context);
    for (int i = 0; i < SIZE && !bad; i++)
        bad = !(fabsf(host[i] - (ROWS - 1) / 2.0F) <= 1e-3F);
    if (!bad)
        printf("every element is %g\n", (double)host[0]);
    else if (status == FA_OK)
        fprintf(stderr, "o[0] is %g, expected %g\n", (double)host[0], (ROWS - 1) / 2.0);
    return status == FA_NO_DEVICE ? 77 : bad;
}
