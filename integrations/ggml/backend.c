/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ggml's side: one device, which takes FLASH_ATTN_EXT and leaves every other operation to ggml's CPU backend. It is an
 * accelerator (as BLAS is), whose buffers are those of the CPU: ggml copies nothing on the way to it or back.
 */
#include "attend.h"

#include <ggml-backend-impl.h>
#include <ggml-backend.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "FASTATTN"

static void say(enum ggml_log_level level, const char *format, ...)
{
    char text[512];
    ggml_log_callback log;
    void *user;
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    ggml_log_get(&log, &user);
    log(level, text, user);
}

/* ---- backend ---- */

/*
 * No node is taken from a call of device_init() until the same thread synchronises a backend, tells one its threads, or frees
 * one. In the constructor of a context llama.cpp asks once which device flash attention would run on, and goes without it
 * ("-fa auto") unless that is the device of the layer's weights, which is the CPU. Then it synchronises all backends and asks
 * again for the graphs that it runs.
 */
static _Thread_local bool probed;

static const char *backend_name(ggml_backend_t backend)
{
    (void)backend;
    return NAME;
}

static void backend_free(ggml_backend_t backend)
{
    probed = false;
    fg_attend_destroy(backend->context);
    free(backend);
}

/* backend_compute() returns when all is done. */
static void backend_synchronize(ggml_backend_t backend)
{
    (void)backend;
    probed = false;
}

static enum ggml_status backend_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_FLASH_ATTN_EXT || !(node->flags & GGML_TENSOR_FLAG_COMPUTE))
            continue;
        const fa_status status = fg_attend_run(backend->context, node);
        if (status) {
            say(GGML_LOG_LEVEL_ERROR, NAME ": %s: %s: %s\n", node->name, fa_status_name(status),
                fg_attend_message(backend->context));
            return status == FA_OUT_OF_MEMORY ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
        }
    }
    return GGML_STATUS_SUCCESS;
}

static ggml_guid_t backend_guid(void)
{
    static ggml_guid guid = {0x6b, 0x0e, 0x4a, 0x91, 0x2f, 0xd3, 0x47, 0x58,
                             0xb1, 0x7c, 0x93, 0x5a, 0xe4, 0x08, 0xc6, 0x2d};
    return &guid;
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *parameters)
{
    (void)parameters;
    ggml_backend_t own = calloc(1, sizeof(*own));
    fg_attend *attend = fg_attend_create(device->context);
    if (!own || !attend) {
        fg_attend_destroy(attend);
        free(own);
        return NULL;
    }
    *own = (struct ggml_backend){
        .guid = backend_guid(),
        .iface = {.get_name = backend_name,
                  .free = backend_free,
                  .synchronize = backend_synchronize,
                  .graph_compute = backend_compute},
        .device = device,
        .context = attend,
    };
    probed = true;
    return own;
}

static void backend_set_threads(ggml_backend_t backend, int threads)
{
    probed = false;
    fg_attend_threads(backend->context, threads);
}

/* ---- device ---- */

static const char *device_name(ggml_backend_dev_t device)
{
    (void)device;
    return NAME;
}

static const char *device_description(ggml_backend_dev_t device)
{
    const fg_device *d = device->context;
    return d->info.name;
}

static void device_memory(ggml_backend_dev_t device, size_t *available, size_t *total)
{
    (void)device;
    *available = *total = 0;
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device)
{
    (void)device;
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    memset(props, 0, sizeof(*props));
    props->name = device_name(device);
    props->description = device_description(device);
    props->type = device_type(device);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device)
{
    (void)device;
    return ggml_backend_cpu_buffer_type();
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *node)
{
    switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE: return true;
    case GGML_OP_FLASH_ATTN_EXT: break;
    default: return false;
    }
    if (probed)
        return false;
    const char *reason;
    if (fg_device_supports(device->context, node, &reason))
        return true;
    say(GGML_LOG_LEVEL_DEBUG, NAME ": leaves %s to others: %s\n", node->name, reason);
    return false;
}

static bool device_supports_buft(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    (void)device;
    return ggml_backend_buft_is_host(type);
}

/* ---- registry ---- */

static const char *reg_name(ggml_backend_reg_t reg)
{
    (void)reg;
    return NAME;
}

static size_t reg_device_count(ggml_backend_reg_t reg)
{
    (void)reg;
    return 1;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t index)
{
    (void)index;
    return reg->context;
}

static void *reg_function(ggml_backend_reg_t reg, const char *name)
{
    (void)reg;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        const ggml_backend_set_n_threads_t function = backend_set_threads;
        return (void *)(uintptr_t)function;
    }
    return NULL;
}

static const fg_device *open_device(void)
{
    const char *message;
    const fg_device *opened = fg_device_open(&message);
    if (!opened)
        say(GGML_LOG_LEVEL_ERROR, NAME ": %s\n", message);
    return opened;
}

static ggml_backend_reg_t registry(void)
{
    static struct ggml_backend_device device = {
        .iface = {.get_name = device_name,
                  .get_description = device_description,
                  .get_memory = device_memory,
                  .get_type = device_type,
                  .get_props = device_props,
                  .init_backend = device_init,
                  .get_buffer_type = device_buffer_type,
                  .supports_op = device_supports_op,
                  .supports_buft = device_supports_buft},
    };
    static struct ggml_backend_reg reg = {
        .api_version = GGML_BACKEND_API_VERSION,
        .iface = {.get_name = reg_name,
                  .get_device_count = reg_device_count,
                  .get_device = reg_device,
                  .get_proc_address = reg_function},
        .context = &device,
    };
    const fg_device *opened = open_device();
    if (!opened)
        return NULL;
    device.reg = &reg;
    device.context = (void *)(uintptr_t)opened;
    return &reg;
}

/* ggml does not ask for the registry where this is 0, and says no more than "not supported". */
static int score(void)
{
    return open_device() ? 1 : 0;
}

GGML_BACKEND_DL_IMPL(registry)
GGML_BACKEND_DL_SCORE_IMPL(score)
