/* SPDX-License-Identifier: Apache-2.0 */
/* From the arguments of a call to a description of attention, and the arrays that it reads and writes. */
#include <string.h>

#include "binding.h"

/* ---- tensors ---- */

static bool open_operand(fa_py_problem *problem, PyObject *value, int argument, fa_py_operand operand,
                         bool write)
{
    if (!fa_py_open(value, fa_py_argument_names[argument], write, &problem->operand[operand]))
        return false;
    problem->present |= 1u << operand;
    const fa_py_tensor *q = &problem->operand[OP_Q], *tensor = &problem->operand[operand];
    const bool together = fa_py_on_host(q)
                              ? fa_py_on_host(tensor)
                              : q->device_type == tensor->device_type && q->device_id == tensor->device_id;
    if (!together)
        return fa_py_fail(FA_INVALID, "%s is on DLPack's device (%d, %d), but q is on (%d, %d)", tensor->name,
                          (int)tensor->device_type, (int)tensor->device_id, (int)q->device_type,
                          (int)q->device_id);
    return true;
}

static void set_axis(fa_tensor *to, int axis, const fa_py_tensor *tensor, int from)
{
    to->shape[axis] = from >= 0 ? tensor->shape[from] : 1;
    to->stride[axis] = to->shape[axis] > 1 ? tensor->stride[from] : 1;
}

static bool float_type(int type)
{
    return type == FA_F32 || type == FA_F16 || type == FA_BF16;
}

bool fa_py_apply_format(const char *name, const char *argument, const fa_py_tensor *tensor, int64_t dims,
                        fa_tensor *to)
{
    const int type = fa_py_type_of(name);
    if (type < 0 || type >= FA_PY_I64)
        return fa_py_fail(FA_INVALID, "%s is '%s', which is no format", argument, name);
    if (tensor->type == type)
        return true;
    if (tensor->type != FA_U8 && tensor->type != FA_I8)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, expected uint8 with %s '%s'", tensor->name,
                          fa_py_type_name(tensor->type), argument, name);
    to->dtype = (fa_dtype)type;
    if (type == FA_BITMAP_F16) { /* strides count bytes */
        to->stride[3] = to->shape[3];
        to->shape[3] = dims;
        return true;
    }
    const int64_t bytes = (int64_t)fa_dtype_size((fa_dtype)type), block = fa_dtype_block((fa_dtype)type);
    for (int axis = 0; axis < 4; axis++) {
        int64_t *number = axis < 3 ? &to->stride[axis] : &to->shape[axis];
        if (axis < 3 && to->shape[axis] <= 1)
            continue;
        if (*number % bytes != 0)
            return fa_py_fail(FA_INVALID, "%s has %s of %lld bytes, expected a multiple of %lld for '%s'",
                              tensor->name, axis < 3 ? "a stride" : "a last axis", (long long)*number,
                              (long long)bytes, name);
        if (__builtin_mul_overflow(*number / bytes, block, number))
            return fa_py_fail(FA_OUT_OF_MEMORY, "%s: sizes that no memory holds", tensor->name);
    }
    to->stride[3] = 1;
    return true;
}

/* The same where the format is a value of an argument; None means the array's own type. */
static bool apply_format(PyObject *const values[], int argument, const fa_py_tensor *tensor, int64_t dims,
                         fa_tensor *to)
{
    if (!fa_py_given(values[argument]))
        return true;
    const char *name = fa_py_read_text(values[argument], argument);
    return name && fa_py_apply_format(name, fa_py_argument_names[argument], tensor, dims, to);
}

bool fa_py_plain_tensor(const fa_py_tensor *tensor, fa_tensor *to)
{
    if (tensor->ndim > 4)
        return fa_py_fail(FA_INVALID, "%s has %d axes, expected at most 4", tensor->name, tensor->ndim);
    if (tensor->type >= FA_PY_I64)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, which is no type of fastattn", tensor->name,
                          fa_py_type_name(tensor->type));
    to->dtype = (fa_dtype)tensor->type;
    for (int axis = 0; axis < 4; axis++)
        set_axis(to, axis, tensor, axis + tensor->ndim - 4);
    return true;
}

