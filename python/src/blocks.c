/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks: a fastattn.BlockLists, or what has its attributes, as fa_block_lists. All is copied. */
#include <string.h>

#include "binding.h"

static const char *const size_names[4] = {"lists.sequences", "lists.heads", "lists.row_blocks",
                                          "lists.key_blocks"};

/* The value of an attribute whose name in messages is `name`. A new reference. */
static PyObject *attribute(PyObject *lists, const char *name)
{
    return fa_py_attribute(lists, name, "a fastattn.BlockLists");
}

/* A whole number, left as it is where the attribute is None; `given` says whether it is not. */
static bool read_size(PyObject *lists, const char *name, int64_t *to, bool *given)
{
    PyObject *value = attribute(lists, name);
    *given = fa_py_given(value);
    const bool good = value && (!*given || fa_py_whole_number(value, name, to));
    Py_XDECREF(value);
    return good;
}

static bool read_block(PyObject *lists, const char *name, int32_t *to)
{
    bool given;
    int64_t wide = 0;
    if (!read_size(lists, name, &wide, &given))
        return false;
    if (wide < 1 || wide > INT32_MAX)
        return fa_py_fail(FA_INVALID, "%s is %lld, expected at least 1, in 32 bits", name, (long long)wide);
    *to = (int32_t)wide;
    return true;
}

static bool no_memory(void)
{
    PyErr_NoMemory();
    return false;
}

/* Keeps what is freed with the problem. */
static void *keep(fa_py_problem *problem, void *memory)
{
    if (memory)
        problem->lists[problem->list_count++] = memory;
    return memory;
}

/* ---- a mask ---- */

static bool copy_mask(const fa_py_tensor *tensor, fa_py_problem *problem, int64_t sizes[4],
                      const uint8_t **to)
{
    fa_tensor mask;
    if (tensor->type != FA_BOOL && tensor->type != FA_U8)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, expected bool or uint8", tensor->name,
                          fa_py_type_name(tensor->type));
    if (tensor->ndim < 2)
        return fa_py_fail(FA_INVALID,
                          "%s has %d axes, expected 2 to 4: row blocks and key blocks are the last",
                          tensor->name, tensor->ndim);
    if (!fa_py_plain_tensor(tensor, &mask))
        return false;
    size_t count = 1;
    bool fits = true;
    for (int axis = 0; axis < 4; axis++) {
        sizes[axis] = mask.shape[axis];
        fits = fits && !__builtin_mul_overflow(count, (size_t)sizes[axis], &count);
    }
    uint8_t *copy = fits ? keep(problem, PyMem_Calloc(count ? count : 1, 1)) : NULL;
    if (!copy)
        return no_memory();
    *to = copy;
    if (count == 0)
        return true;
    const uint8_t *from = tensor->data;
    for (int64_t n = 0; n < sizes[0]; n++) {
        for (int64_t head = 0; head < sizes[1]; head++) {
            for (int64_t row = 0; row < sizes[2]; row++) {
                const uint8_t *list =
                    from + n * mask.stride[0] + head * mask.stride[1] + row * mask.stride[2];
                for (int64_t block = 0; block < sizes[3]; block++)
                    *copy++ = list[block * mask.stride[3]] != 0;
            }
        }
    }
    return true;
}

static bool read_mask(PyObject *lists, PyObject *mask, fa_py_problem *problem, fa_block_lists *to)
{
    int64_t sizes[4];
    fa_py_tensor tensor;
    if (!fa_py_open_host(mask, "lists.mask", &tensor))
        return false;
    const bool copied = copy_mask(&tensor, problem, sizes, &to->mask);
    fa_py_close(&tensor);
    if (!copied)
        return false;
    for (int at = 0; at < 4; at++) {
        int64_t said = sizes[at];
        bool given;
        if (!read_size(lists, size_names[at], &said, &given))
            return false;
        if (said != sizes[at])
            return fa_py_fail(FA_INVALID, "%s is %lld, expected %lld as in lists.mask, or None",
                              size_names[at], (long long)said, (long long)sizes[at]);
    }
    to->sequences = sizes[0];
    to->heads = sizes[1];
    to->row_blocks = sizes[2];
    to->key_blocks = sizes[3];
    return true;
}

/* ---- compressed rows ---- */

