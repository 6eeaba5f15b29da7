/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of a sharded layer: this thread computes chunks, another one reduces those that are done; or both are enqueued. */
#include <pthread.h>
#include <stdio.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/plan.h"
#include "core/platform.h"
#include "core/ranks/layer.h"
#include "core/ranks/projection.h"
#include "core/structs.h"

/* One run. What both threads write is under the lock. */
typedef struct layer_run {
    fa_sharded_layer *layer;
    fa_queue *queue;
    fa_attention_args attention;
    const void *w;
    char *y;
    const float *w32; /* w, or a copy of it */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t computed;  /* chunks */
    bool over;         /* no more are computed */
    fa_status reduced; /* the first failure of an allreduce, and its message */
    fa_message message;
} layer_run;

static char *rows_of_y(const layer_run *r, int64_t token)
{
    const fa_sharded_layer_desc *d = &r->layer->desc;
    return r->y + (size_t)token * (size_t)d->width * fa_dtype_size(d->y);
}

static fa_status reduce_chunk(const layer_run *r, int64_t c)
{
    const fa_sharded_layer *l = r->layer;
    const int64_t rows = l->cut[c + 1] - l->cut[c];
    return fa_allreduce(&l->transport, l->desc.y, rows_of_y(r, l->cut[c]), rows * l->desc.width);
}

FA_FLOAT_APART static void convert(fa_dtype from_type, const void *from, int64_t from_stride,
                                   fa_dtype to_type, void *to, int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < width; j++)
            fa_store(to_type, to, i * width + j, fa_load(from_type, from, i * from_stride + j));
    }
}

static char *in_workspace(const layer_run *r, size_t offset)
{
    return (char *)r->attention.workspace->address + r->attention.workspace_offset + offset;
}

FA_FLOAT_APART static void multiply(const fa_sharded_layer *l, const fa_product *p)
{
    if (l->library)
        fa_cblas_multiply(p);
    else
        fa_plain_multiply(p);
}

static void project_on_host(const layer_run *r, int64_t first, int64_t rows)
{
    const fa_sharded_layer *l = r->layer;
    const bool wide = l->desc.y == FA_F32;
    char *const y = rows_of_y(r, first);
    const fa_product p = {
        .o = (const float *)((const char *)r->attention.o->address + r->attention.o_offset) +
             first * l->o_stride,
        .w = r->w32,
        .y = wide ? (float *)y : (float *)in_workspace(r, l->y_offset),
        .rows = rows,
        .inner = l->inner,
        .width = l->desc.width,
        .o_stride = l->o_stride,
        .w_stride = l->desc.w == FA_F32 ? l->w_stride : l->desc.width,
        .y_stride = l->desc.width,
    };
    const fa_float_state before = fa_float_enter();
    multiply(l, &p);
    if (!wide)
        convert(FA_F32, p.y, p.width, l->desc.y, y, rows, p.width);
    fa_float_leave(before);
}

static fa_status project_on_device(const layer_run *r, fa_queue *queue, int64_t first, int64_t rows)
{
    const fa_sharded_layer *l = r->layer;
    const fa_dtype dtype = l->problem.tensor[FA_O].dtype;
    const fa_device_product p = {
        .factors = dtype,
        .y_type = l->desc.y,
        .o = (const char *)r->attention.o->address + r->attention.o_offset +
             (size_t)(first * l->o_stride) * fa_dtype_size(dtype),
        .w = r->w,
        .y = rows_of_y(r, first),
        .rows = rows,
        .inner = l->inner,
        .width = l->desc.width,
        .o_stride = l->o_stride,
        .w_stride = l->w_stride,
    };
    return l->device->backend->product_run(queue, &p);
}

static fa_status project_by_caller(const layer_run *r, int64_t first, int64_t rows)
{
    const fa_sharded_layer_desc *d = &r->layer->desc;
    const fa_status status = d->project(d->project_user, first, rows);
    return status == FA_OK ? FA_OK
                           : fa_fail(status, "project failed with %s for tokens %lld to %lld",
                                     fa_status_name(status), (long long)first, (long long)(first + rows - 1));
}

