/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/gpu/cache.h"
#include "backends/gpu/lower.h"
#include "backends/opencl/describe.h"

/* The narrowest work-group that the kernels are written for, and the longest text that a driver is believed. */
enum { MIN_GROUP = 64, MAX_TEXT = 1 << 20 };

/* Queries of one device, up to the first that fails. */
typedef struct reader {
    const fa_cl *cl;
    cl_device_id id;
    bool ok;
    char *reason;
    size_t reason_size;
} reader;

static void get(reader *r, cl_device_info parameter, const char *name, void *value, size_t size)
{
    if (!r->ok)
        return;
    cl_int error = r->cl->clGetDeviceInfo(r->id, parameter, size, value, NULL);
    if (error == CL_SUCCESS)
        return;
    r->ok = false;
    (void)snprintf(r->reason, r->reason_size, "clGetDeviceInfo(%s): %s (%d)", name, fa_cl_error_name(error),
                   (int)error);
}

#define GET(r, parameter, value) get(r, parameter, #parameter, &(value), sizeof(value))

/* Drivers refuse a buffer that is too small; what does not fit is not worth failing for, and left empty. */
static void get_text(reader *r, cl_device_info parameter, char *text, size_t text_size)
{
    size_t size = 0;
    memset(text, 0, text_size);
    if (r->cl->clGetDeviceInfo(r->id, parameter, 0, NULL, &size) != CL_SUCCESS || size >= text_size ||
        r->cl->clGetDeviceInfo(r->id, parameter, size, text, NULL) != CL_SUCCESS)
        text[0] = '\0';
}

static bool refuse(reader *r, const char *why)
{
    if (r->ok)
        (void)snprintf(r->reason, r->reason_size, "%s", why);
    r->ok = false;
    return false;
}

/* Of any length, in memory to free(); NULL, and the device refused, where there is none. */
static char *get_long_text(reader *r, cl_device_info parameter)
{
    size_t size = 0;
    if (!r->ok)
        return NULL;
    if (r->cl->clGetDeviceInfo(r->id, parameter, 0, NULL, &size) != CL_SUCCESS || size > MAX_TEXT)
        size = 0;
    char *text = calloc(size + 1, 1);
    if (!text)
        (void)refuse(r, "no host memory to list its extensions");
    else if (size > 0 && r->cl->clGetDeviceInfo(r->id, parameter, size, text, NULL) != CL_SUCCESS)
        text[0] = '\0';
    return text;
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = strstr(words, word); at; at = strstr(at + 1, word)) {
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* Everything by which a program binary for one device may be wrong for another; the hash keeps what is
 * cut. */
static void name_driver(reader *r, fa_cl_caps *caps)
{
    static const cl_device_info parts[] = {CL_DRIVER_VERSION, CL_DEVICE_VERSION, CL_DEVICE_NAME,
                                           CL_DEVICE_VENDOR};
    char all[2048] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char text[400];
        get_text(r, parts[i], text, sizeof(text));
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s; ", text);
    }
    cl_platform_id platform = NULL;
    GET(r, CL_DEVICE_PLATFORM, platform);
    char version[400] = "";
    if (r->ok && r->cl->clGetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof(version) - 1, version,
                                          NULL) != CL_SUCCESS)
        version[0] = '\0';
    (void)snprintf(all + used, sizeof(all) - used, "%s", version);
    (void)snprintf(caps->driver, sizeof(caps->driver), "%016llx %.236s",
                   (unsigned long long)fa_cache_hash(all, strlen(all)), all);
}

/* 10 major + minor; 0 where it cannot be read. */
static int read_version(reader *r)
{
    char text[256];
    int major, minor;
    get_text(r, CL_DEVICE_VERSION, text, sizeof(text));
    return sscanf(text, "OpenCL %2d.%1d", &major, &minor) == 2 ? 10 * major + minor : 0;
}

/* What makes a device unusable, whatever its limits. */
static bool check_usable(reader *r, const fa_cl_caps *caps, const char *extensions)
{
    cl_bool available = CL_FALSE, compiler = CL_FALSE, little = CL_FALSE;
    GET(r, CL_DEVICE_AVAILABLE, available);
    GET(r, CL_DEVICE_COMPILER_AVAILABLE, compiler);
    GET(r, CL_DEVICE_ENDIAN_LITTLE, little);
    char version[256], profile[64];
    get_text(r, CL_DEVICE_VERSION, version, sizeof(version));
    get_text(r, CL_DEVICE_PROFILE, profile, sizeof(profile));
    if (!r->ok)
        return false;
    if (caps->type & CL_DEVICE_TYPE_CUSTOM)
        return refuse(r, "a custom device, which runs only kernels of its own");
    if (!available)
        return refuse(r, "the driver says that it is not available (CL_DEVICE_AVAILABLE)");
    if (caps->version < 12) {
        char why[128];
        (void)snprintf(why, sizeof(why), "its version is \"%.48s\", expected OpenCL 1.2 or later", version);
        return refuse(r, why);
    }
    if (!compiler)
        return refuse(r, "its driver has no compiler (CL_DEVICE_COMPILER_AVAILABLE)");
    if (!little)
        return refuse(r, "it is not little-endian");
    if (strcmp(profile, "EMBEDDED_PROFILE") == 0 && !has_word(extensions, "cles_khr_int64"))
        return refuse(r, "an embedded profile without 64-bit integers (cles_khr_int64)");
    return true;
}

