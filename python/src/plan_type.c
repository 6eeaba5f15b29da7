/* SPDX-License-Identifier: Apache-2.0 */
/* fastattn.Plan: a description that is prepared once and run many times. */
#include <string.h>

#include "binding.h"

/* The plan, and the arguments that are no operands: a run reads them again beside its own. */
typedef struct plan_object {
    PyObject_HEAD fa_py_plan *plan;
    fa_attention_desc desc; /* without its lists */
    bool has_lists;         /* of key blocks */
    PyObject *values[ARGUMENTS];
} plan_object;

static bool is_operand(int argument)
{
    switch (argument) {
    case ARG_Q:
    case ARG_K:
    case ARG_V:
    case ARG_OUT:
    case ARG_ATTN_MASK:
    case ARG_PAGE_TABLE:
    case ARG_K_SCALE:
    case ARG_V_SCALE:
    case ARG_K_ZERO:
    case ARG_V_ZERO: return true;
    default: return false;
    }
}

/* What the plan has copied, and no run reads again. */
static bool is_copied(int argument)
{
    return argument == ARG_LISTS || argument == ARG_NEIGHBOURHOOD;
}

/* What a run may bring with dynamic_lengths. */
static bool is_length(int argument)
{
    return argument == ARG_LENS_Q || argument == ARG_LENS_KV || argument == ARG_FIRST_KV ||
           argument == ARG_CU_SEQLENS_Q || argument == ARG_CU_SEQLENS_K || argument == ARG_LISTS;
}

static int plan_init(PyObject *self, PyObject *args, PyObject *keywords)
{
    plan_object *object = (plan_object *)self;
    PyObject *values[ARGUMENTS];
    fa_py_problem problem;
    if (object->plan) {
        fa_py_fail(FA_INVALID, "a Plan is made once");
        return -1;
    }
    if (!fa_py_arguments_tuple("Plan", args, keywords, values))
        return -1;
    if (fa_py_problem_read(values, &problem)) {
        fa_py_device *device = fa_py_device_for(values[ARG_DEVICE], &problem.operand[OP_Q]);
        object->plan = device ? fa_py_plan_find(device, &problem) : NULL;
    }
    if (object->plan) {
        object->desc = problem.desc;
        object->has_lists = problem.desc.lists;
        for (int argument = 0; argument < ARGUMENTS; argument++) {
            if (!is_operand(argument) && !is_copied(argument))
                object->values[argument] = Py_XNewRef(values[argument]);
        }
    }
    fa_py_problem_close(&problem);
    return object->plan ? 0 : -1;
}