/* q, k, v or out. */
static bool set_tensor(const fa_py_problem *problem, const fa_py_tensor *tensor, fa_tensor *to)
{
    if (tensor->ndim < 2 || tensor->ndim > 4)
        return fa_py_fail(FA_INVALID, "%s has %d axes, expected 2 to 4", tensor->name, tensor->ndim);
    if (tensor->type >= FA_PY_I64)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, expected float32, float16 or bfloat16", tensor->name,
                          fa_py_type_name(tensor->type));
    const int last = tensor->ndim - 1;
    if (tensor->shape[last] > 1 && tensor->stride[last] != 1)
        return fa_py_fail(FA_INVALID,
                          "%s.strides of the last axis is %lld, expected 1: pass a contiguous array",
                          tensor->name, (long long)tensor->stride[last]);
    const bool rows_first = problem->rows_first && tensor->ndim > 2;
    to->dtype = (fa_dtype)tensor->type;
    set_axis(to, 0, tensor, tensor->ndim - 4);
    set_axis(to, 1, tensor, rows_first ? tensor->ndim - 2 : tensor->ndim - 3);
    set_axis(to, 2, tensor, rows_first ? tensor->ndim - 3 : tensor->ndim - 2);
    set_axis(to, 3, tensor, last);
    return true;
}

/* A mask or scales: axes are aligned at the last, and one that is repeated has size 1. */
static bool set_aligned(const fa_py_problem *problem, const fa_py_tensor *tensor, bool rows_first,
                        fa_tensor *to)
{
    (void)problem;
    if (tensor->ndim > 4)
        return fa_py_fail(FA_INVALID, "%s has %d axes, expected at most 4", tensor->name, tensor->ndim);
    static const int plain[4] = {0, 1, 2, 3}, swapped[4] = {0, 2, 1, 3};
    const int *order = rows_first ? swapped : plain;
    to->dtype = (fa_dtype)tensor->type;
    for (int axis = 0; axis < 4; axis++) {
        const int from = order[axis] + tensor->ndim - 4;
        set_axis(to, axis, tensor, from);
        if (to->shape[axis] > 1 && to->stride[axis] == 0) {
            to->shape[axis] = 1;
            to->stride[axis] = 1;
        }
    }
    return true;
}

static bool read_keys(PyObject *const values[], fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    if (!open_operand(problem, values[ARG_K], ARG_K, OP_K, false) ||
        !set_tensor(problem, &problem->operand[OP_K], &desc->k))
        return false;
    if (!apply_format(values, ARG_K_FORMAT, &problem->operand[OP_K], desc->q.shape[3], &desc->k))
        return false;
    int64_t dims = 0;
    if (!fa_py_read_int64(values, ARG_V_IN_K, &dims))
        return false;
    if (fa_py_given(values[ARG_V_IN_K])) {
        if (fa_py_given(values[ARG_V]))
            return fa_py_fail(FA_INVALID, "v is given, expected None where v_in_k says that it lies in k");
        if (dims < 1)
            return fa_py_fail(FA_INVALID, "v_in_k is %lld, expected the number of v's dims", (long long)dims);
        desc->v_in_k = 1;
        desc->v = desc->k;
        desc->v.shape[3] = dims;
        memset(desc->v.stride, 0, sizeof desc->v.stride);
        return true;
    }
    if (!fa_py_given(values[ARG_V])) {
        PyErr_SetString(PyExc_TypeError, "v is not given, expected an array, or v_in_k");
        return false;
    }
    if (!open_operand(problem, values[ARG_V], ARG_V, OP_V, false) ||
        !set_tensor(problem, &problem->operand[OP_V], &desc->v))
        return false;
    return apply_format(values, ARG_V_FORMAT, &problem->operand[OP_V], desc->q.shape[3], &desc->v);
}

