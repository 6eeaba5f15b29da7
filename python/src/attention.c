/* SPDX-License-Identifier: Apache-2.0 */
/* attention() and supports(). */
#include <string.h>

#include "binding.h"

/* Takes the lengths out of the arguments of a call whose plan serves all lengths. */
static bool part_lengths(PyObject *values[ARGUMENTS], PyObject *lengths[ARGUMENTS])
{
    static const fa_py_argument taken[] = {ARG_LENS_Q, ARG_LENS_KV, ARG_FIRST_KV};
    memset(lengths, 0, ARGUMENTS * sizeof *lengths);
    if (fa_py_given(values[ARG_CU_SEQLENS_Q]) || fa_py_given(values[ARG_CU_SEQLENS_K]))
        return fa_py_fail(FA_INVALID,
                          "dynamic_lengths is True with cu_seqlens, expected lens_q and lens_kv, or a Plan");
    for (size_t at = 0; at < sizeof taken / sizeof *taken; at++) {
        lengths[taken[at]] = values[taken[at]];
        values[taken[at]] = NULL;
    }
    return true;
}

static bool run(fa_py_plan *plan, fa_py_problem *problem, PyObject *const lengths[ARGUMENTS])
{
    if (!problem->desc.dynamic_lengths)
        return fa_py_run(plan, problem, NULL);
    fa_py_problem lists = {.list_count = 0};
    fa_lengths read;
    const bool done = fa_py_lengths_read(lengths, problem, &lists, &read) && fa_py_run(plan, problem, &read);
    fa_py_problem_close(&lists);
    return done;
}

static PyObject *attend(PyObject *values[ARGUMENTS], fa_py_problem *problem)
{
    PyObject *lengths[ARGUMENTS] = {NULL};
    const int dynamic =
        fa_py_given(values[ARG_DYNAMIC_LENGTHS]) ? PyObject_IsTrue(values[ARG_DYNAMIC_LENGTHS]) : 0;
    if (dynamic < 0 || (dynamic && !part_lengths(values, lengths)))
        return NULL;
    if (fa_py_given(values[ARG_DYNAMIC_LENGTHS])) /* whatever it says when asked again */
        values[ARG_DYNAMIC_LENGTHS] = dynamic ? Py_True : Py_False;
    if (!fa_py_problem_read(values, problem) || !fa_py_problem_has_memory(problem))
        return NULL;
    fa_py_device *device = fa_py_device_for(values[ARG_DEVICE], &problem->operand[OP_Q]);
    fa_py_plan *plan = device ? fa_py_plan_find(device, problem) : NULL;
    const bool done = plan && fa_py_problem_results(problem) && run(plan, problem, lengths);
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
    problem.present = 0;
    problem.list_count = 0;
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

/* The times in nanoseconds of a thousand runs of C, of a problem in host memory. */
PyObject *fa_py_time_runs(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    (void)module;
    enum { ROUNDS = 1000 };
    int64_t times[ROUNDS];
    PyObject *values[ARGUMENTS], *list = NULL;
    fa_py_problem problem;
    if (!fa_py_arguments("time_runs", args, count, names, values))
        return NULL;
    if (fa_py_problem_read(values, &problem) && fa_py_problem_has_memory(&problem) &&
        fa_py_on_host(&problem.operand[OP_Q]) && fa_py_problem_results(&problem)) {
        fa_py_device *device = fa_py_host_device();
        fa_py_plan *plan = device ? fa_py_plan_find(device, &problem) : NULL;
        if (plan && fa_py_time(plan, &problem, times, ROUNDS))
            list = PyList_New(0);
        fa_py_plan_drop(plan);
    }
    for (int round = 0; list && round < ROUNDS; round++) {
        PyObject *time = PyLong_FromLongLong(times[round]);
        if (!time || PyList_Append(list, time) < 0)
            Py_CLEAR(list);
        Py_XDECREF(time);
    }
    fa_py_problem_close(&problem);
    if (!list && !PyErr_Occurred())
        fa_py_fail(FA_INVALID, "q is not in host memory");
    return list;
}
