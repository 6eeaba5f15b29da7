/* SPDX-License-Identifier: Apache-2.0 */
/* append(): new keys and values go into a cache, in its format. fastattn.Cache decides which slots they take. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

enum { K, V, CACHE_K, CACHE_V, SLOTS, POSITIONS, Q, Q_OUT, K_SCALE, V_SCALE, K_ZERO, V_ZERO, TENSORS };

static const char *const names[TENSORS] = {"k", "v",     "cache_k", "cache_v", "slots",  "positions",
                                           "q", "q_out", "k_scale", "v_scale", "k_zero", "v_zero"};

typedef struct append_call {
    fa_py_tensor tensor[TENSORS];
    unsigned present;
    fa_append_desc desc;
} append_call;

/* Prepared appends, by device and description, which has no pointers. */
typedef struct prepared {
    fa_py_device *device;
    fa_append_desc desc;
    fa_append *append;
    struct prepared *next;
} prepared;

enum { MOST_PREPARED = 64 };
static prepared *list;

static void close_call(append_call *call)
{
    for (int at = 0; at < TENSORS; at++) {
        if (call->present >> at & 1)
            fa_py_close(&call->tensor[at]);
    }
}

static fa_tensor *described(append_call *call, int at)
{
    switch (at) {
    case K: return &call->desc.k;
    case V: return &call->desc.v;
    case CACHE_K: return &call->desc.cache_k;
    case CACHE_V: return &call->desc.cache_v;
    case Q: return &call->desc.q;
    case Q_OUT: return &call->desc.q_out;
    case K_SCALE: return &call->desc.k_scale;
    case V_SCALE: return &call->desc.v_scale;
    case K_ZERO: return &call->desc.k_zero;
    case V_ZERO: return &call->desc.v_zero;
    default: return NULL; /* whole numbers */
    }
}

static bool open_one(append_call *call, int at, PyObject *object)
{
    fa_py_tensor *tensor = &call->tensor[at];
    const bool write = at == CACHE_K || at == CACHE_V || at == Q_OUT;
    if (!fa_py_open(object, names[at], write, tensor))
        return false;
    call->present |= 1u << at;
    const fa_py_tensor *k = &call->tensor[K];
    if (tensor->kind == FA_PY_SPEC)
        return fa_py_fail(FA_INVALID, "%s is a Spec, expected an array", names[at]);
    if (fa_py_on_host(tensor) != fa_py_on_host(k) ||
        (!fa_py_on_host(k) && (tensor->device_type != k->device_type || tensor->device_id != k->device_id)))
        return fa_py_fail(FA_INVALID, "%s and k are on two devices", names[at]);
    fa_tensor *to = described(call, at);
    if (to)
        return fa_py_plain_tensor(tensor, to);
    int64_t stride = 1;
    bool good = tensor->type == FA_I32 && tensor->ndim <= 2;
    int64_t count = 1;
    for (int axis = tensor->ndim - 1; good && axis >= 0; axis--) {
        good = tensor->shape[axis] <= 1 || tensor->stride[axis] == stride;
        stride *= tensor->shape[axis] > 1 ? tensor->shape[axis] : 1;
        count *= tensor->shape[axis];
    }
    const int64_t rows = call->desc.k.shape[0] * call->desc.k.shape[2];
    if (!good || count != rows)
        return fa_py_fail(FA_INVALID, "%s is not a contiguous int32 array of (batch, rows) = %lld numbers",
                          names[at], (long long)rows);
    return true;
}

static bool read_rotary(PyObject *options, fa_rotary *rotary)
{
    static char *fields[] = {"form",      "dims",      "base",
                             "scaling",   "factor",    "original_context",
                             "beta_fast", "beta_slow", "attention_factor",
                             "first_dim", NULL};
    if (!fa_py_given(options))
        return true;
    if (!PyDict_Check(options)) {
        PyErr_Format(PyExc_TypeError, "rotary is of type %R, expected a dict", (PyObject *)Py_TYPE(options));
        return false;
    }
    const char *form = "halves", *scaling = NULL;
    PyObject *none = PyTuple_New(0);
    const bool read =
        none && PyArg_ParseTupleAndKeywords(none, options, "|sidzdddddi:rotary", fields, &form, &rotary->dims,
                                            &rotary->base, &scaling, &rotary->factor,
                                            &rotary->original_context, &rotary->beta_fast, &rotary->beta_slow,
                                            &rotary->attention_factor, &rotary->first_dim);
    Py_XDECREF(none);
    if (!read)
        return false;
    if (strcmp(form, "halves") != 0 && strcmp(form, "interleaved") != 0)
        return fa_py_fail(FA_INVALID, "rotary['form'] is '%s', expected 'halves' or 'interleaved'", form);
    rotary->form = *form == 'h' ? FA_ROTARY_HALVES : FA_ROTARY_INTERLEAVED;
    if (scaling && strcmp(scaling, "linear") != 0 && strcmp(scaling, "yarn") != 0)
        return fa_py_fail(FA_INVALID, "rotary['scaling'] is '%s', expected 'linear', 'yarn' or None",
                          scaling);
    rotary->scaling = !scaling ? FA_ROTARY_UNSCALED : *scaling == 'l' ? FA_ROTARY_LINEAR : FA_ROTARY_YARN;
    return true;
}

/* ---- run ---- */

