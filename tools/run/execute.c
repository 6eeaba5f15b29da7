/* SPDX-License-Identifier: Apache-2.0 */
/* From a description and host memory to outputs in host memory. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "tools/cli.h"
#include "tools/run/run.h"

enum { Q, K, V, BIAS, KEEP, PAGES, K_SCALE, V_SCALE, K_ZERO, V_ZERO, O, LSE, WORKSPACE, BUFFERS };

typedef struct execution {
    fa_device *device;
    fa_queue *queue;
    const fa_plan *plan;
    fa_buffer *buffer[BUFFERS];
    int host_memory;
} execution;

/* Wraps the tensor's memory where the device can reach it; copies it there otherwise. */
static fa_status make_buffer(execution *e, int which, const io_tensor *tensor, bool input)
{
    fa_buffer **buffer = &e->buffer[which];
    if (!tensor->data)
        return FA_OK;
    if (e->host_memory)
        return fa_buffer_wrap_host(e->device, tensor->data, tensor->bytes, buffer);
    fa_status status = fa_buffer_create(e->device, tensor->bytes, buffer);
    if (status == FA_OK && input && tensor->bytes > 0)
        status = fa_buffer_write(e->queue, *buffer, 0, tensor->data, tensor->bytes);
    return status;
}

static fa_status make_buffers(execution *e, const run_problem *p)
{
    const io_tensor *const tensors[] = {[Q] = &p->q,
                                        [K] = &p->k,
                                        [V] = &p->v,
                                        [BIAS] = &p->bias,
                                        [KEEP] = &p->keep,
                                        [PAGES] = &p->page_table,
                                        [K_SCALE] = &p->scale[RUN_K_SCALE],
                                        [V_SCALE] = &p->scale[RUN_V_SCALE],
                                        [K_ZERO] = &p->scale[RUN_K_ZERO],
                                        [V_ZERO] = &p->scale[RUN_V_ZERO],
                                        [O] = &p->o,
                                        [LSE] = &p->lse};
    size_t workspace = fa_plan_workspace(e->plan);
    for (int i = Q; i < WORKSPACE; i++) {
        if (i == LSE && !p->desc.want_lse)
            continue;
        fa_status status = make_buffer(e, i, tensors[i], i != O && i != LSE);
        if (status != FA_OK)
            return status;
    }
    return workspace ? fa_buffer_create(e->device, workspace, &e->buffer[WORKSPACE]) : FA_OK;
}

static fa_status read_back(execution *e, int which, const io_tensor *tensor)
{
    if (e->host_memory || !e->buffer[which] || tensor->bytes == 0)
        return FA_OK;
    return fa_buffer_read(e->queue, e->buffer[which], 0, tensor->data, tensor->bytes);
}

static fa_status run_plan(execution *e, double *seconds)
{
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = e->buffer[Q],
        .k = e->buffer[K],
        .v = e->buffer[V],
        .o = e->buffer[O],
        .bias = e->buffer[BIAS],
        .keep = e->buffer[KEEP],
        .page_table = e->buffer[PAGES],
        .k_scale = e->buffer[K_SCALE],
        .v_scale = e->buffer[V_SCALE],
        .k_zero = e->buffer[K_ZERO],
        .v_zero = e->buffer[V_ZERO],
        .lse = e->buffer[LSE],
        .workspace = e->buffer[WORKSPACE],
    };
    struct timespec start, end;
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    fa_status status = fa_plan_run(e->plan, e->queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(e->queue);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    *seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    return status;
}

static fa_status execute(execution *e, run_problem *p, fa_device_info *device, double *seconds)
{
    fa_status status = fa_device_get_info(e->device, device);
    e->host_memory = device->host_memory;
    if (status == FA_OK)
        status = fa_queue_create(e->device, &e->queue);
    if (status == FA_OK)
        status = make_buffers(e, p);
    if (status == FA_OK)
        status = run_plan(e, seconds);
    if (status == FA_OK)
        status = read_back(e, O, &p->o);
    if (status == FA_OK)
        status = read_back(e, LSE, &p->lse);
    /* Before anything is torn down: the message lasts until the next call. */
    if (status != FA_OK)
        cli_error(RUN_COMMAND, "%s", fa_last_error());
    return status;
}

bool run_execute(fa_device *device, const fa_plan *plan, const fa_plan_info *info, run_problem *p)
{
    fa_device_info about = {.struct_size = sizeof(about)};
    execution e = {.device = device, .plan = plan};
    double seconds = 0;

    fa_status status = execute(&e, p, &about, &seconds);
    for (int i = 0; i < BUFFERS; i++)
        fa_buffer_destroy(e.buffer[i]);
    fa_queue_destroy(e.queue);
    if (status != FA_OK)
        return false;
    printf("%s:%" PRId32 " (%s), kernel %s, one run %.3f ms, blocks %" PRId32 " x %" PRId32 ", tiles %" PRId32
           " x %" PRId32 " x %" PRId32 ", splits %" PRId32 "\n",
           about.backend, about.index, cli_plain(about.name).text, info->kernel, 1e3 * seconds, info->block_q,
           info->block_kv, info->tile_q, info->tile_kv, info->tile_d, info->splits);
    return true;
}
