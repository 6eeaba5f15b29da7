/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. A layer with sharded heads on all GPUs of this machine, or as many as asked for, one thread for each:
 * attention of fastattn, projection of cuBLAS, sums of NCCL, whose libraries are opened here. First each alone, then in turn in one
 * chunk, then overlapped in several. The fastest of a few runs, of all ranks the slowest. y in several chunks is
 * compared with y in one.
 *
 *   time_layer [GPUS [TOKENS WIDTH HEADS KV_HEADS TYPE]]...      TYPE is f16 or bf16; dims are 128; causal
 *
 * LIBNCCL, LIBCUBLAS and LIBCUDART in the environment name files where the loader does not find the libraries.
 */
#include <dlfcn.h>
#include <fastattn/cuda.h>
#include <fastattn/fastattn.h>
#include <fastattn/nccl.h>
#include <fastattn/reference.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 128, MOST_GPUS = 8, TURNS = 8 };
enum { TO_HOST = 2, TO_DEVICE = 1 };                                /* cudaMemcpyKind */
enum { CUDA_R_16F = 2, CUDA_R_16BF = 14, CUBLAS_COMPUTE_32F = 68 }; /* of library_types.h and cublas_api.h */

typedef struct CUstream_st *stream;
static struct {
    int (*cudaGetDeviceCount)(int *count);
    int (*cudaSetDevice)(int device);
    int (*cudaMalloc)(void **memory, size_t bytes);
    int (*cudaFree)(void *memory);
    int (*cudaMemcpy)(void *to, const void *from, size_t bytes, int kind);
    int (*cudaStreamCreateWithFlags)(stream *s, unsigned flags);
    int (*cudaStreamSynchronize)(stream s);
    int (*cublasCreate_v2)(void **handle);
    int (*cublasSetStream_v2)(void *handle, stream s);
    int (*cublasGemmEx)(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
                        const void *a, int a_type, int lda, const void *b, int b_type, int ldb,
                        const void *beta, void *c, int c_type, int ldc, int compute, int algorithm);
    int (*ncclCommInitAll)(struct ncclComm **comms, int count, const int *devices);
} api;

static void stop(const char *what, int error)
{
    (void)fprintf(stderr, "%s: %d\n", what, error);
    exit(EXIT_FAILURE);
}

static void need(fa_status status)
{
    if (status != FA_OK) {
        (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
        exit(status == FA_NO_DEVICE || status == FA_UNSUPPORTED ? 77 : EXIT_FAILURE);
    }
}

#define NEED(call) ((call) == 0 ? (void)0 : stop(#call, -1))

/* Without the library, the measurement is skipped. */
static void *open_library(const char *variable, const char *name)
{
    const char *forced = getenv(variable);
    void *library = dlopen(forced ? forced : name, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        printf("%s\n", dlerror());
        exit(77);
    }
    return library;
}

static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        stop(name, 0);
    memcpy(function, &symbol, sizeof(symbol));
}