static bool read_attn_mask(PyObject *const values[], fa_py_problem *problem)
{
    PyObject *value = values[ARG_ATTN_MASK];
    if (!fa_py_given(value))
        return true;
    if (!open_operand(problem, value, ARG_ATTN_MASK, OP_BIAS, false))
        return false;
    fa_py_tensor *tensor = &problem->operand[OP_BIAS];
    if (float_type(tensor->type))
        return set_aligned(problem, tensor, false, &problem->desc.bias);
    if (tensor->type != FA_BOOL && tensor->type != FA_I32)
        return fa_py_fail(
            FA_INVALID, "attn_mask.dtype is %s, expected bool, float32, float16, bfloat16, or int32 of bits",
            fa_py_type_name(tensor->type));
    problem->operand[OP_KEEP] = *tensor;
    problem->present ^= 1u << OP_BIAS | 1u << OP_KEEP;
    return set_aligned(problem, &problem->operand[OP_KEEP], false, &problem->desc.keep) &&
           fa_py_read_int64(values, ARG_KEEP_LAST, &problem->desc.keep_last);
}

static bool read_page_table(PyObject *const values[], fa_py_problem *problem)
{
    PyObject *value = values[ARG_PAGE_TABLE];
    if (!fa_py_given(value))
        return true;
    if (!open_operand(problem, value, ARG_PAGE_TABLE, OP_PAGE_TABLE, false))
        return false;
    const fa_py_tensor *tensor = &problem->operand[OP_PAGE_TABLE];
    if (tensor->type != FA_I32 || tensor->ndim < 1 || tensor->ndim > 2)
        return fa_py_fail(FA_INVALID, "page_table has %d axes of %s, expected (sequences, pages) of int32",
                          tensor->ndim, fa_py_type_name(tensor->type));
    fa_tensor *to = &problem->desc.page_table;
    to->dtype = FA_I32;
    set_axis(to, 0, tensor, tensor->ndim - 2);
    to->shape[1] = to->shape[2] = to->stride[1] = to->stride[2] = 1;
    set_axis(to, 3, tensor, tensor->ndim - 1);
    return true;
}

/* A scale or zero: an array, or one number. */
static bool read_scale(PyObject *const values[], fa_py_problem *problem, int argument, fa_py_operand operand,
                       fa_tensor *to)
{
    PyObject *value = values[argument];
    if (!fa_py_given(value))
        return true;
    if (!PyFloat_Check(value) && !PyLong_Check(value)) {
        if (!open_operand(problem, value, argument, operand, false))
            return false;
        const fa_py_tensor *tensor = &problem->operand[operand];
        if (tensor->type >= FA_PY_I64)
            return fa_py_fail(FA_INVALID,
                              "%s.dtype is %s, expected float32, float16, bfloat16, float8_e4m3fn or e8m0",
                              tensor->name, fa_py_type_name(tensor->type));
        return set_aligned(problem, tensor, problem->rows_first, to);
    }
    const fa_py_tensor *q = &problem->operand[OP_Q];
    if (!fa_py_on_host(q))
        return fa_py_fail(FA_INVALID, "%s is a number, expected a tensor on the device of q",
                          fa_py_argument_names[argument]);
    float *number = &problem->number[operand - OP_K_SCALE];
    if (!fa_py_read_float(values, argument, number))
        return false;
    problem->operand[operand] = (fa_py_tensor){
        .name = fa_py_argument_names[argument], .data = number, .type = FA_F32, .device_type = FA_DL_CPU};
    problem->present |= 1u << operand;
    *to = fa_tensor_make(FA_F32, 1, 1, 1, 1);
    return true;
}

static bool read_scales(PyObject *const values[], fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    return read_scale(values, problem, ARG_K_SCALE, OP_K_SCALE, &desc->k_scale) &&
           read_scale(values, problem, ARG_V_SCALE, OP_V_SCALE, &desc->v_scale) &&
           read_scale(values, problem, ARG_K_ZERO, OP_K_ZERO, &desc->k_zero) &&
           read_scale(values, problem, ARG_V_ZERO, OP_V_ZERO, &desc->v_zero) &&
           fa_py_read_float(values, ARG_K_FACTOR, &desc->k_factor) &&
           fa_py_read_float(values, ARG_V_FACTOR, &desc->v_factor);
}

