/* SPDX-License-Identifier: Apache-2.0 */
#include "core/task.h"

#include "core/backend.h"
#include "core/binding.h"
#include "core/device.h"
#include "core/status.h"

fa_task_view fa_task_view_of(const fa_task *task, const fa_task_binding *binding)
{
    fa_task_view view = {.constant = task->constant, .params = task->params};
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        const fa_buffer *buffer = binding->buffer[n];
        view.at[n] = buffer && buffer->address ? (char *)buffer->address + binding->offset[n] : NULL;
    }
    return view;
}

fa_status fa_task_check_overlap(const fa_task *task, const fa_task_binding *binding)
{
    fa_memory memory[FA_TASK_OPERANDS];
    int count = 0;
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        const fa_task_operand *o = &task->operand[n];
        if (binding->buffer[n])
            memory[count++] = (fa_memory){
                o->name, fa_buffer_bytes(o->span, binding->buffer[n], binding->offset[n]), o->written};
    }
    return fa_memory_check_overlap(memory, count);
}

fa_status fa_task_prepare(fa_task *task)
{
    const fa_device *device = task->device;
    const uint64_t most = device->limits.tensor_bytes;
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        const fa_task_operand *o = &task->operand[n];
        if (o->name && most && o->span > most)
            return fa_fail(FA_UNSUPPORTED, "%s spans %zu bytes, %s reads and writes at most %llu", o->name,
                           o->span, device->info.name, (unsigned long long)most);
    }
    FA_TRY(fa_device_check(device));
    return device->backend->task_prepare ? device->backend->task_prepare(task) : FA_OK;
}

void fa_task_release(fa_task *task)
{
    if (task->device->backend->task_release && fa_device_works(task->device))
        task->device->backend->task_release(task);
}

fa_status fa_task_compile(fa_task *task, const void *params, size_t bytes)
{
    task->params = params;
    task->params_bytes = bytes;
    FA_TRY(fa_task_prepare(task));
    fa_task_release(task);
    return FA_OK;
}

fa_status fa_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    return task->device->backend->task_run(task, queue, binding);
}
