/* SPDX-License-Identifier: Apache-2.0 */
/* Programs: found in the device's list, loaded from the cache on disk, or compiled. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "backends/gpu/cache.h"
#include "backends/opencl/opencl.h"
#include "core/context.h"
#include "core/status.h"

enum { MAX_CONTEXT_DEVICES = 64, OPTIONS_SHOWN = 400 };

const fa_cl_source fa_cl_attention_source = {fa_opencl_source, &fa_opencl_source_size};
const fa_cl_source fa_cl_task_source = {fa_opencl_task_source, &fa_opencl_task_source_size};

typedef struct fa_cl_program {
    struct fa_cl_program *next;
    cl_program handle;
    size_t bytes; /* of this struct */
    char options[];
} fa_cl_program;

/* The end of the log is where the errors are counted and the last of them stands. */
static fa_status build_failed(const fa_device *device, cl_program program, const char *options, cl_int error)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    size_t size = 0, length = 0;
    char *log = NULL;
    if (d->cl->clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) == CL_SUCCESS &&
        size > 0)
        log = fa_alloc_zeroed(device->context, size + 1);
    if (log &&
        d->cl->clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, size, log, NULL) == CL_SUCCESS)
        length = strlen(log);
    while (length > 0 && isspace((unsigned char)log[length - 1]))
        log[--length] = '\0';
    char head[OPTIONS_SHOWN + 160];
    int used = snprintf(head, sizeof(head),
                        "clBuildProgram: %s (%d) with \"%.*s\" on %.60s: ", fa_cl_error_name(error),
                        (int)error, OPTIONS_SHOWN, options, device->info.name);
    size_t room = FA_MESSAGE_SIZE - 1 - (size_t)used;
    const char *tail = length > room ? log + length - room : log;
    const char *line = length > room ? strchr(tail, '\n') : NULL;
    if (line) /* of what is cut, whole lines */
        tail = line + 1;
    fa_status status = fa_fail(FA_COMPILE, "%s%s", head, length > 0 ? tail : "no build log");
    fa_release(device->context, log, size + 1);
    return status;
}

static fa_status compile(const fa_device *device, const fa_cl_source *source, const char *options,
                         cl_program *program)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    const char *text = source->text;
    cl_int error;
    cl_program made = d->cl->clCreateProgramWithSource(d->context, 1, &text, source->size, &error);
    if (error != CL_SUCCESS)
        return fa_cl_fail(error, "clCreateProgramWithSource");
    error = d->cl->clBuildProgram(made, 1, &d->id, options, NULL, NULL);
    if (error == CL_SUCCESS) {
        *program = made;
        return FA_OK;
    }
    fa_status status = error == CL_OUT_OF_HOST_MEMORY || error == CL_OUT_OF_RESOURCES
                           ? fa_cl_fail(error, "clBuildProgram")
                           : build_failed(device, made, options, error);
    (void)d->cl->clReleaseProgram(made);
    return status;
}

/* A binary may be refused by a driver that calls itself the same and is not. */
static bool build_binary(const fa_device *device, const char *options, const void *binary, size_t size,
                         cl_program *program)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    const unsigned char *bytes = binary;
    cl_int error, refused = CL_SUCCESS;
    cl_program made =
        d->cl->clCreateProgramWithBinary(d->context, 1, &d->id, &size, &bytes, &refused, &error);
    if (error != CL_SUCCESS)
        return false;
    if (refused == CL_SUCCESS && d->cl->clBuildProgram(made, 1, &d->id, options, NULL, NULL) == CL_SUCCESS) {
        *program = made;
        return true;
    }
    (void)d->cl->clReleaseProgram(made);
    return false;
}

/* A caller's context may have more devices than ours, each with a binary in its place; ours is wanted
 * alone. */
