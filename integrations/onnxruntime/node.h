/* SPDX-License-Identifier: Apache-2.0 */
/** One node of a model: its attributes when a session is made, its tensors and its run afterwards. */
#ifndef FASTATTN_ONNXRUNTIME_NODE_H
#define FASTATTN_ONNXRUNTIME_NODE_H

#include <fastattn/fastattn.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdbool.h>

/* The version of ONNX Runtime's C API that is asked for. The API only grows: newer headers and runtimes have it. */
#define NODE_API 18
#define NODE_INPUTS 20 /* more than any operator has                      */
#define NODE_RANK 5    /* axes of the largest tensor: packed query, key and value */
#define NODE_PLANS 8   /* plans that a node keeps, least recently used goes */

typedef struct node_kernel node_kernel;
typedef struct node_call node_call;

/** An input or output that is not served, and why. A list ends with a `why` of NULL. */
typedef struct node_refusal {
    int index;
    const char *why;
} node_refusal;

/** An operator, as data. Inputs and outputs have the names of its specification. */
typedef struct node_operator {
    const char *name;
    const char *const *inputs;
    const char *const *outputs;
    int input_count, required; /* the first `required` inputs are */
    int output_count;
    const node_refusal *refused_inputs, *refused_outputs;
    void (*create)(node_call *call); /* reads attributes into call->kernel */
    void (*compute)(node_call *call);
} node_operator;

/** A plan that is kept, with what it was made from. */
typedef struct node_plan {
    void *key;
    size_t key_bytes;
    fa_plan *plan;
    uint64_t used; /* when it was last taken: a number that grows */
    int users;     /* runs that have it now                       */
    bool kept;     /* false: there was no place for it            */
} node_plan;

/** A node of a session. Runs may use it at the same time: only the plans change, under the mutex. */
struct node_kernel {
    const node_operator *kind;
    const OrtApi *api;
    OrtAllocator *allocator;
    char *name; /* of the node, in messages */

    pthread_mutex_t mutex;
    node_plan plans[NODE_PLANS];
    uint64_t clock;

    /* Attributes; those that an operator lacks are 0. */
    int64_t heads_q, heads_kv; /* 0: as 4 axes say */
    int64_t causal;
    int64_t window_left, window_right; /* as in fa_attention_desc */
    int64_t rotary, interleaved, smooth;
    float scale, softcap;
    bool scale_is_set;
};

/** One run of a node, or the making of it. After the first failure all functions do nothing. */
struct node_call {
    node_kernel *kernel;
    const OrtApi *api;
    const OrtKernelInfo *info; /* while the node is made */
    OrtKernelContext *context; /* while it runs          */
    OrtStatus *status;         /* the first failure      */
    void *scratch[NODE_INPUTS];
    int scratches;
};

/** An input. `data` is NULL where the node does not have it. */
typedef struct node_tensor {
    const char *name;
    ONNXTensorElementDataType type;
    int rank;
    int64_t dims[NODE_RANK];
    void *data;
    bool given;
} node_tensor;

/** Keeps the first failure: "fastattn.OPERATOR 'node': ..." Returns false. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
bool node_fail(node_call *call, const char *format, ...);

/** An attribute, or `otherwise` if the node has none. One of another type, or out of range, fails by name. */
int64_t node_int(node_call *call, const char *name, int64_t otherwise, int64_t least, int64_t most);
float node_float(node_call *call, const char *name, float otherwise, bool *given);
/** Fails unless the attribute is absent or has this value. */
void node_expect_string(node_call *call, const char *name, const char *value, const char *why);

/** Input number `index` of the operator. One with more than NODE_RANK axes fails. */
node_tensor node_input(node_call *call, int index);
/** Fails unless the tensor has `rank` axes. Absent ones pass. */
bool node_rank(node_call *call, const node_tensor *tensor, int rank);
/** Fails unless axis `axis` of a tensor that is there has this size, `what` says of which. */
bool node_dim(node_call *call, const node_tensor *tensor, int axis, int64_t size, const char *what);
/** The library's type of a tensor: f32, f16 or bf16; others fail by name. */
fa_dtype node_float_type(node_call *call, const node_tensor *tensor);
/** Fails unless the tensor consists of `count` numbers of type int32 (or int64, with `wide`). */
bool node_integers(node_call *call, const node_tensor *tensor, int64_t count, bool wide);

/**
 * The memory of an output of this shape. NULL if the node does not have it, and after a failure. One whose type is
 * not `dtype` fails: a session gives all outputs the type of the first input.
 */
void *node_output(node_call *call, int index, fa_dtype dtype, int rank, const int64_t *dims);
/** Memory for the rest of the run, at a multiple of 64: `count` times `size` bytes. NULL after a failure. */
void *node_scratch(node_call *call, int64_t count, size_t size);

/** Calls task(argument, i) for each i below `count` on the session's threads. */
void node_parallel(node_call *call, int64_t count, void (*task)(void *argument, size_t index),
                   void *argument);

/** A tensor whose memory has the axes (batch, head, row, dim), or (batch, row, head, dim). */
fa_tensor node_heads_first(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim);
fa_tensor node_rows_first(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim);

/**
 * An input of up to four axes as bias or keep, repeated where it has size 1. Axes 0 to 2 have their full size or
 * 1; axis 3 has what the caller checks.
 */
fa_tensor node_repeated(node_call *call, const node_tensor *tensor, fa_dtype dtype, const int64_t full[4]);

/** What one run computes: a description, with lists, and the memory of its operands. */
typedef struct node_problem {
    fa_attention_desc desc;
    fa_host_args args;
} node_problem;

/** A problem of this node: scale, softcap and windows are its attributes. */
node_problem node_problem_make(const node_kernel *kernel);
/** Runs it, with a plan that is kept or made. */
void node_run(node_call *call, node_problem *problem);
/** Destroys the plans of a node. */
void node_drop_plans(node_kernel *kernel);

/** The device on which nodes compute; opened by the first call. NULL and a message if it does not open. */
fa_device *node_device(const char **message);
/** The call whose threads this thread's next run uses; NULL: none. */
void node_use_threads(node_call *call);

/** Rows of a cache: what was there, and what comes behind it. */
typedef struct cache_rows {
    fa_tensor rows; /* the new rows, with any strides                     */
    const void *data;
    const void *past; /* (batch, heads, past_keys, dim), or NULL            */
    int64_t past_keys;
    void *present; /* (batch, heads, present_keys, dim); past itself: nothing of it is copied */
    int64_t present_keys;
    const int32_t *old_rows, *new_rows; /* of each batch entry; NULL: all of them         */
} cache_rows;

/** Writes past and new rows to `present`, and zeros behind them. */
void cache_join(node_call *call, const cache_rows *cache);

/**
 * What ONNX's Attention and MultiHeadAttention do with a cache: present is past and the new rows. *rows and *data
 * become all rows that attention sees. Returns how many keys of the past there are.
 */
int64_t cache_extend(node_call *call, int past_input, int present_output, fa_tensor *rows, const void **data);

extern const node_operator attention_operator, multi_head_operator, group_query_operator;

#endif
