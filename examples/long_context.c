/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache that outgrows a device: the newest keys lie on the device that the environment variable FASTATTN_BACKEND names
 * (openmp, cuda, opencl, vulkan), all keys in host memory, and the CPU attends to those that the device has no room for while
 * the device attends to the others.
 *
 *   cc long_context.c $(pkg-config --cflags --libs fastattn) -lm -o long_context && FASTATTN_BACKEND=openmp ./long_context
 *
 * The device's pages are a ring: the page of the oldest keys becomes that of the newest. Since the host has all keys, a run may
 * compute more of them there than it must, where the host is fast enough; fa_cooperate_get_info() says how many it took.
 * A third part of the work is streamed: keys that only the host has are copied through two buffers of the device, of STREAM bytes
 * in all, and computed there. Copies run beside the CPU's work on CUDA alone, and out of memory of fa_host_memory_create(), so
 * the host's caches lie in such memory. A run streams as many keys as make it end soonest, which are none of a cache as small as
 * this one; so that there is something to see, stream_share fixes it to a quarter. Leave it 0 elsewhere.
 *
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>

enum { STEPS = 600, PAGE = 16, PAGES = 16, HEADS_Q = 8, HEADS_KV = 2, DIM = 64, ROW = 2 * DIM /* bytes */ };
enum { ALL = HEADS_KV * STEPS * ROW, STREAM = 1 << 16 };

/* Everything that must be given back. The home device has the queries. */
typedef struct generation {
    fa_context *context;
    fa_device *home, *host;
    fa_queue *queue;
    fa_cooperate *pair;
    fa_buffer *q, *o, *home_k, *home_v, *table, *host_k, *host_v;
    void *all_k, *all_v; /* what host_k and host_v wrap: f16 */
} generation;

/* One query row for each head; each device's cache is a segment. */
static fa_status create_pair(generation *g)
{
    const fa_attention_desc attention = {
        .struct_size = sizeof(attention),
        .q = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
    };
    const fa_segment host = {
        .struct_size = sizeof(host),
        .k = fa_tensor_make(FA_F16, 1, HEADS_KV, STEPS, DIM),
        .v = fa_tensor_make(FA_F16, 1, HEADS_KV, STEPS, DIM),
    };
    const fa_segment home = {
        .struct_size = sizeof(home),
        .k = fa_tensor_make(FA_F16, PAGES, HEADS_KV, PAGE, DIM),
        .v = fa_tensor_make(FA_F16, PAGES, HEADS_KV, PAGE, DIM),
        .page_table = fa_tensor_make(FA_I32, 1, 1, 1, PAGES),
    };
    const fa_segment *const list[] = {&host, &home};
    const fa_segments_desc segments = {
        .struct_size = sizeof(segments), .attention = &attention, .segments = 2, .segment = list};
    const fa_cooperate_desc desc = {
        .struct_size = sizeof(desc), .segments = &segments, .stream_bytes = STREAM, .stream_share = 0.25};
    return fa_cooperate_create(g->home, g->host, &desc, &g->pair);
}

/* Each step returns at the first failure; destroy() takes what there is. */
static fa_status create(generation *g)
{
    const size_t row = HEADS_Q * DIM * sizeof(float), pool = (size_t)PAGES * HEADS_KV * PAGE * ROW;
    fa_status status;
    if ((status = fa_context_create(NULL, &g->context)) != FA_OK ||
        (status = fa_device_open(g->context, NULL, NULL, &g->home)) != FA_OK ||
        (status = fa_device_open(g->context, "openmp", NULL, &g->host)) != FA_OK ||
        (status = fa_queue_create(g->home, &g->queue)) != FA_OK || (status = create_pair(g)) != FA_OK ||
        (status = fa_buffer_create(g->home, row, &g->q)) != FA_OK ||
        (status = fa_buffer_create(g->home, row, &g->o)) != FA_OK ||
        (status = fa_buffer_create(g->home, pool, &g->home_k)) != FA_OK ||
        (status = fa_buffer_create(g->home, pool, &g->home_v)) != FA_OK ||
        (status = fa_buffer_create(g->home, PAGES * sizeof(int32_t), &g->table)) != FA_OK ||
        (status = fa_host_memory_create(g->home, ALL, &g->all_k)) != FA_OK ||
        (status = fa_host_memory_create(g->home, ALL, &g->all_v)) != FA_OK ||
        (status = fa_buffer_wrap_host(g->host, g->all_k, ALL, &g->host_k)) != FA_OK)
        return status;
    return fa_buffer_wrap_host(g->host, g->all_v, ALL, &g->host_v);
}

