/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cluster/cluster.h"

#include "core/attention/checks.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

enum { GROUP = 32 }; /* work-items that do the dims of a cluster */

static const char *const names[FA_CLUSTER_OPERANDS] = {"rows", "nearest", "centroids", "counts"};

static fa_status check_rows(fa_tensor *rows, size_t *span)
{
    FA_TRY(fa_dtype_check_float(rows->dtype, "rows.dtype"));
    FA_TRY(fa_tensor_normalise(rows, "rows", false));
    for (int axis = 0; axis < 4; axis++) {
        if (rows->shape[axis] < 1)
            return fa_fail(FA_INVALID, "rows.shape[%d] is %lld, expected at least 1", axis,
                           (long long)rows->shape[axis]);
    }
    return fa_tensor_extent(rows, "rows", span);
}

static fa_status check_choices(fa_cluster_desc *d)
{
    FA_TRY(fa_check_limit("clusters", d->clusters, 1, d->rows.shape[2]));
    d->iterations = d->iterations ? d->iterations : 1;
    FA_TRY(fa_check_limit("iterations", d->iterations, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("normalise", d->normalise, 0, 1));
    FA_TRY(fa_check_limit("start", (int64_t)d->start, FA_CLUSTER_GIVEN, FA_CLUSTER_PLUS_PLUS));
    FA_TRY(fa_check_limit("steps", (int64_t)d->steps, FA_CLUSTER_ALL, FA_CLUSTER_MEANS));
    if (d->steps != FA_CLUSTER_ALL && d->iterations != 1)
        return fa_fail(FA_INVALID, "iterations is %lld, expected 1 as steps is %d", (long long)d->iterations,
                       (int)d->steps);
    if (d->steps == FA_CLUSTER_MEANS && d->start != FA_CLUSTER_GIVEN)
        return fa_fail(FA_INVALID, "start is %d, expected %d as steps is %d", (int)d->start, FA_CLUSTER_GIVEN,
                       (int)d->steps);
    return FA_OK;
}

/* What kernels count in 32 bits. */
static fa_status fill_params(fa_cluster *c)
{
    const fa_cluster_desc *d = &c->desc;
    const int64_t *shape = d->rows.shape;
    int64_t lines, rows, clusters;
    if (!fa_mul_i64(shape[0], shape[1], &lines) || !fa_mul_i64(lines, shape[2], &rows) ||
        rows > FA_TASK_MOST || !fa_mul_i64(lines, d->clusters, &clusters) || clusters > FA_TASK_MOST ||
        shape[3] > FA_TASK_MOST)
        return fa_fail(FA_UNSUPPORTED,
                       "rows.shape is %lld x %lld x %lld rows of %lld dims, clusters %lld: at most %d of all "
                       "are served",
                       (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3],
                       (long long)d->clusters, FA_TASK_MOST);
    c->params = (fa_cluster_params){
        .stride = {d->rows.stride[0], d->rows.stride[1], d->rows.stride[2]},
        .lines = (int)lines,
        .heads = (int)shape[1],
        .rows = (int)shape[2],
        .dim = (int)shape[3],
        .clusters = (int)d->clusters,
        .normalise = d->normalise,
        .blocks = (int)fa_ceil_div(shape[2], FA_CLUSTER_ROWS),
        .seed = (int)(fa_sparse_random(d->seed, 0, 0, 0) & INT32_MAX),
    };
    c->span[FA_CLUSTER_NEAREST] = (size_t)rows * sizeof(int32_t);
    c->span[FA_CLUSTER_COUNTS] = d->steps == FA_CLUSTER_NEAREST ? 0 : (size_t)clusters * sizeof(int32_t);
    return fa_grow(&c->span[FA_CLUSTER_CENTROIDS], (size_t)clusters * sizeof(float), (size_t)shape[3])
               ? FA_OK
               : fa_fail(FA_OUT_OF_MEMORY, "clusters is %lld: centroids of %lld dims overflow memory",
                         (long long)d->clusters, (long long)shape[3]);
}

fa_status fa_cluster_init(fa_cluster *c, const fa_cluster_desc *desc)
{
    if (!desc)
        return fa_fail(FA_INVALID, "desc is NULL");
    FA_TRY(fa_copy_struct(&c->desc, sizeof(c->desc), FA_CLUSTER_DESC_0_1, desc, "fa_cluster_desc"));
    FA_TRY(check_rows(&c->desc.rows, &c->span[FA_CLUSTER_VECTORS]));
    FA_TRY(check_choices(&c->desc));
    return fill_params(c);
}

bool fa_cluster_has(const fa_cluster *c, int program)
{
    return program == FA_CLUSTER_DRAW   ? c->desc.start == FA_CLUSTER_DRAWN
           : program == FA_CLUSTER_FIND ? c->desc.steps != FA_CLUSTER_MEANS
                                        : c->desc.steps != FA_CLUSTER_NEAREST;
}

int32_t fa_cluster_groups(const fa_cluster *c, int program)
{
    return c->params.lines * (program == FA_CLUSTER_FIND ? c->params.blocks : c->params.clusters);
}

/* Whether an operand is part of a program, and written by it. */
static bool has_operand(int program, int n)
{
    return program == FA_CLUSTER_DRAW   ? n == FA_CLUSTER_VECTORS || n == FA_CLUSTER_CENTROIDS
           : program == FA_CLUSTER_FIND ? n != FA_CLUSTER_COUNTS
                                        : true;
}

static bool writes(int program, int n)
{
    return program == FA_CLUSTER_FIND ? n == FA_CLUSTER_NEAREST
                                      : n == FA_CLUSTER_CENTROIDS || n == FA_CLUSTER_COUNTS;
}

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_cluster_group(view, group, 0, 1);
}

