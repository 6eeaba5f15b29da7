/* SPDX-License-Identifier: Apache-2.0 */
/* Results: arrays of the kind of an array that was opened, made by its own library. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

enum { DTYPES = 32 };
static PyObject *numpy_empty, *numpy_dtype[DTYPES];

static PyObject *shape_tuple(int ndim, const int64_t *shape)
{
    PyObject *tuple = PyTuple_New(ndim);
    for (int axis = 0; tuple && axis < ndim; axis++) {
        PyObject *size = PyLong_FromLongLong(shape[axis]);
        if (!size || PyTuple_SetItem(tuple, axis, size) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* NumPy's dtype of a type. A borrowed reference. */
static PyObject *numpy_type(int type)
{
    if (type < DTYPES && numpy_dtype[type])
        return numpy_dtype[type];
    PyObject *made = NULL;
    if (type == FA_BF16) {
        PyObject *extension = PyImport_ImportModule("ml_dtypes");
        made = extension ? PyObject_GetAttrString(extension, "bfloat16") : NULL;
        Py_XDECREF(extension);
    } else {
        PyObject *numpy = PyImport_ImportModule("numpy");
        made = numpy ? PyObject_CallMethod(numpy, "dtype", "s", fa_py_type_name(type)) : NULL;
        Py_XDECREF(numpy);
    }
    if (made)
        numpy_dtype[type] = made;
    return made;
}

static bool empty_numpy(int type, int ndim, const int64_t *shape, fa_py_tensor *tensor)
{
    if (!numpy_empty) {
        PyObject *numpy = PyImport_ImportModule("numpy");
        numpy_empty = numpy ? PyObject_GetAttrString(numpy, "empty") : NULL;
        Py_XDECREF(numpy);
        if (!numpy_empty)
            return false;
    }
    PyObject *dtype = numpy_type(type);
    PyObject *sizes = dtype ? shape_tuple(ndim, shape) : NULL;
    tensor->object = sizes ? PyObject_CallFunctionObjArgs(numpy_empty, sizes, dtype, NULL) : NULL;
    Py_XDECREF(sizes);
    return tensor->object && fa_py_take_numpy(tensor->object, true, tensor);
}

static void set_error(void *context, const char *kind, const char *message)
{
    (void)context;
    (void)kind;
    if (!PyErr_Occurred())
        fa_py_fail(FA_OUT_OF_MEMORY, "the result: %s", message);
}

static void dlpack_type(int type, fa_py_dltensor *dl)
{
    dl->code = type == FA_BF16 ? FA_DL_BFLOAT : type == FA_U8 ? FA_DL_UINT : FA_DL_FLOAT;
    dl->bits = type == FA_F32 ? 32 : type == FA_U8 ? 8 : 16;
    dl->lanes = 1;
}

static bool empty_exchange(const fa_py_tensor *like, int type, int ndim, const int64_t *shape,
                           fa_py_tensor *tensor)
{
    int64_t sizes[FA_PY_AXES];
    memcpy(sizes, shape, (size_t)ndim * sizeof *shape);
    fa_py_dltensor prototype = {
        .device_type = like->device_type, .device_id = like->device_id, .ndim = ndim, .shape = sizes};
    dlpack_type(type, &prototype);
    fa_py_versioned *made = NULL;
    if (like->exchange->allocate(&prototype, &made, NULL, set_error) != 0) {
        if (!PyErr_Occurred())
            fa_py_fail(FA_OUT_OF_MEMORY, "%s: no memory for the result", tensor->name);
        return false;
    }
    if (!fa_py_take_dltensor(&made->tensor, tensor)) {
        made->deleter(made);
        return false;
    }
    void *object = NULL;
    if (like->exchange->to_object(made, &object) != 0)
        return false;
    tensor->object = object;
    return true;
}

/* torch.empty() or cupy.empty(). */
static bool empty_of_module(const char *module, const fa_py_tensor *like, int type, int ndim,
                            const int64_t *shape, fa_py_tensor *tensor)
{
    PyObject *library = PyImport_ImportModule(module);
    PyObject *empty = library ? PyObject_GetAttrString(library, "empty") : NULL;
    PyObject *sizes = shape_tuple(ndim, shape), *positional = sizes ? PyTuple_Pack(1, sizes) : NULL;
    PyObject *dtype = NULL, *keywords = NULL;
    if (empty && positional)
        dtype = like->kind == FA_PY_CUPY ? PyUnicode_FromString(fa_py_type_name(type))
                                         : PyObject_GetAttrString(library, fa_py_type_name(type));
    if (dtype && like->kind == FA_PY_TORCH && like->device_type == FA_DL_CUDA)
        keywords = Py_BuildValue("{s:O,s:N}", "dtype", dtype, "device",
                                 PyUnicode_FromFormat("cuda:%d", (int)like->device_id));
    else if (dtype)
        keywords = Py_BuildValue("{s:O}", "dtype", dtype);
    if (keywords)
        tensor->object = PyObject_Call(empty, positional, keywords);
    Py_XDECREF(keywords);
    Py_XDECREF(dtype);
    Py_XDECREF(positional);
    Py_XDECREF(sizes);
    Py_XDECREF(empty);
    Py_XDECREF(library);
    return tensor->object && fa_py_take_dlpack(tensor->object, tensor);
}

