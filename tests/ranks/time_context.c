/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. A context over all GPUs of this machine, or as many as asked for, one thread for each, over NCCL,
 * beside the same on one of them:
 *   decode  one row, whose keys are sharded (fa_sharded_context)
 *   ring    a causal prompt, whose tokens are sharded (fa_ring)
 * The fastest of a few runs, of all ranks the slowest. What ranks computed is compared with what one computed.
 *
 *   time_context [GPUS [KIND TOKENS HEADS KV_HEADS TYPE]...]      TYPE is f16 or bf16; dims are 128
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

enum { DIM = 128, TURNS = 10 };

typedef struct shape {
    int rings;
    int64_t tokens, heads, heads_kv;
    fa_dtype dtype;
} shape;

/* Some tokens in the order of the sequence: a whole one, or what a rank has of it. */
typedef struct part {
    int64_t first[2], count[2];
} part;

typedef struct gpu {
    pthread_t thread;
    int rank, ranks;
    struct ncclComm *comm;
    const shape *shape;
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_transport *transport;
    double one, all; /* seconds on one GPU, and on all */
    double off;      /* how far a result is from one GPU's, over its largest element */
} gpu;

static float *expected; /* some rows of what one GPU computed */

/* All ranks begin together. */
static void meet(const gpu *g)
{
    char own = 0, all[MOST_GPUS], message[256] = "";
    need(g->transport->allgather(g->transport->user, &own, all, 1, 60, message, sizeof(message)));
}

/* Numbers that repeat themselves, but not with the tokens. */
enum { PERIOD = 1000003 };
static uint16_t *make_numbers(const shape *s, uint64_t state)
{
    uint16_t *made = malloc(PERIOD * sizeof(*made));
    NEED(made == NULL);
    for (int i = 0; i < PERIOD; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const float value = (float)(int32_t)(state >> 33) / 0x1p30f - 1;
        made[i] = s->dtype == FA_F16 ? fa_f32_to_f16(value) : fa_f32_to_bf16(value);
    }
    return made;
}

/* Elements from number `first` of a tensor on. */
static void copy_numbers(const uint16_t *numbers, int64_t first, int64_t count, uint16_t *to)
{
    for (int64_t done = 0, n; done < count; done += n) {
        const int64_t at = (first + done) % PERIOD;
        n = count - done < PERIOD - at ? count - done : PERIOD - at;
        memcpy(to + done, numbers + at, (size_t)n * sizeof(*to));
    }
}

/* A tensor of (1, heads, tokens, DIM) in the order of tokens. */
static fa_tensor by_token(const shape *s, int64_t heads, int64_t tokens)
{
    return (fa_tensor){s->dtype, {1, heads, tokens, DIM}, {tokens * heads * DIM, DIM, heads * DIM, 1}};
}

static int64_t tokens_of(const part *p)
{
    return p->count[0] + p->count[1];
}

/* What each rank has of a sequence is the same numbers, wherever it lies. */
static fa_buffer *upload(const gpu *g, const part *p, int64_t heads, uint64_t seed)
{
    const int64_t row = heads * DIM, block = 4096;
    fa_buffer *made;
    size_t at = 0;
    uint16_t *numbers = make_numbers(g->shape, seed), *host = malloc((size_t)(block * row) * sizeof(*host));
    NEED(host == NULL);
    need(fa_buffer_create(g->device, (size_t)(tokens_of(p) * row) * sizeof(*host), &made));
    for (int i = 0; i < 2; i++) {
        for (int64_t done = 0, n; done < p->count[i]; done += n) {
            n = p->count[i] - done < block ? p->count[i] - done : block;
            copy_numbers(numbers, (p->first[i] + done) * row, n * row, host);
            need(fa_buffer_write(g->queue, made, at, host, (size_t)(n * row) * sizeof(*host)));
            at += (size_t)(n * row) * sizeof(*host);
        }
    }
    free(numbers);
    free(host);
    return made;
}

/* A problem's memory. */
typedef struct memory {
    fa_attention_args args;
    fa_attention_desc desc;
    part rows;
} memory;

