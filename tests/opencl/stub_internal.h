/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the stub driver share. One lock is held in every call. */
#ifndef FASTATTN_TESTS_OPENCL_STUB_INTERNAL_H
#define FASTATTN_TESTS_OPENCL_STUB_INTERNAL_H

#include "stub.h"

#include <stdbool.h>

typedef enum stub_kind {
    STUB_CONTEXT,
    STUB_QUEUE,
    STUB_MEM,
    STUB_PROGRAM,
    STUB_KERNEL,
    STUB_EVENT
} stub_kind;

/* First in every object. A dead object's memory is kept, so that later use of its handle is noticed. */
typedef struct stub_object {
    stub_kind kind;
    int references; /* 0: dead */
    struct stub_object *parent, *next;
    void (*destroy)(struct stub_object *object); /* frees what hangs on it; NULL: nothing does */
} stub_object;

struct _cl_platform_id {
    int unused;
};

struct _cl_device_id {
    char kind[16];
};

struct _cl_context {
    stub_object object;
    cl_device_id device;
};

struct _cl_command_queue {
    stub_object object;
    cl_context context;
    cl_device_id device;
    cl_command_queue_properties properties;
};

struct _cl_mem {
    stub_object object;
    cl_context context;
    cl_mem root; /* of a sub-buffer */
    cl_mem_flags flags;
    size_t size, origin;
    char *bytes; /* as the device sees them */
    char *host;  /* the caller's of CL_MEM_USE_HOST_PTR: mapping copies to and fro; NULL: none */
    bool newer;  /* a kernel ran since the host and the device had the same */
    int mapped;
    cl_map_flags map_flags; /* of the last mapping */
    size_t map_offset, map_size;
};

struct _cl_event {
    stub_object object;
    cl_command_queue queue;
    cl_command_type command;
    cl_int state;
    cl_ulong start, end;
};

/* Enters `function`: takes the lock, counts the call, and gives CL_SUCCESS or the error to return. */
cl_int stub_enter(const char *function);
void stub_leave(void);

/* The same, in a call that has entered. */
cl_int stub_step(const char *function);

/* Notes wrong use and gives `error`. */
cl_int stub_wrong(cl_int error, const char *what);

/* A zeroed object with one reference, which holds one on its parent; NULL when there is no memory. */
void *stub_object_make(size_t size, stub_kind kind, stub_object *parent);
void stub_object_retain(stub_object *object);
void stub_object_release(stub_object *object);

/* The object is one of ours, alive and of this kind. */
bool stub_is(const void *object, stub_kind kind);

/* This is the handle of an object that was released. */
bool stub_is_dead(const void *handle);

void stub_count_mapping(int change);
void stub_count_compilation(void);

/* What every clGet...Info does with its answer. */
cl_int stub_answer(const void *value, size_t bytes, size_t room, void *target, size_t *actual);

/* Gives *event, where one is wanted, for a command that is done. */
cl_int stub_event_make(cl_command_queue queue, cl_command_type command, cl_event *event);

/* A wait list names live events. */
cl_int stub_wait_list(cl_uint count, const cl_event *events);

/* What clGetDeviceInfo answers, for the stub's own checks. */
size_t stub_device_size(cl_device_id device, cl_device_info name);

/* The body of every retain and release. */
cl_int stub_change_references(const char *function, void *object, stub_kind kind, cl_int error, int change);

#endif