/* Whether products go into the queue, behind the attention that they take. */
static bool enqueues_products(const fa_sharded_layer *l)
{
    return l->projection == FA_PROJECT_DEVICE ||
           (l->projection == FA_PROJECT_CALLER && l->desc.project_enqueues);
}

static fa_status enqueue_product(const layer_run *r, fa_queue *queue, int64_t c)
{
    const fa_sharded_layer *l = r->layer;
    const int64_t first = l->cut[c], rows = l->cut[c + 1] - first;
    if (rows == 0)
        return FA_OK;
    if (l->projection == FA_PROJECT_CALLER)
        return project_by_caller(r, first, rows);
    if (l->projection == FA_PROJECT_DEVICE)
        return project_on_device(r, queue, first, rows);
    project_on_host(r, first, rows);
    return FA_OK;
}

static fa_status compute_chunk(const layer_run *r, int64_t c)
{
    const bool enqueues = enqueues_products(r->layer);
    FA_TRY(fa_plan_run(r->layer->plan[c], r->queue, &r->attention));
    if (!enqueues)
        FA_TRY(fa_queue_wait(r->queue));
    FA_TRY(enqueue_product(r, r->queue, c));
    return enqueues ? fa_queue_wait(r->queue) : FA_OK;
}

/* Where products of a layer go that enqueues them. */
static fa_queue *queue_of_products(const layer_run *r)
{
    return r->layer->products ? r->layer->products : r->queue;
}

static fa_status enqueue_chunk(const layer_run *r, int64_t c)
{
    const fa_sharded_layer *l = r->layer;
    const fa_backend *b = l->device->backend;
    const int64_t lane = c % FA_LAYER_LANES;
    fa_queue *const queue = l->lane[lane] ? l->lane[lane] : r->queue, *const products = queue_of_products(r);
    fa_attention_args attention = r->attention;
    attention.workspace_offset += (size_t)lane * l->lane_bytes;
    FA_TRY(fa_plan_run(l->plan[c], queue, &attention));
    if (queue != products) {
        FA_TRY(b->mark_put(queue, l->attended[c]));
        FA_TRY(b->mark_wait(products, l->attended[c]));
    }
    FA_TRY(enqueue_product(r, products, c));
    return b->mark_put(products, l->computed[c]);
}

/*
 * All chunks are enqueued before the first sum is: then nothing is compiled, loaded or allocated for a chunk while sums wait on
 * the device for other ranks, whose own chunks may wait for the same driver.
 */
static fa_status enqueue_all(const layer_run *r)
{
    const fa_sharded_layer *l = r->layer;
    const fa_backend *b = l->device->backend;
    if (l->begun)
        FA_TRY(b->mark_put(r->queue, l->begun));
    for (int i = 0; l->begun && i < FA_LAYER_LANES; i++)
        FA_TRY(b->mark_wait(l->lane[i], l->begun));
    for (int64_t c = 0; c < l->chunks; c++)
        FA_TRY(enqueue_chunk(r, c));
    for (int64_t c = 0; c < l->chunks; c++)
        FA_TRY(fa_enqueue_allreduce(&l->transport, l->desc.y, rows_of_y(r, l->cut[c]),
                                    (l->cut[c + 1] - l->cut[c]) * l->desc.width, l->computed[c]));
    return FA_OK;
}

/* Nothing still computes when a run returns that has failed. */
static void wait_for_all(const layer_run *r)
{
    const fa_message kept = fa_message_keep();
    for (int i = 0; i < FA_LAYER_LANES; i++) {
        if (r->layer->lane[i])
            (void)fa_queue_wait(r->layer->lane[i]);
    }
    (void)fa_queue_wait(queue_of_products(r));
    fa_message_restore(&kept);
}

