/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions: one for each status of the library. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

PyObject *fa_py_error;

static const struct {
    fa_status status;
    const char *name, *doc;
    PyObject **base; /* Python's exception that says the same */
} kinds[] = {
    {FA_INVALID, "fastattn.InvalidError", "An argument is wrong; the message names it and its value.",
     &PyExc_ValueError},
    {FA_UNSUPPORTED, "fastattn.UnsupportedError", "A valid request that the device does not serve.",
     &PyExc_NotImplementedError},
    {FA_NO_DEVICE, "fastattn.NoDeviceError", "There is no such device, or it cannot run here.",
     &PyExc_RuntimeError},
    {FA_OUT_OF_MEMORY, "fastattn.OutOfMemoryError", "Host or device memory ran out.", &PyExc_MemoryError},
    {FA_DEVICE_LOST, "fastattn.DeviceLostError", "The device failed.", &PyExc_RuntimeError},
    {FA_COMPILE, "fastattn.CompileError", "Device code did not compile; the message ends with the log.",
     &PyExc_RuntimeError},
};
enum { KINDS = sizeof kinds / sizeof *kinds };
static PyObject *classes[KINDS];

bool fa_py_errors_add(PyObject *module)
{
    fa_py_error =
        PyErr_NewExceptionWithDoc("fastattn.Error", "The base of all exceptions of fastattn.", NULL, NULL);
    if (!fa_py_error || PyModule_AddObjectRef(module, "Error", fa_py_error) < 0)
        return false;
    for (int kind = 0; kind < KINDS; kind++) {
        PyObject *bases = PyTuple_Pack(2, fa_py_error, *kinds[kind].base);
        if (!bases)
            return false;
        classes[kind] = PyErr_NewExceptionWithDoc(kinds[kind].name, kinds[kind].doc, bases, NULL);
        Py_DECREF(bases);
        if (!classes[kind] ||
            PyModule_AddObjectRef(module, strchr(kinds[kind].name, '.') + 1, classes[kind]) < 0)
            return false;
    }
    return true;
}

static PyObject *class_of(fa_status status)
{
    for (int kind = 0; kind < KINDS; kind++) {
        if (kinds[kind].status == status)
            return classes[kind];
    }
    return fa_py_error;
}

/* Fields of the C description, and the arguments that they come from. */
static const char *const renamed[][2] = {
    {"cu_rows_q32", "cu_seqlens_q"},
    {"cu_rows_q", "cu_seqlens_q"},
    {"cu_rows_kv32", "cu_seqlens_k"},
    {"cu_rows_kv", "cu_seqlens_k"},
    {"bias_factors", "bias_factors"},
    {"bias", "attn_mask"},
    {"keep_last", "keep_last"},
    {"keep", "attn_mask"},
    {"tuning.kernel", "kernel"},
    {"tuning.block_q", "block_q"},
    {"tuning.block_kv", "block_kv"},
    {"tuning.splits", "splits"},
    {"window_left", "window[0]"},
    {"window_right", "window[1]"},
    {"o.", "out."},
    {"desc.", ""},
};

void fa_py_raise(fa_status status)
{
    const char *message = fa_last_error(), *prefix = "";
    for (size_t name = 0; name < sizeof renamed / sizeof *renamed; name++) {
        const size_t length = strlen(renamed[name][0]);
        if (strncmp(message, renamed[name][0], length) == 0) {
            prefix = renamed[name][1];
            message += length;
            break;
        }
    }
    PyErr_Format(class_of(status), "%s%s", prefix, *message || *prefix ? message : fa_status_name(status));
}

bool fa_py_fail(fa_status status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyErr_FormatV(class_of(status), format, list);
    va_end(list);
    return false;
}
