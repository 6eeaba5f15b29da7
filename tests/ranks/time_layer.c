/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. A layer with sharded heads on all GPUs of this machine, or as many as asked for, one thread for each:
 * attention of fastattn, its projection by cuBLAS, sums of NCCL. First each alone, then in turn, which is one chunk, then overlapped
 * in several. The fastest of a few runs, of all ranks the slowest. y in several chunks is compared with y in one, and elements of it
 * with the products of what o and w hold.
 *
 *   time_layer [GPUS [TOKENS WIDTH HEADS KV_HEADS TYPE]]...      TYPE is f16 or bf16; dims are 128; causal
 *
 * LIBNCCL and LIBCUDART in the environment name files where the loader does not find the libraries; fastattn's own variables
 * (docs/ranks.md) are NCCL's and cuBLAS's.
 */
#include <fastattn/cuda.h>
#include <fastattn/fastattn.h>
#include <fastattn/nccl.h>
#include <fastattn/reference.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tests/ranks/on_gpus.h"

enum { DIM = 128, TURNS = 12 };
enum { LOOKED_AT = 5, COLUMNS = 64 }; /* rows of y, and elements of each, that are compared */

typedef struct shape {
    int64_t tokens, width, heads, heads_kv;
    fa_dtype dtype;
} shape;

/* Chunks that are tried: 0 is the model's choice. */
static const int64_t tried[] = {1, 0, 2, 3, 4, 6, 8};
enum { TRIED = sizeof(tried) / sizeof(tried[0]) };

typedef struct gpu {
    pthread_t thread;
    int rank, ranks;
    struct ncclComm *comm;
    const shape *shape;
    stream compute, sums;
    event begun;
    void *q, *k, *v, *o, *w, *y;
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_transport *transport;
    double transport_latency, transport_bandwidth;
    double reduce, alone[TRIED], seconds[TRIED];
    fa_sharded_layer_info info[TRIED];
    int64_t cut[TRIED][FA_SHARDED_MAX_CHUNKS + 1];
    double off; /* how far y in several chunks is from y in one, over the largest element */
    /* Of elements of y: this rank's product, the sum of magnitudes in it, and y. */
    double product[LOOKED_AT][COLUMNS], magnitude[LOOKED_AT][COLUMNS], y_is[LOOKED_AT][COLUMNS];
} gpu;

static int64_t inner_of(const gpu *g)
{
    return g->shape->heads / g->ranks * DIM;
}

/* Numbers that are the same in each run; ranks have numbers of their own, which come again after so many. */
static void *upload(const gpu *g, int64_t count, float scale, uint64_t seed)
{
    enum { OTHERS = 1000003 };
    uint16_t *host = malloc((size_t)count * sizeof(*host));
    void *made = NULL;
    NEED(!host);
    for (int64_t i = 0; i < count && i < OTHERS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const float x = ((float)(int32_t)(seed >> 33) / 0x1p30f - 1) * scale;
        host[i] = g->shape->dtype == FA_F16 ? fa_f32_to_f16(x) : fa_f32_to_bf16(x);
    }
    for (int64_t i = OTHERS; i < count; i += OTHERS)
        memcpy(host + i, host, (size_t)(count - i < OTHERS ? count - i : OTHERS) * sizeof(*host));
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
                                        .chunks = chunks};
    need(fa_sharded_layer_create(g->device, transport, &desc, layer));
}

/* The least seconds of a run of the layer. */
static double time_layer(gpu *g, fa_sharded_layer *layer)
{
    const int64_t t = g->shape->tokens, inner = inner_of(g), kv = g->shape->heads_kv / g->ranks * DIM;
    fa_buffer *workspace;
    double least = INFINITY;
    need(fa_buffer_create(g->device, fa_sharded_layer_workspace(layer), &workspace));
    const fa_attention_args attention = {.struct_size = sizeof(attention),
                                         .q = wrap(g, g->q, t * inner),
                                         .k = wrap(g, g->k, t * kv),
                                         .v = wrap(g, g->v, t * kv),
                                         .o = wrap(g, g->o, t * inner),
                                         .workspace = workspace};
    const fa_sharded_layer_args args = {
        .struct_size = sizeof(args), .attention = &attention, .w = g->w, .y = g->y};
    for (int turn = 0; turn < TURNS; turn++) {
        meet(g);
        const double start = fa_clock();
        need(fa_sharded_layer_run(layer, g->queue, &args));
        least = fmin(least, fa_clock() - start);
    }
    fa_buffer_destroy(attention.q);
    fa_buffer_destroy(attention.k);
    fa_buffer_destroy(attention.v);
    fa_buffer_destroy(attention.o);
    fa_buffer_destroy(workspace);
    return least;
}

