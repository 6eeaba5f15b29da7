/* SPDX-License-Identifier: Apache-2.0 */
/* Planners of sparse attention: a dict of values becomes a description, and a mask of blocks the arguments of a
 * BlockLists. fastattn/sparse.py is the one caller, and has checked arrays: they are contiguous, and have the type and
 * the sizes that the other fields say. */
#include <fastattn/sparse.h>
#include <stddef.h>
#include <string.h>

#include "binding.h"

typedef union planner_desc {
    size_t struct_size;
    fa_sparse_window_desc window;
    fa_sparse_streaming_desc streaming;
    fa_sparse_topk_desc topk;
    fa_sparse_permuted_desc permuted;
    fa_sparse_neighbourhood_desc neighbourhood;
    fa_sparse_distance_desc distance;
} planner_desc;

typedef enum field_kind { WHOLE, SMALL, NUMBER, MASK, MEMORY, RESULT, GRID } field_kind;

typedef struct field {
    const char *name;
    field_kind kind;
    size_t offset;
} field;

enum { ARRAYS = 3, FIELDS = 16 };

typedef struct planner {
    const char *name;
    size_t size;
    fa_status (*make)(fa_context *context, const planner_desc *desc, fa_block_mask **mask);
    field fields[FIELDS]; /* behind the last one: a name of NULL */
} planner;

/* What one call holds. */
typedef struct planner_call {
    planner_desc desc;
    fa_neighbourhood grid;
    Py_buffer array[ARRAYS];
    int arrays;
} planner_call;

#define MAKE(NAME)                                                                                    \
    static fa_status make_##NAME(fa_context *context, const planner_desc *desc, fa_block_mask **mask) \
    {                                                                                                 \
        return fa_sparse_##NAME(context, &desc->NAME, mask);                                          \
    }
MAKE(window)
MAKE(streaming)
MAKE(topk)
MAKE(permuted)
MAKE(neighbourhood)
MAKE(distance)

#define PLANNER(NAME) #NAME, sizeof(fa_sparse_##NAME##_desc), make_##NAME
#define AT(PLACE) offsetof(planner_desc, PLACE)
/* clang-format off */
#define SHAPE(PLANNER)                                                                  \
    {"rows", WHOLE, AT(PLANNER.shape.rows)}, {"keys", WHOLE, AT(PLANNER.shape.keys)},   \
    {"block_rows", SMALL, AT(PLANNER.shape.block_rows)},                                \
    {"block_keys", SMALL, AT(PLANNER.shape.block_keys)}, {"mask", MASK, AT(PLANNER.shape.mask)}
#define VECTORS(PLANNER)                                                                \
    {"heads_q", WHOLE, AT(PLANNER.heads_q)}, {"heads_kv", WHOLE, AT(PLANNER.heads_kv)}, \
    {"dim", WHOLE, AT(PLANNER.dim)}, {"q", MEMORY, AT(PLANNER.q)}, {"k", MEMORY, AT(PLANNER.k)}
/* clang-format on */

static const planner planners[] = {
    {PLANNER(window),
     {SHAPE(window),
      {"window_left", WHOLE, AT(window.window_left)},
      {"window_right", WHOLE, AT(window.window_right)},
      {"global_first", WHOLE, AT(window.global_first)},
      {"global_last", WHOLE, AT(window.global_last)},
      {"random", WHOLE, AT(window.random)},
      {"seed", WHOLE, AT(window.seed)},
      {"heads", WHOLE, AT(window.heads)}}},
    {PLANNER(streaming),
     {SHAPE(streaming),
      {"sequences", WHOLE, AT(streaming.sequences)},
      {"heads", WHOLE, AT(streaming.heads)},
      {"head_mask_type", MEMORY, AT(streaming.head_mask_type)},
      {"streaming_info", MEMORY, AT(streaming.streaming_info)},
      {"masks", WHOLE, AT(streaming.masks)},
      {"base_blockmask", MEMORY, AT(streaming.base_blockmask)}}},
    {PLANNER(topk),
     {SHAPE(topk),
      VECTORS(topk),
      {"topk", WHOLE, AT(topk.topk)},
      {"per_kv_head", SMALL, AT(topk.per_kv_head)}}},
    {PLANNER(permuted),
     {SHAPE(permuted),
      VECTORS(permuted),
      {"scale", NUMBER, AT(permuted.scale)},
      {"segment", WHOLE, AT(permuted.segment)},
      {"threshold", NUMBER, AT(permuted.threshold)},
      {"without_own", SMALL, AT(permuted.without_own)},
      {"order", RESULT, AT(permuted.order)}}},
    {PLANNER(neighbourhood),
     {{"neighbourhood", GRID, AT(neighbourhood.neighbourhood)},
      {"block_rows", SMALL, AT(neighbourhood.block_rows)},
      {"block_keys", SMALL, AT(neighbourhood.block_keys)},
      {"extra_keys", WHOLE, AT(neighbourhood.extra_keys)}}},
    {PLANNER(distance),
     {SHAPE(distance),
      {"probability", MEMORY, AT(distance.probability)},
      {"distances", WHOLE, AT(distance.distances)},
      {"seed", WHOLE, AT(distance.seed)},
      {"heads", WHOLE, AT(distance.heads)}}},
};

/* ---- fields ---- */

static bool read_number(PyObject *value, const char *name, double *to)
{
    *to = PyFloat_AsDouble(value);
    if (!PyErr_Occurred())
        return true;
    PyErr_Clear();
    return fa_py_wrong_type(value, name, "a number");
}

