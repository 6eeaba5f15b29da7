/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the extension module fastattn._core share. All of it is called with the GIL held. */
#ifndef FA_PY_BINDING_H
#define FA_PY_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fastattn/cuda.h>
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <stdbool.h>
#include <stdint.h>

#include "dlpack_abi.h"

/* ---- errors.c ---- */

extern PyObject *fa_py_error;

bool fa_py_errors_add(PyObject *module);

/* Raises the exception of a status, with the library's message in which fields have their Python names. */
void fa_py_raise(fa_status status);

/* The same of functions whose arguments have the names of C. */
void fa_py_raise_plain(fa_status status);

/* Raises the exception of a status with a message of the binding. Always false. */
bool fa_py_fail(fa_status status, const char *format, ...);

/* ---- tensors.c ---- */

/* Element types that Python has and fa_dtype has not, numbered behind them. */
enum { FA_PY_I64 = 1000, FA_PY_F64, FA_PY_OTHER };

enum { FA_PY_AXES = 8 };

/* How an array was opened, and so what an array like it is made by. */
typedef enum fa_py_kind {
    FA_PY_NUMPY,    /* the buffer protocol; NumPy makes results          */
    FA_PY_EXCHANGE, /* DLPack's table of C functions: PyTorch 2.10 on    */
    FA_PY_TORCH,    /* a PyTorch without that table                      */
    FA_PY_CUPY,
    FA_PY_JAX,
    FA_PY_DLPACK, /* any other object with __dlpack__; NumPy makes results */
    FA_PY_OPAQUE, /* a subclass of PyTorch's tensor whose memory cannot be read */
    FA_PY_SPEC    /* fastattn.Spec: a description without memory       */
} fa_py_kind;

/* An open array: what it looks like, and what keeps its memory alive. */
typedef struct fa_py_tensor {
    const char *name; /* of the argument, for messages */
    fa_py_kind kind;
    const fa_py_exchange *exchange; /* of FA_PY_EXCHANGE */
    PyObject *object;               /* owned where this is a result */
    void *data;
    int type; /* an fa_dtype, or FA_PY_I64 and so on */
    int ndim;
    int64_t shape[FA_PY_AXES], stride[FA_PY_AXES]; /* strides count elements */
    int32_t device_type, device_id;                /* of DLPack */
    bool readonly, has_buffer, fresh;              /* fresh: made here, as a result */
    Py_buffer buffer;
    PyObject *holder; /* an array or a capsule that was made to open it */
    fa_py_versioned *versioned;
    fa_py_managed *managed;
    void *memory; /* of a result that becomes an array at the end */
} fa_py_tensor;

/* Names that are looked up at each call, interned once. */
bool fa_py_tensors_init(void);

/* Opens an array; `write` for results. False with an exception set. Close with fa_py_close(). */
bool fa_py_open(PyObject *object, const char *name, bool write, fa_py_tensor *tensor);

void fa_py_close(fa_py_tensor *tensor);

/* The three ways to open an array whose kind is known, as results do. */
bool fa_py_take_dltensor(const fa_py_dltensor *dl, fa_py_tensor *tensor);
bool fa_py_take_numpy(PyObject *object, bool write, fa_py_tensor *tensor);
bool fa_py_take_dlpack(PyObject *object, fa_py_tensor *tensor);

bool fa_py_on_host(const fa_py_tensor *tensor);

/* The stream on which the framework of a CUDA array computes now. */
bool fa_py_stream(const fa_py_tensor *tensor, void **stream);

const char *fa_py_type_name(int type);

/* The type of a name: "f32", "float32", "torch.float32", "q8_0" and so on; -1: none. */
int fa_py_type_of(const char *name);

/* Of DLPack's description, and of a buffer's format and the bytes of an element; FA_PY_OTHER: none that fastattn has. */
int fa_py_type_of_dlpack(const fa_py_dltensor *dl);
int fa_py_type_of_format(const char *format, Py_ssize_t size);

/* ---- results.c ---- */

/* A contiguous result of the kind, and on the device, of `like`. */
bool fa_py_empty(const fa_py_tensor *like, const char *name, int type, int ndim, const int64_t *shape,
                 fa_py_tensor *tensor);

/* The Python array of a result. A new reference. */
PyObject *fa_py_finish(fa_py_tensor *tensor);

/* ---- lists.c ---- */

/* A list of whole numbers, copied: of an array or a sequence, or `each` times one number (an int, an array of no axes); where
 * `each` is 0, one number is no list. Free with PyMem_Free(). */
bool fa_py_integers(PyObject *object, const char *name, int64_t each, int64_t **list, int64_t *count);

/* A list of floats, of one or two axes; columns is the size of the last. */
bool fa_py_floats(PyObject *object, const char *name, float **list, int64_t *rows, int64_t *columns);

/* Opens an array in host memory to read numbers from. Close with fa_py_close(). */
bool fa_py_open_host(PyObject *object, const char *name, fa_py_tensor *tensor);

/* ---- devices.c ---- */

