/* SPDX-License-Identifier: Apache-2.0 */
/** ONNX's Attention, as opsets 23 to 25 have it. */
#include "node.h"

enum { Q, K, V, MASK, PAST_KEY, PAST_VALUE, NONPAD };
enum { Y, PRESENT_KEY, PRESENT_VALUE, QK };

static const char *const inputs[] = {
    "Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"};
static const char *const outputs[] = {"Y", "present_key", "present_value", "qk_matmul_output"};
static const node_refusal refused_inputs[] = {{0, NULL}};
static const node_refusal refused_outputs[] = {{QK, "scores are never in memory as a whole"}, {0, NULL}};

static void create(node_call *call)
{
    node_kernel *kernel = call->kernel;
    bool softcap_given;
    kernel->causal = node_int(call, "is_causal", 0, 0, 1);
    kernel->heads_q = node_int(call, "q_num_heads", 0, 0, FA_MAX_LENGTH);
    kernel->heads_kv = node_int(call, "kv_num_heads", 0, 0, FA_MAX_LENGTH);
    kernel->scale = node_float(call, "scale", 0, &kernel->scale_is_set);
    kernel->softcap = node_float(call, "softcap", 0, &softcap_given);
    if (kernel->softcap < 0)
        node_fail(call, "attribute softcap is %g; it must not be negative", (double)kernel->softcap);
    /* -1, unlimited, becomes 0; there a window counts the keys beside the row's position, here that too. */
    kernel->window_left = node_int(call, "left_window_size", -1, -1, FA_MAX_LENGTH) + 1;
    kernel->window_right = node_int(call, "right_window_size", -1, -1, FA_MAX_LENGTH) + 1;
    /* Softmax is f32: what f16 or bf16 asks for, and more. */
    int64_t precision = node_int(call, "softmax_precision", 1, 0, 100);
    if (precision != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT &&
        precision != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 &&
        precision != ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16)
        node_fail(call, "attribute softmax_precision is %lld; softmax is computed in float",
                  (long long)precision);
}

/* Q, K or V: (batch, heads, rows, dim), or (batch, rows, heads * dim). */
static fa_tensor operand(node_call *call, const node_tensor *tensor, int64_t heads, const char *attribute)
{
    fa_dtype dtype = node_float_type(call, tensor);
    const int64_t *dims = tensor->dims;
    if (!call->status && !tensor->given)
        node_fail(call, "input %s is missing", tensor->name);
    else if (!call->status && tensor->rank == 3 && heads == 0)
        node_fail(call, "input %s has 3 axes: attribute %s is missing or 0", tensor->name, attribute);
    else if (!call->status && tensor->rank == 3 && dims[2] % heads != 0)
        node_fail(call, "input %s: axis 2 is %lld, no multiple of %s %lld", tensor->name, (long long)dims[2],
                  attribute, (long long)heads);
    else if (!call->status && tensor->rank != 3 && tensor->rank != 4)
        node_fail(call, "input %s has %d axes, not 3 or 4", tensor->name, tensor->rank);
    else if (!call->status && tensor->rank == 4 && heads != 0 && dims[1] != heads)
        node_fail(call, "input %s: axis 1 is %lld; attribute %s is %lld", tensor->name, (long long)dims[1],
                  attribute, (long long)heads);
    if (call->status)
        return (fa_tensor){0};
    if (tensor->rank == 3)
        return node_rows_first(dtype, dims[0], heads, dims[1], dims[2] / heads);
    return node_heads_first(dtype, dims[0], dims[1], dims[2], dims[3]);
}

static void check_sizes(node_call *call, const fa_attention_desc *desc)
{
    const int64_t *q = desc->q.shape, *k = desc->k.shape, *v = desc->v.shape;
    if (call->status)
        return;
    if (k[0] != q[0] || v[0] != q[0])
        node_fail(call, "inputs Q, K and V have batch sizes %lld, %lld and %lld", (long long)q[0],
                  (long long)k[0], (long long)v[0]);
    else if (v[1] != k[1] || k[1] == 0 || q[1] % k[1] != 0)
        node_fail(call, "inputs Q, K and V have %lld, %lld and %lld heads", (long long)q[1], (long long)k[1],
                  (long long)v[1]);
    else if (v[2] != k[2])
        node_fail(call, "input V has %lld keys, K has %lld", (long long)v[2], (long long)k[2]);
    else if (k[3] != q[3])
        node_fail(call, "input K has head size %lld, Q has %lld", (long long)k[3], (long long)q[3]);
}

