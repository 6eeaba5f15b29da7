/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/opencl/describe.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "core/status.h"

enum { MAX_PLATFORMS = 16, MAX_DEVICES = 64 };

/* A device, or a platform that failed: that one has no id. */
typedef struct entry {
    cl_device_id id;
    bool usable;
    char name[sizeof((fa_device_info *)0)->name];
    char reason[sizeof((fa_device_info *)0)->reason];
    fa_cl_caps caps; /* before FASTATTN_OPENCL_LIMITS */
} entry;

/* Of the process, since platforms are. Devices beyond the last are not seen. */
static struct {
    pthread_once_t once;
    const fa_cl *cl;
    entry device[MAX_DEVICES];
    int count;
    char reason[256]; /* of count 0 */
} list = {.once = PTHREAD_ONCE_INIT};

/* Drivers pad names with blanks at either end and in the middle. */
static void squeeze(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (!isspace((unsigned char)*from))
            *to++ = *from;
        else if (to > text && to[-1] != ' ')
            *to++ = ' ';
    }
    while (to > text && to[-1] == ' ')
        to--;
    *to = '\0';
}

static void platform_name(const fa_cl *cl, cl_platform_id platform, char name[128])
{
    char text[512] = "";
    if (cl->clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof(text) - 1, text, NULL) != CL_SUCCESS ||
        !text[0])
        (void)snprintf(text, sizeof(text), "a platform without a name");
    squeeze(text);
    (void)snprintf(name, 128, "%.127s", text);
}

static void describe_device(const fa_cl *cl, cl_device_id id, entry *e)
{
    char device[512] = "", platform[128];
    cl_platform_id of = NULL;
    *e = (entry){.id = id};
    if (cl->clGetDeviceInfo(id, CL_DEVICE_NAME, sizeof(device) - 1, device, NULL) != CL_SUCCESS || !device[0])
        (void)snprintf(device, sizeof(device), "a device without a name");
    squeeze(device);
    if (cl->clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof(of), &of, NULL) != CL_SUCCESS)
        of = NULL;
    platform_name(cl, of, platform);
    (void)snprintf(e->name, sizeof(e->name), "%.80s (%.40s)", device, platform);
    e->usable = fa_cl_caps_query(cl, id, &e->caps, e->reason, sizeof(e->reason));
}

static bool is_listed(cl_device_id id)
{
    for (int i = 0; i < list.count; i++) {
        if (list.device[i].id == id)
            return true;
    }
    return false;
}

/* "All" leaves out custom devices, which are asked for apart, to say that they are there. */
static void list_platform(const fa_cl *cl, cl_platform_id platform)
{
    static const cl_device_type types[] = {CL_DEVICE_TYPE_ALL, CL_DEVICE_TYPE_CUSTOM};
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        cl_device_id ids[MAX_DEVICES];
        cl_uint count = 0;
        cl_int error = cl->clGetDeviceIDs(platform, types[t], MAX_DEVICES, ids, &count);
        for (cl_uint i = 0; error == CL_SUCCESS && i < count && i < MAX_DEVICES; i++) {
            if (!is_listed(ids[i]) && list.count < MAX_DEVICES)
                describe_device(cl, ids[i], &list.device[list.count++]);
        }
        if (t == 0 && error != CL_SUCCESS && error != CL_DEVICE_NOT_FOUND && list.count < MAX_DEVICES) {
            entry *e = &list.device[list.count++];
            platform_name(cl, platform, e->name);
            (void)snprintf(e->reason, sizeof(e->reason), "clGetDeviceIDs: %s (%d)", fa_cl_error_name(error),
                           (int)error);
        }
    }
}

