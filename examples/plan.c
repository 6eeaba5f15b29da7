/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan once, run many times: one plan serves all layers of a model, in device memory, on the backend that the
 * environment variable FASTATTN_BACKEND names (openmp, cuda, opencl, vulkan).
 *
 *   cc plan.c $(pkg-config --cflags --libs fastattn) -lm -o plan && FASTATTN_BACKEND=openmp ./plan
 *
 * fa_plan_run() allocates nothing. The runs of one queue are executed in order.
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { LAYERS = 4, HEADS = 8, ROWS = 16, KEYS = 300, DIM = 64 };
enum { Q_SIZE = HEADS * ROWS * DIM, KV_SIZE = HEADS * KEYS * DIM }; /* elements of one layer */

static float q[Q_SIZE], k[KV_SIZE], v[LAYERS * KV_SIZE], o[LAYERS * Q_SIZE];

/* Everything that must be given back. */
typedef struct model {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *q, *k, *v, *o, *workspace;
} model;

/* The steps that are done once. Each returns at the first failure; destroy() takes what there is. */
static fa_status create(model *m)
{
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM),
        .k = fa_tensor_make(FA_F32, 1, HEADS, KEYS, DIM),
        .v = fa_tensor_make(FA_F32, 1, HEADS, KEYS, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM),
    };
    fa_status status;
    if ((status = fa_context_create(NULL, &m->context)) != FA_OK ||
        (status = fa_device_open(m->context, NULL, &desc, &m->device)) != FA_OK ||
        (status = fa_queue_create(m->device, &m->queue)) != FA_OK ||
        (status = fa_plan_create(m->device, &desc, &m->plan)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(q), &m->q)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(k), &m->k)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(v), &m->v)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(o), &m->o)) != FA_OK)
        return status;
    return fa_buffer_create(m->device, fa_plan_workspace(m->plan), &m->workspace);
}

/* All layers, one behind the other. q and k are those of every layer here; v and o are each layer's own. */
static fa_status run(const model *m)
{
    fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = m->q,
        .k = m->k,
        .v = m->v,
        .o = m->o,
        .workspace = m->workspace,
    };
    fa_status status;
    if ((status = fa_buffer_write(m->queue, m->q, 0, q, sizeof(q))) != FA_OK ||
        (status = fa_buffer_write(m->queue, m->k, 0, k, sizeof(k))) != FA_OK ||
        (status = fa_buffer_write(m->queue, m->v, 0, v, sizeof(v))) != FA_OK)
        return status;
    for (size_t layer = 0; layer < LAYERS; layer++) {
        args.v_offset = layer * KV_SIZE * sizeof(float);
        args.o_offset = layer * Q_SIZE * sizeof(float);
        if ((status = fa_plan_run(m->plan, m->queue, &args)) != FA_OK)
            return status;
    }
    return fa_buffer_read(m->queue, m->o, 0, o, sizeof(o)); /* in the queue's order: behind all runs */
}

/* The queue first: it waits for what still runs. NULL is allowed. */
static void destroy(model *m)
{
    fa_queue_destroy(m->queue);
    fa_plan_destroy(m->plan);
    fa_buffer_destroy(m->workspace);
    fa_buffer_destroy(m->o);
    fa_buffer_destroy(m->v);
    fa_buffer_destroy(m->k);
    fa_buffer_destroy(m->q);
    fa_device_close(m->device);
    fa_context_destroy(m->context);
}

int main(void)
{
    /* Scores are 0 everywhere, so each row of o is the mean of its layer's values: layer + (KEYS - 1) / 2. */
    for (int i = 0; i < LAYERS * KV_SIZE; i++)
        v[i] = (float)(i / KV_SIZE + i / DIM % KEYS);
    model m = {0};
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_status status = create(&m);
    if (status == FA_OK)
        status = fa_plan_get_info(m.plan, &info);
    if (status == FA_OK)
        status = run(&m);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    destroy(&m);
    for (int i = 0; status == FA_OK && i < LAYERS * Q_SIZE; i++) {
        float mean = (float)(i / Q_SIZE) + (KEYS - 1) / 2.0F;
        if (!(fabsf(o[i] - mean) <= 1e-5F * mean)) {
            fprintf(stderr, "o[%d] is %g, expected %g\n", i, (double)o[i], (double)mean);
            return 1;
        }
    }
    if (status == FA_OK)
        printf("%d layers by kernel %s: %g ... %g\n", LAYERS, info.kernel, (double)o[0],
               (double)o[LAYERS * Q_SIZE - 1]);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK;
}
