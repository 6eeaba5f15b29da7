/* SPDX-License-Identifier: Apache-2.0 */
/* merge(): partial results become one. */
#include <string.h>

#include "binding.h"

enum { PARTIAL, PARTIAL_LSE, OUT, LSE, TENSORS };

typedef struct merge_call {
    fa_py_tensor tensor[TENSORS];
    unsigned present;
    fa_merge_desc desc;
} merge_call;

static void close_call(merge_call *call)
{
    for (int at = 0; at < TENSORS; at++) {
        if (call->present >> at & 1)
            fa_py_close(&call->tensor[at]);
    }
}

static bool open_one(merge_call *call, int at, PyObject *object, const char *name, bool write)
{
    fa_py_tensor *tensor = &call->tensor[at];
    const fa_py_tensor *first = &call->tensor[PARTIAL];
    if (!fa_py_open(object, name, write, tensor))
        return false;
    call->present |= 1u << at;
    if (tensor->kind == FA_PY_SPEC)
        return fa_py_fail(FA_INVALID, "%s is a Spec, expected an array", name);
    if (fa_py_on_host(tensor) != fa_py_on_host(first) ||
        (!fa_py_on_host(tensor) &&
         (tensor->device_type != first->device_type || tensor->device_id != first->device_id)))
        return fa_py_fail(FA_INVALID, "%s and %s are on two devices", name, first->name);
    return true;
}

/* The last axes of an array, from `skip` on, as (batch, head, row, dim). */
static bool set_state(const fa_py_tensor *tensor, int skip, fa_tensor *to)
{
    if (tensor->ndim - skip < 2 || tensor->ndim - skip > 4)
        return fa_py_fail(FA_INVALID, "%s has %d axes, expected %d to %d", tensor->name, tensor->ndim,
                          skip + 2, skip + 4);
    if (tensor->type != FA_F32 && tensor->type != FA_F16 && tensor->type != FA_BF16)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, expected float32, float16 or bfloat16", tensor->name,
                          fa_py_type_name(tensor->type));
    const int last = tensor->ndim - 1;
    if (tensor->shape[last] > 1 && tensor->stride[last] != 1)
        return fa_py_fail(FA_INVALID, "%s.strides of the last axis is %lld, expected 1", tensor->name,
                          (long long)tensor->stride[last]);
    to->dtype = (fa_dtype)tensor->type;
    for (int axis = 0; axis < 4; axis++) {
        const int from = tensor->ndim - 4 + axis;
        to->shape[axis] = from >= skip ? tensor->shape[from] : 1;
        to->stride[axis] = to->shape[axis] > 1 ? tensor->stride[from] : 1;
    }
    return true;
}

static bool contiguous(const fa_py_tensor *tensor)
{
    int64_t stride = 1;
    for (int axis = tensor->ndim - 1; axis >= 0; axis--) {
        if (tensor->shape[axis] > 1 && tensor->stride[axis] != stride)
            return false;
        stride *= tensor->shape[axis] > 1 ? tensor->shape[axis] : 1;
    }
    return true;
}

static bool read_inputs(merge_call *call, PyObject *partial, PyObject *lse)
{
    if (!open_one(call, PARTIAL, partial, "partial", false) ||
        !open_one(call, PARTIAL_LSE, lse, "partial_lse", false))
        return false;
    const fa_py_tensor *states = &call->tensor[PARTIAL], *sums = &call->tensor[PARTIAL_LSE];
    fa_merge_desc *desc = &call->desc;
    *desc = (fa_merge_desc){.struct_size = sizeof *desc, .want_lse = 1};
    if (!set_state(states, 1, &desc->partial))
        return false;
    desc->parts = states->shape[0];
    desc->part_stride = states->shape[0] > 1 ? states->stride[0] : 0;
    bool fits = sums->type == FA_F32 && sums->ndim == states->ndim - 1 && contiguous(sums);
    for (int axis = 0; fits && axis < sums->ndim; axis++)
        fits = sums->shape[axis] == states->shape[axis];
    return fits ||
           fa_py_fail(
               FA_INVALID,
               "partial_lse is not a contiguous float32 array of the axes of partial without the last");
}

