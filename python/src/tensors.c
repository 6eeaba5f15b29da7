/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays of NumPy, PyTorch and any maker of DLPack, opened without a copy. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

/* A type of Python whose arrays were seen, and how they are opened. */
typedef struct known_type {
    PyObject *type;
    fa_py_kind kind;
    const fa_py_exchange *exchange;
    bool gradients; /* has requires_grad */
} known_type;

enum { KNOWN_TYPES = 16 };
static known_type known[KNOWN_TYPES];
static int known_count;

static PyObject *name_requires_grad, *name_is_neg, *name_dlpack, *name_dtype, *name_view, *name_api,
    *name_shape, *name_strides, *name_device, *name_detach, *name_level, *is_grad_enabled;

bool fa_py_tensors_init(void)
{
    return (name_requires_grad = PyUnicode_InternFromString("requires_grad")) &&
           (name_is_neg = PyUnicode_InternFromString("is_neg")) &&
           (name_dlpack = PyUnicode_InternFromString("__dlpack__")) &&
           (name_dtype = PyUnicode_InternFromString("dtype")) &&
           (name_view = PyUnicode_InternFromString("view")) &&
           (name_api = PyUnicode_InternFromString("__dlpack_c_exchange_api__")) &&
           (name_shape = PyUnicode_InternFromString("shape")) &&
           (name_strides = PyUnicode_InternFromString("strides")) &&
           (name_device = PyUnicode_InternFromString("device")) &&
           (name_detach = PyUnicode_InternFromString("detach")) &&
           (name_level = PyUnicode_InternFromString("_current_level"));
}

/* ---- kinds ---- */

/* Whether the type is `module.name`, or of a module that lies below it if name is NULL. */
static bool type_is(PyObject *type, const char *module, const char *name)
{
    PyObject *found = PyObject_GetAttrString(type, "__module__");
    bool same = false;
    if (found && PyUnicode_Check(found)) {
        const char *text = PyUnicode_AsUTF8AndSize(found, NULL);
        const size_t length = strlen(module);
        same = text && strncmp(text, module, length) == 0 &&
               (text[length] == '\0' || (!name && text[length] == '.'));
    }
    Py_XDECREF(found);
    if (same && name) {
        found = PyObject_GetAttrString(type, "__name__");
        same = found && PyUnicode_Check(found) && PyUnicode_CompareWithASCIIString(found, name) == 0;
        Py_XDECREF(found);
    }
    PyErr_Clear();
    return same;
}

/* The table of C functions that a type brings. */
static const fa_py_exchange *exchange_of(PyObject *type)
{
    PyObject *capsule = PyObject_GetAttr(type, name_api);
    const fa_py_exchange *api = NULL;
    if (capsule && PyCapsule_IsValid(capsule, "dlpack_exchange_api"))
        api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    Py_XDECREF(capsule);
    PyErr_Clear();
    while (api && api->major > 1)
        api = api->older;
    return api && api->major == 1 && api->view ? api : NULL;
}

/* PyTorch's tensor, if PyTorch was imported. A borrowed reference; NULL without an exception. */
static PyObject *torch_tensor(void)
{
    static PyObject *tensor;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed, as is what it has */
    PyObject *torch = !tensor && modules ? PyDict_GetItemString(modules, "torch") : NULL;
    if (torch)
        tensor = PyObject_GetAttrString(torch, "Tensor");
    PyErr_Clear();
    return tensor;
}

/* Subclasses that catch operations (FakeTensor) may have no memory, though they say where it lies. */
static bool same_dispatch(PyObject *type, PyObject *tensor)
{
    PyObject *own = PyObject_GetAttrString(type, "__torch_dispatch__");
    PyObject *plain = own ? PyObject_GetAttrString(tensor, "__torch_dispatch__") : NULL;
    const bool same = own && own == plain;
    Py_XDECREF(own);
    Py_XDECREF(plain);
    PyErr_Clear();
    return same;
}

