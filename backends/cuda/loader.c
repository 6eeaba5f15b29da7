/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/loader.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A library under one of several names, and its functions in a table. */
typedef struct library {
    const char *variable; /* of the environment, which overrides the names */
    const char *what;
    const char *const *names; /* the last is NULL */
    char failure[256];
} library;

typedef struct wanted {
    const char *symbol;
    size_t offset;
} wanted;

/* The first name that opens. `failure` keeps why the first candidate, the one to install, did not. */
static void *open_library(library *l)
{
    const char *forced = getenv(l->variable);
    const char *const only[] = {forced, NULL};
    bool by_name = !forced || !forced[0];
    for (const char *const *name = by_name ? l->names : only; *name; name++) {
        void *handle = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
        if (handle)
            return handle;
        const char *error = dlerror();
        if (l->failure[0] == '\0')
            (void)snprintf(l->failure, sizeof(l->failure), "%s%s%s", by_name ? "" : l->variable,
                           by_name ? "" : ": ", error ? error : *name);
    }
    return NULL;
}

static bool load_functions(library *l, const wanted *list, size_t count, void *table)
{
    void *handle = open_library(l);
    if (!handle)
        return false;
    l->failure[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(handle, list[i].symbol);
        if (!symbol) {
            (void)snprintf(l->failure, sizeof(l->failure), "%s has no function %s: it is too old", l->what,
                           list[i].symbol);
            return false;
        }
        /* POSIX promises that a function's address fits; ISO C has no cast for it. */
        memcpy((char *)table + list[i].offset, &symbol, sizeof(symbol));
    }
    return true;
}

#define DRIVER_ENTRY(name, symbol, parameters) {symbol, offsetof(fa_cu, name)},
#define COMPILER_ENTRY(name, symbol, parameters) {symbol, offsetof(fa_nvrtc, name)},
static const wanted driver_list[] = {FA_CUDA_FUNCTIONS(DRIVER_ENTRY)};
static const wanted compiler_list[] = {FA_NVRTC_FUNCTIONS(COMPILER_ENTRY)};

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
static library driver = {"FASTATTN_CUDA_LIBRARY", "the CUDA driver", driver_names, ""};
static library compiler = {"FASTATTN_NVRTC_LIBRARY", "NVRTC", compiler_names, ""};
static fa_cu driver_functions;
static fa_nvrtc compiler_functions;

static void load_driver(void)
{
    if (!load_functions(&driver, driver_list, sizeof(driver_list) / sizeof(driver_list[0]),
                        &driver_functions))
        return;
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
    (void)load_functions(&compiler, compiler_list, sizeof(compiler_list) / sizeof(compiler_list[0]),
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