static memory make_memory(const gpu *g, const part *rows, const part *keys)
{
    const shape *s = g->shape;
    memory m = {.rows = *rows};
    m.desc = (fa_attention_desc){.struct_size = sizeof(m.desc),
                                 .q = by_token(s, s->heads, tokens_of(rows)),
                                 .k = by_token(s, s->heads_kv, tokens_of(keys)),
                                 .v = by_token(s, s->heads_kv, tokens_of(keys)),
                                 .o = by_token(s, s->heads, tokens_of(rows)),
                                 .mask = s->rings ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE};
    m.args = (fa_attention_args){.struct_size = sizeof(m.args),
                                 .q = upload(g, rows, s->heads, 1),
                                 .k = upload(g, keys, s->heads_kv, 2),
                                 .v = upload(g, keys, s->heads_kv, 3),
                                 .o = upload(g, rows, s->heads, 4)};
    return m;
}

static void release(memory *m)
{
    fa_buffer_destroy(m->args.q);
    fa_buffer_destroy(m->args.k);
    fa_buffer_destroy(m->args.v);
    fa_buffer_destroy(m->args.o);
    fa_buffer_destroy(m->args.workspace);
}

/* Some tokens' rows of o, as one GPU has them or as they should be. */
static void read_rows(const gpu *g, const memory *m, double *off)
{
    const int64_t row = g->shape->heads * DIM, step = 61;
    uint16_t *host = malloc((size_t)row * sizeof(*host));
    NEED(host == NULL);
    for (int64_t i = 0; i < tokens_of(&m->rows); i++) {
        const int second = i >= m->rows.count[0];
        const int64_t token = second ? m->rows.first[1] + i - m->rows.count[0] : m->rows.first[0] + i;
        if (token % step != 0)
            continue;
        need(fa_buffer_read(g->queue, m->args.o, (size_t)(i * row) * sizeof(*host), host,
                            (size_t)row * sizeof(*host)));
        for (int64_t e = 0; e < row; e++) {
            const float x = g->shape->dtype == FA_F16 ? fa_f16_to_f32(host[e]) : fa_bf16_to_f32(host[e]);
            float *there = &expected[token / step * row + e];
            if (off)
                *off = fmax(*off, (double)fabsf(x - *there));
            else
                *there = x;
        }
    }
    free(host);
}

typedef union object {
    fa_plan *plan;
    fa_ring *ring;
    fa_sharded_context *context;
} object;
enum { ONE, RING, CONTEXT };

static fa_status run(const gpu *g, int kind, const object *o, const fa_attention_args *args)
{
    return kind == ONE    ? fa_plan_run(o->plan, g->queue, args)
           : kind == RING ? fa_ring_run(o->ring, g->queue, args)
                          : fa_sharded_context_run(o->context, g->queue, args);
}

static double time_runs(const gpu *g, int kind, const object *o, const fa_attention_args *args)
{
    double least = INFINITY;
    for (int turn = 0; turn < TURNS; turn++) {
        if (kind != ONE)
            meet(g);
        const double start = fa_clock();
        need(run(g, kind, o, args));
        need(fa_queue_wait(g->queue));
        least = fmin(least, fa_clock() - start);
    }
    return least;
}

static double time_one(const gpu *g)
{
    const part all = {.count = {g->shape->tokens, 0}}, row = {.count = {1, 0}};
    object o;
    memory m = make_memory(g, g->shape->rings ? &all : &row, &all);
    need(fa_plan_create(g->device, &m.desc, &o.plan));
    need(fa_buffer_create(g->device, fa_plan_workspace(o.plan), &m.args.workspace));
    const double seconds = time_runs(g, ONE, &o, &m.args);
    read_rows(g, &m, NULL);
    fa_plan_destroy(o.plan);
    release(&m);
    return seconds;
}

static double time_all(gpu *g)
{
    const shape *s = g->shape;
    const int64_t begin = s->tokens * g->rank / g->ranks, end = s->tokens * (g->rank + 1) / g->ranks;
    const part keys = {.first = {begin}, .count = {end - begin}}, row = {.count = {1, 0}};
    part own;
    object o;
    need(fa_ring_share(s->tokens, g->ranks, g->rank, own.first, own.count));
    memory m = s->rings ? make_memory(g, &own, &own) : make_memory(g, &row, &keys);
    const fa_ring_desc ring = {.struct_size = sizeof(ring), .attention = &m.desc, .tokens = s->tokens};
    if (s->rings)
        need(fa_ring_create(g->device, g->transport, &ring, &o.ring));
    else
        need(fa_sharded_context_create(g->device, g->transport, &m.desc, &o.context));
    need(fa_buffer_create(g->device,
                          s->rings ? fa_ring_workspace(o.ring) : fa_sharded_context_workspace(o.context),
                          &m.args.workspace));
    const double seconds = time_runs(g, s->rings ? RING : CONTEXT, &o, &m.args);
    read_rows(g, &m, &g->off);
    if (s->rings)
        fa_ring_destroy(o.ring);
    else
        fa_sharded_context_destroy(o.context);
    release(&m);
    return seconds;
}