static bool read_results(merge_call *call, PyObject *out)
{
    const fa_py_tensor *states = &call->tensor[PARTIAL];
    const int ndim = states->ndim - 1;
    if (fa_py_given(out)) {
        if (!open_one(call, OUT, out, "out", true))
            return false;
        call->tensor[OUT].object = Py_NewRef(out);
        if (call->tensor[OUT].ndim != ndim)
            return fa_py_fail(FA_INVALID, "out has %d axes, expected %d", call->tensor[OUT].ndim, ndim);
    } else {
        if (!fa_py_empty(states, "the result", states->type, ndim, states->shape + 1, &call->tensor[OUT]))
            return false;
        call->present |= 1u << OUT;
    }
    if (!fa_py_empty(states, "lse", FA_F32, ndim - 1, states->shape + 1, &call->tensor[LSE]))
        return false;
    call->present |= 1u << LSE;
    return set_state(&call->tensor[OUT], 0, &call->desc.o);
}

static size_t span_of(const merge_call *call, int at)
{
    const fa_tensor *state = at == OUT ? &call->desc.o : &call->desc.partial;
    size_t span = 0;
    if (at == PARTIAL || at == OUT) {
        (void)fa_tensor_span(state, &span);
        const size_t step = (size_t)call->desc.part_stride * fa_dtype_size(state->dtype);
        return at == PARTIAL && call->desc.parts > 0 ? span + step * (size_t)(call->desc.parts - 1) : span;
    }
    const int64_t rows = state->shape[0] * state->shape[1] * state->shape[2];
    return (size_t)rows * sizeof(float) * (at == PARTIAL_LSE ? (size_t)call->desc.parts : 1);
}

/* Waits, since the merge and its buffers live until it is done. */
static fa_status run_on_device(merge_call *call, fa_py_device *device, fa_queue *queue)
{
    fa_buffer *buffer[TENSORS] = {NULL};
    size_t offset[TENSORS] = {0};
    fa_merge *merge = NULL;
    fa_status status = FA_OK;
    for (int at = 0; at < TENSORS && status == FA_OK; at++)
        status = fa_py_wrap(device, call->tensor[at].data, span_of(call, at), &buffer[at], &offset[at]);
    if (status == FA_OK)
        status = fa_merge_create(device->device, &call->desc, &merge);
    if (status == FA_OK) {
        const fa_merge_args args = {
            .struct_size = sizeof args,
            .partial = buffer[PARTIAL],
            .partial_lse = buffer[PARTIAL_LSE],
            .o = buffer[OUT],
            .lse = buffer[LSE],
            .partial_offset = offset[PARTIAL],
            .partial_lse_offset = offset[PARTIAL_LSE],
            .o_offset = offset[OUT],
            .lse_offset = offset[LSE],
        };
        status = fa_merge_run(merge, queue, &args);
    }
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    if (status != FA_OK)
        fa_py_raise(status); /* before the message goes */
    fa_merge_destroy(merge);
    for (int at = 0; at < TENSORS; at++)
        fa_buffer_destroy(buffer[at]);
    return status;
}

static bool run(merge_call *call)
{
    const fa_py_tensor *states = &call->tensor[PARTIAL];
    if (fa_py_on_host(states)) {
        fa_status status;
        Py_BEGIN_ALLOW_THREADS status =
            fa_merge_host(&call->desc, states->data, call->tensor[PARTIAL_LSE].data, call->tensor[OUT].data,
                          call->tensor[LSE].data);
        Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise(status);
        return status == FA_OK;
    }
    void *stream;
    fa_py_device *device = fa_py_device_for(NULL, states);
    if (!device || !fa_py_stream(states, &stream))
        return false;
    fa_py_lane *lane = fa_py_lane_take(device, stream, 0, 0);
    if (!lane)
        return false;
    const fa_status status = run_on_device(call, device, lane->queue);
    fa_py_lane_give(device, lane);
    return status == FA_OK;
}

PyObject *fa_py_merge(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *names[] = {"partial", "partial_lse", "out", NULL};
    PyObject *partial, *lse, *out = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$O:merge", names, &partial, &lse, &out))
        return NULL;
    merge_call call = {.present = 0};
    PyObject *result = NULL;
    if (read_inputs(&call, partial, lse) && read_results(&call, out) && run(&call)) {
        PyObject *o = fa_py_finish(&call.tensor[OUT]), *sums = o ? fa_py_finish(&call.tensor[LSE]) : NULL;
        result = sums ? PyTuple_Pack(2, o, sums) : NULL;
        Py_XDECREF(sums);
        Py_XDECREF(o);
    }
    close_call(&call);
    return result;
}