static void store_binary(const fa_device *device, cl_program program, const char *key)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    cl_device_id ids[MAX_CONTEXT_DEVICES];
    size_t sizes[MAX_CONTEXT_DEVICES], id_bytes = 0, own = 0;
    if (d->cl->clGetProgramInfo(program, CL_PROGRAM_DEVICES, sizeof(ids), ids, &id_bytes) != CL_SUCCESS)
        return;
    size_t count = id_bytes / sizeof(ids[0]);
    while (own < count && ids[own] != d->id)
        own++;
    if (own == count || d->cl->clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, count * sizeof(sizes[0]),
                                                sizes, NULL) != CL_SUCCESS)
        return;
    size_t size = sizes[own];
    unsigned char *binary = size > 0 ? fa_alloc(device->context, size) : NULL;
    if (!binary)
        return;
    unsigned char *binaries[MAX_CONTEXT_DEVICES] = {NULL};
    binaries[own] = binary;
    if (d->cl->clGetProgramInfo(program, CL_PROGRAM_BINARIES, count * sizeof(binaries[0]), binaries, NULL) ==
        CL_SUCCESS)
        fa_cache_store(device->context, key, binary, size);
    fa_release(device->context, binary, size);
}

/* From the cache, else compiled and stored there. `key` and its allocation are the caller's. */
static fa_status make_program(const fa_device *device, const fa_cl_source *source, const char *options,
                              const char *key, bool *cached, cl_program *program)
{
    void *binary;
    size_t size;
    if (fa_cache_load(device->context, key, &binary, &size)) {
        *cached = build_binary(device, options, binary, size, program);
        fa_release(device->context, binary, size);
        if (*cached)
            return FA_OK;
    }
    fa_status status = compile(device, source, options, program);
    if (status == FA_OK)
        store_binary(device, *program, key);
    return status;
}

static void drop_program(const fa_device *device, fa_cl_program *program)
{
    (void)fa_cl_device_of(device)->cl->clReleaseProgram(program->handle);
    fa_release(device->context, program, program->bytes);
}

static fa_status new_program(const fa_device *device, const fa_cl_source *source, const char *options,
                             bool *cached, fa_cl_program **program)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    size_t bytes = sizeof(fa_cl_program) + strlen(options) + 1;
    size_t key_bytes = sizeof(d->caps.driver) + strlen(options) + 64;
    fa_cl_program *made = fa_alloc(device->context, bytes);
    char *key = made ? fa_alloc(device->context, key_bytes) : NULL;
    fa_status status = FA_OUT_OF_MEMORY;
    if (key) {
        (void)snprintf(key, key_bytes, "%s\n%s\n%016llx %zu", d->caps.driver, options,
                       (unsigned long long)fa_cache_hash(source->text, *source->size), *source->size);
        *made = (fa_cl_program){.bytes = bytes};
        memcpy(made->options, options, strlen(options) + 1);
        status = make_program(device, source, options, key, cached, &made->handle);
        fa_release(device->context, key, key_bytes);
    }
    if (status != FA_OK) {
        fa_release(device->context, made, bytes);
        return status;
    }
    *program = made;
    return FA_OK;
}

/* The program of these options in the device's list; where there is none, `added`, unless that is NULL. */
static fa_cl_program *find_program(fa_cl_device *d, const char *options, fa_cl_program *added)
{
    (void)pthread_mutex_lock(&d->lock);
    fa_cl_program *found = d->programs;
    while (found && strcmp(found->options, options) != 0)
        found = found->next;
    if (!found && added) {
        added->next = d->programs;
        d->programs = found = added;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return found;
}

fa_status fa_cl_program_get(fa_device *device, const fa_cl_source *source, const char *options,
                            cl_program *program)
{
    fa_cl_device *d = fa_cl_device_of(device);
    fa_cl_program *found = find_program(d, options, NULL);
    if (!found) {
        /* Not under the lock: the caller's allocator and log are called. Another thread may be making the same. */
        bool cached = false;
        fa_cl_program *made;
        fa_status status = new_program(device, source, options, &cached, &made);
        if (status != FA_OK)
            return status;
        fa_clear_error(); /* of what the cache met on its way */
        found = find_program(d, options, made);
        if (found != made)
            drop_program(device, made);
        else
            fa_log(device->context, FA_LOG_DEBUG, "opencl: program %s: %s",
                   cached ? "from the cache" : "compiled", options);
    }
    *program = found->handle;
    return FA_OK;
}

void fa_cl_programs_release(fa_device *device)
{
    fa_cl_device *d = fa_cl_device_of(device);
    while (d->programs) {
        fa_cl_program *next = d->programs->next;
        drop_program(device, d->programs);
        d->programs = next;
    }
}