static void load(void)
{
    void *cudart = open_library("LIBCUDART", "libcudart.so.12"),
         *cublas = open_library("LIBCUBLAS", "libcublas.so.12"),
         *nccl = open_library("LIBNCCL", "libnccl.so.2");
    find(cudart, "cudaGetDeviceCount", &api.cudaGetDeviceCount);
    find(cudart, "cudaSetDevice", &api.cudaSetDevice);
    find(cudart, "cudaMalloc", &api.cudaMalloc);
    find(cudart, "cudaFree", &api.cudaFree);
    find(cudart, "cudaMemcpy", &api.cudaMemcpy);
    find(cudart, "cudaStreamCreateWithFlags", &api.cudaStreamCreateWithFlags);
    find(cudart, "cudaStreamSynchronize", &api.cudaStreamSynchronize);
    find(cublas, "cublasCreate_v2", &api.cublasCreate_v2);
    find(cublas, "cublasSetStream_v2", &api.cublasSetStream_v2);
    find(cublas, "cublasGemmEx", &api.cublasGemmEx);
    find(nccl, "ncclCommInitAll", &api.ncclCommInitAll);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct shape {
    int64_t tokens, width, heads, heads_kv;
    fa_dtype dtype;
} shape;

/* Chunks that are tried: 0 is the model's choice, and what is computed without a sum is first. */
static const int64_t tried[] = {1, 0, 2, 4, 8, 16};
enum { TRIED = sizeof(tried) / sizeof(tried[0]) };

typedef struct gpu {
    pthread_t thread;
    int rank, ranks;
    struct ncclComm *comm;
    const shape *shape;
    void *cublas;
    stream compute, sums;
    void *q, *k, *v, *o, *w, *y;
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_transport *transport;
    double alone, reduce, seconds[TRIED];
    int64_t chunks[TRIED];
    double off; /* how far y in several chunks is from y in one, over the largest element */
} gpu;

static int64_t inner_of(const gpu *g)
{
    return g->shape->heads / g->ranks * DIM;
}

/* Row-major y = o w is column-major y' = w' o'. */
static fa_status project(void *user, int64_t first, int64_t count)
{
    const gpu *g = user;
    const float one = 1, zero = 0;
    const int64_t width = g->shape->width, inner = inner_of(g);
    const int type = g->shape->dtype == FA_F16 ? CUDA_R_16F : CUDA_R_16BF;
    if (api.cublasGemmEx(g->cublas, 0, 0, (int)width, (int)count, (int)inner, &one, g->w, type, (int)width,
                         (uint16_t *)g->o + first * inner, type, (int)inner, &zero,
                         (uint16_t *)g->y + first * width, type, (int)width, CUBLAS_COMPUTE_32F, -1) != 0 ||
        api.cudaStreamSynchronize(g->compute) != 0)
        return FA_DEVICE_LOST;
    return FA_OK;
}

/* Numbers that are the same in each run; ranks have numbers of their own. */
static void *upload(const gpu *g, int64_t count, float scale, uint64_t seed)
{
    uint16_t *host = malloc((size_t)count * sizeof(*host));
    void *made = NULL;
    for (int64_t i = 0; host && i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const float x = ((float)(int32_t)(seed >> 33) / 0x1p30f - 1) * scale;
        host[i] = g->shape->dtype == FA_F16 ? fa_f32_to_f16(x) : fa_f32_to_bf16(x);
    }
    NEED(!host);
    NEED(api.cudaMalloc(&made, (size_t)count * sizeof(*host)));
    NEED(api.cudaMemcpy(made, host, (size_t)count * sizeof(*host), TO_DEVICE));
    free(host);
    return made;
}

/* All ranks begin together. */
static void meet(const gpu *g)
{
    char own = 0, all[MOST_GPUS], message[256] = "";
    need(g->transport->allgather(g->transport->user, &own, all, 1, 30, message, sizeof(message)));
}

static fa_buffer *wrap(const gpu *g, void *memory, int64_t elements)
{
    fa_buffer *made;
    need(fa_buffer_wrap_cuda(g->device, (uint64_t)(uintptr_t)memory, (size_t)elements * sizeof(uint16_t),
                             &made));
    return made;
}

static void make_layer(gpu *g, int64_t chunks, const fa_transport *transport, fa_sharded_layer **layer)
{
    const shape *s = g->shape;
    const int64_t heads = s->heads / g->ranks, kv = s->heads_kv / g->ranks, t = s->tokens;
    const fa_attention_desc attention = {
        .struct_size = sizeof(attention),
        .q = {s->dtype, {1, heads, t, DIM}, {t * heads * DIM, DIM, heads * DIM, 1}},
        .k = {s->dtype, {1, kv, t, DIM}, {t * kv * DIM, DIM, kv * DIM, 1}},
        .v = {s->dtype, {1, kv, t, DIM}, {t * kv * DIM, DIM, kv * DIM, 1}},
        .o = {s->dtype, {1, heads, t, DIM}, {t * heads * DIM, DIM, heads * DIM, 1}},
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
    };
    const fa_sharded_layer_desc desc = {.struct_size = sizeof(desc),
                                        .attention = &attention,
                                        .width = s->width,
                                        .y = s->dtype,
                                        .w = s->dtype,
                                        .chunks = chunks,
                                        .project = project,
                                        .project_user = g};
    need(fa_sharded_layer_create(g->device, transport, &desc, layer));
}

/* The least seconds of a run in so many chunks. */
static double time_chunks(gpu *g, int64_t chunks, const fa_transport *transport, int64_t *chosen)
{
    const int64_t t = g->shape->tokens, inner = inner_of(g), kv = g->shape->heads_kv / g->ranks * DIM;
    fa_sharded_layer *layer;
    fa_sharded_layer_info info = {.struct_size = sizeof(info)};
    fa_buffer *workspace;
    double least = INFINITY;
    make_layer(g, chunks, transport, &layer);
    need(fa_sharded_layer_get_info(layer, &info));
    *chosen = info.chunks;
    need(fa_buffer_create(g->device, fa_sharded_layer_workspace(layer), &workspace));
    const fa_attention_args attention = {.struct_size = sizeof(attention),
                                         .q = wrap(g, g->q, t * inner),
                                         .k = wrap(g, g->k, t * kv),
                                         .v = wrap(g, g->v, t * kv),
                                         .o = wrap(g, g->o, t * inner),
                                         .workspace = workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &attention, .y = g->y};
    for (int turn = 0; turn < TURNS; turn++) {
        meet(g);
        const double start = now();
        need(fa_sharded_layer_run(layer, g->queue, &args));
        least = fmin(least, now() - start);
    }
    fa_buffer_destroy(attention.q);
    fa_buffer_destroy(attention.k);
    fa_buffer_destroy(attention.v);
    fa_buffer_destroy(attention.o);
    fa_buffer_destroy(workspace);
    fa_sharded_layer_destroy(layer);
    return least;
}

static double time_sum(const gpu *g, int64_t count)
{
    char message[256] = "";
    double least = INFINITY;
    for (int turn = 0; turn < TURNS; turn++) {
        meet(g);
        const double start = now();
        need(g->transport->allreduce(g->transport->user, g->shape->dtype, g->y, count, 30, message,
                                     sizeof(message)));
        least = fmin(least, now() - start);
    }
    return least;
}

/* A sum that does nothing, for the time of what is computed. */
static fa_status sum_nothing(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                             char *message, size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)timeout, (void)message, (void)message_size;
    return FA_OK;
}

