/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices there are, and which one a name means. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/environment.h"
#include "core/floating.h"
#include "core/plan.h"
#include "core/status.h"

#define FA_BACKEND(name) extern const fa_backend fa_backend_##name;
#include "backends/list.inc"
#undef FA_BACKEND

/* Every backend built in; the last is NULL. */
#define FA_BACKEND(name) &fa_backend_##name,
static const fa_backend *const backends[] = {
#include "backends/list.inc"
    NULL,
};
#undef FA_BACKEND

/* The process that opened the driver of each, and found devices; 0: none did. */
static atomic_long opener[sizeof(backends) / sizeof(backends[0])];

#define NAME_SIZE 256

/* One entry of an order of preference: a backend or "auto", and what picks a device of it. */
typedef struct fa_choice {
    char backend[64];
    char device[128]; /* "" for any */
} fa_choice;

/* A text that grows up to the size of a message and is cut there. */
typedef struct fa_text {
    char bytes[FA_MESSAGE_SIZE / 2];
    size_t used;
} fa_text;

/* Names are compared without regard to case, in ASCII whatever the locale. */
static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_same(const char *a, const char *b, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (fold(a[i]) != fold(b[i]))
            return false;
    }
    return true;
}

static bool is_name(const char *text, size_t length, const char *name)
{
    return strlen(name) == length && is_same(text, name, length);
}

static void append(fa_text *text, const char *separator, const char *a, const char *b)
{
    size_t room = sizeof(text->bytes) - text->used;
    int wrote = snprintf(text->bytes + text->used, room, "%s%s%s", text->used ? separator : "", a, b);
    if (wrote > 0)
        text->used += (size_t)wrote < room ? (size_t)wrote : room - 1;
}

/* How many devices backend number `b` has for this process; 0 with the reason. */
static int count_devices(const fa_context *context, int b, char *reason, size_t reason_size)
{
    const long self = (long)getpid(), process = atomic_load(&opener[b]);
    if (process != 0 && process != self && !backends[b]->forks) {
        (void)snprintf(
            reason, reason_size,
            "process %ld opened the driver, and this is a child of it after fork(), where drivers do not "
            "work: open the driver in the child alone, or start the child anew (\"spawn\")",
            process);
        return 0;
    }
    const int count = backends[b]->count(context, reason, reason_size);
    if (count > 0)
        atomic_store(&opener[b], self);
    return count;
}

static size_t device_slots(const fa_context *context, int b)
{
    char reason[256];
    int count = count_devices(context, b, reason, sizeof(reason));
    return count > 0 ? (size_t)count : 1;
}

static void describe(const fa_context *context, int b, int index, fa_device_entry *entry)
{
    const fa_backend *backend = backends[b];
    *entry = (fa_device_entry){.backend = backend};
    fa_device_info *info = &entry->info;
    info->struct_size = sizeof(*info);
    info->index = index;
    (void)snprintf(info->backend, sizeof(info->backend), "%s", backend->name);
    if (count_devices(context, b, info->reason, sizeof(info->reason)) > 0)
        backend->describe(context, index, info);
}

size_t fa_device_count(const fa_context *context)
{
    size_t count = 0;
    for (int i = 0; context && backends[i]; i++)
        count += device_slots(context, i);
    return count;
}

fa_status fa_device_describe(const fa_context *context, size_t index, fa_device_info *info)
{
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    size_t first = 0;
    for (int i = 0; backends[i]; i++) {
        size_t slots = device_slots(context, i);
        if (index - first < slots) {
            fa_device_entry entry;
            describe(context, i, (int)(index - first), &entry);
            return fa_device_info_copy(&entry.info, info);
        }
        first += slots;
    }
    return fa_fail(FA_INVALID, "index is %zu, expected less than %zu", index, first);
}

static bool names_backend(const char *order, const char *backend)
{
    for (size_t length; *order; order += length + (order[length] == ',')) {
        length = strcspn(order, ",");
        if (is_name(order, FA_MIN(length, strcspn(order, ":")), backend))
            return true;
    }
    return false;
}

/* What this library has of the backends that `order` names, or of the others, each with why it cannot run where it cannot. */
static void list_some(const fa_context *context, const char *order, bool named, fa_text *text)
{
    for (int i = 0; backends[i]; i++) {
        if (names_backend(order, backends[i]->name) != named)
            continue;
        for (size_t d = 0; d < device_slots(context, i); d++) {
            fa_device_entry entry;
            describe(context, i, (int)d, &entry);
            char name[NAME_SIZE];
            (void)snprintf(name, sizeof(name), "%s:%zu ", backends[i]->name, d);
            append(text, ", ", name, entry.info.available ? entry.info.name : entry.info.reason);
        }
    }
}

