/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill of layers whose K and V stay on a device, and of layers whose K and V go to the host behind the computation. */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/cli.h"
#include "tools/cooperate/measure.h"

enum { LAYERS = 5, BUFFERS = 2, MOST_TURNS = 100, LEAST_TURNS = 3 };

/* k or v of a layer. */
typedef struct half {
    fa_tensor t;
    size_t bytes;
    unsigned char *memory; /* what it holds */
    fa_buffer *made[BUFFERS];
    void *host[BUFFERS];
} half;

typedef struct layers {
    const char *command;
    fa_device *device;
    fa_queue *queue, *out[BUFFERS]; /* each buffer is copied out on a queue of its own */
    fa_plan *plan;
    half side[2];
    fa_buffer *q, *o, *workspace;
    size_t q_bytes, o_bytes;
} layers;

static bool went(const layers *l, fa_status status)
{
    if (status != FA_OK)
        cli_error(l->command, "--prompt: %s", fa_last_error());
    return status == FA_OK;
}

static bool make_half(layers *l, half *h, fa_dtype dtype, const measure_problem *p, int64_t dim)
{
    h->t = fa_tensor_make(dtype, p->sequences, p->heads_kv, p->prompt, dim);
    if (!went(l, fa_tensor_span(&h->t, &h->bytes)))
        return false;
    const size_t rows = (size_t)(p->sequences * p->heads_kv * p->prompt);
    h->memory = malloc(h->bytes);
    if (!h->memory || !measure_fill(dtype, dim, h->bytes / rows, h->memory, rows)) {
        cli_error(l->command, "--prompt: no memory for a layer");
        return false;
    }
    for (int i = 0; i < BUFFERS; i++) {
        if (!went(l, fa_buffer_create(l->device, h->bytes, &h->made[i])) ||
            !went(l, fa_buffer_write(l->queue, h->made[i], 0, h->memory, h->bytes)) ||
            !went(l, fa_host_memory_create(l->device, h->bytes, &h->host[i])))
            return false;
        memset(h->host[i], 0, h->bytes);
    }
    return true;
}

static bool make(layers *l, const measure_problem *p)
{
    fa_attention_desc d = {.struct_size = sizeof(d),
                           .q = fa_tensor_make(FA_F16, p->sequences, p->heads_q, p->prompt, p->dim_qk),
                           .o = fa_tensor_make(FA_F16, p->sequences, p->heads_q, p->prompt, p->dim_v),
                           .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT};
    if (!went(l, fa_queue_create(l->device, &l->queue)) || !went(l, fa_queue_create(l->device, &l->out[0])) ||
        !went(l, fa_queue_create(l->device, &l->out[1])) ||
        !make_half(l, &l->side[0], p->k_type, p, p->dim_qk) ||
        !make_half(l, &l->side[1], p->v_type, p, p->dim_v))
        return false;
    d.k = l->side[0].t;
    d.v = l->side[1].t;
    if (!went(l, fa_tensor_span(&d.q, &l->q_bytes)) || !went(l, fa_tensor_span(&d.o, &l->o_bytes)) ||
        !went(l, fa_plan_create(l->device, &d, &l->plan)))
        return false;
    const size_t rows = l->q_bytes / 2 / (size_t)p->dim_qk;
    unsigned char *q = malloc(l->q_bytes);
    const bool made = q && measure_fill(FA_F16, p->dim_qk, (size_t)p->dim_qk * 2, q, rows) &&
                      went(l, fa_buffer_create(l->device, l->q_bytes, &l->q)) &&
                      went(l, fa_buffer_create(l->device, l->o_bytes, &l->o)) &&
                      went(l, fa_buffer_create(l->device, fa_plan_workspace(l->plan), &l->workspace)) &&
                      went(l, fa_buffer_write(l->queue, l->q, 0, q, l->q_bytes));
    free(q);
    return made;
}

static fa_status copy_out(const layers *l, int buffer)
{
    fa_status status = FA_OK;
    for (int i = 0; i < 2 && status == FA_OK; i++)
        status = fa_buffer_read_async(l->out[buffer], l->side[i].made[buffer], 0, l->side[i].host[buffer],
                                      l->side[i].bytes);
    return status;
}

/* All layers, of which the first `host` are the host's: a layer's K and V leave while the next is computed, in the other
 * buffer. */
static fa_status run(const layers *l, int host)
{
    fa_status status = FA_OK;
    for (int i = 0; i < LAYERS && status == FA_OK; i++) {
        const int b = i % BUFFERS;
        const fa_attention_args args = {.struct_size = sizeof(args),
                                        .q = l->q,
                                        .k = l->side[0].made[b],
                                        .v = l->side[1].made[b],
                                        .o = l->o,
                                        .workspace = l->workspace};
        status = fa_queue_wait(l->out[b]); /* its buffer is free again */
        if (status == FA_OK)
            status = fa_plan_run(l->plan, l->queue, &args);
        if (status == FA_OK)
            status = fa_queue_wait(l->queue);
        if (status == FA_OK && i < host)
            status = copy_out(l, b);
    }
    for (int b = 0; b < BUFFERS; b++) {
        const fa_status last = fa_queue_wait(l->out[b]);
        status = status == FA_OK ? last : status;
    }
    return status;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of all layers, in turn. */
static bool time_layers(const layers *l, double min_time, double seconds[2])
{
    static double taken[2][MOST_TURNS];
    const int host[2] = {0, LAYERS - 1};
    int turns = -1; /* the first warms up */
    for (const double begin = fa_clock();
         turns < LEAST_TURNS || (turns < MOST_TURNS && fa_clock() - begin < min_time); turns++) {
        for (int i = 0; i < 2; i++) {
            const double start = fa_clock();
            if (!went(l, run(l, host[i])))
                return false;
            taken[i][turns < 0 ? 0 : turns] = fa_clock() - start;
        }
    }
    for (int i = 0; i < 2; i++) {
        qsort(taken[i], (size_t)turns, sizeof(taken[i][0]), by_size);
        seconds[i] = taken[i][turns / 2];
    }
    return true;
}

static bool check(const layers *l)
{
    for (int i = 0; i < 2 * BUFFERS; i++) {
        const half *h = &l->side[i / BUFFERS];
        if (memcmp(h->host[i % BUFFERS], h->memory, h->bytes) != 0) {
            cli_error(l->command, "--prompt: %s that was copied out is not what was computed",
                      i < BUFFERS ? "K" : "V");
            return false;
        }
    }
    return true;
}

static void release(layers *l)
{
    for (int b = 0; b < BUFFERS; b++)
        fa_queue_destroy(l->out[b]);
    fa_queue_destroy(l->queue);
    for (int i = 0; i < 2 * BUFFERS; i++) {
        half *h = &l->side[i / BUFFERS];
        fa_buffer_destroy(h->made[i % BUFFERS]);
        fa_host_memory_destroy(l->device, h->host[i % BUFFERS], h->bytes);
    }
    free(l->side[0].memory);
    free(l->side[1].memory);
    fa_buffer_destroy(l->q);
    fa_buffer_destroy(l->o);
    fa_buffer_destroy(l->workspace);
    fa_plan_destroy(l->plan);
}

bool measure_prefill(const char *command, fa_device *home, const measure_problem *p, measure_layers *result)
{
    layers l = {.command = command, .device = home};
    double seconds[2];
    const bool ok = make(&l, p) && time_layers(&l, p->min_time, seconds) && check(&l);
    if (ok) {
        result->device = seconds[0] / LAYERS;
        result->host = (seconds[1] - result->device) / (LAYERS - 1);
    }
    release(&l);
    return ok;
}
