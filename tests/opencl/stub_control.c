/* SPDX-License-Identifier: Apache-2.0 */
/* The stub driver's books: calls, faults, objects. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub_internal.h"

#define MAX_FUNCTIONS 96

typedef struct call_count {
    const char *function;
    int calls;
} call_count;

static struct {
    pthread_mutex_t lock;
    call_count count[MAX_FUNCTIONS];
    struct {
        const char *function; /* NULL: none */
        int at;               /* the number, from 0, of the call that fails */
        cl_int error;
        bool for_good;
    } fault;
    cl_int lost; /* what everything that touches the device returns; CL_SUCCESS: it works */
    stub_object *objects;
    int live, mappings, compiled;
    char misuse[256];
} books = {.lock = PTHREAD_MUTEX_INITIALIZER};

static call_count *find(const char *function)
{
    for (int i = 0; i < MAX_FUNCTIONS; i++) {
        call_count *count = &books.count[i];
        if (!count->function)
            count->function = function;
        if (strcmp(count->function, function) == 0)
            return count;
    }
    abort();
}

static bool touches_device(const char *function)
{
    static const char *const prefixes[] = {"clEnqueue", "clCreate", "clBuild",
                                           "clFinish",  "clFlush",  "clWait"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strncmp(function, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

cl_int stub_step(const char *function)
{
    int number = find(function)->calls++;
    if (books.fault.function && strcmp(books.fault.function, function) == 0 && number == books.fault.at) {
        books.fault.function = NULL;
        if (books.fault.for_good)
            books.lost = books.fault.error;
        return books.fault.error;
    }
    return touches_device(function) ? books.lost : CL_SUCCESS;
}

cl_int stub_enter(const char *function)
{
    pthread_mutex_lock(&books.lock);
    return stub_step(function);
}

void stub_leave(void)
{
    pthread_mutex_unlock(&books.lock);
}

cl_int stub_wrong(cl_int error, const char *what)
{
    if (books.misuse[0] == '\0')
        (void)snprintf(books.misuse, sizeof(books.misuse), "%s (%d)", what, error);
    return error;
}

static void arm(const char *function, int after, cl_int error, bool for_good)
{
    pthread_mutex_lock(&books.lock);
    books.fault.function = function;
    books.fault.at = find(function)->calls + after;
    books.fault.error = error;
    books.fault.for_good = for_good;
    pthread_mutex_unlock(&books.lock);
}

void stub_fail(const char *function, int after, cl_int error)
{
    arm(function, after, error, false);
}

void stub_lose(const char *function, int after, cl_int error)
{
    arm(function, after, error, true);
}

int stub_calls(const char *function)
{
    pthread_mutex_lock(&books.lock);
    int calls = find(function)->calls;
    pthread_mutex_unlock(&books.lock);
    return calls;
}

const char *stub_function(int index)
{
    pthread_mutex_lock(&books.lock);
    const char *function = index < MAX_FUNCTIONS ? books.count[index].function : NULL;
    pthread_mutex_unlock(&books.lock);
    return function;
}

int stub_compiled(void)
{
    pthread_mutex_lock(&books.lock);
    int compiled = books.compiled;
    pthread_mutex_unlock(&books.lock);
    return compiled;
}

int stub_live(void)
{
    pthread_mutex_lock(&books.lock);
    int live = books.live + books.mappings;
    pthread_mutex_unlock(&books.lock);
    return live;
}

const char *stub_misuse(void)
{
    return books.misuse;
}

void stub_count_mapping(int change)
{
    books.mappings += change;
}

void stub_count_compilation(void)
{
    books.compiled++;
}

void *stub_object_make(size_t size, stub_kind kind, stub_object *parent)
{
    stub_object *made = calloc(1, size);
    if (!made)
        return NULL;
    made->kind = kind;
    made->references = 1;
    made->parent = parent;
    made->next = books.objects;
    books.objects = made;
    books.live++;
    if (parent)
        stub_object_retain(parent);
    return made;
}

void stub_object_retain(stub_object *object)
{
    object->references++;
}

void stub_object_release(stub_object *object)
{
    if (--object->references > 0)
        return;
    books.live--;
    if (object->destroy)
        object->destroy(object);
    if (object->parent)
        stub_object_release(object->parent);
}

static const stub_object *look_up(const void *handle)
{
    const stub_object *object = books.objects;
    while (object && (const void *)object != handle)
        object = object->next;
    return object;
}

bool stub_is(const void *object, stub_kind kind)
{
    const stub_object *found = look_up(object);
    return found && found->kind == kind && found->references > 0;
}

bool stub_is_dead(const void *handle)
{
    const stub_object *found = look_up(handle);
    return found && found->references == 0;
}

cl_int stub_change_references(const char *function, void *object, stub_kind kind, cl_int error, int change)
{
    cl_int status = stub_enter(function);
    if (status == CL_SUCCESS && !stub_is(object, kind))
        status = stub_wrong(error, function);
    else if (status == CL_SUCCESS && change > 0)
        stub_object_retain(object);
    else if (change < 0 &&
             stub_is(object, kind)) /* a driver that reports a failed release has no object left */
        stub_object_release(object);
    stub_leave();
    return status;
}

cl_int stub_answer(const void *value, size_t bytes, size_t room, void *target, size_t *actual)
{
    if (target && room < bytes)
        return stub_wrong(CL_INVALID_VALUE, "no room for an answer");
    if (target && bytes > 0)
        memcpy(target, value, bytes);
    if (actual)
        *actual = bytes;
    return CL_SUCCESS;
}
