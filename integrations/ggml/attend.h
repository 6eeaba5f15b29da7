/* SPDX-License-Identifier: Apache-2.0 */
/* Runs FLASH_ATTN_EXT nodes: a device for each number of threads, and plans that are kept. */
#ifndef FASTATTN_GGML_ATTEND_H
#define FASTATTN_GGML_ATTEND_H

#include <fastattn/fastattn.h>
#include <stdbool.h>

struct ggml_tensor;

/*
 * The device that is asked what it supports. FASTATTN_BACKEND and FASTATTN_DEVICE choose it; if neither is set it is the
 * CPU, whose memory ggml's tensors lie in. It stays open until the process ends.
 */
typedef struct fg_device {
    fa_context *context;
    fa_device *device;
    fa_device_info info;
    bool in_place; /* runs read ggml's memory as it is; otherwise the library copies */
} fg_device;

/* Thread-safe from the second call on. NULL, and *message says why, if no device that computes can be opened. */
const fg_device *fg_device_open(const char **message);

/* Whether the device computes a node. If not, *reason says why: text that is valid until the thread's next call. */
bool fg_device_supports(const fg_device *device, const struct ggml_tensor *node, const char **reason);

/* What one ggml backend keeps between nodes. One thread at a time uses it. */
typedef struct fg_attend fg_attend;

/* NULL if there is no memory. */
fg_attend *fg_attend_create(const fg_device *device);
void fg_attend_destroy(fg_attend *attend);

/* How many threads the next nodes have, the caller's included; 0: as many as the library takes by itself. */
void fg_attend_threads(fg_attend *attend, int threads);

/* Computes a node that the device supports. */
fa_status fg_attend_run(fg_attend *attend, const struct ggml_tensor *node);

/* Why the last run failed, for the thread that called it; valid until its next call. */
const char *fg_attend_message(const fg_attend *attend);

#endif
