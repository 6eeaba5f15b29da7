/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, queues and buffers: the checks that every backend would have to make, made once. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/status.h"
#include "core/structs.h"

bool fa_device_works(const fa_device *device)
{
    return device->backend->forks || device->process == (long)getpid();
}

fa_status fa_device_check(const fa_device *device)
{
    if (fa_device_works(device))
        return FA_OK;
    return fa_fail(
        FA_DEVICE_LOST,
        "%s:%d %s was opened in process %ld, and this is a child of it after fork(), where drivers do "
        "not work: open the driver in the child alone, or start the child anew (\"spawn\")",
        device->info.backend, device->info.index, device->info.name, device->process);
}

/* Writes the names of a device's kernels into its info. */
static void list_kernels(fa_device *device)
{
    size_t used = 0, size = sizeof(device->info.kernels);
    for (int i = 0; i < device->kernels && used < size; i++)
        used += (size_t)snprintf(device->info.kernels + used, size - used, "%s%s", i ? "," : "",
                                 device->kernel[i]->name);
}

fa_status fa_device_open_entry(fa_context *context, const fa_device_entry *entry, fa_device **device)
{
    fa_device *made = fa_alloc_zeroed(context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->context = context;
    made->backend = entry->backend;
    made->info = entry->info;
    made->process = (long)getpid();
    fa_status status = entry->backend->open(made, entry->import);
    if (status != FA_OK) {
        fa_release(context, made, sizeof(*made));
        return status;
    }
    list_kernels(made);
    *device = made;
    return fa_finish(FA_OK);
}

void fa_device_close(fa_device *device)
{
    if (!device)
        return;
    fa_message kept = fa_message_keep();
    if (fa_device_works(device))
        device->backend->close(device);
    fa_release(device->context, device, sizeof(*device));
    fa_message_restore(&kept);
}

fa_status fa_device_info_copy(const fa_device_info *ours, fa_device_info *theirs)
{
    if (!theirs)
        return fa_fail(FA_INVALID, "info is NULL");
    return fa_fill_struct(ours, sizeof(*ours), FA_DEVICE_INFO_0_1, theirs, "fa_device_info");
}

fa_status fa_device_get_info(const fa_device *device, fa_device_info *info)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    return fa_device_info_copy(&device->info, info);
}

fa_status fa_queue_create(fa_device *device, fa_queue **queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL, expected where to store the new queue");
    *queue = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    return fa_finish(fa_queue_make(device, false, queue));
}

fa_status fa_queue_make(fa_device *device, bool urgent, fa_queue **queue)
{
    FA_TRY(fa_device_check(device));
    fa_queue *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    made->urgent = urgent;
    fa_status status = device->backend->queue_create(made);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *queue = made;
    return FA_OK;
}

fa_status fa_queue_wait(fa_queue *queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL");
    FA_TRY(fa_device_check(queue->device));
    return fa_finish(queue->device->backend->queue_wait(queue));
}

fa_status fa_queue_seconds(fa_queue *queue, double *seconds)
{
    fa_clear_error();
    if (!queue || !seconds)
        return fa_fail(FA_INVALID, "%s is NULL", queue ? "seconds" : "queue");
    const fa_backend *backend = queue->device->backend;
    if (!backend->queue_seconds)
        return fa_fail(FA_UNSUPPORTED, "the %s backend does not time its queues", backend->name);
    FA_TRY(fa_device_check(queue->device));
    return fa_finish(backend->queue_seconds(queue, seconds));
}

void fa_queue_destroy(fa_queue *queue)
{
    if (!queue)
        return;
    fa_message kept = fa_message_keep();
    if (fa_device_works(queue->device)) {
        (void)queue->device->backend->queue_wait(queue);
        queue->device->backend->queue_destroy(queue);
    }
    fa_release(queue->device->context, queue->scratch, queue->scratch_bytes);
    fa_release(queue->device->context, queue, sizeof(*queue));
    fa_message_restore(&kept);
}
