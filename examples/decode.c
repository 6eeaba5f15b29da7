/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache that grows: one plan serves a whole generation, on the backend that the environment variable FASTATTN_BACKEND
 * names (openmp, cuda, opencl, vulkan). Each step appends a key and a value to the cache and attends to all of them.
 *
 *   cc decode.c $(pkg-config --cflags --libs fastattn) -lm -o decode && FASTATTN_BACKEND=openmp ./decode
 *
 * The plan is made for the longest cache. fa_plan_schedule() tells a run how long it is now.
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { STEPS = 100, HEADS_Q = 8, HEADS_KV = 2, DIM = 64, ROW = DIM * sizeof(float) };

/* Everything that must be given back. */
typedef struct generation {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *q, *k, *v, *o, *workspace, *work;
} generation;

/* The steps that are done once. Each returns at the first failure; destroy() takes what there is. */
static fa_status create(generation *g)
{
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .k = fa_tensor_make(FA_F32, 1, HEADS_KV, STEPS, DIM),
        .v = fa_tensor_make(FA_F32, 1, HEADS_KV, STEPS, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, DIM),
        .dynamic_lengths = 1,
    };
    const size_t cache = (size_t)HEADS_KV * STEPS * ROW, row = (size_t)HEADS_Q * ROW;
    fa_status status;
    if ((status = fa_context_create(NULL, &g->context)) != FA_OK ||
        (status = fa_device_open(g->context, NULL, &desc, &g->device)) != FA_OK ||
        (status = fa_queue_create(g->device, &g->queue)) != FA_OK ||
        (status = fa_plan_create(g->device, &desc, &g->plan)) != FA_OK ||
        (status = fa_buffer_create(g->device, row, &g->q)) != FA_OK ||
        (status = fa_buffer_create(g->device, cache, &g->k)) != FA_OK ||
        (status = fa_buffer_create(g->device, cache, &g->v)) != FA_OK ||
        (status = fa_buffer_create(g->device, row, &g->o)) != FA_OK ||
        (status = fa_buffer_create(g->device, fa_plan_workspace(g->plan), &g->workspace)) != FA_OK)
        return status;
    return fa_buffer_create(g->device, fa_plan_work(g->plan), &g->work);
}

/* Writes the key and the value of position `at`, one row for each head. */
static fa_status append(const generation *g, int at, const float *key, const float *value)
{
    fa_status status = FA_OK;
    for (size_t head = 0; head < HEADS_KV && status == FA_OK; head++) {
        const size_t offset = (head * STEPS + (size_t)at) * ROW;
        status = fa_buffer_write(g->queue, g->k, offset, key, ROW);
        if (status == FA_OK)
            status = fa_buffer_write(g->queue, g->v, offset, value, ROW);
    }
    return status;
}

/* One query row against the first `length` keys of the cache. */
static fa_status attend(const generation *g, int32_t length, float o[HEADS_Q * DIM])
{
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv32 = &length};
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = g->q,
        .k = g->k,
        .v = g->v,
        .o = g->o,
        .workspace = g->workspace,
        .work = g->work,
    };
    fa_status status = fa_plan_schedule(g->plan, g->queue, &lengths, g->work, 0);
    if (status == FA_OK)
        status = fa_plan_run(g->plan, g->queue, &args);
    return status == FA_OK ? fa_buffer_read(g->queue, g->o, 0, o, (size_t)HEADS_Q * ROW) : status;
}

/* Scores are 0 everywhere and the value of position n is n, so that o is the mean of 0 to n. */
static fa_status generate(const generation *g, int *wrong)
{
    static float zeros[HEADS_Q * DIM];
    float o[HEADS_Q * DIM], value[DIM];
    fa_status status = fa_buffer_write(g->queue, g->q, 0, zeros, sizeof(zeros));
    for (int n = 0; n < STEPS && status == FA_OK; n++) {
        for (int d = 0; d < DIM; d++)
            value[d] = (float)n;
        status = append(g, n, zeros, value);
        if (status == FA_OK)
            status = attend(g, n + 1, o);
        for (int i = 0; i < HEADS_Q * DIM && status == FA_OK; i++)
            *wrong += !(fabsf(o[i] - (float)n / 2) <= 1e-5F * (float)n);
    }
    return status;
}

/* The queue first: it waits for what still runs. NULL is allowed. */
static void destroy(generation *g)
{
    fa_queue_destroy(g->queue);
    fa_plan_destroy(g->plan);
    fa_buffer_destroy(g->work);
    fa_buffer_destroy(g->workspace);
    fa_buffer_destroy(g->o);
    fa_buffer_destroy(g->v);
    fa_buffer_destroy(g->k);
    fa_buffer_destroy(g->q);
    fa_device_close(g->device);
    fa_context_destroy(g->context);
}

int main(void)
{
    generation g = {0};
    int wrong = 0;
    fa_status status = create(&g);
    if (status == FA_OK)
        status = generate(&g, &wrong);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    else
        printf("%d steps with one plan, %d wrong numbers\n", STEPS, wrong);
    destroy(&g);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK || wrong > 0;
}