/* How arrays of a type are opened. Remembered when it is known whole: to find out, Python runs. */
static known_type know(PyObject *type)
{
    for (int at = 0; at < known_count; at++) {
        if (known[at].type == type)
            return known[at];
    }
    known_type entry = {type, FA_PY_DLPACK, NULL, false};
    PyObject *tensor = torch_tensor();
    if (tensor && PyObject_IsSubclass(type, tensor) == 1) {
        const bool plain = type == tensor || type_is(type, "torch.nn.parameter", "Parameter");
        entry.exchange = plain ? exchange_of(type) : NULL;
        entry.kind = entry.exchange                ? FA_PY_EXCHANGE
                     : same_dispatch(type, tensor) ? FA_PY_TORCH
                                                   : FA_PY_OPAQUE;
        entry.gradients = true;
    } else if (type_is(type, "numpy", NULL)) {
        entry.kind = FA_PY_NUMPY;
    } else if (type_is(type, "cupy", NULL)) {
        entry.kind = FA_PY_CUPY;
    } else if (type_is(type, "jaxlib", NULL) || type_is(type, "jax", NULL)) {
        entry.kind = FA_PY_JAX;
    } else if (type_is(type, "fastattn", "Spec")) {
        entry.kind = FA_PY_SPEC;
    } else if (!PyObject_HasAttrString(type, "__dlpack__")) {
        entry.kind = FA_PY_NUMPY; /* memoryview and the like */
    }
    if (known_count < KNOWN_TYPES) {
        known[known_count++] = entry;
        Py_INCREF(type);
    }
    return entry;
}

bool fa_py_on_host(const fa_py_tensor *tensor)
{
    return tensor->device_type == FA_DL_CPU || tensor->device_type == FA_DL_CUDA_HOST ||
           tensor->device_type == FA_DL_ROCM_HOST;
}

/* ---- opening ---- */

/* Raises the exception of a status with the message of the one that is set. Always false. */
static bool restate(fa_status status, const char *name)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    fa_py_fail(status, "%s: %S", name, value ? value : Py_None);
    Py_XDECREF(kind);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return false;
}

static bool too_many_axes(const fa_py_tensor *tensor, Py_ssize_t axes)
{
    if (axes <= FA_PY_AXES)
        return false;
    fa_py_fail(FA_INVALID, "%s has %zd axes, expected at most 4", tensor->name, axes);
    return true;
}

bool fa_py_take_dltensor(const fa_py_dltensor *dl, fa_py_tensor *tensor)
{
    if (dl->ndim < 0 || too_many_axes(tensor, dl->ndim))
        return false;
    tensor->data = dl->data ? (char *)dl->data + dl->byte_offset : NULL;
    tensor->type = fa_py_type_of_dlpack(dl);
    tensor->device_type = dl->device_type;
    tensor->device_id = dl->device_id;
    tensor->ndim = dl->ndim;
    int64_t stride = 1;
    for (int axis = dl->ndim - 1; axis >= 0; axis--) {
        tensor->shape[axis] = dl->shape[axis];
        tensor->stride[axis] = dl->strides ? dl->strides[axis] : stride;
        stride *= dl->shape[axis] > 1 ? dl->shape[axis] : 1;
    }
    return true;
}

