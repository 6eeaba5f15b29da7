/* SPDX-License-Identifier: Apache-2.0 */
/* The arguments of a call in their places, and those that are plain values. */
#include <stdio.h>
#include <string.h>

#include "binding.h"

const char *const fa_py_argument_names[ARGUMENTS] = {
    [ARG_Q] = "q",
    [ARG_K] = "k",
    [ARG_V] = "v",
    [ARG_OUT] = "out",
    [ARG_MASK] = "mask",
    [ARG_IS_CAUSAL] = "is_causal",
    [ARG_ATTN_MASK] = "attn_mask",
    [ARG_SCALE] = "scale",
    [ARG_ENABLE_GQA] = "enable_gqa",
    [ARG_LAYOUT] = "layout",
    [ARG_SOFTCAP] = "softcap",
    [ARG_WINDOW] = "window",
    [ARG_WINDOW_SIZE] = "window_size",
    [ARG_PREFIX] = "prefix",
    [ARG_DIAGONAL_OFFSET] = "diagonal_offset",
    [ARG_ALIGNMENT] = "alignment",
    [ARG_ALIBI_SLOPES] = "alibi_slopes",
    [ARG_SINKS] = "sinks",
    [ARG_BIAS_FACTORS] = "bias_factors",
    [ARG_LENS_Q] = "lens_q",
    [ARG_LENS_KV] = "lens_kv",
    [ARG_FIRST_KV] = "first_kv",
    [ARG_CU_SEQLENS_Q] = "cu_seqlens_q",
    [ARG_CU_SEQLENS_K] = "cu_seqlens_k",
    [ARG_LISTS] = "lists",
    [ARG_NEIGHBOURHOOD] = "neighbourhood",
    [ARG_PAGE_TABLE] = "page_table",
    [ARG_K_FORMAT] = "k_format",
    [ARG_V_FORMAT] = "v_format",
    [ARG_K_SCALE] = "k_scale",
    [ARG_V_SCALE] = "v_scale",
    [ARG_K_ZERO] = "k_zero",
    [ARG_V_ZERO] = "v_zero",
    [ARG_K_FACTOR] = "k_factor",
    [ARG_V_FACTOR] = "v_factor",
    [ARG_KEEP_LAST] = "keep_last",
    [ARG_V_IN_K] = "v_in_k",
    [ARG_DYNAMIC_LENGTHS] = "dynamic_lengths",
    [ARG_RETURN_LSE] = "return_lse",
    [ARG_DEVICE] = "device",
    [ARG_KERNEL] = "kernel",
    [ARG_BLOCK_Q] = "block_q",
    [ARG_BLOCK_KV] = "block_kv",
    [ARG_SPLITS] = "splits",
};
static PyObject *names[ARGUMENTS];

bool fa_py_arguments_init(void)
{
    for (int at = 0; at < ARGUMENTS; at++) {
        if (!(names[at] = PyUnicode_InternFromString(fa_py_argument_names[at])))
            return false;
    }
    return true;
}

/* ---- arguments in their places ---- */

static int place_of(PyObject *name)
{
    for (int at = 0; at < ARGUMENTS; at++) {
        if (names[at] == name)
            return at;
    }
    for (int at = 0; at < ARGUMENTS; at++) {
        if (PyUnicode_Compare(names[at], name) == 0)
            return at;
    }
    return -1;
}

static bool put(const char *function, PyObject *name, PyObject *value, PyObject *values[ARGUMENTS])
{
    const int at = place_of(name);
    if (at < 0)
        PyErr_Format(PyExc_TypeError, "%s() has no argument '%U'", function, name);
    else if (values[at])
        PyErr_Format(PyExc_TypeError, "%s() has two values of argument '%U'", function, name);
    else
        values[at] = value;
    return !PyErr_Occurred();
}

static bool complete(const char *function, PyObject *values[ARGUMENTS])
{
    for (int at = ARG_Q; at <= ARG_K; at++) {
        if (!values[at]) {
            PyErr_Format(PyExc_TypeError, "%s() lacks the argument '%s'", function, fa_py_argument_names[at]);
            return false;
        }
    }
    return true;
}