/* nonpad_kv_seqlen becomes lengths; the mask shortens them where it is shorter than the keys. */
static void set_lengths(node_call *call, fa_attention_desc *desc, int64_t masked_keys)
{
    node_tensor nonpad = node_input(call, NONPAD);
    int64_t batch = desc->q.shape[0], keys = desc->k.shape[2];
    if (call->status || (!nonpad.given && masked_keys == keys))
        return;
    if (nonpad.given)
        node_integers(call, &nonpad, batch, true);
    int32_t *lens = node_scratch(call, batch, sizeof(int32_t));
    for (int64_t i = 0; i < batch && !call->status; i++) {
        int64_t length = nonpad.given ? ((const int64_t *)nonpad.data)[i] : masked_keys;
        if (length < 0 || length > keys)
            node_fail(call, "input nonpad_kv_seqlen: element %lld is %lld; there are %lld keys", (long long)i,
                      (long long)length, (long long)keys);
        else if (length > masked_keys)
            node_fail(call, "input attn_mask is of %lld keys; element %lld of nonpad_kv_seqlen is %lld",
                      (long long)masked_keys, (long long)i, (long long)length);
        else
            lens[i] = (int32_t)length;
    }
    desc->lens_kv32 = lens;
}

/* Returns how many keys the mask is of. */
static int64_t set_mask(node_call *call, node_problem *problem)
{
    node_tensor mask = node_input(call, MASK);
    fa_attention_desc *desc = &problem->desc;
    int64_t keys = desc->k.shape[2];
    if (call->status || !mask.given)
        return keys;
    bool boolean = mask.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    int64_t full[4] = {desc->q.shape[0], desc->q.shape[1], desc->q.shape[2], keys};
    fa_dtype dtype = boolean ? FA_BOOL : node_float_type(call, &mask);
    fa_tensor shown = node_repeated(call, &mask, dtype, full);
    if (!call->status && shown.shape[3] > keys)
        node_fail(call, "input attn_mask is of %lld keys; there are %lld", (long long)shown.shape[3],
                  (long long)keys);
    if (call->status || shown.shape[3] == 0)
        return 0;
    if (boolean) {
        desc->keep = shown;
        problem->args.keep = mask.data;
    } else {
        desc->bias = shown;
        problem->args.bias = mask.data;
    }
    return shown.shape[3];
}

static void compute(node_call *call)
{
    const node_kernel *kernel = call->kernel;
    node_problem problem = node_problem_make(kernel);
    fa_attention_desc *desc = &problem.desc;
    node_tensor q = node_input(call, Q), k = node_input(call, K), v = node_input(call, V);
    desc->q = operand(call, &q, kernel->heads_q, "q_num_heads");
    desc->k = operand(call, &k, kernel->heads_kv, "kv_num_heads");
    desc->v = operand(call, &v, kernel->heads_kv, "kv_num_heads");
    problem.args.q = q.data;
    problem.args.k = k.data;
    problem.args.v = v.data;
    check_sizes(call, desc);
    if (!call->status && (k.rank != q.rank || v.rank != q.rank))
        node_fail(call, "inputs Q, K and V have %d, %d and %d axes", q.rank, k.rank, v.rank);
    if (call->status)
        return;

    node_tensor past_key = node_input(call, PAST_KEY), past_value = node_input(call, PAST_VALUE);
    node_tensor nonpad = node_input(call, NONPAD);
    if (past_key.given != past_value.given)
        node_fail(call, "inputs past_key and past_value come together");
    else if (past_key.given && nonpad.given)
        node_fail(call, "input nonpad_kv_seqlen does not go with past_key");
    int64_t past = cache_extend(call, PAST_KEY, PRESENT_KEY, &desc->k, &problem.args.k);
    if (past_value.given && node_rank(call, &past_value, 4))
        node_dim(call, &past_value, 2, past, "the number of keys in past_key");
    cache_extend(call, PAST_VALUE, PRESENT_VALUE, &desc->v, &problem.args.v);

    set_lengths(call, desc, set_mask(call, &problem));
    /* Row i stands behind the past, or so that the last row is the last key that is no padding. */
    if (nonpad.given) {
        desc->mask = kernel->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
        desc->alignment = FA_ALIGN_BOTTOM_RIGHT;
    } else {
        desc->mask = kernel->causal ? FA_MASK_CAUSAL_TOP_LEFT : FA_MASK_NONE;
        desc->alignment = FA_ALIGN_TOP_LEFT;
        desc->diagonal_offset = past;
    }

    const int64_t *s = desc->q.shape;
    int64_t dim = desc->v.shape[3];
    if (q.rank == 4) {
        desc->o = node_heads_first(desc->q.dtype, s[0], s[1], s[2], dim);
        problem.args.o = node_output(call, Y, desc->o.dtype, 4, (int64_t[4]){s[0], s[1], s[2], dim});
    } else {
        desc->o = node_rows_first(desc->q.dtype, s[0], s[1], s[2], dim);
        problem.args.o = node_output(call, Y, desc->o.dtype, 3, (int64_t[3]){s[0], s[2], s[1] * dim});
    }
    node_run(call, &problem);
}

const node_operator attention_operator = {
    .name = "Attention",
    .inputs = inputs,
    .outputs = outputs,
    .input_count = 7,
    .required = 3,
    .output_count = 4,
    .refused_inputs = refused_inputs,
    .refused_outputs = refused_outputs,
    .create = create,
    .compute = compute,
};
