/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache that grows: one plan serves a whole generation, on the backend that the environment variable FASTATTN_BACKEND
 * names (openmp, cuda, opencl, vulkan). The cache lies in pages of 16 keys, in ggml's q8_0. Each step appends a key and a
 * value to it, and attends to all of them.
 *
 *   cc decode.c $(pkg-config --cflags --libs fastattn) -lm -o decode && FASTATTN_BACKEND=openmp ./decode
 *
 * The plan is made for the longest cache. fa_plan_schedule() tells a run how long it is now. fa_append_run() quantises new
 * rows on the device.
 *
 * With `--graph`, on CUDA, a step is captured once, in a CUDA graph, and replayed: the length lies on the device, where
 * fa_plan_schedule_device() reads it. For that it is built with CUDA's runtime:
 *
 *   gcc -DWITH_CUDA decode.c $(pkg-config --cflags --libs fastattn) -I/usr/local/cuda/include -L/usr/local/cuda/lib64 \
 *       -lcudart -lm -o decode && ./decode --graph
 *
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#ifdef WITH_CUDA
#include <cuda_runtime_api.h>
#include <fastattn/cuda.h>
#endif

enum { STEPS = 1000, HEADS_Q = 8, HEADS_KV = 2, DIM = 64, PAGE = 16, PAGES = (STEPS + PAGE - 1) / PAGE };
enum { ROW = DIM / 32 * 34 /* bytes of a row in q8_0 */, POOL = PAGES * HEADS_KV * PAGE * ROW };

/* Everything that must be given back. */
typedef struct generation {
    int graph;                   /* a step is a graph that is replayed */
    struct CUstream_st *stream;  /* then: where it is launched         */
    struct CUgraphExec_st *step; /* likewise: the graph                */
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_append *append;
    fa_buffer *q, *k, *v, *o, *table, *new_k, *new_v, *slot, *length, *workspace, *work;
} generation;

static int32_t table[PAGES];                     /* in which page of the pool page n of the sequence lies */
static unsigned char pool_k[POOL], pool_v[POOL]; /* what the device's pools should hold */

static fa_attention_desc describe(int on_device)
{
    static const int32_t longest = STEPS; /* what the plan is made for where lengths lie on the device */
    for (int n = 0; n < PAGES; n++)
        table[n] = PAGES - 1 - n; /* as an engine's allocator may have dealt them */
    return (fa_attention_desc){
        .struct_size = sizeof(fa_attention_desc),
        .q = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .k = fa_tensor_make(FA_Q8_0, PAGES, HEADS_KV, PAGE, DIM),
        .v = fa_tensor_make(FA_Q8_0, PAGES, HEADS_KV, PAGE, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .page_table = fa_tensor_make(FA_I32, 1, 1, 1, PAGES),
        .lens_kv32 = on_device ? &longest : NULL,
        .dynamic_lengths = on_device ? 2 : 1,
    };
}

static fa_status create_append(generation *g, const fa_attention_desc *desc)
{
    const fa_tensor rows = fa_tensor_make(FA_F32, 1, HEADS_KV, 1, DIM);
    const fa_append_desc append = {
        .struct_size = sizeof(append), .k = rows, .v = rows, .cache_k = desc->k, .cache_v = desc->v};
    return fa_append_create(g->device, &append, &g->append);
}

#ifdef WITH_CUDA
static fa_status cuda_status(const char *call, cudaError_t error)
{
    if (error == cudaSuccess)
        return FA_OK;
    fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
    return error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? FA_NO_DEVICE : FA_DEVICE_LOST;
}

/* The GPU of the runtime's context, and a stream of ours. */
static fa_status open_stream(generation *g)
{
    int count = 0;
    fa_status status;
    if ((status = cuda_status("cudaGetDeviceCount", cudaGetDeviceCount(&count))) != FA_OK ||
        (status = fa_device_open(g->context, "cuda:0", NULL, &g->device)) != FA_OK ||
        (status = cuda_status("cudaStreamCreate", cudaStreamCreate(&g->stream))) != FA_OK)
        return status;
    return fa_queue_wrap_cuda(g->device, g->stream, &g->queue);
}

/* What `enqueue` puts into the stream becomes the graph of a step. */
static fa_status capture(generation *g, fa_status (*enqueue)(const generation *))
{
    cudaGraph_t graph = NULL;
    fa_status status =
        cuda_status("cudaStreamBeginCapture", cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeGlobal));
    if (status != FA_OK)
        return status;
    status = enqueue(g);
    const fa_status ended = cuda_status("cudaStreamEndCapture", cudaStreamEndCapture(g->stream, &graph));
    if (status == FA_OK)
        status = ended;
    if (status == FA_OK)
        status = cuda_status("cudaGraphInstantiate", cudaGraphInstantiateWithFlags(&g->step, graph, 0));
    if (graph)
        (void)cudaGraphDestroy(graph);
    return status;
}