bool fa_py_arguments(const char *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                     PyObject *values[ARGUMENTS])
{
    memset(values, 0, ARGUMENTS * sizeof *values);
    if (count > 3) {
        PyErr_Format(PyExc_TypeError, "%s() takes q, k and v without a name, and has %zd such arguments",
                     function, count);
        return false;
    }
    for (Py_ssize_t at = 0; at < count; at++)
        values[at] = args[at];
    const Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t at = 0; at < named; at++) {
        if (!put(function, PyTuple_GetItem(keywords, at), args[count + at], values))
            return false;
    }
    return complete(function, values);
}

bool fa_py_arguments_tuple(const char *function, PyObject *args, PyObject *keywords,
                           PyObject *values[ARGUMENTS])
{
    PyObject *positional[3];
    const Py_ssize_t count = PyTuple_Size(args);
    for (Py_ssize_t at = 0; at < count && at < 3; at++)
        positional[at] = PyTuple_GetItem(args, at);
    memset(values, 0, ARGUMENTS * sizeof *values);
    if (count > 3)
        return fa_py_arguments(function, positional, count, NULL, values);
    for (Py_ssize_t at = 0; at < count; at++)
        values[at] = positional[at];
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (keywords && PyDict_Next(keywords, &at, &name, &value)) {
        if (!put(function, name, value, values))
            return false;
    }
    return complete(function, values);
}

/* ---- values ---- */

bool fa_py_wrong_type(PyObject *value, const char *name, const char *expected)
{
    PyErr_Format(PyExc_TypeError, "%s is of type %R, expected %s", name, (PyObject *)Py_TYPE(value),
                 expected);
    return false;
}

PyObject *fa_py_attribute(PyObject *object, const char *name, const char *expected)
{
    const char *dot = strchr(name, '.');
    PyObject *value = PyObject_GetAttrString(object, dot + 1);
    if (value || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return value;
    char argument[64];
    (void)snprintf(argument, sizeof argument, "%.*s", (int)(dot - name), name);
    PyErr_Clear();
    (void)fa_py_wrong_type(object, argument, expected);
    return NULL;
}

bool fa_py_whole_number(PyObject *value, const char *name, int64_t *to)
{
    PyObject *number = PyNumber_Index(value);
    if (!number) {
        PyErr_Clear();
        return fa_py_wrong_type(value, name, "a whole number");
    }
    const int64_t found = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return fa_py_fail(FA_INVALID, "%s is %S, which does not fit into 64 bits", name, value);
    }
    *to = found;
    return true;
}

bool fa_py_small_number(PyObject *value, const char *name, int32_t *to)
{
    int64_t wide = 0;
    if (!fa_py_whole_number(value, name, &wide))
        return false;
    if (wide < INT32_MIN || wide > INT32_MAX)
        return fa_py_fail(FA_INVALID, "%s is %lld, which does not fit into 32 bits", name, (long long)wide);
    *to = (int32_t)wide;
    return true;
}

bool fa_py_read_int64(PyObject *const values[], int argument, int64_t *to)
{
    return !fa_py_given(values[argument]) ||
           fa_py_whole_number(values[argument], fa_py_argument_names[argument], to);
}

bool fa_py_read_int32(PyObject *const values[], int argument, int32_t *to)
{
    return !fa_py_given(values[argument]) ||
           fa_py_small_number(values[argument], fa_py_argument_names[argument], to);
}

bool fa_py_read_float(PyObject *const values[], int argument, float *to)
{
    if (!fa_py_given(values[argument]))
        return true;
    const double found = PyFloat_AsDouble(values[argument]);
    if (found == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return fa_py_wrong_type(values[argument], fa_py_argument_names[argument], "a number");
    }
    *to = (float)found;
    return true;
}

bool fa_py_read_bool(PyObject *const values[], int argument, bool *to)
{
    PyObject *value = values[argument];
    if (!fa_py_given(value))
        return true;
    const int found = value == Py_True ? 1 : value == Py_False ? 0 : PyObject_IsTrue(value);
    *to = found > 0;
    if (found < 0 && (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_ValueError) ||
                      PyErr_ExceptionMatches(PyExc_RuntimeError))) {
        PyErr_Clear();
        return fa_py_wrong_type(value, fa_py_argument_names[argument], "True or False");
    }
    return found >= 0;
}

const char *fa_py_read_text(PyObject *value, int argument)
{
    if (!PyUnicode_Check(value)) {
        fa_py_wrong_type(value, fa_py_argument_names[argument], "a str");
        return NULL;
    }
    return PyUnicode_AsUTF8AndSize(value, NULL);
}
