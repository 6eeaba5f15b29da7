/* SPDX-License-Identifier: Apache-2.0 */
/** MultiHeadAttention, as ONNX Runtime's domain com.microsoft has it. */
#include "node.h"

#include <fastattn/reference.h>

enum { QUERY, KEY, VALUE, BIAS, PADDING, SCORE_BIAS, PAST_KEY, PAST_VALUE, PAST_LENGTH, INDIRECTION };
enum { OUTPUT, PRESENT_KEY, PRESENT_VALUE, QK };

static const char *const inputs[] = {"query",
                                     "key",
                                     "value",
                                     "bias",
                                     "key_padding_mask",
                                     "attention_bias",
                                     "past_key",
                                     "past_value",
                                     "past_sequence_length",
                                     "cache_indirection"};
static const char *const outputs[] = {"output", "present_key", "present_value", "qk"};
static const node_refusal refused_inputs[] = {
    {PAST_LENGTH, "present is past and the new keys, in a buffer of its own"},
    {INDIRECTION, "beams are not followed through the cache"},
    {0, NULL},
};
static const node_refusal refused_outputs[] = {{QK, "scores are never in memory as a whole"}, {0, NULL}};

static void create(node_call *call)
{
    node_kernel *kernel = call->kernel;
    bool filter_given;
    kernel->heads_q = kernel->heads_kv = node_int(call, "num_heads", 0, 1, FA_MAX_LENGTH);
    if (kernel->heads_q == 0)
        node_fail(call, "attribute num_heads is missing");
    kernel->causal = node_int(call, "unidirectional", 0, 0, 1);
    kernel->scale = node_float(call, "scale", 0, &kernel->scale_is_set);
    kernel->scale_is_set = false; /* 0 is the default there */
    /* What is added to a masked score leaves no weight: the key is hidden. */
    float filter = node_float(call, "mask_filter_value", -10000, &filter_given);
    if (filter > -10000)
        node_fail(call, "attribute mask_filter_value is %g; masked keys are hidden, as by -10000 or less",
                  (double)filter);
}

/* Part `part` of packed (batch, rows, heads, parts, dim). */
static fa_tensor packed(fa_dtype dtype, const node_tensor *tensor, int part, const void **data)
{
    const int64_t *d = tensor->dims;
    fa_tensor view = node_rows_first(dtype, d[0], d[2], d[1], d[4]);
    view.stride[0] = d[1] * d[2] * d[3] * d[4];
    view.stride[1] = d[3] * d[4];
    view.stride[2] = d[2] * d[3] * d[4];
    *data = (const char *)tensor->data + (size_t)(part * d[4]) * fa_dtype_size(dtype);
    return view;
}

static fa_tensor operand(node_call *call, const node_tensor *tensor, const void **data)
{
    const int64_t *dims = tensor->dims, heads = call->kernel->heads_q;
    fa_dtype dtype = node_float_type(call, tensor);
    *data = tensor->data;
    if (call->status)
        return (fa_tensor){0};
    if (tensor->rank == 4)
        return node_heads_first(dtype, dims[0], dims[1], dims[2], dims[3]);
    if (node_rank(call, tensor, 3) && dims[2] % heads != 0)
        node_fail(call, "input %s: axis 2 is %lld, no multiple of num_heads %lld", tensor->name,
                  (long long)dims[2], (long long)heads);
    return call->status ? (fa_tensor){0} : node_rows_first(dtype, dims[0], heads, dims[1], dims[2] / heads);
}