static fa_status replay(const generation *g)
{
    return cuda_status("cudaGraphLaunch", cudaGraphLaunch(g->step, g->stream));
}

static void destroy_stream(generation *g)
{
    if (g->step)
        (void)cudaGraphExecDestroy(g->step);
    if (g->stream)
        (void)cudaStreamDestroy(g->stream);
}
#else
static fa_status open_stream(generation *g)
{
    (void)g;
    fprintf(stderr, "--graph: built without WITH_CUDA\n");
    return FA_NO_DEVICE;
}

static fa_status capture(generation *g, fa_status (*enqueue)(const generation *))
{
    (void)enqueue;
    return open_stream(g);
}

static fa_status replay(const generation *g)
{
    return g->step ? FA_OK : FA_NO_DEVICE;
}

static void destroy_stream(generation *g)
{
    (void)g;
}
#endif

/* The device that suits the description, and a queue of it. */
static fa_status open_device(generation *g, const fa_attention_desc *desc)
{
    fa_status status = fa_device_open(g->context, NULL, desc, &g->device);
    return status == FA_OK ? fa_queue_create(g->device, &g->queue) : status;
}

/* The steps that are done once. Each returns at the first failure; destroy() takes what there is. */
static fa_status create(generation *g)
{
    const fa_attention_desc desc = describe(g->graph);
    const size_t rows = (size_t)HEADS_KV * DIM * sizeof(float), row = (size_t)HEADS_Q * DIM * sizeof(float);
    fa_status status;
    if ((status = fa_context_create(NULL, &g->context)) != FA_OK ||
        (status = g->graph ? open_stream(g) : open_device(g, &desc)) != FA_OK ||
        (status = fa_plan_create(g->device, &desc, &g->plan)) != FA_OK ||
        (status = create_append(g, &desc)) != FA_OK ||
        (status = fa_buffer_create(g->device, row, &g->q)) != FA_OK ||
        (status = fa_buffer_create(g->device, POOL, &g->k)) != FA_OK ||
        (status = fa_buffer_create(g->device, POOL, &g->v)) != FA_OK ||
        (status = fa_buffer_create(g->device, row, &g->o)) != FA_OK ||
        (status = fa_buffer_create(g->device, sizeof(table), &g->table)) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->table, 0, table, sizeof(table))) != FA_OK ||
        (status = fa_buffer_create(g->device, rows, &g->new_k)) != FA_OK ||
        (status = fa_buffer_create(g->device, rows, &g->new_v)) != FA_OK ||
        (status = fa_buffer_create(g->device, sizeof(int32_t), &g->slot)) != FA_OK ||
        (status = fa_buffer_create(g->device, sizeof(int32_t), &g->length)) != FA_OK ||
        (status = fa_buffer_create(g->device, fa_plan_workspace(g->plan), &g->workspace)) != FA_OK)
        return status;
    return fa_buffer_create(g->device, fa_plan_work(g->plan), &g->work);
}

/* Where the row of a head of position `at` begins, in bytes. */
static size_t place(int at, int head)
{
    return (((size_t)table[at / PAGE] * HEADS_KV + (size_t)head) * PAGE + (size_t)(at % PAGE)) * ROW;
}

/* The same on the host, into what the oracle is given. */
static void append_on_host(int at, const float *key, const float *value)
{
    for (int head = 0; head < HEADS_KV; head++) {
        fa_elements_store(FA_Q8_0, pool_k + place(at, head), 0, key + head * DIM, DIM);
        fa_elements_store(FA_Q8_0, pool_v + place(at, head), 0, value + head * DIM, DIM);
    }
}

/* What a step reads: the key and the value of position `at`, a row for each head, where they go, and the query. */
static fa_status upload(const generation *g, int at, const float *q, const float *key, const float *value)
{
    const int32_t slot = table[at / PAGE] * PAGE + at % PAGE, length = at + 1;
    const size_t bytes = (size_t)HEADS_KV * DIM * sizeof(float);
    fa_status status;
    append_on_host(at, key, value);
    if ((status = fa_buffer_write(g->queue, g->q, 0, q, (size_t)HEADS_Q * DIM * sizeof(float))) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->new_k, 0, key, bytes)) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->new_v, 0, value, bytes)) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->slot, 0, &slot, sizeof(slot))) != FA_OK)
        return status;
    return fa_buffer_write(g->queue, g->length, 0, &length, sizeof(length));
}

