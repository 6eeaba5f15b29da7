/* SPDX-License-Identifier: Apache-2.0 */
/* fastattn._core: the table of its functions. fastattn/_core.pyi and __init__.py describe them. */
#include "binding.h"

static PyObject *type_names(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int type = 0; list && fa_dtype_size((fa_dtype)type) > 0; type++) {
        PyObject *name = PyUnicode_FromString(fa_dtype_name((fa_dtype)type));
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef functions[] = {
    {"attention", FAST(fa_py_attention), NULL},
    {"supports", FAST(fa_py_supports), NULL},
    {"devices", fa_py_devices, METH_NOARGS, NULL},
    {"kernels", fa_py_kernels, METH_O, NULL},
    {"plan_cache_info", fa_py_plan_cache_info, METH_NOARGS, NULL},
    {"plan_cache_resize", fa_py_plan_cache_resize, METH_O, NULL},
    {"formats", type_names, METH_NOARGS, NULL},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastattn._core",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && fa_py_tensors_init() && fa_py_problem_init() && fa_py_errors_add(module) &&
        PyModule_AddStringConstant(module, "__version__", fa_version()) == 0)
        return module;
    Py_XDECREF(module);
    return NULL;
}
