/* SPDX-License-Identifier: Apache-2.0 */
/* A neighbourhood: a fastattn.Neighbourhood, or what has its attributes, as fa_neighbourhood. */
#include <string.h>

#include "binding.h"

/* The numbers of one attribute, one for each axis; one number stands for all. `axes` is 0 until `size` has told it. */
static bool read_axes(PyObject *value, const char *name, int32_t least, int32_t *axes, int32_t to[3])
{
    int64_t *list, count;
    if (!fa_py_integers(value, name, *axes ? *axes : 1, &list, &count))
        return false;
    bool good = *axes ? count == *axes : count >= 1 && count <= 3;
    if (!good && *axes)
        fa_py_fail(FA_INVALID, "%s has %lld entries, expected %d as neighbourhood.size", name,
                   (long long)count, (int)*axes);
    else if (!good)
        fa_py_fail(FA_INVALID, "%s has %lld entries, expected 1 to 3", name, (long long)count);
    for (int64_t n = 0; good && n < count; n++) {
        good = list[n] >= least && list[n] <= INT32_MAX;
        if (good)
            to[n] = (int32_t)list[n];
        else
            fa_py_fail(FA_INVALID, "%s[%lld] is %lld, expected at least %d, in 32 bits", name, (long long)n,
                       (long long)list[n], (int)least);
    }
    if (good)
        *axes = (int32_t)count;
    PyMem_Free(list);
    return good;
}

bool fa_py_neighbourhood_read(PyObject *value, fa_neighbourhood *to)
{
    memset(to, 0, sizeof *to);
    to->struct_size = sizeof *to;
    const struct {
        const char *name;
        int32_t least, *numbers;
    } fields[] = {
        {"neighbourhood.size", 1, to->size},     {"neighbourhood.kernel", 1, to->kernel},
        {"neighbourhood.stride", 1, to->stride}, {"neighbourhood.dilation", 1, to->dilation},
        {"neighbourhood.causal", 0, to->causal}, {"neighbourhood.tile", 1, to->tile},
    };
    for (size_t at = 0; at < sizeof fields / sizeof *fields; at++) {
        const char *name = fields[at].name;
        PyObject *numbers = fa_py_attribute(value, name, "a fastattn.Neighbourhood");
        const bool has_default = at > 1;
        const bool good =
            numbers && ((has_default && numbers == Py_None) ||
                        read_axes(numbers, name, fields[at].least, &to->axes, fields[at].numbers));
        Py_XDECREF(numbers);
        if (!good)
            return false;
    }
    return true;
}