static void *run_gpu(void *argument)
{
    gpu *g = argument;
    char name[16];
    stream travel;
    NEED(api.cudaSetDevice(g->rank));
    /* Where attention fills the device, blocks of NCCL's kernel are to be the next ones. */
    NEED(api.cudaStreamCreateWithPriority(&travel, NON_BLOCKING, HIGH_PRIORITY));
    (void)snprintf(name, sizeof(name), "cuda:%d", g->rank);
    need(fa_context_create(NULL, &g->context));
    need(fa_device_open(g->context, name, NULL, &g->device));
    need(fa_queue_create(g->device, &g->queue));
    need(fa_transport_create_nccl(g->context, g->comm, travel, &g->transport));
    g->transport->timeout = 60;
    if (g->rank == 0)
        g->one = time_one(g);
    meet(g);
    g->all = time_all(g);
    fa_transport_destroy(g->transport);
    fa_queue_destroy(g->queue);
    fa_device_close(g->device);
    fa_context_destroy(g->context);
    return NULL;
}

static int run_shape(const shape *s, int ranks, struct ncclComm **comms)
{
    gpu gpus[MOST_GPUS];
    double all = 0, off = 0;
    float largest = 0;
    const size_t count = (size_t)(s->rings ? s->tokens / 61 + 1 : 1) * (size_t)s->heads * DIM;
    expected = calloc(count, sizeof(*expected));
    NEED(expected == NULL);
    memset(gpus, 0, sizeof(gpus));
    for (int r = 0; r < ranks; r++) {
        gpus[r] = (gpu){.rank = r, .ranks = ranks, .comm = comms[r], .shape = s};
        NEED(pthread_create(&gpus[r].thread, NULL, run_gpu, &gpus[r]));
    }
    for (int r = 0; r < ranks; r++) {
        (void)pthread_join(gpus[r].thread, NULL);
        all = fmax(all, gpus[r].all);
        off = fmax(off, gpus[r].off);
    }
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(expected[i]));
    free(expected);
    /* Each result is rounded to its type, and so are the weights that v is multiplied by. */
    const double limit = 4 * (s->dtype == FA_F16 ? 0x1p-11 : 0x1p-8);
    printf("%s, %lld tokens, heads %lld/%lld, %s: one GPU %.3f ms, %d GPUs %.3f ms, %.2f times as fast\n",
           s->rings ? "ring" : "decode", (long long)s->tokens, (long long)s->heads, (long long)s->heads_kv,
           fa_dtype_name(s->dtype), 1e3 * gpus[0].one, ranks, 1e3 * all, gpus[0].one / all);
    printf("  off by %.2g of the largest element, at most %.2g is right\n", off / (double)largest, limit);
    return !(off <= limit * (double)largest);
}

int main(int argc, char **argv)
{
    static const shape usual[] = {{0, 1 << 20, 32, 8, FA_F16}, {1, 1 << 17, 32, 8, FA_F16}};
    struct ncclComm *comms[MOST_GPUS];
    int wrong = 0;
    const int ranks = open_gpus(argc > 1 ? atoi(argv[1]) : 0, comms);
    for (int i = 2; i + 4 < argc; i += 5) {
        const shape s = {strcmp(argv[i], "ring") == 0, atoll(argv[i + 1]), atoll(argv[i + 2]),
                         atoll(argv[i + 3]), strcmp(argv[i + 4], "bf16") == 0 ? FA_BF16 : FA_F16};
        wrong += run_shape(&s, ranks, comms);
    }
    for (size_t i = 0; argc <= 2 && i < sizeof(usual) / sizeof(usual[0]); i++)
        wrong += run_shape(&usual[i], ranks, comms);
    return wrong != 0;
}