/* ---- lists ---- */

/* A list of whole numbers, or one number that stands for `each`. */
static bool read_list(PyObject *const values[], fa_py_problem *problem, int argument, int64_t each,
                      const int64_t **to, int64_t *count)
{
    if (!fa_py_given(values[argument]))
        return true;
    int64_t *list, length;
    if (!fa_py_integers(values[argument], fa_py_argument_names[argument], each, &list, &length))
        return false;
    problem->lists[problem->list_count++] = list;
    *to = list;
    *count = length;
    return true;
}

/* One entry for each of `entries`. */
static bool read_entries(PyObject *const values[], fa_py_problem *problem, int argument, int64_t entries,
                         const int64_t **to)
{
    int64_t count = entries;
    if (!read_list(values, problem, argument, entries, to, &count))
        return false;
    if (count != entries)
        return fa_py_fail(FA_INVALID, "%s has %lld entries, expected %lld", fa_py_argument_names[argument],
                          (long long)count, (long long)entries);
    return true;
}

static bool read_lengths(PyObject *const values[], fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    int64_t rows = 0, keys = 0;
    if (!read_list(values, problem, ARG_CU_SEQLENS_Q, 0, &desc->cu_rows_q, &rows) ||
        !read_list(values, problem, ARG_CU_SEQLENS_K, 0, &desc->cu_rows_kv, &keys))
        return false;
    if ((desc->cu_rows_q && rows < 2) || (desc->cu_rows_kv && keys < 2))
        return fa_py_fail(FA_INVALID, "%s has %lld entries, expected at least 2",
                          desc->cu_rows_q && rows < 2 ? "cu_seqlens_q" : "cu_seqlens_k",
                          (long long)(desc->cu_rows_q && rows < 2 ? rows : keys));
    if (desc->cu_rows_q && desc->cu_rows_kv && rows != keys)
        return fa_py_fail(FA_INVALID, "cu_seqlens_k has %lld entries, expected %lld as cu_seqlens_q",
                          (long long)keys, (long long)rows);
    desc->sequences = desc->cu_rows_q ? rows - 1 : desc->cu_rows_kv ? keys - 1 : 0;
    problem->entries = desc->sequences ? desc->sequences : desc->q.shape[0];
    if (problem->entries < 1 && (fa_py_given(values[ARG_LENS_Q]) || fa_py_given(values[ARG_LENS_KV]) ||
                                 fa_py_given(values[ARG_FIRST_KV])))
        return fa_py_fail(FA_INVALID, "q.shape has a batch of 0, which has no lengths");
    return read_entries(values, problem, ARG_LENS_Q, problem->entries, &desc->lens_q) &&
           read_entries(values, problem, ARG_LENS_KV, problem->entries, &desc->lens_kv) &&
           read_entries(values, problem, ARG_FIRST_KV, problem->entries, &desc->first_kv);
}

/* Lists of key blocks, of a description or of a run; `desc` says how many keys there may be. */
static bool read_block_lists(PyObject *value, const fa_attention_desc *desc, fa_py_problem *problem,
                             const fa_block_lists **to)
{
    if (!fa_py_given(value))
        return true;
    *to = &problem->block_lists;
    return fa_py_block_lists_read(value, desc, problem);
}

static bool read_neighbourhood(PyObject *value, fa_py_problem *problem)
{
    if (!fa_py_given(value))
        return true;
    problem->desc.neighbourhood = &problem->neighbourhood;
    return fa_py_neighbourhood_read(value, &problem->neighbourhood);
}