static void fill_task(fa_cluster *c, int program)
{
    fa_task *task = &c->task[program];
    *task = (fa_task){
        .device = c->device,
        .kind = FA_TASK_CLUSTER,
        .name = "cluster",
        .group = program == FA_CLUSTER_FIND ? FA_CLUSTER_ROWS : GROUP,
        .constant = {(int32_t)c->desc.rows.dtype, program},
        .params = &c->params,
        .params_bytes = sizeof(c->params),
        .run = run_group,
    };
    for (int n = 0; n < FA_CLUSTER_OPERANDS; n++) {
        if (has_operand(program, n))
            task->operand[n] = (fa_task_operand){names[n], c->span[n], writes(program, n)};
    }
}

/* Whether the programs' loops come to their end. */
static fa_status check_turns(const fa_cluster *c)
{
    const int64_t most = c->device->limits.loop_turns, dim = c->params.dim,
                  in_row = c->desc.normalise ? dim + FA_CLUSTER_UNIT : FA_CLUSTER_UNIT,
                  find = FA_CLUSTER_ROWS + (1 + (int64_t)c->params.clusters) * (dim + 1),
                  mean = 1 + (int64_t)c->params.rows * (in_row + 1),
                  units = fa_ceil_div(dim, GROUP * FA_CLUSTER_UNIT);
    const bool finds = fa_cluster_has(c, FA_CLUSTER_FIND) && find > most,
               means = fa_cluster_has(c, FA_CLUSTER_MEAN) && mean > most / units;
    if (most > 0 && (finds || means))
        return fa_fail(
            FA_UNSUPPORTED, "%d rows and %d clusters of %d dims, but %s ends loops after %lld turns",
            c->params.rows, c->params.clusters, c->params.dim, c->device->info.name, (long long)most);
    return FA_OK;
}

static void release_tasks(fa_cluster *c)
{
    for (int n = 0; n < c->prepared; n++) {
        if (fa_cluster_has(c, n))
            fa_task_release(&c->task[n]);
    }
}

static fa_status create(fa_cluster *c, const fa_cluster_desc *desc)
{
    FA_TRY(fa_cluster_init(c, desc));
    if (c->desc.start == FA_CLUSTER_PLUS_PLUS)
        return fa_fail(FA_UNSUPPORTED, "start is %d, expected %d or %d: fa_cluster_host() has k-means++",
                       FA_CLUSTER_PLUS_PLUS, FA_CLUSTER_GIVEN, FA_CLUSTER_DRAWN);
    FA_TRY(check_turns(c));
    for (; c->prepared < FA_CLUSTER_PROGRAMS; c->prepared++) {
        fill_task(c, c->prepared);
        if (fa_cluster_has(c, c->prepared))
            FA_TRY(fa_task_prepare(&c->task[c->prepared]));
    }
    return FA_OK;
}