bool fa_cl_caps_query(const fa_cl *cl, cl_device_id id, fa_cl_caps *caps, char *reason, size_t reason_size)
{
    reader r = {cl, id, true, reason, reason_size};
    *caps = (fa_cl_caps){0};
    cl_uint units = 0, clock = 0, align_bits = 0;
    cl_ulong local = 0, alloc = 0, global = 0;
    cl_bool unified = CL_FALSE;
    cl_device_local_mem_type local_type = 0;
    size_t group = 0, items[16] = {0};
    GET(&r, CL_DEVICE_TYPE, caps->type);
    GET(&r, CL_DEVICE_MAX_COMPUTE_UNITS, units);
    GET(&r, CL_DEVICE_MAX_CLOCK_FREQUENCY, clock);
    GET(&r, CL_DEVICE_LOCAL_MEM_SIZE, local);
    GET(&r, CL_DEVICE_LOCAL_MEM_TYPE, local_type);
    GET(&r, CL_DEVICE_MAX_WORK_GROUP_SIZE, group);
    GET(&r, CL_DEVICE_MAX_WORK_ITEM_SIZES, items);
    GET(&r, CL_DEVICE_MAX_MEM_ALLOC_SIZE, alloc);
    GET(&r, CL_DEVICE_GLOBAL_MEM_SIZE, global);
    GET(&r, CL_DEVICE_MEM_BASE_ADDR_ALIGN, align_bits);
    GET(&r, CL_DEVICE_HOST_UNIFIED_MEMORY, unified);
    caps->near = true;
    caps->units = units ? units : 1;
    caps->clock_mhz = clock ? clock : 1;
    caps->local_bytes = (size_t)local;
    caps->local_real = local_type == CL_LOCAL;
    caps->group_size = group < items[0] ? group : items[0];
    caps->alloc_bytes = alloc < PTRDIFF_MAX ? (size_t)alloc : PTRDIFF_MAX;
    caps->global_bytes = global;
    caps->base_align = align_bits >= 8 ? align_bits / 8 : 1;
    caps->unified = unified != CL_FALSE;
    char *extensions = get_long_text(&r, CL_DEVICE_EXTENSIONS);
    if (!extensions)
        return false;
    caps->fp16 = has_word(extensions, "cl_khr_fp16");
    caps->version = read_version(&r);
    caps->subgroups = caps->version >= 20 && has_word(extensions, "cl_khr_subgroups") &&
                      has_word(extensions, "cl_khr_subgroup_shuffle");
    name_driver(&r, caps);
    bool usable = check_usable(&r, caps, extensions);
    free(extensions);
    return usable;
}

bool fa_cl_caps_limit(fa_cl_caps *caps, char *reason, size_t reason_size)
{
    const fa_gpu_key keys[] = {
        {"local=", 1024, &caps->local_bytes, NULL},
        {"group=", 1, &caps->group_size, NULL},
        {"alloc=", 4096, &caps->alloc_bytes, NULL},
        {"subgroups=", 0, NULL, &caps->subgroups},
        {"fp16=", 0, NULL, &caps->fp16},
        {"unified=", 0, NULL, &caps->unified},
        {"near=", 0, NULL, &caps->near},
    };
    if (!fa_gpu_lower("FASTATTN_OPENCL_LIMITS", keys, sizeof(keys) / sizeof(keys[0]), reason, reason_size))
        return false;
    if (caps->group_size < MIN_GROUP) {
        (void)snprintf(reason, reason_size, "its work-groups have at most %zu items, expected at least %d",
                       caps->group_size, MIN_GROUP);
        return false;
    }
    if (caps->alloc_bytes < caps->base_align) {
        (void)snprintf(reason, reason_size, "it allocates at most %zu bytes at once, expected at least %zu",
                       caps->alloc_bytes, caps->base_align);
        return false;
    }
    return true;
}

bool fa_cl_read_caps(const fa_cl *cl, cl_device_id id, fa_cl_caps *caps, char *reason, size_t reason_size)
{
    return fa_cl_caps_query(cl, id, caps, reason, reason_size) && fa_cl_caps_limit(caps, reason, reason_size);
}

int fa_cl_chunk_shift(const fa_cl_caps *caps)
{
    int shift = 0;
    while (caps->alloc_bytes >> shift > 1)
        shift++;
    return shift;
}