/* Query, key and value from whichever inputs hold them. */
static void set_operands(node_call *call, node_problem *problem)
{
    node_tensor query = node_input(call, QUERY), key = node_input(call, KEY), value = node_input(call, VALUE);
    fa_attention_desc *desc = &problem->desc;
    fa_host_args *args = &problem->args;
    if (call->status)
        return;
    if (query.rank == 5) {
        if (key.given || value.given)
            node_fail(call, "input query is packed: key and value do not go with it");
        node_dim(call, &query, 2, call->kernel->heads_q, "attribute num_heads");
        node_dim(call, &query, 3, 3, "the number of parts");
        fa_dtype dtype = node_float_type(call, &query);
        if (call->status)
            return;
        desc->q = packed(dtype, &query, 0, &args->q);
        desc->k = packed(dtype, &query, 1, &args->k);
        desc->v = packed(dtype, &query, 2, &args->v);
        return;
    }
    node_rank(call, &query, 3);
    desc->q = operand(call, &query, &args->q);
    if (call->status)
        return;
    if (!key.given) {
        node_fail(call, "input key is missing: query is not packed");
    } else if (key.rank == 5) {
        if (value.given)
            node_fail(call, "input key is packed: value does not go with it");
        node_dim(call, &key, 3, 2, "the number of parts");
        fa_dtype dtype = node_float_type(call, &key);
        if (call->status)
            return;
        desc->k = packed(dtype, &key, 0, &args->k);
        desc->v = packed(dtype, &key, 1, &args->v);
    } else {
        if (!value.given)
            node_fail(call, "input value is missing: key is not packed");
        else if (value.rank != key.rank)
            node_fail(call, "input value has %d axes, key has %d", value.rank, key.rank);
        desc->k = operand(call, &key, &args->k);
        desc->v = operand(call, &value, &args->v);
    }
}

static void check_sizes(node_call *call, const fa_attention_desc *desc)
{
    const int64_t *q = desc->q.shape, *k = desc->k.shape, *v = desc->v.shape;
    if (call->status)
        return;
    if (k[0] != q[0] || v[0] != q[0])
        node_fail(call, "inputs query, key and value have batch sizes %lld, %lld and %lld", (long long)q[0],
                  (long long)k[0], (long long)v[0]);
    else if (k[1] != q[1] || v[1] != q[1])
        node_fail(call, "inputs key and value have %lld and %lld heads; attribute num_heads is %lld",
                  (long long)k[1], (long long)v[1], (long long)q[1]);
    else if (v[2] != k[2])
        node_fail(call, "input value has %lld keys, key has %lld", (long long)v[2], (long long)k[2]);
    else if (k[3] != q[3])
        node_fail(call, "input key has head size %lld, query has %lld", (long long)k[3], (long long)q[3]);
    else if (call->kernel->causal && k[2] != q[2])
        node_fail(call, "input key has %lld rows, query has %lld: attribute unidirectional needs as many",
                  (long long)k[2], (long long)q[2]);
}

/* rows + bias in memory of the run, of axes (batch, row, head, dim). This part of the bias begins at `from`. */
static void add_bias(node_call *call, const node_tensor *bias, int64_t from, fa_tensor *rows,
                     const void **data)
{
    int64_t width = rows->shape[1] * rows->shape[3], count = rows->shape[0] * rows->shape[2];
    fa_dtype dtype = rows->dtype;
    void *sum = node_scratch(call, count * width, fa_dtype_size(dtype));
    float *line = node_scratch(call, width, sizeof(float));
    if (call->status)
        return;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < width; j++)
            line[j] = dtype == FA_F32
                          ? ((const float *)*data)[i * width + j] + ((const float *)bias->data)[from + j]
                          : fa_element(dtype, *data, i * width + j) + fa_element(dtype, bias->data, from + j);
        fa_elements_store(dtype, sum, i * width, line, width);
    }
    *data = sum;
}

static void add_biases(node_call *call, node_problem *problem)
{
    node_tensor bias = node_input(call, BIAS), query = node_input(call, QUERY), key = node_input(call, KEY);
    fa_attention_desc *desc = &problem->desc;
    if (call->status || !bias.given)
        return;
    int64_t q = desc->q.shape[1] * desc->q.shape[3], v = desc->v.shape[1] * desc->v.shape[3];
    if (query.rank != 3 || key.rank != 3)
        node_fail(call, "input bias is served with query, key and value of 3 axes");
    node_rank(call, &bias, 1);
    node_dim(call, &bias, 0, 2 * q + v, "the width of query, key and value");
    if (!call->status && node_float_type(call, &bias) != desc->q.dtype)
        node_fail(call, "input bias is not of the type of query");
    if (!call->status && (desc->k.dtype != desc->q.dtype || desc->v.dtype != desc->q.dtype))
        node_fail(call, "inputs query, key and value are not of one type, which bias needs");
    add_bias(call, &bias, 0, &desc->q, &problem->args.q);
    add_bias(call, &bias, q, &desc->k, &problem->args.k);
    add_bias(call, &bias, 2 * q, &desc->v, &problem->args.v);
}

