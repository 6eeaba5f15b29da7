/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/loader.h"

#include <pthread.h>
#include <stdio.h>

#include "core/library.h"

#define DRIVER_ENTRY(name, symbol, parameters) {symbol, offsetof(fa_cu, name)},
#define COMPILER_ENTRY(name, symbol, parameters) {symbol, offsetof(fa_nvrtc, name)},
static const fa_library_symbol driver_list[] = {FA_CUDA_FUNCTIONS(DRIVER_ENTRY)};
static const fa_library_symbol optional_list[] = {FA_CUDA_OPTIONAL_FUNCTIONS(DRIVER_ENTRY)};
static const fa_library_symbol compiler_list[] = {FA_NVRTC_FUNCTIONS(COMPILER_ENTRY)};

static const char *const driver_names[] = {"libcuda.so.1", "libcuda.so", NULL};
static const char *const compiler_names[] = {
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "/usr/local/cuda/lib64/libnvrtc.so",
    NULL,
};

static pthread_once_t driver_once = PTHREAD_ONCE_INIT, compiler_once = PTHREAD_ONCE_INIT;
static fa_library driver = {"FASTATTN_CUDA_LIBRARY", driver_names, "the CUDA driver",
                            "expected CUDA 11.2 or later", ""};
static fa_library compiler = {"FASTATTN_NVRTC_LIBRARY", compiler_names, "NVRTC", "expected 11.2 or later",
                              ""};
static fa_cu driver_functions;
static fa_nvrtc compiler_functions;

static void load_driver(void)
{
    if (!fa_library_load(&driver, driver_list, sizeof(driver_list) / sizeof(driver_list[0]),
                         &driver_functions))
        return;
    fa_library_load_optional(&driver, optional_list, sizeof(optional_list) / sizeof(optional_list[0]),
                             &driver_functions);
    CUresult error = driver_functions.cuInit(0);
    const char *name = NULL;
    if (error == CUDA_SUCCESS)
        return;
    if (driver_functions.cuGetErrorName(error, &name) != CUDA_SUCCESS || !name)
        name = "unknown error";
    (void)snprintf(driver.failure, sizeof(driver.failure), "cuInit: %s (%d)", name, error);
}

static void load_compiler(void)
{
    (void)fa_library_load(&compiler, compiler_list, sizeof(compiler_list) / sizeof(compiler_list[0]),
                          &compiler_functions);
}

const fa_cu *fa_cu_load(char *reason, size_t reason_size)
{
    (void)pthread_once(&driver_once, load_driver);
    if (driver.failure[0] == '\0')
        return &driver_functions;
    (void)snprintf(reason, reason_size, "%s", driver.failure);
    return NULL;
}

const fa_nvrtc *fa_nvrtc_load(char *reason, size_t reason_size)
{
    (void)pthread_once(&compiler_once, load_compiler);
    if (compiler.failure[0] == '\0')
        return &compiler_functions;
    (void)snprintf(reason, reason_size, "%s", compiler.failure);
    return NULL;
}