/* What is computed is waited for first: the transport's time-out counts from then on. The last product is behind all else. */
static fa_status run_enqueued(const layer_run *r)
{
    fa_status status = enqueue_all(r);
    if (status == FA_OK)
        status = fa_queue_wait(queue_of_products(r));
    if (status == FA_OK)
        return fa_finish_allreduces(&r->layer->transport);
    wait_for_all(r);
    return status;
}

static fa_status run_in_turn(const layer_run *r)
{
    for (int64_t c = 0; c < r->layer->chunks; c++) {
        FA_TRY(compute_chunk(r, c));
        FA_TRY(reduce_chunk(r, c));
    }
    return FA_OK;
}

/* The other thread. Chunks are reduced in their order, on all ranks. */
static void *reduce_chunks(void *argument)
{
    layer_run *r = argument;
    for (int64_t c = 0; c < r->layer->chunks; c++) {
        (void)pthread_mutex_lock(&r->lock);
        while (r->computed <= c && !r->over)
            (void)pthread_cond_wait(&r->changed, &r->lock);
        const bool there = r->computed > c;
        (void)pthread_mutex_unlock(&r->lock);
        if (!there)
            break;
        const fa_status status = reduce_chunk(r, c);
        if (status == FA_OK)
            continue;
        (void)pthread_mutex_lock(&r->lock);
        r->reduced = status;
        r->message = fa_message_keep();
        (void)pthread_mutex_unlock(&r->lock);
        break;
    }
    return NULL;
}