fa_status fa_cluster_create(fa_device *device, const fa_cluster_desc *desc, fa_cluster **cluster)
{
    fa_clear_error();
    if (!cluster)
        return fa_fail(FA_INVALID, "cluster is NULL, expected where to store the new clustering");
    *cluster = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    fa_cluster *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *cluster = made;
    else
        fa_cluster_destroy(made);
    return fa_finish(status);
}

void fa_cluster_destroy(fa_cluster *cluster)
{
    if (!cluster)
        return;
    release_tasks(cluster);
    fa_release(cluster->device->context, cluster, sizeof(*cluster));
}

static fa_status check_binding(const fa_cluster *c, const fa_task_binding *binding)
{
    fa_memory memory[FA_CLUSTER_OPERANDS];
    int count = 0;
    for (int n = 0; n < FA_CLUSTER_OPERANDS; n++) {
        const bool written = (fa_cluster_has(c, FA_CLUSTER_DRAW) && writes(FA_CLUSTER_DRAW, n)) ||
                             (fa_cluster_has(c, FA_CLUSTER_FIND) && writes(FA_CLUSTER_FIND, n)) ||
                             (fa_cluster_has(c, FA_CLUSTER_MEAN) && writes(FA_CLUSTER_MEAN, n));
        const size_t align = n == FA_CLUSTER_VECTORS ? fa_dtype_align(c->desc.rows.dtype) : sizeof(float);
        const fa_buffer *buffer = binding->buffer[n];
        if (buffer && c->span[n] == 0)
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL as steps is %d", names[n],
                           (int)c->desc.steps);
        if (c->span[n] == 0)
            continue;
        FA_TRY(fa_buffer_check(c->device, "args.", names[n], buffer, binding->offset[n], align, c->span[n]));
        memory[count++] = (fa_memory){
            names[n],
            n == FA_CLUSTER_VECTORS ? fa_buffer_extent(&c->desc.rows, c->span[n], buffer, binding->offset[n])
                                    : fa_buffer_bytes(c->span[n], buffer, binding->offset[n]),
            written};
    }
    return fa_memory_check_overlap(memory, count);
}

/* Enqueues a program, bound to what it has of all operands. */
static fa_status enqueue(const fa_cluster *c, fa_queue *queue, int program, const fa_task_binding *all)
{
    fa_task_binding binding = {.groups = fa_cluster_groups(c, program)};
    if (!fa_cluster_has(c, program))
        return FA_OK;
    for (int n = 0; n < FA_CLUSTER_OPERANDS; n++) {
        if (has_operand(program, n)) {
            binding.buffer[n] = all->buffer[n];
            binding.offset[n] = all->offset[n];
        }
    }
    return fa_task_run(&c->task[program], queue, &binding);
}

fa_status fa_cluster_run(const fa_cluster *cluster, fa_queue *queue, const fa_cluster_args *args)
{
    fa_clear_error();
    fa_cluster_args a;
    FA_TRY(fa_call_check("cluster", cluster, cluster ? cluster->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_CLUSTER_ARGS_0_1, args, "fa_cluster_args"));
    const fa_task_binding binding = {
        .buffer = {a.rows, a.nearest, a.centroids, a.counts},
        .offset = {a.rows_offset, a.nearest_offset, a.centroids_offset, a.counts_offset},
    };
    FA_TRY(check_binding(cluster, &binding));
    fa_status status = enqueue(cluster, queue, FA_CLUSTER_DRAW, &binding);
    for (int64_t n = 0; n < cluster->desc.iterations && status == FA_OK; n++) {
        status = enqueue(cluster, queue, FA_CLUSTER_FIND, &binding);
        if (status == FA_OK)
            status = enqueue(cluster, queue, FA_CLUSTER_MEAN, &binding);
    }
    return fa_finish(status);
}