/* What one run at a time needs: a queue, and scratch memory of the host. */
typedef struct fa_py_lane {
    fa_queue *queue;
    void *stream; /* of CUDA */
    void *workspace, *work_memory;
    size_t workspace_size, work_size;
    fa_buffer *work; /* of fa_plan_schedule(); in work_memory where runs are in place */
    struct fa_py_lane *next;
} fa_py_lane;

/* An open device. They stay open as long as the process lives. */
typedef struct fa_py_device {
    char *name;
    fa_device *device;
    fa_device_info info;
    bool in_place; /* runs on host pointers */
    bool is_cuda;
    fa_py_lane *idle;
    struct fa_py_device *next;
} fa_py_device;

/* The context of all devices, made when it is first asked for. NULL with an exception set. */
fa_context *fa_py_context(void);

PyObject *fa_py_devices(PyObject *module, PyObject *unused);
PyObject *fa_py_kernels(PyObject *module, PyObject *name);

/* The device that `wanted` (a str, a Device or NULL) and the place of `tensor` name. NULL with an exception set. */
fa_py_device *fa_py_device_for(PyObject *wanted, const fa_py_tensor *tensor);

/* The one that computes in host memory in place. */
fa_py_device *fa_py_host_device(void);

/* With room for so many bytes of scratch memory, and of work. `stream` is the caller's, of CUDA. NULL with an exception set. */
#define FA_PY_OWN_QUEUE ((void *)UINTPTR_MAX)
fa_py_lane *fa_py_lane_take(fa_py_device *device, void *stream, size_t workspace, size_t work);
void fa_py_lane_give(fa_py_device *device, fa_py_lane *lane);

/* ---- problem.c ---- */

/* Arguments of attention(), in the order of fa_py_argument_names. */
typedef enum fa_py_argument {
    ARG_Q,
    ARG_K,
    ARG_V,
    ARG_OUT,
    ARG_MASK,
    ARG_IS_CAUSAL,
    ARG_ATTN_MASK,
    ARG_SCALE,
    ARG_ENABLE_GQA,
    ARG_LAYOUT,
    ARG_SOFTCAP,
    ARG_WINDOW,
    ARG_WINDOW_SIZE,
    ARG_PREFIX,
    ARG_DIAGONAL_OFFSET,
    ARG_ALIGNMENT,
    ARG_ALIBI_SLOPES,
    ARG_SINKS,
    ARG_BIAS_FACTORS,
    ARG_LENS_Q,
    ARG_LENS_KV,
    ARG_FIRST_KV,
    ARG_CU_SEQLENS_Q,
    ARG_CU_SEQLENS_K,
    ARG_LISTS,
    ARG_NEIGHBOURHOOD,
    ARG_PAGE_TABLE,
    ARG_K_FORMAT,
    ARG_V_FORMAT,
    ARG_K_SCALE,
    ARG_V_SCALE,
    ARG_K_ZERO,
    ARG_V_ZERO,
    ARG_K_FACTOR,
    ARG_V_FACTOR,
    ARG_KEEP_LAST,
    ARG_V_IN_K,
    ARG_DYNAMIC_LENGTHS,
    ARG_RETURN_LSE,
    ARG_DEVICE,
    ARG_KERNEL,
    ARG_BLOCK_Q,
    ARG_BLOCK_KV,
    ARG_SPLITS,
    ARGUMENTS
} fa_py_argument;

extern const char *const fa_py_argument_names[ARGUMENTS];

bool fa_py_arguments_init(void);

/* Puts positional and keyword arguments in their places; NULL where one was not given. */
bool fa_py_arguments(const char *function, PyObject *const *args, Py_ssize_t count, PyObject *names,
                     PyObject *values[ARGUMENTS]);

/* The same of a tuple and a dict. */
bool fa_py_arguments_tuple(const char *function, PyObject *args, PyObject *keywords,
                           PyObject *values[ARGUMENTS]);

/* False: a TypeError is set, which names what was expected. */
bool fa_py_wrong_type(PyObject *value, const char *name, const char *expected);

/* An attribute of an argument; `name` is "argument.attribute". Without it the argument is not what was expected. A new
 * reference. */
PyObject *fa_py_attribute(PyObject *object, const char *name, const char *expected);

/* A whole number; `name` is its name in messages. */
bool fa_py_whole_number(PyObject *value, const char *name, int64_t *to);

/* The same in 32 bits. */
bool fa_py_small_number(PyObject *value, const char *name, int32_t *to);

/* The value of an argument; *to stays where it was not given. */
bool fa_py_read_int64(PyObject *const values[], int argument, int64_t *to);
bool fa_py_read_int32(PyObject *const values[], int argument, int32_t *to);
bool fa_py_read_float(PyObject *const values[], int argument, float *to);
bool fa_py_read_bool(PyObject *const values[], int argument, bool *to);

/* The text of an argument; NULL with an exception set. Valid as long as the value. */
const char *fa_py_read_text(PyObject *value, int argument);

/* What a run reads and writes. */
typedef enum fa_py_operand {
    OP_Q,
    OP_K,
    OP_V,
    OP_O,
    OP_LSE,
    OP_BIAS,
    OP_KEEP,
    OP_PAGE_TABLE,
    OP_K_SCALE,
    OP_V_SCALE,
    OP_K_ZERO,
    OP_V_ZERO,
    OPERANDS
} fa_py_operand;