/* One length for all of `entries`, or a list; the first list says how many sequences there are. */
static bool read_run_list(PyObject *const values[], fa_py_problem *lists, int argument, int64_t entries,
                          int64_t *sequences, const int64_t **to)
{
    if (!fa_py_given(values[argument]))
        return true;
    if (*sequences)
        return read_entries(values, lists, argument, *sequences, to);
    int64_t count = 0;
    if (!read_list(values, lists, argument, entries, to, &count))
        return false;
    if (count < 1)
        return fa_py_fail(FA_INVALID, "%s has 0 entries, expected one for each sequence",
                          fa_py_argument_names[argument]);
    *sequences = count;
    return true;
}

bool fa_py_lengths_read(PyObject *const values[ARGUMENTS], const fa_py_problem *problem, fa_py_problem *lists,
                        fa_lengths *lengths)
{
    const int64_t entries = problem->entries;
    int64_t rows = 0, keys = 0;
    lists->present = 0;
    lists->list_count = 0;
    *lengths = (fa_lengths){.struct_size = sizeof *lengths};
    if (!read_list(values, lists, ARG_CU_SEQLENS_Q, 0, &lengths->cu_rows_q, &rows) ||
        !read_list(values, lists, ARG_CU_SEQLENS_K, 0, &lengths->cu_rows_kv, &keys))
        return false;
    if ((lengths->cu_rows_q && rows < 2) || (lengths->cu_rows_kv && keys < 2) ||
        (lengths->cu_rows_q && lengths->cu_rows_kv && rows != keys))
        return fa_py_fail(FA_INVALID,
                          "cu_seqlens_q and cu_seqlens_k have %lld and %lld entries, expected as many, at "
                          "least 2",
                          (long long)rows, (long long)keys);
    int64_t *sequences = &lengths->sequences;
    *sequences = lengths->cu_rows_q ? rows - 1 : lengths->cu_rows_kv ? keys - 1 : 0;
    return read_run_list(values, lists, ARG_LENS_Q, entries, sequences, &lengths->lens_q) &&
           read_run_list(values, lists, ARG_LENS_KV, entries, sequences, &lengths->lens_kv) &&
           read_run_list(values, lists, ARG_FIRST_KV, entries, sequences, &lengths->first_kv) &&
           read_block_lists(values[ARG_LISTS], &problem->desc, lists, &lengths->lists);
}

/* Floats of each head; rows of them for each sequence where `rows` is given. */
static bool read_of_heads(PyObject *const values[], fa_py_problem *problem, int argument, const float **to,
                          int64_t *row_stride)
{
    if (!fa_py_given(values[argument]))
        return true;
    float *list;
    int64_t rows, columns;
    if (!fa_py_floats(values[argument], fa_py_argument_names[argument], &list, &rows, &columns))
        return false;
    problem->lists[problem->list_count++] = list;
    *to = list;
    const int64_t heads = problem->desc.q.shape[1];
    if (columns != heads)
        return fa_py_fail(FA_INVALID, "%s has %lld entries, expected %lld, one for each head of q",
                          fa_py_argument_names[argument], (long long)columns, (long long)heads);
    if (rows == 1)
        return true;
    if (!row_stride || rows != problem->entries)
        return fa_py_fail(FA_INVALID, "%s has %lld rows, expected %s%lld", fa_py_argument_names[argument],
                          (long long)rows, row_stride ? "1 or " : "",
                          (long long)(row_stride ? problem->entries : 1));
    *row_stride = heads;
    return true;
}

static bool read_terms(PyObject *const values[], fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    if (fa_py_given(values[ARG_SCALE])) {
        desc->scale_is_set = 1;
        if (!fa_py_read_float(values, ARG_SCALE, &desc->scale))
            return false;
    }
    return fa_py_read_float(values, ARG_SOFTCAP, &desc->softcap) &&
           read_of_heads(values, problem, ARG_ALIBI_SLOPES, &desc->alibi_slopes, &desc->alibi_stride) &&
           read_of_heads(values, problem, ARG_SINKS, &desc->sinks, NULL) &&
           read_of_heads(values, problem, ARG_BIAS_FACTORS, &desc->bias_factors, NULL);
}

/* ---- the whole ---- */