static void make_list(void)
{
    const fa_cl *cl = list.cl = fa_cl_load(list.reason, sizeof(list.reason));
    if (!cl)
        return;
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint count = 0;
    cl_int error = cl->clGetPlatformIDs(MAX_PLATFORMS, platforms, &count);
    if (error != CL_SUCCESS || count == 0) {
        (void)snprintf(list.reason, sizeof(list.reason),
                       "no OpenCL platform (is a driver installed?): clGetPlatformIDs: %s (%d)",
                       error == CL_SUCCESS ? "none" : fa_cl_error_name(error), (int)error);
        return;
    }
    char names[160] = "";
    for (cl_uint i = 0; i < count && i < MAX_PLATFORMS; i++) {
        char name[128];
        platform_name(cl, platforms[i], name);
        size_t used = strlen(names);
        (void)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", name);
        list_platform(cl, platforms[i]);
    }
    if (list.count == 0)
        (void)snprintf(list.reason, sizeof(list.reason), "no device on the OpenCL platforms: %s", names);
}

int fa_cl_device_count(const fa_context *context, char *reason, size_t reason_size)
{
    (void)context;
    (void)pthread_once(&list.once, make_list);
    if (list.count == 0)
        (void)snprintf(reason, reason_size, "%s", list.reason);
    return list.count;
}

static void fill_info(const entry *e, fa_device_info *info)
{
    fa_cl_caps caps = e->caps;
    (void)snprintf(info->name, sizeof(info->name), "%s", e->name);
    (void)snprintf(info->reason, sizeof(info->reason), "%s", e->reason);
    bool usable = e->usable && fa_cl_caps_limit(&caps, info->reason, sizeof(info->reason));
    info->available = usable;
    info->automatic = usable && (caps.type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_ACCELERATOR)) != 0;
    info->host_memory = usable && caps.unified;
    info->units = caps.units;
    info->onchip_bytes = caps.local_bytes;
}

void fa_cl_device_describe(const fa_context *context, int index, fa_device_info *info)
{
    (void)context;
    (void)pthread_once(&list.once, make_list);
    fill_info(&list.device[index], info);
}

void fa_cl_describe_id(const fa_cl *cl, cl_device_id id, fa_device_info *info)
{
    entry e;
    (void)pthread_once(&list.once, make_list);
    describe_device(cl, id, &e);
    fill_info(&e, info);
    (void)snprintf(info->backend, sizeof(info->backend), "opencl");
    info->struct_size = sizeof(*info);
    info->index = -1;
    for (int i = 0; i < list.count; i++) {
        if (list.device[i].id == id)
            info->index = i;
    }
}

static cl_context make_context(const fa_cl *cl, cl_device_id id, cl_int *error)
{
    cl_platform_id platform = NULL;
    *error = cl->clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof(platform), &platform, NULL);
    if (*error != CL_SUCCESS)
        return NULL;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)platform, 0};
    return cl->clCreateContext(properties, 1, &id, NULL, NULL, error);
}

fa_status fa_cl_device_start(fa_device *device, const fa_cl_import *import)
{
    char reason[256];
    const fa_cl *cl = fa_cl_load(reason, sizeof(reason));
    cl_device_id id = import ? import->id : list.device[device->info.index].id;
    fa_cl_device *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->cl = cl;
    made->id = id;
    fa_status status = FA_OK;
    cl_int error = CL_SUCCESS;
    if (!cl || !fa_cl_read_caps(cl, id, &made->caps, reason, sizeof(reason))) {
        status = fa_fail(FA_NO_DEVICE, "%s: %s", device->info.name, reason);
    } else if (import) {
        made->context = import->context;
        error = cl->clRetainContext(made->context);
        status = error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clRetainContext");
    } else {
        made->context = make_context(cl, id, &error);
        status = error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clCreateContext");
    }
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    (void)pthread_mutex_init(&made->lock, NULL);
    device->impl = made;
    return FA_OK;
}

void fa_cl_device_stop(fa_device *device)
{
    fa_cl_device *made = device->impl;
    if (!made)
        return;
    fa_cl_programs_release(device);
    (void)made->cl->clReleaseContext(made->context);
    (void)pthread_mutex_destroy(&made->lock);
    fa_release(device->context, made, sizeof(*made));
    device->impl = NULL;
}