/* ---- memory that becomes an array of JAX ---- */

typedef struct owned_memory {
    fa_py_managed managed;
    int64_t shape[FA_PY_AXES], stride[FA_PY_AXES];
} owned_memory;

static void release_owned(fa_py_managed *self)
{
    free(self->tensor.data);
    free(self);
}

static void release_capsule(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, "dltensor"))
        release_owned(PyCapsule_GetPointer(capsule, "dltensor"));
}

static bool empty_memory(int type, int ndim, const int64_t *shape, fa_py_tensor *tensor)
{
    size_t bytes = fa_dtype_size((fa_dtype)type);
    for (int axis = 0; axis < ndim; axis++) {
        if (__builtin_mul_overflow(bytes, (size_t)shape[axis], &bytes))
            return fa_py_fail(FA_OUT_OF_MEMORY, "%s: no memory for the result", tensor->name);
    }
    tensor->memory = aligned_alloc(64, (bytes / 64 + 1) * 64);
    if (!tensor->memory)
        return fa_py_fail(FA_OUT_OF_MEMORY, "%s: no memory for the result of %zu bytes", tensor->name, bytes);
    tensor->data = tensor->memory;
    tensor->type = type;
    tensor->ndim = ndim;
    tensor->device_type = FA_DL_CPU;
    tensor->device_id = 0;
    int64_t stride = 1;
    for (int axis = ndim - 1; axis >= 0; axis--) {
        tensor->shape[axis] = shape[axis];
        tensor->stride[axis] = stride;
        stride *= shape[axis] > 1 ? shape[axis] : 1;
    }
    return true;
}

/* The memory goes to the capsule. */
static PyObject *memory_capsule(fa_py_tensor *tensor)
{
    owned_memory *owned = calloc(1, sizeof *owned);
    if (!owned)
        return PyErr_NoMemory();
    memcpy(owned->shape, tensor->shape, sizeof owned->shape);
    memcpy(owned->stride, tensor->stride, sizeof owned->stride);
    owned->managed = (fa_py_managed){
        .deleter = release_owned,
        .tensor = {.data = tensor->memory,
                   .device_type = FA_DL_CPU,
                   .ndim = tensor->ndim,
                   .shape = owned->shape,
                   .strides = owned->stride},
    };
    dlpack_type(tensor->type, &owned->managed.tensor);
    PyObject *capsule = PyCapsule_New(&owned->managed, "dltensor", release_capsule);
    if (capsule)
        tensor->memory = NULL;
    else
        free(owned);
    return capsule;
}

static PyObject *finish_jax(fa_py_tensor *tensor)
{
    PyObject *capsule = memory_capsule(tensor);
    PyObject *module = capsule ? PyImport_ImportModule("fastattn._exports") : NULL;
    PyObject *array = module ? PyObject_CallMethod(module, "to_jax", "O", capsule) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(capsule);
    return array;
}

bool fa_py_empty(const fa_py_tensor *like, const char *name, int type, int ndim, const int64_t *shape,
                 fa_py_tensor *tensor)
{
    *tensor = (fa_py_tensor){.name = name, .kind = like->kind, .exchange = like->exchange, .fresh = true};
    if (!fa_py_on_host(like) && like->kind != FA_PY_EXCHANGE && like->kind != FA_PY_TORCH &&
        like->kind != FA_PY_CUPY)
        return fa_py_fail(FA_UNSUPPORTED,
                          "%s: results on a device are made for PyTorch and CuPy only; pass out", name);
    bool made;
    switch (like->kind) {
    case FA_PY_EXCHANGE: made = empty_exchange(like, type, ndim, shape, tensor); break;
    case FA_PY_TORCH: made = empty_of_module("torch", like, type, ndim, shape, tensor); break;
    case FA_PY_CUPY: made = empty_of_module("cupy", like, type, ndim, shape, tensor); break;
    case FA_PY_JAX: made = empty_memory(type, ndim, shape, tensor); break;
    default: made = empty_numpy(type, ndim, shape, tensor); break;
    }
    if (!made)
        fa_py_close(tensor);
    return made;
}

PyObject *fa_py_finish(fa_py_tensor *tensor)
{
    if (tensor->memory)
        return finish_jax(tensor);
    return Py_NewRef(tensor->object);
}