static bool read_numbers(PyObject *value, const char *name, fa_py_problem *problem, const int32_t **to,
                         int64_t *count)
{
    int64_t *wide;
    if (!fa_py_integers(value, name, 0, &wide, count))
        return false;
    int32_t *list = keep(problem, PyMem_Calloc((size_t)*count + 1, sizeof *list));
    bool good = list || no_memory();
    for (int64_t at = 0; good && at < *count; at++) {
        good = wide[at] >= INT32_MIN && wide[at] <= INT32_MAX;
        if (good)
            list[at] = (int32_t)wide[at];
        else
            fa_py_fail(FA_INVALID, "%s[%lld] is %lld, which does not fit into 32 bits", name, (long long)at,
                       (long long)wide[at]);
    }
    PyMem_Free(wide);
    *to = list;
    return good;
}

/* How many blocks the keys of the longest sequence that there may be have. */
static int64_t most_blocks(const fa_attention_desc *desc, int32_t block_keys)
{
    int64_t keys = desc->k.shape[2];
    if (desc->page_table.shape[3] && __builtin_mul_overflow(keys, desc->page_table.shape[3], &keys))
        keys = INT64_MAX;
    return keys / block_keys + (keys % block_keys != 0);
}

static bool read_sizes(PyObject *lists, int64_t offsets, fa_block_lists *to)
{
    int64_t *const sizes[4] = {&to->sequences, &to->heads, &to->row_blocks, &to->key_blocks};
    bool given[4];
    for (int at = 0; at < 4; at++) {
        if (!read_size(lists, size_names[at], sizes[at], &given[at]))
            return false;
        if (*sizes[at] < (at < 2))
            return fa_py_fail(FA_INVALID, "%s is %lld, expected at least %d", size_names[at],
                              (long long)*sizes[at], at < 2);
    }
    int64_t each, count = -1;
    bool fits = !__builtin_mul_overflow(to->sequences, to->heads, &each);
    if (fits && !given[2])
        to->row_blocks = offsets > 0 ? (offsets - 1) / each : 0;
    fits = fits && !__builtin_mul_overflow(each, to->row_blocks, &count);
    if (!fits || count != offsets - 1)
        return fa_py_fail(FA_INVALID,
                          "lists.indptr has %lld entries, expected one more than there are lists: %lld "
                          "sequences, %lld heads, %lld row blocks",
                          (long long)offsets, (long long)to->sequences, (long long)to->heads,
                          (long long)to->row_blocks);
    return true;
}

static bool read_rows(PyObject *lists, PyObject *indptr, PyObject *indices, fa_py_problem *problem,
                      fa_block_lists *to)
{
    int64_t offsets = 0, count = 0;
    if (!read_numbers(indptr, "lists.indptr", problem, &to->indptr, &offsets) ||
        !read_sizes(lists, offsets, to))
        return false;
    if (!fa_py_given(indices))
        return fa_py_fail(FA_INVALID, "lists.indices is None, expected whole numbers beside lists.indptr");
    if (!read_numbers(indices, "lists.indices", problem, &to->indices, &count))
        return false;
    problem->index_count = 0;
    for (int64_t at = 0; at < offsets; at++) {
        if (to->indptr[at] > count)
            return fa_py_fail(FA_INVALID, "lists.indptr[%lld] is %d, but lists.indices has %lld entries",
                              (long long)at, (int)to->indptr[at], (long long)count);
        if (to->indptr[at] > problem->index_count)
            problem->index_count = to->indptr[at];
    }
    return true;
}

/* ---- the whole ---- */

bool fa_py_block_lists_read(PyObject *lists, const fa_attention_desc *desc, fa_py_problem *problem)
{
    fa_block_lists *to = &problem->block_lists;
    memset(to, 0, sizeof *to);
    to->struct_size = sizeof *to;
    if (!read_block(lists, "lists.block_rows", &to->block_rows) ||
        !read_block(lists, "lists.block_keys", &to->block_keys))
        return false;
    to->sequences = to->heads = 1;
    to->key_blocks = most_blocks(desc, to->block_keys);
    PyObject *mask = attribute(lists, "lists.mask");
    PyObject *indptr = mask ? attribute(lists, "lists.indptr") : NULL;
    PyObject *indices = indptr ? attribute(lists, "lists.indices") : NULL;
    bool good = indices;
    if (good && fa_py_given(mask) == fa_py_given(indptr))
        good = fa_py_fail(FA_INVALID, "lists has %s mask and indptr, expected one of them",
                          fa_py_given(mask) ? "both" : "neither");
    else if (good && fa_py_given(mask) && fa_py_given(indices))
        good = fa_py_fail(FA_INVALID, "lists.indices is given, expected None beside lists.mask");
    if (good)
        good = fa_py_given(mask) ? read_mask(lists, mask, problem, to)
                                 : read_rows(lists, indptr, indices, problem, to);
    Py_XDECREF(mask);
    Py_XDECREF(indptr);
    Py_XDECREF(indices);
    return good;
}
