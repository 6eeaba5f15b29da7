/* SPDX-License-Identifier: Apache-2.0 */
/* Masks that a description has by rule: kinds, windows, prefix, and where rows stand. */
#include <string.h>

#include "binding.h"

bool fa_py_mask_named(PyObject *value, fa_mask_kind *to)
{
    const char *name = fa_py_read_text(value, ARG_MASK);
    if (!name)
        return false;
    if (strcmp(name, "none") == 0)
        *to = FA_MASK_NONE;
    else if (strcmp(name, "causal") == 0 || strcmp(name, "causal_bottom_right") == 0)
        *to = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    else if (strcmp(name, "causal_top_left") == 0)
        *to = FA_MASK_CAUSAL_TOP_LEFT;
    else
        return fa_py_fail(
            FA_INVALID, "mask is '%s', expected 'none', 'causal', 'causal_top_left' or 'causal_bottom_right'",
            name);
    return true;
}

static bool read_mask(PyObject *const values[], fa_attention_desc *desc)
{
    bool causal = false;
    if (!fa_py_read_bool(values, ARG_IS_CAUSAL, &causal))
        return false;
    desc->mask = causal ? FA_MASK_CAUSAL_TOP_LEFT : FA_MASK_NONE;
    PyObject *value = values[ARG_MASK];
    if (!fa_py_given(value))
        return true;
    if (!fa_py_mask_named(value, &desc->mask))
        return false;
    if (causal && desc->mask != FA_MASK_CAUSAL_TOP_LEFT)
        return fa_py_fail(FA_INVALID, "is_causal is True, which means 'causal_top_left', but mask is '%U'",
                          value);
    return true;
}

/* One side: None or a number that `least` bounds; `more` is added, so that 0 becomes unlimited. */
static bool read_side(PyObject *pair, int argument, int side, int64_t least, int64_t more, int64_t *to)
{
    PyObject *value = PySequence_GetItem(pair, side);
    if (!value)
        return false;
    int64_t found = 0;
    bool good = value == Py_None || fa_py_whole_number(value, fa_py_argument_names[argument], &found);
    if (good && value != Py_None) {
        if (found < least || found > FA_MAX_LENGTH)
            good = fa_py_fail(FA_INVALID, "%s[%d] is %lld, expected %lld to %d, or None",
                              fa_py_argument_names[argument], side, (long long)found, (long long)least,
                              FA_MAX_LENGTH);
        *to = found + more;
    }
    Py_DECREF(value);
    return good;
}

static bool read_window(PyObject *const values[], int argument, int64_t least, int64_t more,
                        fa_attention_desc *desc)
{
    PyObject *pair = values[argument];
    if (!fa_py_given(pair))
        return true;
    if (!PySequence_Check(pair) || PyUnicode_Check(pair))
        return fa_py_wrong_type(pair, fa_py_argument_names[argument], "a pair (left, right)");
    const Py_ssize_t size = PySequence_Size(pair);
    if (size != 2)
        return size >= 0 &&
               fa_py_fail(FA_INVALID, "%s has %zd entries, expected 2", fa_py_argument_names[argument], size);
    return read_side(pair, argument, 0, least, more, &desc->window_left) &&
           read_side(pair, argument, 1, least, more, &desc->window_right);
}

static bool read_alignment(PyObject *value, fa_attention_desc *desc)
{
    if (!fa_py_given(value))
        return true;
    const char *name = fa_py_read_text(value, ARG_ALIGNMENT);
    if (!name)
        return false;
    if (strcmp(name, "top_left") == 0)
        desc->alignment = FA_ALIGN_TOP_LEFT;
    else if (strcmp(name, "bottom_right") == 0)
        desc->alignment = FA_ALIGN_BOTTOM_RIGHT;
    else
        return fa_py_fail(FA_INVALID, "alignment is '%s', expected 'top_left' or 'bottom_right'", name);
    return true;
}

bool fa_py_masks_read(PyObject *const values[ARGUMENTS], fa_attention_desc *desc)
{
    if (fa_py_given(values[ARG_WINDOW]) && fa_py_given(values[ARG_WINDOW_SIZE]))
        return fa_py_fail(FA_INVALID, "window and window_size are both given, expected one");
    return read_mask(values, desc) && read_window(values, ARG_WINDOW, 1, 0, desc) &&
           read_window(values, ARG_WINDOW_SIZE, -1, 1, desc) &&
           fa_py_read_int64(values, ARG_PREFIX, &desc->prefix) &&
           fa_py_read_int64(values, ARG_DIAGONAL_OFFSET, &desc->diagonal_offset) &&
           read_alignment(values[ARG_ALIGNMENT], desc);
}