/* Where an array begins. It stays open until the call is over. */
static bool read_memory(planner_call *call, PyObject *value, int flags, void *to)
{
    Py_buffer *array = &call->array[call->arrays];
    if (PyObject_GetBuffer(value, array, flags) < 0)
        return false;
    call->arrays++;
    memcpy(to, &array->buf, sizeof array->buf);
    return true;
}

static bool read_field(planner_call *call, const field *f, PyObject *value)
{
    void *const to = (char *)&call->desc + f->offset;
    switch (f->kind) {
    case WHOLE: return fa_py_whole_number(value, f->name, to);
    case SMALL: return fa_py_small_number(value, f->name, to);
    case NUMBER: return read_number(value, f->name, to);
    case MASK: return fa_py_mask_named(value, to);
    case MEMORY: return read_memory(call, value, PyBUF_SIMPLE, to);
    case RESULT: return read_memory(call, value, PyBUF_WRITABLE, to);
    case GRID:
        call->desc.neighbourhood.neighbourhood = &call->grid;
        return fa_py_neighbourhood_read(value, &call->grid);
    }
    return false;
}

/* Fields that are not there, or None, have the library's default. */
static bool read_fields(planner_call *call, const planner *p, PyObject *values)
{
    memset(&call->desc, 0, sizeof call->desc);
    call->desc.struct_size = p->size;
    call->arrays = 0;
    for (const field *f = p->fields; f->name; f++) {
        PyObject *value = PyDict_GetItemString(values, f->name);
        if (fa_py_given(value) && !read_field(call, f, value))
            return false;
    }
    return true;
}

/* ---- results ---- */

/* A new array of NumPy of so many numbers, and where they go. */
static PyObject *new_numbers(int64_t count, int32_t **to)
{
    const fa_py_tensor like = {.kind = FA_PY_NUMPY, .device_type = FA_DL_CPU};
    fa_py_tensor tensor;
    if (!fa_py_empty(&like, "the lists", FA_I32, 1, &count, &tensor))
        return NULL;
    *to = tensor.data;
    PyObject *array = fa_py_finish(&tensor);
    fa_py_close(&tensor);
    return array;
}

static PyObject *copy_numbers(const int32_t *from, int64_t count)
{
    int32_t *to;
    PyObject *array = new_numbers(count, &to);
    if (array && count)
        memcpy(to, from, (size_t)count * sizeof *to);
    return array;
}

/* The arguments of a BlockLists. */
static PyObject *lists_of(const fa_block_mask *mask)
{
    fa_block_lists l = {.struct_size = sizeof l};
    const fa_status status = fa_block_mask_lists(mask, &l);
    if (status != FA_OK) {
        fa_py_raise_plain(status);
        return NULL;
    }
    const int64_t count = l.sequences * l.heads * l.row_blocks;
    PyObject *indptr = copy_numbers(l.indptr, count + 1);
    PyObject *indices = indptr ? copy_numbers(l.indices, l.indptr[count]) : NULL;
    PyObject *all =
        indices ? Py_BuildValue("{s:i,s:i,s:O,s:O,s:L,s:L,s:L,s:L}", "block_rows", (int)l.block_rows,
                                "block_keys", (int)l.block_keys, "indptr", indptr, "indices", indices,
                                "sequences", (long long)l.sequences, "heads", (long long)l.heads,
                                "row_blocks", (long long)l.row_blocks, "key_blocks", (long long)l.key_blocks)
                : NULL;
    Py_XDECREF(indices);
    Py_XDECREF(indptr);
    return all;
}

static PyObject *plan(const planner *p, PyObject *values)
{
    planner_call call;
    fa_context *context = fa_py_context();
    fa_block_mask *mask = NULL;
    PyObject *lists = NULL;
    if (!context)
        return NULL;
    if (read_fields(&call, p, values)) {
        fa_status status;
        Py_BEGIN_ALLOW_THREADS status = p->make(context, &call.desc, &mask);
        Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise_plain(status);
        else lists = lists_of(mask);
    }
    fa_block_mask_destroy(mask);
    while (call.arrays > 0)
        PyBuffer_Release(&call.array[--call.arrays]);
    return lists;
}

PyObject *fa_py_sparse(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    PyObject *values;
    if (!PyArg_ParseTuple(args, "sO!:sparse", &name, &PyDict_Type, &values))
        return NULL;
    for (size_t at = 0; at < sizeof planners / sizeof *planners; at++) {
        if (strcmp(planners[at].name, name) == 0)
            return plan(&planners[at], values);
    }
    fa_py_fail(FA_INVALID, "planner is '%s', which there is not", name);
    return NULL;
}

PyObject *fa_py_neighbourhood_order(PyObject *module, PyObject *value)
{
    (void)module;
    fa_neighbourhood grid;
    if (!fa_py_neighbourhood_read(value, &grid))
        return NULL;
    int64_t tokens = 1;
    for (int32_t n = 0; n < grid.axes && tokens <= FA_MAX_LENGTH; n++)
        tokens *= grid.size[n];
    int32_t *numbers;
    PyObject *order =
        new_numbers(tokens <= FA_MAX_LENGTH ? tokens : 0, &numbers); /* of more, none is written */
    if (!order)
        return NULL;
    const fa_status status = fa_sparse_neighbourhood_order(&grid, numbers);
    if (status == FA_OK)
        return order;
    fa_py_raise_plain(status);
    Py_DECREF(order);
    return NULL;
}
