/* SPDX-License-Identifier: Apache-2.0 */
#include "driver.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static cl_device_id find_device(const driver *cl)
{
    cl_platform_id platforms[16];
    cl_uint platform_count = 0;
    if (cl->clGetPlatformIDs(16, platforms, &platform_count) != CL_SUCCESS)
        return NULL;
    for (cl_uint p = 0; p < platform_count && p < 16; p++) {
        cl_device_id ids[16];
        cl_uint count = 0;
        if (cl->clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 16, ids, &count) != CL_SUCCESS)
            continue;
        for (cl_uint i = 0; i < count && i < 16; i++) {
            cl_bool compiler = CL_FALSE;
            if (cl->clGetDeviceInfo(ids[i], CL_DEVICE_COMPILER_AVAILABLE, sizeof(compiler), &compiler,
                                    NULL) == CL_SUCCESS &&
                compiler)
                return ids[i];
        }
    }
    return NULL;
}

const driver *driver_load(cl_device_id *device, const char **reason)
{
    static driver loaded;
    static const struct {
        const char *name;
        size_t offset;
    } wanted[] = {
#define DRIVER_ENTRY(name) {#name, offsetof(driver, name)},
        DRIVER_FUNCTIONS(DRIVER_ENTRY)
#undef DRIVER_ENTRY
    };
    const char *forced = getenv("FASTATTN_OPENCL_LIBRARY");
    void *library = dlopen(forced && forced[0] ? forced : "libOpenCL.so.1", RTLD_NOW);
    if (!library) {
        *reason = dlerror();
        return NULL;
    }
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *symbol = dlsym(library, wanted[i].name);
        if (!symbol) {
            *reason = wanted[i].name;
            return NULL;
        }
        memcpy((char *)&loaded + wanted[i].offset, &symbol, sizeof(symbol));
    }
    *device = find_device(&loaded);
    *reason = "no OpenCL device with a compiler";
    return *device ? &loaded : NULL;
}