static void read_y(const gpu *g, float *y)
{
    const int64_t count = g->shape->tokens * g->shape->width;
    uint16_t *host = malloc((size_t)count * sizeof(*host));
    NEED(!host);
    NEED(api.cudaMemcpy(host, g->y, (size_t)count * sizeof(*host), TO_HOST));
    for (int64_t i = 0; i < count; i++)
        y[i] = g->shape->dtype == FA_F16 ? fa_f16_to_f32(host[i]) : fa_bf16_to_f32(host[i]);
    free(host);
}

static void measure(gpu *g)
{
    const int64_t count = g->shape->tokens * g->shape->width;
    float *one = malloc((size_t)count * sizeof(*one)), *many = malloc((size_t)count * sizeof(*many));
    fa_transport silent = *g->transport;
    int64_t unused;
    float largest = 0;
    NEED(!one || !many);
    silent.allreduce = sum_nothing;
    g->alone = time_chunks(g, 1, &silent, &unused);
    g->transport->latency = time_sum(g, 1);
    g->reduce = time_sum(g, count);
    g->transport->bandwidth = (double)count * 2 / fmax(g->reduce - g->transport->latency, 1e-9);
    for (int i = 0; i < TRIED; i++) {
        g->seconds[i] = time_chunks(g, tried[i], g->transport, &g->chunks[i]);
        read_y(g, i == 0 ? one : many);
        for (int64_t j = 0; j < count; j++) {
            largest = i == 0 ? fmaxf(largest, fabsf(one[j])) : largest;
            g->off = i == 0 ? 0 : fmax(g->off, (double)(fabsf(one[j] - many[j]) / largest));
        }
    }
    free(one);
    free(many);
}

static void *run_gpu(void *argument)
{
    gpu *g = argument;
    const shape *s = g->shape;
    char name[16];
    const int64_t inner = inner_of(g), kv = s->heads_kv / g->ranks * DIM;
    NEED(api.cudaSetDevice(g->rank));
    NEED(api.cudaStreamCreateWithFlags(&g->compute, 1));
    NEED(api.cudaStreamCreateWithFlags(&g->sums, 1));
    NEED(api.cublasCreate_v2(&g->cublas));
    NEED(api.cublasSetStream_v2(g->cublas, g->compute));
    g->q = upload(g, s->tokens * inner, 1, (uint64_t)g->rank + 1);
    g->k = upload(g, s->tokens * kv, 1, (uint64_t)g->rank + 11);
    g->v = upload(g, s->tokens * kv, 1, (uint64_t)g->rank + 21);
    g->w = upload(g, inner * s->width, 1 / sqrtf((float)inner), (uint64_t)g->rank + 31);
    g->o = upload(g, s->tokens * inner, 0, 0);
    g->y = upload(g, s->tokens * s->width, 0, 0);
    (void)snprintf(name, sizeof(name), "cuda:%d", g->rank);
    need(fa_context_create(NULL, &g->context));
    need(fa_device_open(g->context, name, NULL, &g->device));
    need(fa_queue_wrap_cuda(g->device, g->compute, &g->queue));
    need(fa_transport_create_nccl(g->context, g->comm, g->sums, &g->transport));
    measure(g);
    fa_transport_destroy(g->transport);
    fa_queue_destroy(g->queue);
    fa_device_close(g->device);
    fa_context_destroy(g->context);
    void *const memory[] = {g->q, g->k, g->v, g->w, g->o, g->y};
    for (int i = 0; i < 6; i++)
        NEED(api.cudaFree(memory[i]));
    return NULL;
}