static void plan_dealloc(PyObject *self)
{
    plan_object *object = (plan_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    fa_py_plan_drop(object->plan);
    for (int argument = 0; argument < ARGUMENTS; argument++)
        Py_XDECREF(object->values[argument]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* ---- run ---- */

static bool same_tensor(const char *name, const fa_tensor *given, const fa_tensor *planned)
{
    if (given->dtype != planned->dtype)
        return fa_py_fail(FA_INVALID, "%s.dtype is %s, but the plan's is %s", name,
                          fa_py_type_name((int)given->dtype), fa_py_type_name((int)planned->dtype));
    if (memcmp(given->shape, planned->shape, sizeof given->shape) != 0)
        return fa_py_fail(
            FA_INVALID,
            "%s has the axes (%lld, %lld, %lld, %lld), but the plan's has (%lld, %lld, %lld, %lld)", name,
            (long long)given->shape[0], (long long)given->shape[1], (long long)given->shape[2],
            (long long)given->shape[3], (long long)planned->shape[0], (long long)planned->shape[1],
            (long long)planned->shape[2], (long long)planned->shape[3]);
    if (memcmp(given->stride, planned->stride, sizeof given->stride) != 0)
        return fa_py_fail(FA_INVALID, "%s has other strides than the plan's", name);
    return true;
}

static bool same_problem(const fa_attention_desc *given, const fa_attention_desc *planned)
{
    return same_tensor("q", &given->q, &planned->q) && same_tensor("k", &given->k, &planned->k) &&
           same_tensor("v", &given->v, &planned->v) && same_tensor("out", &given->o, &planned->o) &&
           same_tensor("attn_mask", &given->bias, &planned->bias) &&
           same_tensor("attn_mask", &given->keep, &planned->keep) &&
           same_tensor("page_table", &given->page_table, &planned->page_table) &&
           same_tensor("k_scale", &given->k_scale, &planned->k_scale) &&
           same_tensor("v_scale", &given->v_scale, &planned->v_scale) &&
           same_tensor("k_zero", &given->k_zero, &planned->k_zero) &&
           same_tensor("v_zero", &given->v_zero, &planned->v_zero);
}

/* The operands of this run beside what the plan was made with; `lengths` are of this run, where the plan takes any. */
static bool gather(const plan_object *object, PyObject *values[ARGUMENTS], PyObject *lengths[ARGUMENTS])
{
    const bool dynamic = object->desc.dynamic_lengths;
    for (int argument = 0; argument < ARGUMENTS; argument++) {
        lengths[argument] = NULL;
        if (is_operand(argument))
            continue;
        if (fa_py_given(values[argument]) && !(dynamic && is_length(argument)))
            return fa_py_fail(FA_INVALID, "%s is of the plan, and cannot be given to a run%s",
                              fa_py_argument_names[argument],
                              is_length(argument) ? " without dynamic_lengths=True" : "");
        if (is_length(argument))
            lengths[argument] = values[argument];
        values[argument] = object->values[argument];
    }
    if (fa_py_given(lengths[ARG_LISTS]) && !object->has_lists)
        return fa_py_fail(FA_INVALID, "lists is given, expected None: the plan has none");
    return true;
}

static bool run_problem(const plan_object *object, PyObject *const values[ARGUMENTS],
                        PyObject *const length_values[ARGUMENTS], fa_py_problem *problem,
                        fa_py_problem *other)
{
    if (!fa_py_problem_read(values, problem) || !same_problem(&problem->desc, &object->desc))
        return false;
    if (!fa_py_problem_has_memory(problem))
        return false;
    const fa_py_tensor *q = &problem->operand[OP_Q];
    const fa_py_device *device = object->plan->device;
    if (!fa_py_on_host(q) && !(device->is_cuda && q->device_id == device->info.index))
        return fa_py_fail(FA_INVALID, "q is on a device of type %d, number %d, but the plan is for %s:%d",
                          (int)q->device_type, (int)q->device_id, device->info.backend,
                          (int)device->info.index);
    fa_lengths lengths;
    const fa_lengths *used = NULL;
    if (object->desc.dynamic_lengths) {
        if (!fa_py_lengths_read(length_values, problem, other, &lengths))
            return false;
        used = &lengths;
    }
    return fa_py_problem_results(problem) && fa_py_run(object->plan, problem, used);
}

static PyObject *plan_run(PyObject *self, PyObject *args, PyObject *keywords)
{
    const plan_object *object = (plan_object *)self;
    PyObject *values[ARGUMENTS], *lengths[ARGUMENTS];
    if (!object->plan) {
        fa_py_fail(FA_INVALID, "the Plan was not made");
        return NULL;
    }
    if (!fa_py_arguments_tuple("run", args, keywords, values) || !gather(object, values, lengths))
        return NULL;
    fa_py_problem problem, other = {.list_count = 0};
    PyObject *result = NULL;
    if (run_problem(object, values, lengths, &problem, &other))
        result = fa_py_problem_returns(&problem);
    fa_py_problem_close(&other);
    fa_py_problem_close(&problem);
    return result;
}

/* ---- what it says of itself ---- */

static PyObject *plan_info(PyObject *self, void *unused)
{
    const plan_object *object = (plan_object *)self;
    (void)unused;
    fa_plan_info info = {.struct_size = sizeof info};
    const fa_status status = fa_plan_get_info(object->plan ? object->plan->plan : NULL, &info);
    if (status != FA_OK) {
        fa_py_raise(status);
        return NULL;
    }
    return Py_BuildValue(
        "{s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:K,s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:K,s:I}",
        "kernel", info.kernel, "weights", fa_dtype_name(info.weights), "block_q", (int)info.block_q,
        "block_kv", (int)info.block_kv, "tile_q", (int)info.tile_q, "tile_kv", (int)info.tile_kv, "tile_d",
        (int)info.tile_d, "splits", (int)info.splits, "group", (int)info.group, "sequences",
        (long long)info.sequences, "heads_kv", (long long)info.heads_kv, "items", (long long)info.items,
        "merge_items", (long long)info.merge_items, "blocks_full", (long long)info.blocks_full,
        "blocks_partial", (long long)info.blocks_partial, "blocks_skipped", (long long)info.blocks_skipped,
        "pairs", (unsigned long long)info.pairs, "flops", info.flops, "bytes_moved", info.bytes_moved,
        "bytes_compulsory", info.bytes_compulsory, "bytes_lower_bound", info.bytes_lower_bound, "syncs",
        info.syncs, "rescales", info.rescales, "imbalance", info.imbalance, "seconds", info.seconds,
        "workspace", (unsigned long long)info.workspace, "workers", (unsigned)info.workers);
}

static PyObject *plan_device(PyObject *self, void *unused)
{
    const plan_object *object = (plan_object *)self;
    (void)unused;
    if (!object->plan)
        Py_RETURN_NONE;
    const fa_device_info *info = &object->plan->device->info;
    return PyUnicode_FromFormat("%s:%d", info->backend, (int)info->index);
}

static PyMethodDef plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))plan_run, METH_VARARGS | METH_KEYWORDS, fa_py_run_doc},
    {0},
};

static PyGetSetDef plan_attributes[] = {
    {"info", plan_info, NULL,
     "What the planner decided, and what it expects that to cost: fa_plan_info as a dict.", NULL},
    {"device", plan_device, NULL, "The name of its device, such as 'openmp:0'.", NULL},
    {0},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)fa_py_plan_doc},
    {Py_tp_init, plan_init},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {Py_tp_getset, plan_attributes},
    {Py_tp_new, PyType_GenericNew},
    {0},
};

PyObject *fa_py_plan_type(void)
{
    static PyType_Spec spec = {
        .name = "fastattn.Plan",
        .basicsize = sizeof(plan_object),
        .flags = Py_TPFLAGS_DEFAULT,
        .slots = plan_slots,
    };
    return PyType_FromSpec(&spec);
}