static bool take_buffer(PyObject *object, bool write, fa_py_tensor *tensor)
{
    Py_buffer *buffer = &tensor->buffer;
    if (PyObject_GetBuffer(object, buffer, PyBUF_STRIDES | PyBUF_FORMAT | (write ? PyBUF_WRITABLE : 0)) < 0)
        return false;
    tensor->has_buffer = true;
    if (too_many_axes(tensor, buffer->ndim))
        return false;
    if (buffer->itemsize < 1 || (buffer->ndim > 1 && !buffer->shape))
        return fa_py_fail(FA_INVALID, "%s has elements of %zd bytes in %d axes, which is no array",
                          tensor->name, buffer->itemsize, buffer->ndim);
    tensor->data = buffer->buf;
    tensor->type = fa_py_type_of_format(buffer->format, buffer->itemsize);
    tensor->readonly = buffer->readonly;
    tensor->device_type = FA_DL_CPU;
    tensor->device_id = 0;
    tensor->ndim = buffer->ndim;
    Py_ssize_t contiguous = buffer->itemsize; /* ctypes gives no strides */
    for (int axis = buffer->ndim - 1; axis >= 0; axis--) {
        const Py_ssize_t bytes = buffer->strides ? buffer->strides[axis] : contiguous;
        tensor->shape[axis] = buffer->shape ? buffer->shape[axis] : buffer->len / buffer->itemsize;
        contiguous *= tensor->shape[axis];
        if (tensor->shape[axis] > 1 && bytes % buffer->itemsize != 0)
            return fa_py_fail(FA_INVALID, "%s.strides[%d] is %zd bytes, expected a multiple of %zd",
                              tensor->name, axis, bytes, buffer->itemsize);
        tensor->stride[axis] = bytes / buffer->itemsize;
    }
    return true;
}

/* NumPy's arrays of ml_dtypes have no buffer: their bytes have one. */
static bool take_viewed(PyObject *object, bool write, fa_py_tensor *tensor)
{
    PyObject *dtype = PyObject_GetAttr(object, name_dtype);
    PyObject *text = dtype ? PyObject_Str(dtype) : NULL;
    const char *name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    const int type = name ? fa_py_type_of(name) : -1;
    Py_XDECREF(text);
    Py_XDECREF(dtype);
    if (type != FA_BF16 && type != FA_E4M3 && type != FA_E5M2 && type != FA_E8M0)
        return false;
    tensor->holder = PyObject_CallMethod(object, "view", "s", type == FA_BF16 ? "uint16" : "uint8");
    if (!tensor->holder || !take_buffer(tensor->holder, write, tensor))
        return false;
    tensor->type = type;
    return true;
}

bool fa_py_take_numpy(PyObject *object, bool write, fa_py_tensor *tensor)
{
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError,
                     "%s is of type %R, expected an array of NumPy, PyTorch, JAX or CuPy, or with __dlpack__",
                     tensor->name, (PyObject *)Py_TYPE(object));
        return false;
    }
    if (take_buffer(object, write, tensor))
        return true;
    if (tensor->has_buffer)
        return false; /* with an exception of its own */
    restate(write ? FA_INVALID : FA_UNSUPPORTED, tensor->name);
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    const bool taken = take_viewed(object, write, tensor);
    PyErr_Clear();
    if (taken) {
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    } else {
        PyErr_Restore(kind, value, trace);
    }
    return taken;
}

/* Calls __dlpack__: with max_version, and without where that is not known. */
static PyObject *dlpack_capsule(PyObject *object, fa_py_kind kind)
{
    PyObject *method = PyObject_GetAttr(object, name_dlpack);
    PyObject *none = PyTuple_New(0), *keywords = NULL, *capsule = NULL;
    /* CuPy computes on the stream that we run on, so there is nothing to wait for. */
    if (method && none)
        keywords = kind == FA_PY_CUPY ? Py_BuildValue("{s:(ii),s:i}", "max_version", 1, 1, "stream", -1)
                                      : Py_BuildValue("{s:(ii)}", "max_version", 1, 1);
    if (keywords)
        capsule = PyObject_Call(method, none, keywords);
    if (!capsule && keywords && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        capsule = PyObject_Call(method, none, NULL);
    }
    Py_XDECREF(keywords);
    Py_XDECREF(none);
    Py_XDECREF(method);
    return capsule;
}