/* A description, and the open arrays of its operands. */
typedef struct fa_py_problem {
    fa_attention_desc desc;
    fa_tuning tuning;
    char kernel[64];
    fa_py_tensor operand[OPERANDS];
    unsigned present; /* bit n: operand n is open */
    float number[4];  /* scales and zeros that were given as numbers */
    void *lists[11];  /* to free */
    int list_count;
    int64_t entries; /* of lists: sequences, or q's batch */
    fa_block_lists block_lists;
    fa_neighbourhood neighbourhood;
    int64_t index_count; /* of their indices */
    bool rows_first;     /* layout BSHD */
} fa_py_problem;

/* Reads the arguments. Close with fa_py_problem_close(), also after false. */
bool fa_py_problem_read(PyObject *const values[ARGUMENTS], fa_py_problem *problem);

/* The lengths of one run of a plan for any lengths. `lists` holds them; close it likewise. */
bool fa_py_lengths_read(PyObject *const values[ARGUMENTS], const fa_py_problem *problem, fa_py_problem *lists,
                        fa_lengths *lengths);

/* The axes of an array as they are, aligned at the last. */
bool fa_py_plain_tensor(const fa_py_tensor *tensor, fa_tensor *to);

/* Raw bytes of rows as elements of a format; `dims` where the bytes do not say. `argument` names it in messages. */
bool fa_py_apply_format(const char *name, const char *argument, const fa_py_tensor *tensor, int64_t dims,
                        fa_tensor *to);

/* Whether every operand is an array: a Spec serves for a plan, and for no run. */
bool fa_py_problem_has_memory(const fa_py_problem *problem);

/* Makes results that were not given. */
bool fa_py_problem_results(fa_py_problem *problem);

/* What the call returns: o, or (o, lse). */
PyObject *fa_py_problem_returns(fa_py_problem *problem);

void fa_py_problem_close(fa_py_problem *problem);

static inline bool fa_py_given(PyObject *value)
{
    return value && value != Py_None;
}

/* ---- masks.c ---- */

/* The kind of mask of a name. */
bool fa_py_mask_named(PyObject *value, fa_mask_kind *to);

/* Reads mask, is_causal, windows, prefix, diagonal_offset and alignment. */
bool fa_py_masks_read(PyObject *const values[ARGUMENTS], fa_attention_desc *desc);

/* ---- blocks.c ---- */

/* Copies lists of key blocks to problem->block_lists. `desc` has k and the page table that say how many keys there may be. */
bool fa_py_block_lists_read(PyObject *lists, const fa_attention_desc *desc, fa_py_problem *problem);

/* ---- neighbourhood.c ---- */

/* Reads a neighbourhood. Bytes between its fields are 0. */
bool fa_py_neighbourhood_read(PyObject *value, fa_neighbourhood *to);

/* ---- plan.c ---- */

typedef struct fa_py_plan {
    int references;
    fa_plan *plan;
    fa_py_device *device;
    size_t workspace;
    uint64_t hash;
    size_t key_size;
    void *key;
    struct fa_py_plan *newer, *older;
} fa_py_plan;

/* The plan of a description, from the cache or made now. A new reference. */
fa_py_plan *fa_py_plan_find(fa_py_device *device, const fa_py_problem *problem);
void fa_py_plan_drop(fa_py_plan *plan);

PyObject *fa_py_plan_cache_info(PyObject *module, PyObject *unused);
PyObject *fa_py_plan_cache_resize(PyObject *module, PyObject *size);

/* ---- plan_type.c, append.c, merge.c ---- */

PyObject *fa_py_plan_type(void);
PyObject *fa_py_append(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *fa_py_merge(PyObject *module, PyObject *args, PyObject *keywords);

/* ---- sparse.c ---- */

PyObject *fa_py_sparse(PyObject *module, PyObject *args);
PyObject *fa_py_neighbourhood_order(PyObject *module, PyObject *value);

/* ---- run.c ---- */

/* Runs a plan on the problem's operands, all of which are open. False with an exception set. */
bool fa_py_run(const fa_py_plan *plan, const fa_py_problem *problem, const fa_lengths *lengths);

/* The times of runs in host memory alone, as C calls them: for python/bench. */
bool fa_py_time(const fa_py_plan *plan, const fa_py_problem *problem, int64_t *nanoseconds,
                Py_ssize_t rounds);

/* A buffer of memory that the device reads in place; where it begins in the buffer is its offset. */
fa_status fa_py_wrap(const fa_py_device *device, const void *data, size_t span, fa_buffer **buffer,
                     size_t *offset);

/* ---- docs.c ---- */

extern const char fa_py_attention_doc[], fa_py_supports_doc[], fa_py_cache_info_doc[],
    fa_py_cache_resize_doc[], fa_py_plan_doc[], fa_py_run_doc[];

/* ---- attention.c ---- */

PyObject *fa_py_attention(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *fa_py_time_runs(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *fa_py_supports(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names);

#endif