/* key_padding_mask: lengths (batch), or (batch, keys) or (batch, rows, keys), where 0 is padding. */
static void set_padding(node_call *call, node_problem *problem)
{
    node_tensor mask = node_input(call, PADDING);
    fa_attention_desc *desc = &problem->desc;
    int64_t batch = desc->q.shape[0], rows = desc->q.shape[2], keys = desc->k.shape[2], count;
    if (call->status || !mask.given)
        return;
    if (mask.rank == 1) {
        if (!node_integers(call, &mask, batch, false))
            return;
        for (int64_t i = 0; i < batch; i++) {
            int32_t length = ((const int32_t *)mask.data)[i];
            if (length < 0 || length > keys)
                node_fail(call, "input key_padding_mask: element %lld is %d; there are %lld keys",
                          (long long)i, length, (long long)keys);
        }
        desc->lens_kv32 = mask.data;
        return;
    }
    if (mask.rank != 2 && mask.rank != 3) {
        node_fail(call, "input key_padding_mask has %d axes; 1 to 3 are served", mask.rank);
        return;
    }
    node_dim(call, &mask, 0, batch, "the batch size");
    if (mask.rank == 3)
        node_dim(call, &mask, 1, rows, "the number of rows");
    node_dim(call, &mask, mask.rank - 1, keys, "the number of keys, past and new");
    count = batch * (mask.rank == 3 ? rows : 1) * keys;
    node_integers(call, &mask, count, false);
    unsigned char *keep = node_scratch(call, count, 1);
    for (int64_t i = 0; i < count && !call->status; i++)
        keep[i] = ((const int32_t *)mask.data)[i] != 0;
    desc->keep = node_heads_first(FA_BOOL, batch, 1, mask.rank == 3 ? rows : 1, keys);
    problem->args.keep = keep;
}

static void set_score_bias(node_call *call, node_problem *problem)
{
    node_tensor bias = node_input(call, SCORE_BIAS);
    fa_attention_desc *desc = &problem->desc;
    int64_t full[4] = {desc->q.shape[0], desc->q.shape[1], desc->q.shape[2], desc->k.shape[2]};
    if (call->status || !bias.given)
        return;
    node_rank(call, &bias, 4);
    node_dim(call, &bias, 3, full[3], "the number of keys, past and new");
    fa_dtype dtype = node_float_type(call, &bias);
    desc->bias = node_repeated(call, &bias, dtype, full);
    problem->args.bias = bias.data;
}

static void compute(node_call *call)
{
    const node_kernel *kernel = call->kernel;
    node_problem problem = node_problem_make(kernel);
    fa_attention_desc *desc = &problem.desc;
    set_operands(call, &problem);
    check_sizes(call, desc);
    add_biases(call, &problem);

    node_tensor past_key = node_input(call, PAST_KEY), past_value = node_input(call, PAST_VALUE);
    if (past_key.given != past_value.given)
        node_fail(call, "inputs past_key and past_value come together");
    if (call->status)
        return;
    int64_t past = cache_extend(call, PAST_KEY, PRESENT_KEY, &desc->k, &problem.args.k);
    if (past_value.given && node_rank(call, &past_value, 4))
        node_dim(call, &past_value, 2, past, "the number of keys in past_key");
    cache_extend(call, PAST_VALUE, PRESENT_VALUE, &desc->v, &problem.args.v);

    set_padding(call, &problem);
    set_score_bias(call, &problem);
    desc->mask = kernel->causal ? FA_MASK_CAUSAL_TOP_LEFT : FA_MASK_NONE;
    desc->diagonal_offset = kernel->causal ? past : 0;

    const int64_t *s = desc->q.shape;
    int64_t dim = desc->v.shape[3];
    desc->o = node_rows_first(desc->q.dtype, s[0], s[1], s[2], dim);
    problem.args.o = node_output(call, OUTPUT, desc->o.dtype, 3, (int64_t[3]){s[0], s[2], s[1] * dim});
    node_run(call, &problem);
}

const node_operator multi_head_operator = {
    .name = "MultiHeadAttention",
    .inputs = inputs,
    .outputs = outputs,
    .input_count = 10,
    .required = 1,
    .output_count = 4,
    .refused_inputs = refused_inputs,
    .refused_outputs = refused_outputs,
    .create = create,
    .compute = compute,
};