static bool read_tuning(PyObject *const values[], fa_py_problem *problem)
{
    fa_tuning *tuning = &problem->tuning;
    *tuning = (fa_tuning){.struct_size = sizeof *tuning};
    if (!fa_py_read_int32(values, ARG_BLOCK_Q, &tuning->block_q) ||
        !fa_py_read_int32(values, ARG_BLOCK_KV, &tuning->block_kv) ||
        !fa_py_read_int32(values, ARG_SPLITS, &tuning->splits))
        return false;
    memset(problem->kernel, 0, sizeof problem->kernel);
    if (fa_py_given(values[ARG_KERNEL])) {
        const char *name = fa_py_read_text(values[ARG_KERNEL], ARG_KERNEL);
        if (!name)
            return false;
        if (strlen(name) >= sizeof problem->kernel)
            return fa_py_fail(FA_UNSUPPORTED, "kernel is '%s', which no device has", name);
        memcpy(problem->kernel, name, strlen(name));
        tuning->kernel = problem->kernel;
    }
    if (tuning->kernel || tuning->block_q || tuning->block_kv || tuning->splits)
        problem->desc.tuning = tuning;
    return true;
}

static bool read_layout(PyObject *value, fa_py_problem *problem)
{
    if (!fa_py_given(value))
        return true;
    const char *name = fa_py_read_text(value, ARG_LAYOUT);
    if (!name)
        return false;
    problem->rows_first = strcmp(name, "BSHD") == 0;
    if (!problem->rows_first && strcmp(name, "BHSD") != 0)
        return fa_py_fail(FA_INVALID, "layout is '%s', expected 'BHSD' or 'BSHD'", name);
    return true;
}

static bool check_heads(PyObject *const values[], const fa_attention_desc *desc)
{
    bool grouped = true;
    if (!fa_py_read_bool(values, ARG_ENABLE_GQA, &grouped))
        return false;
    if (!grouped && desc->q.shape[1] != desc->k.shape[1])
        return fa_py_fail(FA_INVALID, "q has %lld heads and k has %lld, expected as many, or enable_gqa=True",
                          (long long)desc->q.shape[1], (long long)desc->k.shape[1]);
    return true;
}

/* The result: as given, or contiguous in the layout of q. */
static bool read_out(PyObject *value, fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    const fa_py_tensor *q = &problem->operand[OP_Q];
    if (fa_py_given(value)) {
        if (!open_operand(problem, value, ARG_OUT, OP_O, true))
            return false;
        fa_py_tensor *out = &problem->operand[OP_O];
        if (out->ndim != q->ndim)
            return fa_py_fail(FA_INVALID, "out has %d axes, expected %d as q", out->ndim, q->ndim);
        Py_INCREF(value);
        out->object = value;
        if (!float_type(out->type))
            return fa_py_fail(FA_INVALID, "out.dtype is %s, expected float32, float16 or bfloat16",
                              fa_py_type_name(out->type));
        return set_tensor(problem, out, &desc->o);
    }
    desc->o =
        fa_tensor_make(desc->q.dtype, desc->q.shape[0], desc->q.shape[1], desc->q.shape[2], desc->v.shape[3]);
    int64_t *stride = desc->o.stride;
    const int64_t *shape = desc->o.shape;
    const bool rows_first = problem->rows_first && q->ndim > 2;
    stride[3] = 1;
    bool fits = !__builtin_mul_overflow(shape[3], rows_first ? 1 : shape[2], &stride[1]) &&
                !__builtin_mul_overflow(shape[3], rows_first ? shape[1] : 1, &stride[2]) &&
                !__builtin_mul_overflow(rows_first ? stride[2] : stride[1], rows_first ? shape[2] : shape[1],
                                        &stride[0]);
    if (!fits)
        return fa_py_fail(FA_OUT_OF_MEMORY, "the result has more elements than fit in memory");
    for (int axis = 0; axis < 4; axis++) {
        if (shape[axis] <= 1)
            stride[axis] = 1;
    }
    return true;
}

