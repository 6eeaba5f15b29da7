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

/* Names of the C interface, and the arguments of attention() that they are. */
static const char *const renamed[][2] = {
    {"cu_rows_q", "cu_seqlens_q"},    {"cu_rows_q32", "cu_seqlens_q"}, {"cu_rows_kv", "cu_seqlens_k"},
    {"cu_rows_kv32", "cu_seqlens_k"}, {"bias", "attn_mask"},           {"keep", "attn_mask"},
    {"window_left", "window[0]"},     {"window_right", "window[1]"},   {"o", "out"},
};
static const char *const prefixes[] = {"args.", "desc.", "tuning.", "lengths.", "shape."};

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The message with Python's names, as much of it as there is room for. */
static void rename_fields(const char *from, bool of_attention, char *to, size_t room)
{
    const char *const end = to + room - 1;
    while (*from && to < end) {
        for (size_t at = 0; at < sizeof prefixes / sizeof *prefixes; at++) {
            const size_t length = strlen(prefixes[at]);
            if (strncmp(from, prefixes[at], length) == 0 && is_name(from[length]))
                from += length;
        }
        size_t length = 0;
        while (is_name(from[length]))
            length++;
        const char *word = from;
        size_t size = length ? length : 1;
        from += size;
        for (size_t at = 0; of_attention && at < sizeof renamed / sizeof *renamed; at++) {
            if (strlen(renamed[at][0]) == length && strncmp(word, renamed[at][0], length) == 0) {
                word = renamed[at][1];
                size = strlen(word);
                break;
            }
        }
        for (; size > 0 && to < end; size--)
            *to++ = *word++;
        if (length && strncmp(from, "->", 2) == 0 && to < end) {
            *to++ = '.';
            from += 2;
        }
    }
    *to = '\0';
}

static void raise_message(fa_status status, bool of_attention)
{
    char message[4096];
    rename_fields(fa_last_error(), of_attention, message, sizeof message);
    if (!*message)
        (void)snprintf(message, sizeof message, "%s", fa_status_name(status));
    PyObject *text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace");
    if (text)
        PyErr_SetObject(class_of(status), text);
    Py_XDECREF(text);
}

void fa_py_raise(fa_status status)
{
    raise_message(status, true);
}

void fa_py_raise_plain(fa_status status)
{
    raise_message(status, false);
}

bool fa_py_fail(fa_status status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyErr_FormatV(class_of(status), format, list);
    va_end(list);
    return false;
}
