/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of numbers, from arrays in host memory or from sequences: lengths, offsets, slopes, sinks. Each is copied. */
#include "binding.h"

static bool no_memory(void)
{
    PyErr_NoMemory();
    return false;
}

/* Whether the object is an array and not a list or tuple. */
static bool is_array(PyObject *object)
{
    return !PyList_Check(object) && !PyTuple_Check(object) &&
           (PyObject_CheckBuffer(object) || PyObject_HasAttrString(object, "__dlpack__"));
}

static bool open_list(PyObject *object, const char *name, fa_py_tensor *tensor)
{
    if (!fa_py_open(object, name, false, tensor))
        return false;
    if (fa_py_on_host(tensor) && tensor->kind != FA_PY_SPEC)
        return true;
    fa_py_fail(FA_INVALID, "%s lies on a device, expected host memory: a list, or an array on the CPU", name);
    fa_py_close(tensor);
    return false;
}

bool fa_py_integers(PyObject *object, const char *name, int64_t expected, int64_t **list, int64_t *count)
{
    *list = NULL;
    *count = 0;
    if (is_array(object)) {
        fa_py_tensor tensor;
        if (!open_list(object, name, &tensor))
            return false;
        bool good = tensor.ndim == 1 && (tensor.type == FA_I32 || tensor.type == FA_PY_I64);
        if (!good)
            fa_py_fail(FA_INVALID, "%s has %d axes of %s, expected one axis of int32 or int64", name,
                       tensor.ndim, fa_py_type_name(tensor.type));
        if (good && !(*list = PyMem_Calloc((size_t)tensor.shape[0] + 1, sizeof **list)))
            good = no_memory();
        for (int64_t at = 0; good && at < tensor.shape[0]; at++) {
            const int64_t from = at * tensor.stride[0];
            (*list)[at] = tensor.type == FA_I32 ? ((const int32_t *)tensor.data)[from]
                                                : ((const int64_t *)tensor.data)[from];
        }
        *count = good ? tensor.shape[0] : 0;
        fa_py_close(&tensor);
        return good;
    }
    const bool one = expected > 0 && PyIndex_Check(object);
    if (!one && !PySequence_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is of type %R, expected whole numbers", name,
                     (PyObject *)Py_TYPE(object));
        return false;
    }
    const Py_ssize_t length = one ? (Py_ssize_t)expected : PySequence_Size(object);
    if (length < 0)
        return false;
    int64_t *made = PyMem_Calloc((size_t)length + 1, sizeof *made);
    if (!made)
        return no_memory();
    for (Py_ssize_t at = 0; at < length; at++) {
        PyObject *item = one ? Py_NewRef(object) : PySequence_GetItem(object, at);
        PyObject *number = item ? PyNumber_Index(item) : NULL;
        made[at] = number ? PyLong_AsLongLong(number) : 0;
        Py_XDECREF(number);
        Py_XDECREF(item);
        if (PyErr_Occurred()) {
            PyMem_Free(made);
            if (PyErr_ExceptionMatches(PyExc_OverflowError))
                fa_py_fail(FA_INVALID, "%s[%zd] does not fit into 64 bits", name, at);
            return false;
        }
    }
    *list = made;
    *count = length;
    return true;
}

static float float_at(const fa_py_tensor *tensor, int64_t at)
{
    if (tensor->type == FA_PY_F64)
        return (float)((const double *)tensor->data)[at];
    return fa_element((fa_dtype)tensor->type, tensor->data, at);
}

bool fa_py_floats(PyObject *object, const char *name, float **list, int64_t *rows, int64_t *columns)
{
    *list = NULL;
    *rows = 1;
    *columns = 0;
    if (is_array(object)) {
        fa_py_tensor tensor;
        if (!open_list(object, name, &tensor))
            return false;
        bool good =
            (tensor.ndim == 1 || tensor.ndim == 2) && (tensor.type == FA_F32 || tensor.type == FA_F16 ||
                                                       tensor.type == FA_BF16 || tensor.type == FA_PY_F64);
        if (!good)
            fa_py_fail(FA_INVALID, "%s has %d axes of %s, expected one or two of floats", name, tensor.ndim,
                       fa_py_type_name(tensor.type));
        const int last = tensor.ndim - 1;
        *rows = good && last > 0 ? tensor.shape[0] : 1;
        *columns = good ? tensor.shape[last] : 0;
        if (good && !(*list = PyMem_Calloc((size_t)(*rows * *columns) + 1, sizeof **list)))
            good = no_memory();
        for (int64_t row = 0; good && row < *rows; row++) {
            for (int64_t column = 0; column < *columns; column++)
                (*list)[row * *columns + column] =
                    float_at(&tensor, (last > 0 ? row * tensor.stride[0] : 0) + column * tensor.stride[last]);
        }
        fa_py_close(&tensor);
        return good;
    }
    const Py_ssize_t length = PySequence_Size(object);
    if (length < 0) {
        PyErr_Format(PyExc_TypeError, "%s is of type %R, expected floats", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    float *made = PyMem_Calloc((size_t)length + 1, sizeof *made);
    if (!made)
        return no_memory();
    for (Py_ssize_t at = 0; at < length; at++) {
        PyObject *item = PySequence_GetItem(object, at);
        made[at] = item ? (float)PyFloat_AsDouble(item) : 0;
        Py_XDECREF(item);
        if (PyErr_Occurred()) {
            PyMem_Free(made);
            return false;
        }
    }
    *list = made;
    *columns = length;
    return true;
}