/* The slowest rank's. */
static double slowest(const gpu *gpus, int ranks, size_t offset)
{
    double most = 0;
    for (int r = 0; r < ranks; r++) {
        double own;
        memcpy(&own, (const char *)&gpus[r] + offset, sizeof(own));
        most = fmax(most, own);
    }
    return most;
}

static int run_shape(const shape *s, int ranks, struct ncclComm **comms)
{
    gpu gpus[MOST_GPUS];
    memset(gpus, 0, sizeof(gpus));
    for (int r = 0; r < ranks; r++) {
        gpus[r] = (gpu){.rank = r, .ranks = ranks, .comm = comms[r], .shape = s};
        NEED(pthread_create(&gpus[r].thread, NULL, run_gpu, &gpus[r]));
    }
    for (int r = 0; r < ranks; r++)
        (void)pthread_join(gpus[r].thread, NULL);
    const double alone = slowest(gpus, ranks, offsetof(gpu, alone)),
                 reduce = slowest(gpus, ranks, offsetof(gpu, reduce)),
                 in_turn = slowest(gpus, ranks, offsetof(gpu, seconds[0])),
                 off = slowest(gpus, ranks, offsetof(gpu, off)), unit = s->dtype == FA_F16 ? 0x1p-11 : 0x1p-8;
    printf(
        "%d GPUs, %lld tokens, width %lld, heads %lld/%lld, %s: computing %.3f ms, sum %.3f ms, in turn %.3f ms\n",
        ranks, (long long)s->tokens, (long long)s->width, (long long)s->heads, (long long)s->heads_kv,
        fa_dtype_name(s->dtype), 1e3 * alone, 1e3 * reduce, 1e3 * in_turn);
    for (int i = 1; i < TRIED; i++) {
        const double took = slowest(gpus, ranks, offsetof(gpu, seconds) + (size_t)i * sizeof(double));
        printf("  %2lld chunks%s: %.3f ms, %.2f of in turn, %.2f of max(computing, sum)\n",
               (long long)gpus[0].chunks[i], tried[i] == 0 ? " (the model's)" : "", 1e3 * took,
               took / in_turn, took / fmax(alone, reduce));
    }
    /* Each rank's product, and each sum, may be rounded otherwise. */
    printf("  y in several chunks is off by %.2g of its largest element, at most %.2g is right\n", off,
           2 * ranks * unit);
    return !(off <= 2 * ranks * unit);
}

int main(int argc, char **argv)
{
    static const shape usual[] = {{2048, 4096, 32, 32, FA_F16},  {8192, 4096, 32, 32, FA_F16},
                                  {32768, 4096, 32, 32, FA_F16}, {2048, 8192, 64, 8, FA_BF16},
                                  {8192, 8192, 64, 8, FA_BF16},  {32768, 8192, 64, 8, FA_BF16}};
    struct ncclComm *comms[MOST_GPUS];
    int devices[MOST_GPUS], ranks = argc > 1 ? atoi(argv[1]) : 0, count = 0, wrong = 0;
    load();
    if (api.cudaGetDeviceCount(&count) != 0 || count == 0) {
        printf("no GPU is here\n");
        return 77;
    }
    if (ranks <= 0 || ranks > count)
        ranks = count < MOST_GPUS ? count : MOST_GPUS;
    for (int r = 0; r < ranks; r++)
        devices[r] = r;
    NEED(api.ncclCommInitAll(comms, ranks, devices));
    for (int i = 2; i + 4 < argc; i += 5) {
        const shape s = {atoll(argv[i]), atoll(argv[i + 1]), atoll(argv[i + 2]), atoll(argv[i + 3]),
                         strcmp(argv[i + 4], "bf16") == 0 ? FA_BF16 : FA_F16};
        wrong += run_shape(&s, ranks, comms);
    }
    for (size_t i = 0; argc <= 2 && i < sizeof(usual) / sizeof(usual[0]); i++)
        wrong += run_shape(&usual[i], ranks, comms);
    return wrong != 0;
}
