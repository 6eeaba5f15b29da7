/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/opencl/loader.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const usual_names[] = {
    "libOpenCL.so.1",
    "libOpenCL.so",
#ifdef __ANDROID__
#ifdef __LP64__
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so",
#else
    "/vendor/lib/libOpenCL.so",
    "/system/vendor/lib/libOpenCL.so",
    "/vendor/lib/egl/libGLES_mali.so",
#endif
#endif
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static fa_cl functions;
static char failure[256];

/* The first library that opens. `failure` keeps why the first candidate, the one to install, did not. */
static void *open_library(void)
{
    const char *forced = getenv("FASTATTN_OPENCL_LIBRARY");
    bool by_name = !forced || !forced[0];
    const char *const *names = by_name ? usual_names : &forced;
    size_t count = by_name ? sizeof(usual_names) / sizeof(usual_names[0]) : 1;
    for (size_t i = 0; i < count; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        const char *error = dlerror();
        if (i == 0)
            (void)snprintf(failure, sizeof(failure), "%s%s",
                           by_name ? "" : "FASTATTN_OPENCL_LIBRARY: ", error ? error : names[i]);
    }
    return NULL;
}

static void load(void)
{
    static const struct {
        const char *name;
        size_t offset;
    } wanted[] = {
#define FA_CL_ENTRY(name) {#name, offsetof(fa_cl, name)},
        FA_CL_FUNCTIONS(FA_CL_ENTRY)
#undef FA_CL_ENTRY
    };
    void *library = open_library();
    if (!library)
        return;
    failure[0] = '\0';
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *symbol = dlsym(library, wanted[i].name);
        if (!symbol) {
            (void)snprintf(failure, sizeof(failure),
                           "the OpenCL library has no function %s, expected OpenCL 1.2", wanted[i].name);
            return;
        }
        /* POSIX promises that a function's address fits; ISO C has no cast for it. */
        memcpy((char *)&functions + wanted[i].offset, &symbol, sizeof(symbol));
    }
}

const fa_cl *fa_cl_load(char *reason, size_t reason_size)
{
    (void)pthread_once(&once, load);
    if (failure[0] == '\0')
        return &functions;
    (void)snprintf(reason, reason_size, "%s", failure);
    return NULL;
}
