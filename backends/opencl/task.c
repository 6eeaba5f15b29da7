/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: programs, arguments, commands. */
#include "backends/opencl/plan.h"
#include "core/context.h"
#include "core/status.h"

/* The program for operands in so many chunks each; 0: not made. */
typedef struct program {
    int chunks;
    cl_kernel kernel;
} program;

/* task->impl */
typedef struct cl_task {
    cl_mem params;
    program usual, crossing; /* as fa_cl_plan has them */
    size_t group;            /* work-items of a group */
    pthread_mutex_t lock;    /* of `crossing`; and a kernel's arguments are part of the kernel */
} cl_task;

static fa_status make_program(const fa_task *task, int chunks, program *p)
{
    const cl_task *made = task->impl;
    fa_cl_options options = {.used = 0};
    fa_cl_options_device(&options, task->device, chunks);
    fa_cl_options_add(&options, " -DFA_TASK_KIND=%d -DFA_GROUP=%d", task->kind, (int)made->group);
    for (int i = 0; i < FA_TASK_CONSTANTS; i++)
        fa_cl_options_add(&options, " -DFA_CONSTANT_%d=%d", i, task->constant[i]);
    fa_status status = fa_cl_kernel_make(task->device, &fa_cl_task_source, &options, "fa_task", &p->kernel);
    if (status == FA_OK)
        p->chunks = chunks;
    return status;
}

fa_status fa_cl_task_prepare(fa_task *task)
{
    const fa_cl_device *d = fa_cl_device_of(task->device);
    cl_task *made = fa_alloc_zeroed(task->device->context, sizeof(*made));
    size_t largest = 0;
    if (!made)
        return FA_OUT_OF_MEMORY;
    (void)pthread_mutex_init(&made->lock, NULL);
    task->impl = made;
    made->group = FA_MIN((size_t)task->group, d->caps.group_size);
    for (int n = 0; n < FA_TASK_OPERANDS; n++)
        largest = FA_MAX(largest, task->operand[n].span);
    fa_status status = make_program(task, fa_cl_count_chunks(task->device, largest), &made->usual);
    if (status == FA_OK)
        status = fa_cl_upload(task->device, task->params, task->params_bytes, &made->params);
    if (status != FA_OK)
        fa_cl_task_release(task);
    return status;
}

void fa_cl_task_release(fa_task *task)
{
    const fa_cl *cl = fa_cl_device_of(task->device)->cl;
    cl_task *made = task->impl;
    if (made->usual.kernel)
        (void)cl->clReleaseKernel(made->usual.kernel);
    if (made->crossing.kernel)
        (void)cl->clReleaseKernel(made->crossing.kernel);
    if (made->params)
        (void)cl->clReleaseMemObject(made->params);
    (void)pthread_mutex_destroy(&made->lock);
    fa_release(task->device->context, made, sizeof(*made));
}

static fa_cl_operand operand_of(const fa_task *task, const fa_task_binding *binding, int n)
{
    return (fa_cl_operand){task->operand[n].name, binding->buffer[n], binding->offset[n],
                           task->operand[n].span, 1};
}

/* The program for operands that lie as these do. The lock is held. */
static fa_status find_program(const fa_task *task, const fa_task_binding *binding, const program **found)
{
    cl_task *made = task->impl;
    bool crosses = false;
    *found = &made->usual;
    for (int n = 0; n < FA_TASK_OPERANDS && made->usual.chunks == 1; n++) {
        const fa_cl_operand o = operand_of(task, binding, n);
        crosses = crosses || fa_cl_crosses(&o);
    }
    if (!crosses)
        return FA_OK;
    *found = &made->crossing;
    return made->crossing.chunks > 0 ? FA_OK : make_program(task, FA_CL_FEW_CHUNKS, &made->crossing);
}

static fa_status start(const fa_task *task, const fa_task_binding *binding, cl_command_queue queue,
                       cl_event *event)
{
    const cl_task *made = task->impl;
    const program *p;
    FA_TRY(find_program(task, binding, &p));
    fa_cl_launch l = {.cl = fa_cl_device_of(task->device)->cl, .kernel = p->kernel};
    fa_cl_place where[FA_TASK_OPERANDS];
    fa_cl_pass(&l, sizeof(cl_mem), &made->params);
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        const fa_cl_operand o = operand_of(task, binding, n);
        where[n] = fa_cl_find_place(&o, p->chunks);
        fa_cl_pass_memory(&l, &where[n], p->chunks);
    }
    for (int n = 0; n < FA_TASK_OPERANDS; n++)
        fa_cl_pass(&l, sizeof(cl_long), &where[n].at);
    return fa_cl_enqueue(&l, queue, binding->groups, 1, made->group, event);
}

/* Of what is written, OpenCL may know nothing of the other's bytes. */
static fa_status check_wraps(const fa_task *task, const fa_task_binding *binding)
{
    for (int w = 0; w < FA_TASK_OPERANDS; w++) {
        for (int n = 0; n < FA_TASK_OPERANDS && task->operand[w].written && binding->buffer[w]; n++) {
            if (binding->buffer[n] && fa_cl_wrap_same(binding->buffer[w], binding->buffer[n]))
                return fa_fail(
                    FA_INVALID,
                    "args.%s and args.%s lie in two buffers that wrap the same host memory, expected one "
                    "buffer, and offsets",
                    task->operand[w].name, task->operand[n].name);
        }
    }
    return FA_OK;
}

/* Before the run, all of the caller's host memory is brought to the device; after it, what was written comes back. */
static fa_status synchronise(const fa_task *task, fa_queue *queue, const fa_task_binding *binding,
                             bool to_host)
{
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        if (binding->buffer[n] && (!to_host || task->operand[n].written))
            FA_TRY(fa_cl_buffer_sync(queue, binding->buffer[n], !to_host, to_host));
    }
    return FA_OK;
}

fa_status fa_cl_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    cl_task *made = task->impl;
    fa_cl_queue *q = queue->impl;
    const fa_cl *cl = fa_cl_device_of(task->device)->cl;
    cl_event event = NULL;
    FA_TRY(check_wraps(task, binding));
    FA_TRY(synchronise(task, queue, binding, false));
    (void)pthread_mutex_lock(&made->lock);
    fa_status status = start(task, binding, q->handle, task->timed && q->timed ? &event : NULL);
    (void)pthread_mutex_unlock(&made->lock);
    if (task->timed)
        fa_cl_queue_keep(queue, event, event);
    FA_TRY(status);
    FA_TRY(synchronise(task, queue, binding, true));
    cl_int error = cl->clFlush(q->handle);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clFlush");
}
