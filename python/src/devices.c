/* SPDX-License-Identifier: Apache-2.0 */
/* The context, devices by name, and queues with scratch memory that runs take in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

static fa_context *context;
static fa_py_device *opened;

/* Builds without an OpenMP runtime, such as wheels, still heed its variable. */
static int32_t threads_wanted(void)
{
    const char *own = getenv("FASTATTN_THREADS"), *shared = getenv("OMP_NUM_THREADS");
    const long threads = shared && !(own && *own) ? strtol(shared, NULL, 10) : 0;
    return threads > 0 && threads <= FA_MAX_THREADS ? (int32_t)threads : 0;
}

fa_context *fa_py_context(void)
{
    if (context)
        return context;
    fa_context_options options = {.struct_size = sizeof options, .threads = threads_wanted()};
    const fa_status status = fa_context_create(&options, &context);
    if (status != FA_OK)
        fa_py_raise(status);
    return context;
}

static PyObject *describe(const fa_device_info *info)
{
    return Py_BuildValue(
        "{s:s,s:i,s:s,s:O,s:s,s:O,s:O,s:I,s:K}", "backend", info->backend, "index", (int)info->index, "name",
        info->name, "available", info->available ? Py_True : Py_False, "reason", info->reason, "automatic",
        info->automatic ? Py_True : Py_False, "host_memory", info->host_memory ? Py_True : Py_False, "units",
        (unsigned)info->units, "onchip_bytes", (unsigned long long)info->onchip_bytes);
}