/* A head's row of key `at`, into the host's cache and the device's ring. */
static fa_status store(const generation *g, fa_buffer *home, void *all, int at, int head, const float *x)
{
    unsigned char *row = (unsigned char *)all + (size_t)(head * STEPS + at) * ROW;
    const int page = at / PAGE % PAGES;
    fa_elements_store(FA_F16, row, 0, x, DIM);
    return fa_buffer_write(g->queue, home, (size_t)((page * HEADS_KV + head) * PAGE + at % PAGE) * ROW, row,
                           ROW);
}

static fa_status append(const generation *g, int at, const float *key, const float *value)
{
    fa_status status = FA_OK;
    for (int head = 0; head < HEADS_KV && status == FA_OK; head++) {
        status = store(g, g->home_k, g->all_k, at, head, key + head * DIM);
        if (status == FA_OK)
            status = store(g, g->home_v, g->all_v, at, head, value + head * DIM);
    }
    return status;
}

/* The oldest key that the ring still holds: the first of its page. */
static int oldest_at_home(int keys)
{
    const int pages = (keys + PAGE - 1) / PAGE;
    return pages > PAGES ? (pages - PAGES) * PAGE : 0;
}

/* The ring's pages in the order of their keys. */
static fa_status write_table(const generation *g, int from)
{
    int32_t table[PAGES];
    for (int i = 0; i < PAGES; i++)
        table[i] = (from / PAGE + i) % PAGES;
    return fa_buffer_write(g->queue, g->table, 0, table, sizeof(table));
}

static fa_status attend(const generation *g, int count)
{
    const int64_t keys = count, from = oldest_at_home(count);
    const fa_cooperate_keys lie = {
        .struct_size = sizeof(lie), .keys = &keys, .away_keys = &keys, .home_from = &from};
    const fa_segment_args host = {.struct_size = sizeof(host), .k = g->host_k, .v = g->host_v};
    const fa_segment_args home = {
        .struct_size = sizeof(home), .k = g->home_k, .v = g->home_v, .page_table = g->table};
    const fa_segment_args *const list[] = {&host, &home};
    const fa_segments_args args = {.struct_size = sizeof(args), .q = g->q, .o = g->o, .segment = list};
    const fa_status status = write_table(g, (int)from);
    return status == FA_OK ? fa_cooperate_run(g->pair, g->queue, &lie, &args) : status;
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
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .k = fa_tensor_make(FA_F16, 1, HEADS_KV, STEPS, DIM),
        .v = fa_tensor_make(FA_F16, 1, HEADS_KV, STEPS, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
    };
    const fa_inputs inputs = {.q = q, .k = g->all_k, .v = g->all_v};
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
    fa_buffer *const buffers[] = {g->q, g->o, g->home_k, g->home_v, g->table, g->host_k, g->host_v};
    fa_queue_destroy(g->queue);
    fa_cooperate_destroy(g->pair);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        fa_buffer_destroy(buffers[i]);
    fa_host_memory_destroy(g->home, g->all_k, ALL);
    fa_host_memory_destroy(g->home, g->all_v, ALL);
    fa_device_close(g->home);
    fa_device_close(g->host);
    fa_context_destroy(g->context);
}

int main(void)
{
    generation g = {.context = NULL};
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    double worst = 0;
    fa_status status = create(&g);
    if (status == FA_OK)
        status = generate(&g, &worst);
    if (status == FA_OK)
        status = fa_cooperate_get_info(g.pair, &info);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    else
        printf(
            "%d steps; in the last, %lld keys on the host, %lld streamed, %lld of the device's; off by at most %.1e\n",
            STEPS, (long long)info.keys_away, (long long)info.keys_streamed, (long long)info.keys_home,
            worst);
    destroy(&g);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK || !(worst < 1e-5);
}