static fa_append *prepare(fa_py_device *device, const fa_append_desc *desc, fa_queue *queue)
{
    int count = 0;
    for (prepared *entry = list; entry; entry = entry->next, count++) {
        if (entry->device == device && memcmp(&entry->desc, desc, sizeof *desc) == 0)
            return entry->append;
    }
    prepared *entry = calloc(1, sizeof *entry);
    if (!entry) {
        PyErr_NoMemory();
        return NULL;
    }
    fa_status status = fa_append_create(device->device, desc, &entry->append);
    if (status != FA_OK) {
        fa_py_raise(status);
        free(entry);
        return NULL;
    }
    entry->device = device;
    memcpy(&entry->desc, desc, sizeof *desc);
    entry->next = list;
    list = entry;
    if (count >= MOST_PREPARED) { /* the oldest goes */
        prepared **link = &list;
        while ((*link)->next)
            link = &(*link)->next;
        (void)fa_queue_wait(queue);
        fa_append_destroy((*link)->append);
        free(*link);
        *link = NULL;
    }
    return entry->append;
}

static size_t span_of(append_call *call, int at)
{
    const fa_tensor *tensor = described(call, at);
    size_t span = 0;
    if (!tensor)
        return (size_t)(call->desc.k.shape[0] * call->desc.k.shape[2]) * sizeof(int32_t);
    (void)fa_tensor_span(tensor, &span);
    return span;
}

/* With the GIL held: appends are short, and `list` and the cache are not written by two threads. */
static bool run_on(append_call *call, fa_py_device *device, fa_queue *queue)
{
    const fa_append *append = prepare(device, &call->desc, queue);
    if (!append)
        return false;
    fa_buffer *buffer[TENSORS] = {NULL};
    size_t offset[TENSORS] = {0};
    fa_status status = FA_OK;
    for (int at = 0; at < TENSORS && status == FA_OK; at++) {
        if (call->present >> at & 1)
            status = fa_py_wrap(device, call->tensor[at].data, span_of(call, at), &buffer[at], &offset[at]);
    }
    if (status == FA_OK) {
        const fa_append_args args = {
            .struct_size = sizeof args,
            .k = buffer[K],
            .v = buffer[V],
            .slots = buffer[SLOTS],
            .cache_k = buffer[CACHE_K],
            .cache_v = buffer[CACHE_V],
            .k_offset = offset[K],
            .v_offset = offset[V],
            .slots_offset = offset[SLOTS],
            .cache_k_offset = offset[CACHE_K],
            .cache_v_offset = offset[CACHE_V],
            .positions = buffer[POSITIONS],
            .q = buffer[Q],
            .q_out = buffer[Q_OUT],
            .positions_offset = offset[POSITIONS],
            .q_offset = offset[Q],
            .q_out_offset = offset[Q_OUT],
            .k_scale = buffer[K_SCALE],
            .v_scale = buffer[V_SCALE],
            .k_zero = buffer[K_ZERO],
            .v_zero = buffer[V_ZERO],
            .k_scale_offset = offset[K_SCALE],
            .v_scale_offset = offset[V_SCALE],
            .k_zero_offset = offset[K_ZERO],
            .v_zero_offset = offset[V_ZERO],
        };
        status = fa_append_run(append, queue, &args);
    }
    if (status != FA_OK)
        fa_py_raise(status);
    for (int at = 0; at < TENSORS; at++)
        fa_buffer_destroy(buffer[at]);
    return status == FA_OK;
}

static bool run(append_call *call)
{
    const fa_py_tensor *k = &call->tensor[K];
    void *stream = FA_PY_OWN_QUEUE;
    fa_py_device *device = fa_py_on_host(k) ? fa_py_host_device() : fa_py_device_for(NULL, k);
    if (!device || (!fa_py_on_host(k) && !fa_py_stream(k, &stream)))
        return false;
    fa_py_lane *lane = fa_py_lane_take(device, stream, 0, 0);
    if (!lane)
        return false;
    const bool done = run_on(call, device, lane->queue);
    fa_py_lane_give(device, lane);
    return done;
}

PyObject *fa_py_append(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *arguments[] = {"k",        "v",        "cache_k", "cache_v", "slots",  "positions",
                                "q",        "q_out",    "k_scale", "v_scale", "k_zero", "v_zero",
                                "k_format", "v_format", "rotary",  NULL};
    PyObject *object[TENSORS] = {NULL}, *rotary = NULL;
    const char *k_format = NULL, *v_format = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOO|$OOOOOOOzzO:append", arguments, &object[K],
                                     &object[V], &object[CACHE_K], &object[CACHE_V], &object[SLOTS],
                                     &object[POSITIONS], &object[Q], &object[Q_OUT], &object[K_SCALE],
                                     &object[V_SCALE], &object[K_ZERO], &object[V_ZERO], &k_format, &v_format,
                                     &rotary))
        return NULL;
    append_call call = {.present = 0};
    call.desc.struct_size = sizeof call.desc;
    bool good = read_rotary(rotary, &call.desc.rotary);
    for (int at = 0; at < TENSORS && good; at++)
        good = !fa_py_given(object[at]) || open_one(&call, at, object[at]);
    if (good && k_format)
        good = fa_py_apply_format(k_format, "k_format", &call.tensor[CACHE_K], call.desc.k.shape[3],
                                  &call.desc.cache_k);
    if (good && v_format && call.present >> CACHE_V & 1)
        good = fa_py_apply_format(v_format, "v_format", &call.tensor[CACHE_V], call.desc.v.shape[3],
                                  &call.desc.cache_v);
    good = good && run(&call);
    close_call(&call);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