bool fa_py_take_dlpack(PyObject *object, fa_py_tensor *tensor)
{
    PyObject *capsule = dlpack_capsule(object, tensor->kind);
    if (!capsule) {
        if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
            !PyErr_ExceptionMatches(PyExc_RuntimeError) && !PyErr_ExceptionMatches(PyExc_TypeError))
            return false;
        return restate(FA_UNSUPPORTED, tensor->name);
    }
    bool taken = false;
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        fa_py_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (managed->major == 1 && PyCapsule_SetName(capsule, "used_dltensor_versioned") == 0) {
            tensor->versioned = managed;
            tensor->readonly = managed->flags & FA_DL_READ_ONLY;
            taken = fa_py_take_dltensor(&managed->tensor, tensor);
        } else {
            fa_py_fail(FA_UNSUPPORTED, "%s: DLPack's version is %u, expected 1", tensor->name,
                       managed->major);
        }
    } else if (PyCapsule_IsValid(capsule, "dltensor")) {
        fa_py_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
        if (PyCapsule_SetName(capsule, "used_dltensor") == 0) {
            tensor->managed = managed;
            taken = fa_py_take_dltensor(&managed->tensor, tensor);
        }
    } else {
        PyErr_Format(PyExc_TypeError, "%s.__dlpack__() is no capsule of DLPack", tensor->name);
    }
    Py_DECREF(capsule);
    return taken;
}

static bool attribute_is_true(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    const bool is_true = value == Py_True;
    Py_XDECREF(value);
    if (!value)
        PyErr_Clear();
    return is_true;
}

static bool call_is_true(PyObject *function, PyObject *argument)
{
    PyObject *value =
        argument ? PyObject_CallMethodObjArgs(argument, function, NULL) : PyObject_CallNoArgs(function);
    const bool is_true = value == Py_True;
    Py_XDECREF(value);
    if (!value)
        PyErr_Clear();
    return is_true;
}

/* A tensor that PyTorch would want a gradient of. */
static bool wants_gradient(PyObject *object)
{
    if (!attribute_is_true(object, name_requires_grad))
        return false;
    if (!is_grad_enabled) {
        PyObject *torch = PyImport_ImportModule("torch");
        is_grad_enabled = torch ? PyObject_GetAttrString(torch, "is_grad_enabled") : NULL;
        Py_XDECREF(torch);
        PyErr_Clear();
    }
    return !is_grad_enabled || call_is_true(is_grad_enabled, NULL);
}

/* Whether a tensor of PyTorch has a tangent: it is a dual one of a level of forward-mode derivatives that is open now. */
static bool has_tangent(PyObject *object)
{
    static PyObject *forward_ad;
    if (!forward_ad)
        forward_ad = PyImport_ImportModule("torch.autograd.forward_ad");
    PyObject *level = forward_ad ? PyObject_GetAttr(forward_ad, name_level) : NULL;
    const bool open = level && PyLong_Check(level) && PyLong_AsLong(level) >= 0;
    PyObject *pair = open ? PyObject_CallMethod(forward_ad, "unpack_dual", "O", object) : NULL;
    PyObject *tangent = pair ? PyObject_GetAttrString(pair, "tangent") : NULL;
    const bool has = tangent && tangent != Py_None;
    Py_XDECREF(tangent);
    Py_XDECREF(pair);
    Py_XDECREF(level);
    PyErr_Clear();
    return has;
}

/* PyTorch exports no tensor that requires a gradient, also where none is wanted. */
static bool take_torch(PyObject *object, fa_py_tensor *tensor)
{
    PyObject *plain = attribute_is_true(object, name_requires_grad)
                          ? PyObject_CallMethodObjArgs(object, name_detach, NULL)
                          : Py_NewRef(object);
    const bool taken = plain && fa_py_take_dlpack(plain, tensor);
    Py_XDECREF(plain);
    return taken;
}

