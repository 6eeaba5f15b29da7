/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices there are, and which one a name means. */
#ifndef FA_CORE_REGISTRY_H
#define FA_CORE_REGISTRY_H

#include <fastattn/device.h>

struct fa_backend;

typedef struct fa_device_entry {
    const struct fa_backend *backend;
    fa_device_info info;
    void *import; /* for the backend's open(): what of the caller's it is to use; NULL: nothing */
} fa_device_entry;

/* Opens a device that the registry chose, or that the caller brought. */
fa_status fa_device_open_entry(fa_context *context, const fa_device_entry *entry, fa_device **device);

/* Copies our info into a caller's struct of any version. */
fa_status fa_device_info_copy(const fa_device_info *ours, fa_device_info *theirs);

#endif