/* The least seconds of so many sums of `count` elements, one behind the other. */
static double time_sums(const gpu *g, int sums, int64_t count)
{
    const fa_transport *t = g->transport;
    char message[256] = "";
    double least = INFINITY;
    NEED(api.cudaEventRecord(g->begun, g->compute));
    for (int turn = 0; turn < TURNS; turn++) {
        meet(g);
        const double start = fa_clock();
        for (int i = 0; i < sums; i++)
            need(t->enqueue(t->user, g->shape->dtype, g->y, count, g->begun, 30, message, sizeof(message)));
        need(t->finish(t->user, 30, message, sizeof(message)));
        least = fmin(least, fa_clock() - start);
    }
    return least;
}

/* Sums that do nothing, for the time of what is computed. */
static fa_status enqueue_nothing(void *user, fa_dtype dtype, void *data, int64_t count, void *behind,
                                 double timeout, char *message, size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)behind, (void)timeout, (void)message,
        (void)message_size;
    return FA_OK;
}

static fa_status finish_nothing(void *user, double timeout, char *message, size_t message_size)
{
    (void)user, (void)timeout, (void)message, (void)message_size;
    return FA_OK;
}

static void read_back(const void *from, uint16_t *to, int64_t count)
{
    NEED(api.cudaMemcpy(to, from, (size_t)count * sizeof(*to), TO_HOST));
}

/* This rank's part of a few elements of y, in double precision, of o and w as they are. */
static void look_at_elements(gpu *g)
{
    const int64_t inner = inner_of(g), width = g->shape->width;
    uint16_t *w = malloc((size_t)(inner * width) * sizeof(*w)), *o = malloc((size_t)inner * sizeof(*o)),
             *y = malloc((size_t)width * sizeof(*y));
    NEED(!w || !o || !y);
    read_back(g->w, w, inner * width);
    for (int i = 0; i < LOOKED_AT; i++) {
        const int64_t token = (g->shape->tokens - 1) * i / (LOOKED_AT - 1);
        read_back((uint16_t *)g->o + token * inner, o, inner);
        read_back((uint16_t *)g->y + token * width, y, width);
        for (int j = 0; j < COLUMNS; j++) {
            const int64_t column = (width - 1) * j / (COLUMNS - 1);
            g->y_is[i][j] = (double)fa_element(g->shape->dtype, y, column);
            g->product[i][j] = g->magnitude[i][j] = 0;
            for (int64_t k = 0; k < inner; k++) {
                const double x = (double)fa_element(g->shape->dtype, o, k) *
                                 (double)fa_element(g->shape->dtype, w, k * width + column);
                g->product[i][j] += x;
                g->magnitude[i][j] += fabs(x);
            }
        }
    }
    free(w);
    free(o);
    free(y);
}

static void measure_chunks(gpu *g, int i)
{
    fa_transport silent = *g->transport;
    fa_sharded_layer *layer;
    silent.enqueue = enqueue_nothing;
    silent.finish = finish_nothing;
    make_layer(g, tried[i], &silent, &layer);
    g->alone[i] = time_layer(g, layer);
    fa_sharded_layer_destroy(layer);
    make_layer(g, tried[i], g->transport, &layer);
    g->info[i].struct_size = sizeof(g->info[i]);
    need(fa_sharded_layer_get_info(layer, &g->info[i]));
    memcpy(g->cut[i], g->info[i].first, (size_t)(g->info[i].chunks + 1) * sizeof(int64_t));
    g->seconds[i] = time_layer(g, layer);
    fa_sharded_layer_destroy(layer);
}

/* How far two y are apart, over the largest element. */
static double compare(const gpu *g, const uint16_t *one, const uint16_t *many, int64_t count)
{
    double largest = 0, off = 0;
    if (memcmp(one, many, (size_t)count * sizeof(*one)) == 0)
        return 0;
    for (int64_t j = 0; j < count; j++) {
        const double x = (double)fa_element(g->shape->dtype, one, j),
                     y = (double)fa_element(g->shape->dtype, many, j);
        largest = fmax(largest, fabs(x));
        off = fmax(off, isnan(x - y) ? INFINITY : fabs(x - y));
    }
    return off / largest;
}

