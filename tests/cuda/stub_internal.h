/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the stub share. */
#ifndef FASTATTN_TESTS_CUDA_STUB_INTERNAL_H
#define FASTATTN_TESTS_CUDA_STUB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/stub.h"

#define EXPORT __attribute__((visibility("default")))

#define STUB_CUBIN "a cubin of row " /* what programs become, and a character more for the row */

typedef enum object_kind {
    CONTEXT = 0x5201,
    MODULE,
    STREAM,
    EVENT,
    MEMORY,
    HOST_MEMORY,
    PROGRAM,
    BLAS
} object_kind;

typedef struct object {
    object_kind kind;
    struct object *of; /* a module's function belongs to it; a stream to its context */
    char *bytes;       /* of memory */
    size_t size;
    bool captures, recorded;
    bool of_task; /* a module whose kernel is a task's */
    int row;      /* FA_ROW, which a program is compiled with and a module made of it has */
    int device, retained;
    struct object *next; /* of all memory */
} object;

enum { MOST_DEVICES = 4, MOST_ATTRIBUTES = 8 };

typedef struct stub_state {
    pthread_mutex_t lock;
    atomic_long live, misuses, launches, groups, records, compiles;
    atomic_uintptr_t kernel, work;
    char failing[64];
    int nth, calls;
    CUresult error;
    bool failed, started;
    int arch, devices;
    int compiled[16];
    struct {
        int attribute, value;
    } attributes[MOST_ATTRIBUTES];
    int attribute_count;
    object *memory, *host_memory;
    object primary[MOST_DEVICES];
} stub_state;
extern stub_state stub;

void stub_misuse(const char *what);
/* What a call is to return: see stub_fail(). */
CUresult stub_result(const char *function);

#define MAY_FAIL()                               \
    do {                                         \
        CUresult error_ = stub_result(__func__); \
        if (error_ != CUDA_SUCCESS)              \
            return error_;                       \
    } while (0)

object *stub_make(object_kind kind);
bool stub_check(const void *handle, object_kind kind, const char *what);
void stub_drop(void *handle, object_kind kind, const char *what);

/* Every function, under the symbol that the loader asks for. */
#define STUB_DECLARE(name, symbol, parameters) CUresult EXPORT name parameters __asm__(symbol);
FA_CUDA_FUNCTIONS(STUB_DECLARE)
FA_CUDA_OPTIONAL_FUNCTIONS(STUB_DECLARE)
FA_NVRTC_FUNCTIONS(STUB_DECLARE)
#undef STUB_DECLARE

#endif
