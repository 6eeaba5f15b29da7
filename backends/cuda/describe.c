/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/describe.h"

#include <stdio.h>

#include "backends/gpu/lower.h"
#include "core/context.h"
#include "core/status.h"

enum { MIN_ARCH = 60, MIN_SHARED = 16384 };

/* Queries of one device, up to the first that fails. */
typedef struct reader {
    const fa_cu *cu;
    CUdevice id;
    bool ok;
    char *reason;
    size_t reason_size;
} reader;

static void check(reader *r, CUresult error, const char *call)
{
    if (r->ok && error != CUDA_SUCCESS)
        (void)snprintf(r->reason, r->reason_size, "%s: %s (%d)", call, fa_cu_error_name(r->cu, error), error);
    r->ok = r->ok && error == CUDA_SUCCESS;
}

static int get(reader *r, int attribute)
{
    int value = 0;
    if (r->ok)
        check(r, r->cu->cuDeviceGetAttribute(&value, attribute, r->id), "cuDeviceGetAttribute");
    return value;
}

/* What the driver says. */
static bool query(reader *r, fa_cu_caps *caps)
{
    size_t total = 0;
    *caps = (fa_cu_caps){.images = true};
    check(r, r->cu->cuDeviceGetName(caps->name, (int)sizeof(caps->name), r->id), "cuDeviceGetName");
    if (!r->ok)
        (void)snprintf(caps->name, sizeof(caps->name), "a device without a name");
    check(r, r->cu->cuDeviceTotalMem(&total, r->id), "cuDeviceTotalMem");
    int major = get(r, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        minor = get(r, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        clock = get(r, CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        memory_khz = get(r, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        bus_bits = get(r, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
        mode = get(r, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE);
    caps->units = get(r, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    caps->shared_bytes = (size_t)get(r, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    caps->unit_shared_bytes = (size_t)get(r, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    caps->clock_khz = clock > 0 ? clock : 1;
    caps->bytes_per_second = 2.0 * memory_khz * 1e3 * bus_bits / 8; /* two transfers a cycle */
    caps->global_bytes = total;
    caps->arch = caps->runs_arch = 10 * major + minor;
    if (r->ok && mode == CU_COMPUTEMODE_PROHIBITED) {
        (void)snprintf(r->reason, r->reason_size, "its compute mode is \"prohibited\"");
        r->ok = false;
    }
    if (r->ok && caps->arch < MIN_ARCH) {
        (void)snprintf(r->reason, r->reason_size, "its compute capability is %d.%d, expected 6.0 or later",
                       major, minor);
        r->ok = false;
    }
    return r->ok;
}

static bool limit(fa_cu_caps *caps, char *reason, size_t reason_size)
{
    size_t arch = (size_t)caps->arch;
    const fa_gpu_key keys[] = {
        {"arch=", MIN_ARCH, &arch, NULL},
        {"shared=", MIN_SHARED, &caps->shared_bytes, NULL},
        {"images=", 0, NULL, &caps->images},
    };
    bool good =
        fa_gpu_lower("FASTATTN_CUDA_LIMITS", keys, sizeof(keys) / sizeof(keys[0]), reason, reason_size);
    caps->arch = (int)arch;
    return good;
}

bool fa_cu_caps_read(const fa_cu *cu, CUdevice id, fa_cu_caps *caps, char *reason, size_t reason_size)
{
    reader r = {cu, id, true, reason, reason_size};
    return query(&r, caps) && limit(caps, reason, reason_size) &&
           fa_cu_can_compile(caps, reason, reason_size);
}

int fa_cu_device_count(const fa_context *context, char *reason, size_t reason_size)
{
    (void)context;
    int count = 0;
    const fa_cu *cu = fa_cu_load(reason, reason_size);
    if (!cu)
        return 0;
    CUresult error = cu->cuDeviceGetCount(&count);
    if (error != CUDA_SUCCESS)
        (void)snprintf(reason, reason_size, "cuDeviceGetCount: %s (%d)", fa_cu_error_name(cu, error), error);
    else if (count <= 0)
        (void)snprintf(reason, reason_size, "the CUDA driver knows no device (CUDA_VISIBLE_DEVICES?)");
    return error == CUDA_SUCCESS && count > 0 ? count : 0;
}

void fa_cu_device_describe(const fa_context *context, int index, fa_device_info *info)
{
    (void)context;
    CUdevice id = 0;
    fa_cu_caps caps = {.name = "a device without a name"};
    const fa_cu *cu = fa_cu_load(info->reason, sizeof(info->reason));
    CUresult error = cu ? cu->cuDeviceGet(&id, index) : CUDA_SUCCESS;
    if (error != CUDA_SUCCESS)
        (void)snprintf(info->reason, sizeof(info->reason), "cuDeviceGet: %s (%d)",
                       fa_cu_error_name(cu, error), error);
    info->available =
        cu && error == CUDA_SUCCESS && fa_cu_caps_read(cu, id, &caps, info->reason, sizeof(info->reason));
    (void)snprintf(info->name, sizeof(info->name), "%s", caps.name);
    info->automatic = info->available;
    info->host_memory = 0;
    info->units = (uint32_t)caps.units;
    info->onchip_bytes = caps.shared_bytes;
}

static fa_status take_context(fa_cu_device *made, CUcontext import)
{
    made->context = import;
    made->primary = !import;
    if (import)
        return FA_OK;
    CUresult error = made->cu->cuDevicePrimaryCtxRetain(&made->context, made->id);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(made->cu, error, "cuDevicePrimaryCtxRetain");
}

fa_status fa_cu_device_start(fa_device *device, CUcontext import)
{
    char reason[256] = "";
    fa_cu_device *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->cu = fa_cu_load(reason, sizeof(reason));
    if (made->cu) {
        CUresult error = made->cu->cuDeviceGet(&made->id, device->info.index);
        if (error != CUDA_SUCCESS)
            (void)snprintf(reason, sizeof(reason), "cuDeviceGet: %s (%d)", fa_cu_error_name(made->cu, error),
                           error);
        else
            (void)fa_cu_caps_read(made->cu, made->id, &made->caps, reason, sizeof(reason));
    }
    fa_status status =
        reason[0] ? fa_fail(FA_NO_DEVICE, "%s: %s", device->info.name, reason) : take_context(made, import);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    (void)pthread_mutex_init(&made->lock, NULL);
    device->impl = made;
    return FA_OK;
}

void fa_cu_device_stop(fa_device *device)
{
    fa_cu_device *made = device->impl;
    if (!made)
        return;
    fa_cu_modules_release(device);
    if (made->primary)
        (void)made->cu->cuDevicePrimaryCtxRelease(made->id);
    (void)pthread_mutex_destroy(&made->lock);
    fa_release(device->context, made, sizeof(*made));
    device->impl = NULL;
}
