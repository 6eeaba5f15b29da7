/* SPDX-License-Identifier: Apache-2.0 */
/* fastattn._core: the table of its functions. fastattn/_core.pyi and __init__.py describe them. */
#include "binding.h"

/* The elements and the bytes of a block of each type. */
static PyObject *formats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *all = PyDict_New();
    for (int type = 0; all && fa_dtype_size((fa_dtype)type) > 0; type++) {
        PyObject *block = Py_BuildValue("(Ln)", (long long)fa_dtype_block((fa_dtype)type),
                                        (Py_ssize_t)fa_dtype_size((fa_dtype)type));
        if (!block || PyDict_SetItemString(all, fa_dtype_name((fa_dtype)type), block) < 0)
            Py_CLEAR(all);
        Py_XDECREF(block);
    }
    return all;
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef functions[] = {
    {"attention", FAST(fa_py_attention), fa_py_attention_doc},
    {"supports", FAST(fa_py_supports), fa_py_supports_doc},
    {"time_runs", FAST(fa_py_time_runs), NULL},
    {"append", (PyCFunction)(void (*)(void))fa_py_append, METH_VARARGS | METH_KEYWORDS, NULL},
    {"merge", (PyCFunction)(void (*)(void))fa_py_merge, METH_VARARGS | METH_KEYWORDS, NULL},
    {"sparse", fa_py_sparse, METH_VARARGS, NULL},
    {"neighbourhood_order", fa_py_neighbourhood_order, METH_O, NULL},
    {"devices", fa_py_devices, METH_NOARGS, NULL},
    {"kernels", fa_py_kernels, METH_O, NULL},
    {"plan_cache_info", fa_py_plan_cache_info, METH_NOARGS, fa_py_cache_info_doc},
    {"plan_cache_resize", fa_py_plan_cache_resize, METH_O, fa_py_cache_resize_doc},
    {"formats", formats, METH_NOARGS, NULL},
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
    PyObject *plan = module ? fa_py_plan_type() : NULL;
    const bool added = plan && PyModule_AddObjectRef(module, "Plan", plan) == 0;
    Py_XDECREF(plan);
    if (added && fa_py_tensors_init() && fa_py_arguments_init() && fa_py_errors_add(module) &&
        PyModule_AddStringConstant(module, "__version__", fa_version()) == 0)
        return module;
    Py_XDECREF(module);
    return NULL;
}
