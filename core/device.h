/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_DEVICE_H
#define FA_CORE_DEVICE_H

#include <fastattn/device.h>
#include <stdbool.h>

struct fa_backend;

/* A device that can be opened: one that its backend counts, or one that the caller brought. */
typedef struct fa_device_entry {
    const struct fa_backend *backend;
    fa_device_info info;
    void *import; /* for the backend's open(): the caller's own device or context; NULL: none */
} fa_device_entry;

fa_status fa_device_open_entry(fa_context *context, const fa_device_entry *entry, fa_device **device);

/* Whether the device works in this process: false in a child after fork() where a driver has it. What belongs to it there
 * is left to the driver when it is destroyed. */
bool fa_device_works(const fa_device *device);

/* FA_DEVICE_LOST, with the reason, where it does not. */
fa_status fa_device_check(const fa_device *device);

/* fa_queue_create() of arguments that are there. `urgent`: see fa_queue. */
fa_status fa_queue_make(fa_device *device, bool urgent, fa_queue **queue);

/* Copies our info into a caller's struct of any version. */
fa_status fa_device_info_copy(const fa_device_info *ours, fa_device_info *theirs);

#endif