PyObject *fa_py_devices(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!fa_py_context())
        return NULL;
    size_t count;
    Py_BEGIN_ALLOW_THREADS count = fa_device_count(context);
    Py_END_ALLOW_THREADS PyObject *list = PyList_New(0);
    for (size_t at = 0; list && at < count; at++) {
        fa_device_info info = {.struct_size = sizeof info};
        const fa_status status = fa_device_describe(context, at, &info);
        if (status != FA_OK) {
            fa_py_raise(status);
            Py_CLEAR(list);
            break;
        }
        PyObject *entry = describe(&info);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

static fa_py_device *open_device(const char *name)
{
    for (fa_py_device *device = opened; device; device = device->next) {
        if (strcmp(device->name, name) == 0)
            return device;
    }
    if (!fa_py_context())
        return NULL;
    fa_py_device *device = calloc(1, sizeof *device);
    if (!device || !(device->name = strdup(name))) {
        free(device);
        PyErr_NoMemory();
        return NULL;
    }
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = fa_device_open(context, *name ? name : NULL, NULL, &device->device);
    Py_END_ALLOW_THREADS if (status != FA_OK)
    {
        fa_py_raise(status);
        free(device->name);
        free(device);
        return NULL;
    }
    device->info.struct_size = sizeof device->info;
    (void)fa_device_get_info(device->device, &device->info);
    device->is_cuda = strcmp(device->info.backend, "cuda") == 0;
    device->in_place =
        strcmp(device->info.backend, "openmp") == 0 || strcmp(device->info.backend, "null") == 0;
    device->next = opened;
    opened = device;
    return device;
}

PyObject *fa_py_kernels(PyObject *module, PyObject *name)
{
    (void)module;
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    fa_py_device *device = text ? open_device(text) : NULL;
    return device ? PyUnicode_FromString(device->info.kernels) : NULL;
}

/* Where a host array is computed if nothing is said: in place, or where the environment says. */
static const char *default_name(void)
{
    static const char *name;
    if (!name) {
        const char *backend = getenv("FASTATTN_BACKEND"), *device = getenv("FASTATTN_DEVICE");
        name = (backend && *backend) || (device && *device) ? "" : "openmp";
    }
    return name;
}

static fa_py_device *default_device(void)
{
    static fa_py_device *device;
    if (!device)
        device = open_device(default_name());
    return device;
}

fa_py_device *fa_py_host_device(void)
{
    return open_device("openmp");
}

static fa_py_device *cuda_device(PyObject *wanted, const fa_py_tensor *tensor)
{
    static fa_py_device *devices[64];
    const int32_t id = tensor->device_id;
    if (id < 0 || id >= 64) {
        fa_py_fail(FA_NO_DEVICE, "%s is on cuda:%d, expected cuda:0 to cuda:63", tensor->name, (int)id);
        return NULL;
    }
    if (!devices[id]) {
        char name[32];
        snprintf(name, sizeof name, "cuda:%d", (int)id);
        devices[id] = open_device(name);
    }
    fa_py_device *device = devices[id];
    if (!device || !fa_py_given(wanted))
        return device;
    PyObject *text = PyObject_Str(wanted);
    const char *name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (!name)
        device = NULL;
    else if (strcmp(name, "cuda") != 0 && strcmp(name, device->name) != 0) {
        fa_py_fail(FA_INVALID, "device is '%s', but %s is on cuda:%d", name, tensor->name, (int)id);
        device = NULL;
    }
    Py_XDECREF(text);
    return device;
}

fa_py_device *fa_py_device_for(PyObject *wanted, const fa_py_tensor *tensor)
{
    if (tensor->device_type == FA_DL_CUDA)
        return cuda_device(wanted, tensor);
    if (!fa_py_on_host(tensor)) {
        fa_py_fail(FA_UNSUPPORTED, "%s is on a device of DLPack's type %d, expected the CPU or CUDA",
                   tensor->name, (int)tensor->device_type);
        return NULL;
    }
    if (!fa_py_given(wanted))
        return default_device();
    PyObject *text = PyObject_Str(wanted);
    const char *name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    fa_py_device *device = NULL;
    if (name && !*name)
        fa_py_fail(FA_INVALID, "device is '', expected a name such as 'openmp' or 'opencl:0'");
    else if (name)
        device = open_device(strcmp(name, "cpu") == 0 ? "openmp" : name);
    Py_XDECREF(text);
    return device;
}

static fa_py_lane *make_lane(fa_py_device *device, void *stream)
{
    fa_py_lane *lane = calloc(1, sizeof *lane);
    if (!lane) {
        PyErr_NoMemory();
        return NULL;
    }
    lane->stream = stream;
    const fa_status status =
        device->is_cuda && stream != FA_PY_OWN_QUEUE
            ? fa_queue_wrap_cuda(device->device, (struct CUstream_st *)stream, &lane->queue)
            : fa_queue_create(device->device, &lane->queue);
    if (status != FA_OK) {
        fa_py_raise(status);
        free(lane);
        return NULL;
    }
    return lane;
}

/* Memory at a multiple of 64, or NULL. */
static bool grow(void **memory, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return true;
    free(*memory);
    *memory = wanted <= SIZE_MAX - 64 ? aligned_alloc(64, (wanted + 63) / 64 * 64) : NULL;
    *size = *memory ? wanted : 0;
    return *memory || fa_py_fail(FA_OUT_OF_MEMORY, "no memory for a workspace of %zu bytes", wanted);
}

static bool grow_work(const fa_py_device *device, fa_py_lane *lane, size_t wanted)
{
    if (wanted <= lane->work_size && lane->work)
        return true;
    (void)fa_queue_wait(lane->queue); /* which may still read the old one */
    fa_buffer_destroy(lane->work);
    lane->work = NULL;
    if (!device->in_place) {
        const fa_status status = fa_buffer_create(device->device, wanted, &lane->work);
        lane->work_size = status == FA_OK ? wanted : 0;
        if (status != FA_OK)
            fa_py_raise(status);
        return status == FA_OK;
    }
    if (!grow(&lane->work_memory, &lane->work_size, wanted))
        return false;
    const fa_status status = fa_buffer_wrap_host(device->device, lane->work_memory, wanted, &lane->work);
    if (status != FA_OK)
        fa_py_raise(status);
    return status == FA_OK;
}

fa_py_lane *fa_py_lane_take(fa_py_device *device, void *stream, size_t workspace, size_t work)
{
    fa_py_lane **link = &device->idle;
    while (*link && (*link)->stream != stream)
        link = &(*link)->next;
    fa_py_lane *lane = *link;
    if (lane)
        *link = lane->next;
    else
        lane = make_lane(device, stream);
    if (lane && (!grow(&lane->workspace, &lane->workspace_size, workspace) ||
                 (work > 0 && !grow_work(device, lane, work)))) {
        fa_py_lane_give(device, lane);
        return NULL;
    }
    return lane;
}

void fa_py_lane_give(fa_py_device *device, fa_py_lane *lane)
{
    lane->next = device->idle;
    device->idle = lane;
}
