/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/opencl/loader.h"

#include <pthread.h>
#include <stdio.h>

#include "core/library.h"

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
    NULL,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static fa_library library = {"FASTATTN_OPENCL_LIBRARY", usual_names, "the OpenCL library",
                             "expected OpenCL 1.2", ""};
static fa_cl functions;

static void load(void)
{
    static const fa_library_symbol wanted[] = {
#define FA_CL_ENTRY(name) {#name, offsetof(fa_cl, name)},
        FA_CL_FUNCTIONS(FA_CL_ENTRY)
#undef FA_CL_ENTRY
    };
    (void)fa_library_load(&library, wanted, sizeof(wanted) / sizeof(wanted[0]), &functions);
}

const fa_cl *fa_cl_load(char *reason, size_t reason_size)
{
    (void)pthread_once(&once, load);
    if (library.failure[0] == '\0')
        return &functions;
    (void)snprintf(reason, reason_size, "%s", library.failure);
    return NULL;
}