static fa_status append(const generation *g)
{
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = g->new_k,
        .v = g->new_v,
        .slots = g->slot,
        .cache_k = g->k,
        .cache_v = g->v,
    };
    return fa_append_run(g->append, g->queue, &args);
}

/* One query row against as many keys of the cache as g->work says. */
static fa_status attend(const generation *g)
{
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = g->q,
        .k = g->k,
        .v = g->v,
        .o = g->o,
        .page_table = g->table,
        .workspace = g->workspace,
        .work = g->work,
    };
    return fa_plan_run(g->plan, g->queue, &args);
}

/* The length is the host's. */
static fa_status step(const generation *g, int32_t length)
{
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv32 = &length};
    fa_status status = append(g);
    if (status == FA_OK)
        status = fa_plan_schedule(g->plan, g->queue, &lengths, g->work, 0);
    return status == FA_OK ? attend(g) : status;
}

/* The length lies on the device: what is enqueued is the same in each step. */
static fa_status step_on_device(const generation *g)
{
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = g->length};
    fa_status status = append(g);
    if (status == FA_OK)
        status = fa_plan_schedule_device(g->plan, g->queue, &lengths, g->work, 0);
    return status == FA_OK ? attend(g) : status;
}

/* Numbers between -1 and 1 that repeat late. */
static void make_up(float *to, int count, int seed)
{
    for (int i = 0; i < count; i++)
        to[i] = (float)((i * 37 + seed * 101) % 257 - 128) / 128;
}

/* The last step's output against double precision: the largest difference. */
static fa_status check(const generation *g, const float *q, double *worst)
{
    static double expected[HEADS_Q * DIM];
    float o[HEADS_Q * DIM];
    fa_attention_desc desc = describe(0);
    const int32_t length = STEPS;
    const fa_inputs inputs = {.q = q, .k = pool_k, .v = pool_v, .page_table = table};
    desc.lens_kv32 = &length;
    fa_status status = fa_buffer_read(g->queue, g->o, 0, o, sizeof(o));
    if (status == FA_OK)
        status = fa_reference_attention(g->context, &desc, &inputs, expected, NULL);
    *worst = 0;
    for (int i = 0; i < HEADS_Q * DIM && status == FA_OK; i++)
        *worst = fmax(*worst, fabs((double)o[i] - expected[i]));
    return status;
}

static fa_status generate(generation *g, double *worst)
{
    float q[HEADS_Q * DIM], key[HEADS_KV * DIM], value[HEADS_KV * DIM];
    fa_status status = g->graph ? capture(g, step_on_device) : FA_OK;
    for (int n = 0; n < STEPS && status == FA_OK; n++) {
        make_up(q, HEADS_Q * DIM, n);
        make_up(key, HEADS_KV * DIM, n + 1);
        make_up(value, HEADS_KV * DIM, n + 2);
        status = upload(g, n, q, key, value);
        if (status == FA_OK)
            status = g->graph ? replay(g) : step(g, n + 1);
    }
    return status == FA_OK ? check(g, q, worst) : status;
}

/* The queue first: it waits for what still runs. NULL is allowed. */
static void destroy(generation *g)
{
    fa_buffer *const buffers[] = {g->q,     g->k,    g->v,      g->o,         g->table, g->new_k,
                                  g->new_v, g->slot, g->length, g->workspace, g->work};
    fa_queue_destroy(g->queue);
    destroy_stream(g);
    fa_plan_destroy(g->plan);
    fa_append_destroy(g->append);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        fa_buffer_destroy(buffers[i]);
    fa_device_close(g->device);
    fa_context_destroy(g->context);
}

int main(int count, char **arguments)
{
    generation g = {.graph = count > 1 && strcmp(arguments[1], "--graph") == 0};
    double worst = 0;
    fa_status status = create(&g);
    if (status == FA_OK)
        status = generate(&g, &worst);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    else
        printf("%d steps with one plan%s; off by at most %.1e\n", STEPS, g.graph ? " and one graph" : "",
               worst);
    destroy(&g);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK || !(worst < 1e-5);
}
