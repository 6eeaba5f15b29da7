/* SPDX-License-Identifier: Apache-2.0 */
/* A program that opens the shared library, computes with several threads and closes it, again and again. */
#include <dlfcn.h>
#include <fastattn/fastattn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEADS = 8, ROWS = 64, KEYS = 256, DIM = 64, TURNS = 10 };

static float q[HEADS * ROWS * DIM], k[HEADS * KEYS * DIM], v[HEADS * KEYS * DIM], o[HEADS * ROWS * DIM];
static fa_device *left[TURNS]; /* open: no leaks to a sanitizer */

typedef struct library {
    void *handle;
    fa_status (*context_create)(const fa_context_options *, fa_context **);
    fa_status (*device_open)(fa_context *, const char *, const fa_attention_desc *, fa_device **);
    fa_status (*attention_host)(fa_device *, const fa_attention_desc *, const void *, const void *,
                                const void *, const void *, const void *, void *, float *);
    void (*device_close)(fa_device *);
    void (*context_destroy)(fa_context *);
} library;

static void find(void *handle, const char *name, void *function)
{
    void *found = dlsym(handle, name);
    if (!found) {
        (void)fprintf(stderr, "%s: %s\n", name, dlerror());
        exit(EXIT_FAILURE);
    }
    memcpy(function, &found, sizeof(found));
}

static library open_library(const char *path)
{
    library l = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!l.handle) {
        (void)fprintf(stderr, "%s\n", dlerror());
        exit(EXIT_FAILURE);
    }
    find(l.handle, "fa_context_create", &l.context_create);
    find(l.handle, "fa_device_open", &l.device_open);
    find(l.handle, "fa_attention_host", &l.attention_host);
    find(l.handle, "fa_device_close", &l.device_close);
    find(l.handle, "fa_context_destroy", &l.context_destroy);
    return l;
}

/* Where there is a place to leave it in, the device stays open, with threads that wait for work. */
static int use(const library *l, fa_device **leave)
{
    const fa_context_options options = {.struct_size = sizeof(options), .threads = 4};
    const fa_tensor rows = {FA_F32, {1, HEADS, ROWS, DIM}, {0}}, keys = {FA_F32, {1, HEADS, KEYS, DIM}, {0}};
    const fa_attention_desc desc = {.struct_size = sizeof(desc), .q = rows, .k = keys, .v = keys, .o = rows};
    fa_context *context = NULL;
    fa_device *device = NULL;
    memset(o, 0xff, sizeof(o));
    int ok = l->context_create(&options, &context) == FA_OK &&
             l->device_open(context, "openmp", NULL, &device) == FA_OK &&
             l->attention_host(device, &desc, q, k, v, NULL, NULL, o, NULL) == FA_OK && o[0] == 1.0f;
    if (leave) {
        *leave = device;
    } else {
        l->device_close(device);
        l->context_destroy(context);
    }
    return ok;
}

int main(int count, char **arguments)
{
    if (count != 2)
        return EXIT_FAILURE;
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
        v[i] = 1.0f;
    for (int turn = 0; turn < TURNS; turn++) {
        library l = open_library(arguments[1]);
        if (!use(&l, turn % 2 ? &left[turn] : NULL)) {
            (void)fprintf(stderr, "turn %d failed\n", turn);
            return EXIT_FAILURE;
        }
        (void)dlclose(l.handle);
        (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* for threads that are still there */
    }
    return EXIT_SUCCESS;
}