/* All of it: first what was asked for, since a long list is cut. */
static void list_devices(const fa_context *context, const char *order, fa_text *text)
{
    list_some(context, order, true, text);
    list_some(context, order, false, text);
}

static bool name_contains(const char *name, const char *part)
{
    size_t length = strlen(part), left = strlen(name);
    for (; left >= length; name++, left--) {
        if (is_same(name, part, length))
            return true;
    }
    return false;
}

static bool is_auto(const fa_choice *choice)
{
    return is_name(choice->backend, strlen(choice->backend), "auto");
}

static bool is_named(const fa_choice *choice, const fa_backend *backend)
{
    return is_auto(choice) || is_name(choice->backend, strlen(choice->backend), backend->name);
}

static bool is_chosen(const fa_choice *choice, const fa_device_entry *entry)
{
    if (choice->device[0] == '\0')
        return true;
    if (strspn(choice->device, "0123456789") == strlen(choice->device))
        return strtol(choice->device, NULL, 10) == entry->info.index;
    return name_contains(entry->info.name, choice->device);
}

static bool is_backend(const char *name)
{
    if (is_name(name, strlen(name), "auto"))
        return true;
    for (int i = 0; backends[i]; i++) {
        if (is_name(name, strlen(name), backends[i]->name))
            return true;
    }
    return false;
}

/* Modelled seconds of `desc` on an open device, or why it is not served. */
static fa_status model(const fa_device *device, const fa_attention_desc *desc, double *seconds)
{
    fa_problem problem;
    const fa_kernel *kernel;
    fa_tiling tiling = {0};
    fa_status status = fa_problem_init(device->context, desc, &problem);
    if (status != FA_OK)
        return status;
    status = fa_plan_choose(device, &problem, &kernel, &tiling);
    fa_problem_release(device->context, &problem);
    *seconds = tiling.seconds;
    return status;
}

/* The baseline where the caller names no problem. */
static fa_attention_desc nominal_problem(void)
{
    fa_tensor t = fa_tensor_make(FA_F32, 1, 8, 1024, 64);
    return (fa_attention_desc){.struct_size = sizeof(fa_attention_desc), .q = t, .k = t, .v = t, .o = t};
}

typedef struct fa_search {
    fa_context *context;
    const fa_attention_desc *desc;
    fa_device *best;
    double seconds;
    fa_status worst; /* the status to return when nothing is found */
    bool failed;     /* a device that is available could not be opened */
    fa_text refusals;
    fa_text passed_over; /* what "auto" with a device names and never takes */
} fa_search;

static fa_status try_entry(fa_search *search, const fa_device_entry *entry)
{
    if (!entry->info.available) {
        append(&search->refusals, "; ", entry->backend->name, ": ");
        append(&search->refusals, "", entry->info.reason, "");
        return FA_OK;
    }
    fa_device *device;
    fa_status status = fa_device_open_entry(search->context, entry, &device);
    if (status == FA_OUT_OF_MEMORY)
        return status;
    double seconds = 0;
    if (status == FA_OK) {
        fa_attention_desc nominal = nominal_problem();
        status = model(device, search->desc ? search->desc : &nominal, &seconds);
        if (status != FA_OK && status != FA_OUT_OF_MEMORY && !search->desc) {
            status = FA_OK; /* usable, if not for the baseline: behind those that are */
            seconds = INFINITY;
        }
    } else {
        device = NULL;
        search->failed = true;
    }
    if (status != FA_OK) {
        append(&search->refusals, "; ", entry->info.name, ": ");
        append(&search->refusals, "", fa_last_error(), "");
        search->worst = status == FA_UNSUPPORTED ? FA_UNSUPPORTED : search->worst;
        fa_device_close(device);
        return status == FA_INVALID || status == FA_OUT_OF_MEMORY ? status : FA_OK;
    }
    if (search->best && seconds >= search->seconds) {
        fa_device_close(device);
        return FA_OK;
    }
    fa_device_close(search->best);
    search->best = device;
    search->seconds = seconds;
    return FA_OK;
}

static void pass_over(fa_search *search, const fa_device_entry *entry)
{
    char name[NAME_SIZE];
    (void)snprintf(name, sizeof(name), "\"%s:%d\" (", entry->backend->name, entry->info.index);
    append(&search->passed_over, ", ", name, entry->info.name);
    append(&search->passed_over, "", ")", "");
}

