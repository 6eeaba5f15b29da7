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
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>

enum { STEPS = 1000, HEADS_Q = 8, HEADS_KV = 2, DIM = 64, PAGE = 16, PAGES = (STEPS + PAGE - 1) / PAGE };
enum { ROW = DIM / 32 * 34 /* bytes of a row in q8_0 */, POOL = PAGES * HEADS_KV * PAGE * ROW };

/* Everything that must be given back. */
typedef struct generation {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_append *append;
    fa_buffer *q, *k, *v, *o, *table, *new_k, *new_v, *slot, *workspace, *work;
} generation;

static int32_t table[PAGES];                     /* in which page of the pool page n of the sequence lies */
static unsigned char pool_k[POOL], pool_v[POOL]; /* what the device's pools should hold */

static fa_attention_desc describe(void)
{
    for (int n = 0; n < PAGES; n++)
        table[n] = PAGES - 1 - n; /* as an engine's allocator may have dealt them */
    return (fa_attention_desc){
        .struct_size = sizeof(fa_attention_desc),
        .q = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .k = fa_tensor_make(FA_Q8_0, PAGES, HEADS_KV, PAGE, DIM),
        .v = fa_tensor_make(FA_Q8_0, PAGES, HEADS_KV, PAGE, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .page_table = fa_tensor_make(FA_I32, 1, 1, 1, PAGES),
        .dynamic_lengths = 1,
    };
}

static fa_status create_append(generation *g, const fa_attention_desc *desc)
{
    const fa_tensor rows = fa_tensor_make(FA_F32, 1, HEADS_KV, 1, DIM);
    const fa_append_desc append = {
        .struct_size = sizeof(append), .k = rows, .v = rows, .cache_k = desc->k, .cache_v = desc->v};
    return fa_append_create(g->device, &append, &g->append);
}

/* The steps that are done once. Each returns at the first failure; destroy() takes what there is. */
static fa_status create(generation *g)
{
    const fa_attention_desc desc = describe();
    const size_t rows = (size_t)HEADS_KV * DIM * sizeof(float), row = (size_t)HEADS_Q * DIM * sizeof(float);
    fa_status status;
    if ((status = fa_context_create(NULL, &g->context)) != FA_OK ||
        (status = fa_device_open(g->context, NULL, &desc, &g->device)) != FA_OK ||
        (status = fa_queue_create(g->device, &g->queue)) != FA_OK ||
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

/* The key and the value of position `at`, a row for each head. */
static fa_status append(const generation *g, int at, const float *key, const float *value)
{
    const int32_t slot = table[at / PAGE] * PAGE + at % PAGE;
    const size_t bytes = (size_t)HEADS_KV * DIM * sizeof(float);
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = g->new_k,
        .v = g->new_v,
        .slots = g->slot,
        .cache_k = g->k,
        .cache_v = g->v,
    };
    fa_status status;
    append_on_host(at, key, value);
    if ((status = fa_buffer_write(g->queue, g->new_k, 0, key, bytes)) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->new_v, 0, value, bytes)) != FA_OK ||
        (status = fa_buffer_write(g->queue, g->slot, 0, &slot, sizeof(slot))) != FA_OK)
        return status;
    return fa_append_run(g->append, g->queue, &args);
}

/* One query row against the first `length` keys of the cache. */
static fa_status attend(const generation *g, int32_t length)
{
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv32 = &length};
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
    fa_status status = fa_plan_schedule(g->plan, g->queue, &lengths, g->work, 0);
    return status == FA_OK ? fa_plan_run(g->plan, g->queue, &args) : status;
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
    fa_attention_desc desc = describe();
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

static fa_status generate(const generation *g, double *worst)
{
    float q[HEADS_Q * DIM], key[HEADS_KV * DIM], value[HEADS_KV * DIM];
    fa_status status = FA_OK;
    for (int n = 0; n < STEPS && status == FA_OK; n++) {
        make_up(q, HEADS_Q * DIM, n);
        make_up(key, HEADS_KV * DIM, n + 1);
        make_up(value, HEADS_KV * DIM, n + 2);
        status = fa_buffer_write(g->queue, g->q, 0, q, sizeof(q));
        if (status == FA_OK)
            status = append(g, n, key, value);
        if (status == FA_OK)
            status = attend(g, n + 1);
    }
    return status == FA_OK ? check(g, q, worst) : status;
}

/* The queue first: it waits for what still runs. NULL is allowed. */
static void destroy(generation *g)
{
    fa_buffer *const buffers[] = {g->q,     g->k,     g->v,    g->o,         g->table,
                                  g->new_k, g->new_v, g->slot, g->workspace, g->work};
    fa_queue_destroy(g->queue);
    fa_plan_destroy(g->plan);
    fa_append_destroy(g->append);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        fa_buffer_destroy(buffers[i]);
    fa_device_close(g->device);
    fa_context_destroy(g->context);
}

int main(void)
{
    generation g = {0};
    double worst = 0;
    fa_status status = create(&g);
    if (status == FA_OK)
        status = generate(&g, &worst);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    else
        printf("%d steps with one plan; off by at most %.1e\n", STEPS, worst);
    destroy(&g);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK || !(worst < 1e-5);
}
