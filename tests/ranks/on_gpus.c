/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/on_gpus.h"

#include <dlfcn.h>
#include <fastattn/fastattn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77 };

gpu_calls api;

void stop(const char *what, int error)
{
    (void)fprintf(stderr, "%s: %d\n", what, error);
    exit(EXIT_FAILURE);
}

void need(fa_status status)
{
    if (status != FA_OK) {
        (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
        exit(status == FA_NO_DEVICE || status == FA_UNSUPPORTED ? SKIPPED : EXIT_FAILURE);
    }
}

static void *open_library(const char *variable, const char *name)
{
    const char *forced = getenv(variable);
    void *library = dlopen(forced ? forced : name, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        printf("%s\n", dlerror());
        exit(SKIPPED);
    }
    return library;
}

static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        stop(name, 0);
    memcpy(function, &symbol, sizeof(symbol));
}

static void load(void)
{
    void *cudart = open_library("LIBCUDART", "libcudart.so.12"),
         *nccl = open_library("LIBNCCL", "libnccl.so.2");
    find(cudart, "cudaGetDeviceCount", &api.cudaGetDeviceCount);
    find(cudart, "cudaSetDevice", &api.cudaSetDevice);
    find(cudart, "cudaMalloc", &api.cudaMalloc);
    find(cudart, "cudaFree", &api.cudaFree);
    find(cudart, "cudaMemcpy", &api.cudaMemcpy);
    find(cudart, "cudaStreamCreateWithPriority", &api.cudaStreamCreateWithPriority);
    find(cudart, "cudaEventCreateWithFlags", &api.cudaEventCreateWithFlags);
    find(cudart, "cudaEventRecord", &api.cudaEventRecord);
    find(nccl, "ncclCommInitAll", &api.ncclCommInitAll);
}

int open_gpus(int wanted, struct ncclComm *comms[MOST_GPUS])
{
    int devices[MOST_GPUS], count = 0;
    load();
    if (api.cudaGetDeviceCount(&count) != 0 || count == 0) {
        printf("no GPU is here\n");
        exit(SKIPPED);
    }
    if (wanted <= 0 || wanted > count)
        wanted = count;
    if (wanted > MOST_GPUS)
        wanted = MOST_GPUS;
    for (int r = 0; r < wanted; r++)
        devices[r] = r;
    NEED(api.ncclCommInitAll(comms, wanted, devices));
    return wanted;
}