/* The fastest device that one entry of the order means. */
static fa_status search_choice(fa_search *search, const fa_choice *choice)
{
    for (int i = 0; backends[i]; i++) {
        if (!is_named(choice, backends[i]))
            continue; /* its driver is not even opened */
        for (size_t d = 0; d < device_slots(search->context, i); d++) {
            fa_device_entry entry;
            describe(search->context, i, (int)d, &entry);
            if (!is_chosen(choice, &entry))
                continue;
            if (is_auto(choice) && !entry.info.automatic) {
                if (choice->device[0] && entry.info.available)
                    pass_over(search, &entry);
                continue;
            }
            fa_status status = try_entry(search, &entry);
            if (status != FA_OK)
                return status;
        }
    }
    return FA_OK;
}

/* Splits "backend[:device]" off an order; `device` is the default of entries that name none. */
static fa_status next_choice(const char **order, const char *device, fa_choice *choice)
{
    size_t length = strcspn(*order, ",");
    const char *colon = memchr(*order, ':', length);
    size_t backend_length = colon ? (size_t)(colon - *order) : length;
    size_t device_length = colon ? length - backend_length - 1 : strlen(device);
    const char *device_text = colon ? colon + 1 : device;
    if (backend_length >= sizeof(choice->backend) || device_length >= sizeof(choice->device))
        return fa_fail(FA_NO_DEVICE, "\"%.*s\" is longer than any device's name", (int)length, *order);
    memcpy(choice->backend, *order, backend_length);
    choice->backend[backend_length] = '\0';
    memcpy(choice->device, device_text, device_length);
    choice->device[device_length] = '\0';
    *order += length + ((*order)[length] == ',');
    return FA_OK;
}

/* A NULL name means the environment. FASTATTN_DEVICE may name its backend too, and then decides. */
static void resolve_name(const char *name, const char **order, const char **device)
{
    *device = "";
    *order = name;
    if (name)
        return;
    const char *backend = fa_environment("FASTATTN_BACKEND"), *wanted = fa_environment("FASTATTN_DEVICE");
    *order = backend && backend[0] ? backend : "auto";
    if (!wanted || !wanted[0])
        return;
    if (strchr(wanted, ':'))
        *order = wanted;
    else
        *device = wanted;
}

static fa_status nothing_found(const fa_search *search, const char *order, const char *device)
{
    fa_text text = {.used = 0};
    list_devices(search->context, order, &text);
    const char *of = device[0] ? " with device " : "";
    if (search->worst == FA_UNSUPPORTED)
        return fa_fail(FA_UNSUPPORTED, "no device of \"%s\"%s%s serves this problem: %s", order, of, device,
                       search->refusals.bytes);
    if (search->failed)
        return fa_fail(FA_NO_DEVICE, "nothing that \"%s\"%s%s names can be opened: %s; there are: %s", order,
                       of, device, search->refusals.bytes, text.bytes);
    if (search->passed_over.used > 0)
        return fa_fail(FA_NO_DEVICE,
                       "\"%s\"%s%s names %s, which \"auto\" never takes: name it with its backend, as it "
                       "stands here; there are: %s",
                       order, of, device, search->passed_over.bytes, text.bytes);
    return fa_fail(FA_NO_DEVICE, "nothing that \"%s\"%s%s names can run here; there are: %s", order, of,
                   device, text.bytes);
}

FA_FLOAT_APART static fa_status search_order(fa_search *search, const char *order, const char *device)
{
    const char *rest = order;
    do {
        fa_choice choice;
        fa_status status = next_choice(&rest, device, &choice);
        if (status == FA_OK && !is_backend(choice.backend)) {
            fa_text text = {.used = 0};
            list_devices(search->context, order, &text);
            status =
                fa_fail(FA_NO_DEVICE, "\"%s\" in \"%s\" is no backend of this library; there are: auto, %s",
                        choice.backend, order, text.bytes);
        }
        if (status == FA_OK && !search->best)
            status = search_choice(search, &choice);
        if (status != FA_OK)
            return status;
    } while (rest[0] != '\0');
    return search->best ? FA_OK : nothing_found(search, order, device);
}

fa_status fa_device_open(fa_context *context, const char *name, const fa_attention_desc *desc,
                         fa_device **device)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL, expected where to store the device");
    *device = NULL;
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    const char *order, *wanted;
    resolve_name(name, &order, &wanted);
    fa_search search = {.context = context, .desc = desc, .worst = FA_NO_DEVICE};
    fa_float_state before = fa_float_enter();
    fa_status status = search_order(&search, order, wanted);
    fa_float_leave(before);
    if (status != FA_OK) {
        fa_device_close(search.best);
        return status;
    }
    fa_clear_error();
    fa_log(context, FA_LOG_INFO, "device: %s:%d %s", search.best->info.backend, search.best->info.index,
           search.best->info.name);
    *device = search.best;
    return FA_OK;
}
