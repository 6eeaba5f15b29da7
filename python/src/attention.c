/* SPDX-License-Identifier: Apache-2.0 */
/* attention() and supports(). */
#include "binding.h"

static PyObject *attend(PyObject *const values[ARGUMENTS], fa_py_problem *problem)
{
    if (!fa_py_problem_read(values, problem))
        return NULL;
    if (problem->operand[OP_Q].kind == FA_PY_SPEC) {
        fa_py_fail(FA_INVALID, "q is a Spec, expected an array");
        return NULL;
    }
    fa_py_device *device = fa_py_device_for(values[ARG_DEVICE], &problem->operand[OP_Q]);
    if (!device || !fa_py_problem_results(problem))
        return NULL;
    fa_py_plan *plan = fa_py_plan_find(device, problem);
    const bool done = plan && fa_py_run(plan, problem);
    fa_py_plan_drop(plan);
    return done ? fa_py_problem_returns(problem) : NULL;
}

PyObject *fa_py_attention(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    (void)module;
    PyObject *values[ARGUMENTS];
    fa_py_problem problem;
    if (!fa_py_arguments("attention", args, count, names, values))
        return NULL;
    PyObject *result = attend(values, &problem);
    fa_py_problem_close(&problem);
    return result;
}

/* False and the message, where the exception that is set is one of fastattn's. */
static PyObject *refusal(void)
{
    if (!PyErr_ExceptionMatches(fa_py_error))
        return NULL;
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *reason = value ? PyObject_Str(value) : PyUnicode_FromString("");
    Py_XDECREF(kind);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return reason ? Py_BuildValue("(ON)", Py_False, reason) : NULL;
}

PyObject *fa_py_supports(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    (void)module;
    PyObject *values[ARGUMENTS];
    fa_py_problem problem;
    if (!fa_py_arguments("supports", args, count, names, values))
        return NULL;
    fa_py_plan *plan = NULL;
    if (fa_py_problem_read(values, &problem)) {
        fa_py_device *device = fa_py_device_for(values[ARG_DEVICE], &problem.operand[OP_Q]);
        plan = device ? fa_py_plan_find(device, &problem) : NULL;
    }
    fa_py_problem_close(&problem);
    if (!plan)
        return refusal();
    fa_py_plan_drop(plan);
    return Py_BuildValue("(Os)", Py_True, "");
}