/* True where an allreduce has failed: what is computed from now on is of no use. */
static bool publish(layer_run *r, int64_t computed, bool over)
{
    (void)pthread_mutex_lock(&r->lock);
    r->computed = computed;
    r->over = over;
    const bool failed = r->reduced != FA_OK;
    (void)pthread_cond_signal(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
    return failed;
}

static fa_status run_overlapped(layer_run *r, pthread_t thread)
{
    const int64_t chunks = r->layer->chunks;
    fa_status status = FA_OK;
    int64_t computed = 0;
    while (computed < chunks && status == FA_OK) {
        status = compute_chunk(r, computed);
        computed += status == FA_OK;
        if (publish(r, computed, status != FA_OK || computed == chunks))
            break;
    }
    (void)publish(r, computed, true);
    (void)pthread_join(thread, NULL);
    if (status == FA_OK && r->reduced != FA_OK) {
        status = r->reduced;
        fa_message_restore(&r->message);
    }
    return status;
}

/* A thread for each run: what it takes to start one is little beside a chunk, and an idle one would outlive a fork(). */
static fa_status run_chunks(layer_run *r)
{
    pthread_t thread;
    fa_status status;
    if (r->layer->enqueues)
        return run_enqueued(r);
    if (!r->layer->info.overlapped)
        return run_in_turn(r);
    if (pthread_mutex_init(&r->lock, NULL) != 0)
        return run_in_turn(r);
    if (pthread_cond_init(&r->changed, NULL) != 0) {
        (void)pthread_mutex_destroy(&r->lock);
        return run_in_turn(r);
    }
    if (fa_thread_start(&thread, reduce_chunks, r) == 0)
        status = run_overlapped(r, thread);
    else
        status = run_in_turn(r);
    (void)pthread_cond_destroy(&r->changed);
    (void)pthread_mutex_destroy(&r->lock);
    return status;
}

static fa_status check_place(const char *name, const void *at, size_t alignment)
{
    if ((uintptr_t)at % alignment != 0)
        return fa_fail(FA_INVALID, "args.%s lies at address %p, expected a multiple of %zu", name, at,
                       alignment);
    return FA_OK;
}

static fa_status check_address(const fa_sharded_layer *l, const char *name, const void *at, size_t bytes)
{
    return bytes == 0 ? FA_OK : l->device->backend->address_check(l->device, name, at, bytes);
}

/* w and y, beside what the attention has. Addresses of the device have no storage of their own, as the host's have none. */
static fa_status check_matrices(const layer_run *r)
{
    const fa_sharded_layer *l = r->layer;
    const fa_problem *p = &l->problem;
    const fa_binding binding = fa_binding_of(&r->attention);
    fa_memory memory[FA_OPERANDS + 3];
    int count = 0;
    FA_TRY(check_place("w", r->w, fa_dtype_align(l->desc.w)));
    FA_TRY(check_place("y", r->y, fa_dtype_align(l->desc.y)));
    if (l->projection == FA_PROJECT_DEVICE) {
        FA_TRY(check_address(l, "args.w", r->w, fa_sharded_layer_w_bytes(l)));
        FA_TRY(check_address(l, "args.y", r->y, fa_sharded_layer_y_bytes(l)));
    }
    memory[count++] =
        (fa_memory){"y", fa_extent_of_bytes(fa_sharded_layer_y_bytes(l), NULL, (uintptr_t)r->y), true};
    memory[count++] =
        (fa_memory){"w", fa_extent_of_bytes(fa_sharded_layer_w_bytes(l), NULL, (uintptr_t)r->w), false};
    if (l->workspace > 0)
        memory[count++] = (fa_memory){
            "workspace", fa_buffer_bytes(l->workspace, r->attention.workspace, r->attention.workspace_offset),
            true};
    for (int t = 0; t < FA_OPERANDS; t++) {
        if (p->span[t] > 0 && binding.buffer[t])
            memory[count++] =
                (fa_memory){fa_operands[t].name,
                            fa_buffer_extent(&p->tensor[t], p->span[t], binding.buffer[t], binding.offset[t]),
                            fa_operands[t].written};
    }
    return fa_memory_check_overlap(memory, count);
}

static fa_status check_args(const layer_run *r)
{
    const fa_sharded_layer *l = r->layer;
    fa_binding binding = fa_binding_of(&r->attention);
    FA_TRY(fa_binding_share(&l->problem, &binding));
    FA_TRY(fa_binding_check(&binding, l->device, &l->problem, l->workspace, 0));
    if (!r->y && fa_sharded_layer_y_bytes(l) > 0)
        return fa_fail(FA_INVALID, "args.y is NULL");
    if (l->desc.project)
        return r->w ? fa_fail(FA_INVALID, "args.w is given, expected NULL with project") : FA_OK;
    if (!r->w && fa_sharded_layer_w_bytes(l) > 0)
        return fa_fail(FA_INVALID, "args.w is NULL");
    return check_matrices(r);
}

/* As f32, where it is not. */
static const float *take_w(const layer_run *r)
{
    const fa_sharded_layer *l = r->layer;
    if (l->projection != FA_PROJECT_HOST || l->desc.w == FA_F32)
        return r->w;
    float *w = (float *)in_workspace(r, l->w_offset);
    const fa_float_state before = fa_float_enter();
    convert(l->desc.w, r->w, l->w_stride, FA_F32, w, l->inner, l->desc.width);
    fa_float_leave(before);
    return w;
}

fa_status fa_sharded_layer_run(fa_sharded_layer *layer, fa_queue *queue, const fa_sharded_layer_args *args)
{
    fa_sharded_layer_args copy;
    layer_run r = {.layer = layer, .queue = queue};
    fa_clear_error();
    FA_TRY(fa_call_check("layer", layer, layer ? layer->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_SHARDED_LAYER_ARGS_0_1, args, "fa_sharded_layer_args"));
    if (!copy.attention)
        return fa_fail(FA_INVALID, "args.attention is NULL");
    FA_TRY(fa_copy_struct(&r.attention, sizeof(r.attention), FA_ATTENTION_ARGS_0_1, copy.attention,
                          "fa_attention_args"));
    r.attention.struct_size = sizeof(r.attention);
    r.w = copy.w;
    r.y = copy.y;
    if (layer->failed)
        return fa_fail(FA_RANK_LOST,
                       "an earlier run of the layer failed: ranks may stand at different chunks");
    FA_TRY(check_args(&r));
    FA_TRY(fa_queue_check(r.queue));
    r.w32 = take_w(&r);
    const fa_status status = run_chunks(&r);
    layer->failed = status != FA_OK;
    return fa_finish(status);
}