static void measure(gpu *g)
{
    const int64_t count = g->shape->tokens * g->shape->width;
    uint16_t *one = malloc((size_t)count * sizeof(*one)), *many = malloc((size_t)count * sizeof(*many));
    NEED(!one || !many);
    const double few = time_sums(g, 1, 1), more = time_sums(g, 16, 1);
    g->reduce = time_sums(g, 1, count);
    g->transport->latency = fmax((more - few) / 15, 1e-9);
    g->transport->bandwidth = (double)count * 2 / fmax(g->reduce - few, 1e-9);
    g->transport_latency = g->transport->latency;
    g->transport_bandwidth = g->transport->bandwidth;
    for (int i = 0; i < TRIED; i++) {
        measure_chunks(g, i);
        read_back(g->y, i == 0 ? one : many, count);
        g->off = i == 0 ? 0 : fmax(g->off, compare(g, one, many, count));
    }
    look_at_elements(g);
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
    NEED(api.cudaStreamCreateWithPriority(&g->compute, 1, 0));
    NEED(api.cudaStreamCreateWithPriority(&g->sums, 1,
                                          -5)); /* so that sums find a place among what is computed */
    NEED(api.cudaEventCreateWithFlags(&g->begun, 2));
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

/*
 * How many elements of y are not the sum of products. Each rank's is a sum of `inner` products in f32, of which a tensor core may cut
 * off instead of rounding; then each rank's product, and each sum over ranks, is rounded to the type of y.
 */
static int count_wrong(const gpu *gpus, int ranks)
{
    const double rounding = pow(1 + 0x1p-23, (double)inner_of(gpus)) - 1,
                 unit = gpus->shape->dtype == FA_F16 ? 0x1p-11 : 0x1p-8, last = pow(1 + unit, ranks) - 1;
    int wrong = 0;
    for (int i = 0; i < LOOKED_AT * COLUMNS; i++) {
        const int row = i / COLUMNS, column = i % COLUMNS;
        double product = 0, magnitude = 0;
        for (int r = 0; r < ranks; r++) {
            product += gpus[r].product[row][column];
            magnitude += gpus[r].magnitude[row][column];
        }
        for (int r = 0; r < ranks; r++)
            wrong += !(fabs(gpus[r].y_is[row][column] - product) <=
                       magnitude * (rounding + last * (1 + rounding)) + ranks * 0x1p-25);
    }
    return wrong;
}

static int report(const gpu *gpus, const shape *s, int ranks)
{
    const double alone = slowest(gpus, ranks, offsetof(gpu, alone[0])),
                 reduce = slowest(gpus, ranks, offsetof(gpu, reduce)),
                 in_turn = slowest(gpus, ranks, offsetof(gpu, seconds[0])),
                 off = slowest(gpus, ranks, offsetof(gpu, off)), unit = s->dtype == FA_F16 ? 0x1p-11 : 0x1p-8;
    const fa_sharded_layer_info *one = &gpus[0].info[0];
    const int wrong = count_wrong(gpus, ranks);
    printf("%d GPUs, %lld tokens, width %lld, heads %lld/%lld, %s, projection %s\n", ranks,
           (long long)s->tokens, (long long)s->width, (long long)s->heads, (long long)s->heads_kv,
           fa_dtype_name(s->dtype), one->projection);
    printf("  computing %.3f ms, sum %.3f ms (%.1f us + %.0f GB/s), in turn %.3f ms\n", 1e3 * alone,
           1e3 * reduce, 1e6 * gpus[0].transport_latency, 1e-9 * gpus[0].transport_bandwidth, 1e3 * in_turn);
    printf("  modelled: attention %.3f ms, projection %.3f ms, sum %.3f ms, in turn %.3f ms\n",
           1e3 * one->attention_seconds, 1e3 * one->projection_seconds, 1e3 * one->reduce_seconds,
           1e3 * one->in_turn_seconds);
    for (int i = 1; i < TRIED; i++) {
        const size_t at = (size_t)i * sizeof(double);
        const double took = slowest(gpus, ranks, offsetof(gpu, seconds) + at),
                     only = slowest(gpus, ranks, offsetof(gpu, alone) + at);
        printf(
            "  %2lld chunks%s: %.3f ms, %.2f of in turn, %.2f of max(computing, sum); computing alone %.3f ms; "
            "modelled %.3f ms\n",
            (long long)gpus[0].info[i].chunks, tried[i] == 0 ? " (the model's)" : "", 1e3 * took,
            took / in_turn, took / fmax(alone, reduce), 1e3 * only, 1e3 * gpus[0].info[i].seconds);
    }
    /* Each rank's product, and each sum, may be rounded otherwise. */
    printf(
        "  y in several chunks is off by %.2g of its largest element, at most %.2g is right; %d of %d elements are "
        "not the products of o and w\n",
        off, 2 * ranks * unit, wrong, ranks * LOOKED_AT * COLUMNS);
    return wrong > 0 || !(off <= 2 * ranks * unit);
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
    return report(gpus, s, ranks);
}

int main(int argc, char **argv)
{
    static const int64_t tokens[] = {2048, 4096, 8192, 16384, 32768};
    static const fa_dtype types[] = {FA_F16, FA_BF16};
    struct ncclComm *comms[MOST_GPUS];
    int wrong = 0;
    const int ranks = open_gpus(argc > 1 ? atoi(argv[1]) : 0, comms);
    for (int i = 2; i + 4 < argc; i += 5) {
        const shape s = {atoll(argv[i]), atoll(argv[i + 1]), atoll(argv[i + 2]), atoll(argv[i + 3]),
                         strcmp(argv[i + 4], "bf16") == 0 ? FA_BF16 : FA_F16};
        wrong += run_shape(&s, ranks, comms);
    }
    for (int i = 0; argc <= 2 && i < 20; i++) {
        const int wide = i / 10;
        const shape s = {tokens[i % 5], wide ? 8192 : 4096, wide ? 64 : 32, wide ? 8 : 32, types[i / 5 % 2]};
        wrong += run_shape(&s, ranks, comms);
    }
    return wrong != 0;
}