bool fa_py_problem_read(PyObject *const values[ARGUMENTS], fa_py_problem *problem)
{
    fa_attention_desc *desc = &problem->desc;
    memset(desc, 0, sizeof *desc);
    desc->struct_size = sizeof *desc;
    problem->present = 0;
    problem->list_count = 0;
    problem->rows_first = false;
    bool lse = false, dynamic = false;
    if (!read_layout(values[ARG_LAYOUT], problem) || !fa_py_read_bool(values, ARG_RETURN_LSE, &lse) ||
        !fa_py_read_bool(values, ARG_DYNAMIC_LENGTHS, &dynamic))
        return false;
    desc->dynamic_lengths = dynamic;
    desc->want_lse = lse;
    if (!fa_py_open(values[ARG_Q], "q", false, &problem->operand[OP_Q]))
        return false;
    problem->present = 1u << OP_Q;
    if (!set_tensor(problem, &problem->operand[OP_Q], &desc->q))
        return false;
    if (!float_type((int)desc->q.dtype))
        return fa_py_fail(FA_INVALID, "q.dtype is %s, expected float32, float16 or bfloat16",
                          fa_py_type_name((int)desc->q.dtype));
    return read_keys(values, problem) && check_heads(values, desc) && read_out(values[ARG_OUT], problem) &&
           fa_py_masks_read(values, desc) && read_attn_mask(values, problem) &&
           read_page_table(values, problem) && read_scales(values, problem) &&
           read_lengths(values, problem) &&
           read_block_lists(values[ARG_LISTS], desc, problem, &desc->lists) &&
           read_neighbourhood(values[ARG_NEIGHBOURHOOD], problem) && read_terms(values, problem) &&
           read_tuning(values, problem);
}

bool fa_py_problem_has_memory(const fa_py_problem *problem)
{
    for (int operand = 0; operand < OPERANDS; operand++) {
        const fa_py_tensor *tensor = &problem->operand[operand];
        if ((problem->present >> operand & 1) && tensor->kind == FA_PY_SPEC)
            return fa_py_fail(FA_INVALID, "%s is a Spec, expected an array", tensor->name);
    }
    return true;
}

bool fa_py_problem_results(fa_py_problem *problem)
{
    const fa_attention_desc *desc = &problem->desc;
    const fa_py_tensor *q = &problem->operand[OP_Q];
    if (!(problem->present >> OP_O & 1)) {
        int64_t shape[FA_PY_AXES];
        for (int axis = 0; axis < q->ndim; axis++)
            shape[axis] = q->shape[axis];
        shape[q->ndim - 1] = desc->o.shape[3];
        if (!fa_py_empty(q, "the result", (int)desc->o.dtype, q->ndim, shape, &problem->operand[OP_O]))
            return false;
        problem->present |= 1u << OP_O;
    }
    if (desc->want_lse) {
        const int64_t shape[3] = {desc->o.shape[0], desc->o.shape[1], desc->o.shape[2]};
        const int skipped = 4 - q->ndim;
        if (!fa_py_empty(q, "lse", FA_F32, 3 - skipped, shape + skipped, &problem->operand[OP_LSE]))
            return false;
        problem->present |= 1u << OP_LSE;
    }
    return true;
}

PyObject *fa_py_problem_returns(fa_py_problem *problem)
{
    PyObject *o = fa_py_finish(&problem->operand[OP_O]);
    if (!o || !problem->desc.want_lse)
        return o;
    PyObject *lse = fa_py_finish(&problem->operand[OP_LSE]);
    PyObject *both = lse ? PyTuple_Pack(2, o, lse) : NULL;
    Py_DECREF(o);
    Py_XDECREF(lse);
    return both;
}

void fa_py_problem_close(fa_py_problem *problem)
{
    for (int operand = 0; operand < OPERANDS; operand++) {
        if (problem->present >> operand & 1)
            fa_py_close(&problem->operand[operand]);
    }
    for (int list = 0; list < problem->list_count; list++)
        PyMem_Free(problem->lists[list]);
    problem->present = 0;
    problem->list_count = 0;
}