static bool take_exchange(PyObject *object, fa_py_tensor *tensor)
{
    fa_py_dltensor dl;
    if (tensor->exchange->view(object, &dl) != 0) {
        if (PyErr_Occurred())
            return restate(FA_UNSUPPORTED, tensor->name);
        return fa_py_fail(FA_UNSUPPORTED, "%s: this tensor has no memory that others can read", tensor->name);
    }
    return fa_py_take_dltensor(&dl, tensor);
}

/* Numbers of an attribute of a Spec. */
static bool take_numbers(PyObject *object, PyObject *name, const char *argument, int64_t *to, int *count)
{
    PyObject *list = PyObject_GetAttr(object, name);
    if (list == Py_None) {
        Py_DECREF(list);
        return true;
    }
    const Py_ssize_t length = list ? PySequence_Size(list) : -1;
    bool good = length >= 0 && length <= FA_PY_AXES;
    if (length > FA_PY_AXES)
        fa_py_fail(FA_INVALID, "%s has %zd axes, expected at most 4", argument, length);
    for (Py_ssize_t at = 0; good && at < length; at++) {
        PyObject *item = PySequence_GetItem(list, at);
        to[at] = item ? PyLong_AsLongLong(item) : -1;
        Py_XDECREF(item);
        good = !PyErr_Occurred();
    }
    Py_XDECREF(list);
    *count = (int)length;
    return good;
}

static bool take_spec(PyObject *object, fa_py_tensor *tensor)
{
    int strides = -1;
    if (!take_numbers(object, name_shape, tensor->name, tensor->shape, &tensor->ndim) ||
        !take_numbers(object, name_strides, tensor->name, tensor->stride, &strides))
        return false;
    if (strides >= 0 && strides != tensor->ndim)
        return fa_py_fail(FA_INVALID, "%s.strides has %d entries, expected %d", tensor->name, strides,
                          tensor->ndim);
    int64_t stride = 1;
    for (int axis = tensor->ndim - 1; strides < 0 && axis >= 0; axis--) {
        tensor->stride[axis] = stride;
        if (tensor->shape[axis] > 1 && __builtin_mul_overflow(stride, tensor->shape[axis], &stride))
            return fa_py_fail(FA_OUT_OF_MEMORY, "%s.shape has more elements than fit in memory",
                              tensor->name);
    }
    PyObject *dtype = PyObject_GetAttr(object, name_dtype);
    PyObject *text = dtype ? PyObject_Str(dtype) : NULL;
    const char *name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    tensor->type = name ? fa_py_type_of(name) : -1;
    if (name && tensor->type < 0)
        fa_py_fail(FA_INVALID, "%s.dtype is '%s', which is no type", tensor->name, name);
    Py_XDECREF(text);
    Py_XDECREF(dtype);
    tensor->device_type = FA_DL_CPU;
    tensor->device_id = 0;
    PyObject *device = PyObject_GetAttr(object, name_device);
    if (!device)
        PyErr_Clear();
    if (device && device != Py_None) {
        PyObject *place = PyObject_Str(device);
        const char *where = place ? PyUnicode_AsUTF8AndSize(place, NULL) : NULL;
        if (where && strncmp(where, "cuda", 4) == 0) {
            tensor->device_type = FA_DL_CUDA;
            tensor->device_id = where[4] == ':' ? atoi(where + 5) : 0;
        }
        Py_XDECREF(place);
    }
    Py_XDECREF(device);
    return tensor->type >= 0 && !PyErr_Occurred();
}

