/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of numbers, from arrays in host memory or from sequences: lengths, offsets, slopes, sinks. Each is copied. */
#include <stdio.h>

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

bool fa_py_open_host(PyObject *object, const char *name, fa_py_tensor *tensor)
{
    if (!fa_py_open(object, name, false, tensor))
        return false;
    if (fa_py_on_host(tensor) && tensor->kind != FA_PY_SPEC)
        return true;
    fa_py_fail(FA_INVALID, "%s lies on a device, expected host memory: a list, or an array on the CPU", name);
    fa_py_close(tensor);
    return false;
}

static bool wrong_type(PyObject *object, const char *name, const char *expected)
{
    PyErr_Format(PyExc_TypeError, "%s is of type %R, expected %s", name, (PyObject *)Py_TYPE(object),
                 expected);
    return false;
}

/* Number `at` of a list, or a number alone if `at` is negative. Its error names it. */
static bool whole_number(PyObject *item, const char *name, Py_ssize_t at, int64_t *to)
{
    PyObject *number = PyNumber_Index(item);
    *to = number ? PyLong_AsLongLong(number) : 0;
    Py_XDECREF(number);
    if (!PyErr_Occurred())
        return true;
    char full[64];
    (void)snprintf(full, sizeof full, "%s", name);
    if (at >= 0)
        (void)snprintf(full, sizeof full, "%s[%lld]", name, (long long)at);
    if (PyErr_ExceptionMatches(PyExc_OverflowError))
        fa_py_fail(FA_INVALID, "%s does not fit into 64 bits", full);
    else if (PyErr_ExceptionMatches(PyExc_TypeError))
        wrong_type(item, full, "whole numbers");
    return false;
}

/* A copy of an array of one axis. */
static bool whole_array(const fa_py_tensor *tensor, int64_t **list, int64_t *count)
{
    if (tensor->ndim != 1 || (tensor->type != FA_I32 && tensor->type != FA_PY_I64))
        return fa_py_fail(FA_INVALID, "%s has %d axes of %s, expected one axis of int32 or int64",
                          tensor->name, tensor->ndim, fa_py_type_name(tensor->type));
    if (!(*list = PyMem_Calloc((size_t)tensor->shape[0] + 1, sizeof **list)))
        return no_memory();
    *count = tensor->shape[0];
    for (int64_t at = 0; at < *count; at++) {
        const int64_t from = at * tensor->stride[0];
        (*list)[at] = tensor->type == FA_I32 ? ((const int32_t *)tensor->data)[from]
                                             : ((const int64_t *)tensor->data)[from];
    }
    return true;
}

bool fa_py_integers(PyObject *object, const char *name, int64_t each, int64_t **list, int64_t *count)
{
    *list = NULL;
    *count = 0;
    bool one = PyIndex_Check(object);
    if (is_array(object)) {
        fa_py_tensor tensor;
        if (!fa_py_open_host(object, name, &tensor))
            return false;
        one = tensor.ndim == 0;
        const bool good = one || whole_array(&tensor, list, count);
        fa_py_close(&tensor);
        if (!one)
            return good;
    }
    if (one ? each < 1 : PyUnicode_Check(object) || !PySequence_Check(object))
        return wrong_type(object, name, "whole numbers");
    const Py_ssize_t length = one ? (Py_ssize_t)each : PySequence_Size(object);
    if (length < 0)
        return false;
    int64_t *made = PyMem_Calloc((size_t)length + 1, sizeof *made);
    if (!made)
        return no_memory();
    for (Py_ssize_t at = 0; at < length; at++) {
        PyObject *item = one ? Py_NewRef(object) : PySequence_GetItem(object, at);
        const bool good = item && whole_number(item, name, one ? -1 : at, &made[at]);
        Py_XDECREF(item);
        if (!good) {
            PyMem_Free(made);
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

/* A copy of an array of one or two axes. */
static bool float_array(const fa_py_tensor *tensor, float **list, int64_t *rows, int64_t *columns)
{
    const int last = tensor->ndim - 1, type = tensor->type;
    if (last < 0 || last > 1 || (type != FA_F32 && type != FA_F16 && type != FA_BF16 && type != FA_PY_F64))
        return fa_py_fail(FA_INVALID, "%s has %d axes of %s, expected one or two of floats", tensor->name,
                          tensor->ndim, fa_py_type_name(type));
    *rows = last > 0 ? tensor->shape[0] : 1;
    *columns = tensor->shape[last];
    size_t elements;
    if (__builtin_mul_overflow((size_t)*rows, (size_t)*columns, &elements) || elements == SIZE_MAX ||
        !(*list = PyMem_Calloc(elements + 1, sizeof **list)))
        return no_memory();
    for (int64_t row = 0; row < *rows; row++) {
        for (int64_t column = 0; column < *columns; column++)
            (*list)[row * *columns + column] =
                float_at(tensor, (last > 0 ? row * tensor->stride[0] : 0) + column * tensor->stride[last]);
    }
    return true;
}

static bool float_number(PyObject *item, const char *name, Py_ssize_t at, float *to)
{
    *to = (float)PyFloat_AsDouble(item);
    if (!PyErr_Occurred())
        return true;
    if (PyErr_ExceptionMatches(PyExc_OverflowError))
        fa_py_fail(FA_INVALID, "%s[%zd] does not fit into a float", name, at);
    else if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s[%zd] is of type %R, expected a float", name, at,
                     (PyObject *)Py_TYPE(item));
    return false;
}

bool fa_py_floats(PyObject *object, const char *name, float **list, int64_t *rows, int64_t *columns)
{
    *list = NULL;
    *rows = 1;
    *columns = 0;
    bool one = false;
    if (is_array(object)) {
        fa_py_tensor tensor;
        if (!fa_py_open_host(object, name, &tensor))
            return false;
        one = tensor.ndim == 0;
        const bool good = one || float_array(&tensor, list, rows, columns);
        fa_py_close(&tensor);
        if (!one)
            return good;
    }
    if (one || PyUnicode_Check(object) || !PySequence_Check(object))
        return wrong_type(object, name, "a list of floats");
    const Py_ssize_t length = PySequence_Size(object);
    float *made = length < 0 ? NULL : PyMem_Calloc((size_t)length + 1, sizeof *made);
    if (!made)
        return length < 0 ? false : no_memory();
    for (Py_ssize_t at = 0; at < length; at++) {
        PyObject *item = PySequence_GetItem(object, at);
        const bool good = item && float_number(item, name, at, &made[at]);
        Py_XDECREF(item);
        if (!good) {
            PyMem_Free(made);
            return false;
        }
    }
    *list = made;
    *columns = length;
    return true;
}