bool fa_py_open(PyObject *object, const char *name, bool write, fa_py_tensor *tensor)
{
    const known_type known_as = know((PyObject *)Py_TYPE(object)), *type = &known_as;
    tensor->name = name;
    tensor->kind = type->kind;
    tensor->exchange = type->exchange;
    tensor->object = NULL;
    tensor->holder = NULL;
    tensor->versioned = NULL;
    tensor->managed = NULL;
    tensor->memory = NULL;
    tensor->readonly = false;
    tensor->has_buffer = false;
    tensor->fresh = false;
    tensor->ndim = 0;
    if (type->gradients && wants_gradient(object))
        return fa_py_fail(
            FA_UNSUPPORTED,
            "%s.requires_grad is True, and gradients are not computed yet: pass %s.detach(), or call "
            "within torch.no_grad()",
            name, name);
    if (type->gradients && has_tangent(object))
        return fa_py_fail(FA_UNSUPPORTED,
                          "%s has a tangent, and forward-mode derivatives are not computed: pass %s.detach()",
                          name, name);
    if (type->gradients && call_is_true(name_is_neg, object))
        return fa_py_fail(FA_UNSUPPORTED, "%s has its negative bit set, pass %s.resolve_neg()", name, name);
    bool taken;
    if (type->kind == FA_PY_OPAQUE)
        taken = fa_py_fail(FA_UNSUPPORTED, "%s is of type %R, whose memory cannot be read", name,
                           (PyObject *)Py_TYPE(object));
    else if (type->kind == FA_PY_EXCHANGE)
        taken = take_exchange(object, tensor);
    else if (type->kind == FA_PY_NUMPY)
        taken = fa_py_take_numpy(object, write, tensor);
    else if (type->kind == FA_PY_SPEC)
        taken = take_spec(object, tensor);
    else if (type->kind == FA_PY_TORCH)
        taken = take_torch(object, tensor);
    else
        taken = fa_py_take_dlpack(object, tensor);
    if (taken && write && (tensor->readonly || type->kind == FA_PY_JAX)) {
        fa_py_fail(FA_INVALID, "%s is read-only", name);
        taken = false;
    }
    bool empty = type->kind == FA_PY_SPEC;
    for (int axis = 0; taken && axis < tensor->ndim; axis++)
        empty |= tensor->shape[axis] == 0;
    if (taken && !empty && !tensor->data)
        taken = fa_py_fail(FA_INVALID, "%s has no memory", name);
    for (int axis = 0; taken && axis < tensor->ndim; axis++) {
        if (tensor->shape[axis] > 1 && tensor->stride[axis] < 0)
            taken = fa_py_fail(FA_INVALID, "%s.strides[%d] is negative: pass a contiguous copy", name, axis);
    }
    if (!taken)
        fa_py_close(tensor);
    return taken;
}

void fa_py_close(fa_py_tensor *tensor)
{
    if (tensor->has_buffer)
        PyBuffer_Release(&tensor->buffer);
    if (tensor->versioned && tensor->versioned->deleter)
        tensor->versioned->deleter(tensor->versioned);
    if (tensor->managed && tensor->managed->deleter)
        tensor->managed->deleter(tensor->managed);
    Py_CLEAR(tensor->holder);
    Py_CLEAR(tensor->object);
    free(tensor->memory);
    tensor->has_buffer = false;
    tensor->versioned = NULL;
    tensor->managed = NULL;
    tensor->memory = NULL;
}

bool fa_py_stream(const fa_py_tensor *tensor, void **stream)
{
    *stream = NULL;
    if (tensor->kind == FA_PY_EXCHANGE) {
        if (tensor->exchange->stream(tensor->device_type, tensor->device_id, stream) != 0)
            return PyErr_Occurred() ? false
                                    : fa_py_fail(FA_DEVICE_LOST, "%s has no current stream", tensor->name);
        return true;
    }
    PyObject *module = PyImport_ImportModule("fastattn._exports");
    PyObject *number = NULL;
    if (module && tensor->kind == FA_PY_TORCH)
        number = PyObject_CallMethod(module, "torch_stream", "i", (int)tensor->device_id);
    else if (module && tensor->kind == FA_PY_CUPY)
        number = PyObject_CallMethod(module, "cupy_stream", NULL);
    else if (module)
        number = PyLong_FromLong(0);
    if (number)
        *stream = PyLong_AsVoidPtr(number);
    Py_XDECREF(number);
    Py_XDECREF(module);
    return !PyErr_Occurred();
}
