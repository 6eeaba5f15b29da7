/* SPDX-License-Identifier: Apache-2.0 */
/** GroupQueryAttention, as ONNX Runtime's domain com.microsoft has it. */
#include "node.h"

#include <fastattn/reference.h>

enum {
    QUERY,
    KEY,
    VALUE,
    PAST_KEY,
    PAST_VALUE,
    LENGTHS,
    TOTAL,
    COSINES,
    SINES,
    POSITIONS,
    SCORE_BIAS,
    SINK,
    K_SCALE,
    V_SCALE,
    Q_NORM,
    K_NORM,
    QUERY_LENGTHS
};
enum { OUTPUT, PRESENT_KEY, PRESENT_VALUE, QK };

static const char *const inputs[] = {"query",
                                     "key",
                                     "value",
                                     "past_key",
                                     "past_value",
                                     "seqlens_k",
                                     "total_sequence_length",
                                     "cos_cache",
                                     "sin_cache",
                                     "position_ids",
                                     "attention_bias",
                                     "head_sink",
                                     "k_scale",
                                     "v_scale",
                                     "q_norm_weight",
                                     "k_norm_weight",
                                     "query_seqlens"};
static const char *const outputs[] = {"output", "present_key", "present_value", "output_qk"};
static const node_refusal refused_inputs[] = {
    {K_SCALE, "caches are float, float16 or bfloat16"},
    {V_SCALE, "caches are float, float16 or bfloat16"},
    {Q_NORM, "query and key are not normalised here"},
    {K_NORM, "query and key are not normalised here"},
    {0, NULL},
};
static const node_refusal refused_outputs[] = {{QK, "scores are never in memory as a whole"}, {0, NULL}};

static void create(node_call *call)
{
    node_kernel *kernel = call->kernel;
    bool given;
    kernel->heads_q = node_int(call, "num_heads", 0, 1, FA_MAX_LENGTH);
    kernel->heads_kv = node_int(call, "kv_num_heads", 0, 1, FA_MAX_LENGTH);
    if (kernel->heads_q == 0 || kernel->heads_kv == 0)
        node_fail(call, "attribute %s is missing", kernel->heads_q == 0 ? "num_heads" : "kv_num_heads");
    else if (kernel->heads_q % kernel->heads_kv != 0)
        node_fail(call, "attribute num_heads is %lld, no multiple of kv_num_heads %lld",
                  (long long)kernel->heads_q, (long long)kernel->heads_kv);
    kernel->causal = node_int(call, "causal", 1, 0, 1);
    kernel->scale = node_float(call, "scale", 0, &given);
    kernel->softcap = node_float(call, "softcap", 0, &given);
    if (kernel->softcap < 0)
        node_fail(call, "attribute softcap is %g; it must not be negative", (double)kernel->softcap);
    int64_t window = node_int(call, "local_window_size", -1, -1, FA_MAX_LENGTH);
    if (window == 0)
        node_fail(call, "attribute local_window_size is 0; it is -1, or the number of keys that a row sees");
    kernel->window_left = window < 0 ? 0 : window;
    if (window > 0 && !kernel->causal)
        node_fail(call, "attribute local_window_size goes with causal 1");
    kernel->rotary = node_int(call, "do_rotary", 0, 0, 1);
    kernel->interleaved = node_int(call, "rotary_interleaved", 0, 0, 1);
    kernel->smooth = node_int(call, "smooth_softmax", -1, -1, 1) == 1;
    if (node_int(call, "qk_output", 0, 0, 2) != 0)
        node_fail(call, "attribute qk_output is not 0: scores are never in memory as a whole");
    if (node_int(call, "sliding_window_cache", 0, 0, 1) != 0)
        node_fail(call, "attribute sliding_window_cache is 1: caches hold all keys");
    node_expect_string(call, "k_quant_type", "NONE", "caches are float, float16 or bfloat16");
    node_expect_string(call, "v_quant_type", "NONE", "caches are float, float16 or bfloat16");
}

/* The lengths of a run: in batch entry b, new_rows[b] rows come behind old_rows[b] keys. That makes keys[b]. */
typedef struct lengths {
    int32_t *old_rows, *new_rows, *keys;
    int64_t total; /* the most keys that the caller expects */
    bool padded;   /* some new_rows are less than the rows  */
    bool prompt;   /* nothing of any entry was in the cache */
} lengths;

static lengths read_lengths(node_call *call, int64_t batch, int64_t rows, int64_t past_keys)
{
    node_tensor lens = node_input(call, LENGTHS), total = node_input(call, TOTAL);
    node_tensor valid = node_input(call, QUERY_LENGTHS);
    node_integers(call, &lens, batch, false);
    node_integers(call, &total, 1, false);
    if (valid.given)
        node_integers(call, &valid, batch, false);
    lengths found = {
        .old_rows = node_scratch(call, batch, sizeof(int32_t)),
        .new_rows = node_scratch(call, batch, sizeof(int32_t)),
        .keys = node_scratch(call, batch, sizeof(int32_t)),
    };
    if (call->status)
        return found;
    found.total = *(const int32_t *)total.data;
    if (found.total < rows)
        node_fail(call, "input total_sequence_length is %lld; there are %lld new rows",
                  (long long)found.total, (long long)rows);
    found.prompt = !valid.given && found.total == rows;
    for (int64_t i = 0; i < batch && !call->status; i++) {
        int64_t keys = (int64_t)((const int32_t *)lens.data)[i] + 1;
        int64_t fresh = keys < rows ? keys : rows;
        if (keys < 1 || keys > found.total)
            node_fail(call, "input seqlens_k: element %lld is %lld; total_sequence_length is %lld",
                      (long long)i, (long long)keys - 1, (long long)found.total);
        else if (valid.given &&
                 (((const int32_t *)valid.data)[i] < 0 || ((const int32_t *)valid.data)[i] > fresh))
            node_fail(call, "input query_seqlens: element %lld is %d; there are %lld rows, and %lld keys",
                      (long long)i, ((const int32_t *)valid.data)[i], (long long)rows, (long long)keys);
        if (call->status)
            break;
        if (valid.given)
            fresh = ((const int32_t *)valid.data)[i];
        if (keys - fresh > past_keys)
            node_fail(call, "input seqlens_k: element %lld asks for %lld keys of past_key, which has %lld",
                      (long long)i, (long long)(keys - fresh), (long long)past_keys);
        found.old_rows[i] = (int32_t)(keys - fresh);
        found.new_rows[i] = (int32_t)fresh;
        found.keys[i] = (int32_t)keys;
        found.padded |= fresh < rows;
    }
    return found;
}

/* query, key and value: each (batch, rows, heads * dim), or all of them in query, one behind the other. */
static void set_operands(node_call *call, node_problem *problem)
{
    node_tensor query = node_input(call, QUERY), key = node_input(call, KEY), value = node_input(call, VALUE);
    int64_t heads_q = call->kernel->heads_q, heads_kv = call->kernel->heads_kv;
    int64_t heads = heads_q + (key.given ? 0 : 2 * heads_kv);
    fa_attention_desc *desc = &problem->desc;
    fa_dtype dtype = node_float_type(call, &query);
    node_rank(call, &query, 3);
    if (call->status)
        return;
    const int64_t *s = query.dims;
    if (key.given != value.given)
        node_fail(call, "inputs key and value come together");
    else if (s[2] % heads != 0)
        node_fail(call, "input query: axis 2 is %lld, no multiple of %lld heads", (long long)s[2],
                  (long long)heads);
    if (call->status)
        return;
    int64_t dim = s[2] / heads;
    desc->q = node_rows_first(dtype, s[0], heads_q, s[1], dim);
    desc->k = node_rows_first(dtype, s[0], heads_kv, s[1], dim);
    problem->args.q = query.data;
    if (key.given) {
        const node_tensor *sides[] = {&key, &value};
        for (int i = 0; i < 2; i++) {
            node_rank(call, sides[i], 3);
            node_dim(call, sides[i], 0, s[0], "the batch size");
            node_dim(call, sides[i], 1, s[1], "the number of rows of query");
            node_dim(call, sides[i], 2, heads_kv * dim, "kv_num_heads times the head size of query");
            if (!call->status && node_float_type(call, sides[i]) != dtype)
                node_fail(call, "input %s is not of the type of query", sides[i]->name);
        }
        problem->args.k = key.data;
        problem->args.v = value.data;
    } else {
        size_t head_bytes = (size_t)dim * fa_dtype_size(dtype);
        desc->q.stride[0] = desc->k.stride[0] = s[1] * s[2];
        desc->q.stride[2] = desc->k.stride[2] = s[2];
        problem->args.k = (const char *)query.data + (size_t)heads_q * head_bytes;
        problem->args.v = (const char *)query.data + (size_t)(heads_q + heads_kv) * head_bytes;
    }
    desc->v = desc->k;
}

/* A cache's past. `like` is a tensor of the new rows. */
static node_tensor past_input(node_call *call, int index, const fa_tensor *like)
{
    node_tensor past = node_input(call, index);
    node_rank(call, &past, 4);
    node_dim(call, &past, 0, like->shape[0], "the batch size");
    node_dim(call, &past, 1, like->shape[1], "kv_num_heads");
    node_dim(call, &past, 3, like->shape[3], "the head size");
    if (!call->status && past.given && node_float_type(call, &past) != like->dtype)
        node_fail(call, "input %s is not of the type of query", past.name);
    return past;
}

/* Writes a cache. With `rotated`, the new rows come later. Returns it. */
static void *extend(node_call *call, const node_tensor *past, int output, const fa_tensor *rows,
                    const void *data, const lengths *lens, int64_t keys, int32_t *no_rows)
{
    int64_t dims[4] = {rows->shape[0], rows->shape[1], keys, rows->shape[3]};
    void *present = node_output(call, output, rows->dtype, 4, dims);
    if (!present)
        present = node_scratch(call, dims[0] * dims[1] * dims[2] * dims[3], fa_dtype_size(rows->dtype));
    if (call->status)
        return NULL;
    cache_rows cache = {
        .rows = *rows,
        .data = data,
        .past = past->given ? past->data : NULL,
        .past_keys = past->given ? past->dims[2] : 0,
        .present = present,
        .present_keys = keys,
        .old_rows = lens->old_rows,
        .new_rows = no_rows ? no_rows : lens->new_rows,
    };
    cache_join(call, &cache);
    return present;
}

/* Operands of an append, each in a buffer. */
static fa_buffer *wrap(node_call *call, fa_device *device, const void *data, size_t bytes)
{
    fa_buffer *buffer = NULL;
    if (!call->status && fa_buffer_wrap_host(device, (void *)data, bytes, &buffer) != FA_OK)
        node_fail(call, "%s", fa_last_error());
    return buffer;
}

static size_t span_of(const fa_tensor *tensor)
{
    size_t bytes = 0;
    fa_tensor_span(tensor, &bytes);
    return bytes;
}

typedef struct rotation {
    float *cosines, *sines; /* of each row: half the dims that turn */
    int32_t *slots, *positions;
    int64_t half;
} rotation;

/* The angles of each row, and where its key goes. Rows that are padding go nowhere. */
static rotation read_rotation(node_call *call, const fa_attention_desc *desc, const lengths *lens,
                              int64_t present_keys)
{
    node_tensor cosines = node_input(call, COSINES), sines = node_input(call, SINES);
    node_tensor ids = node_input(call, POSITIONS);
    int64_t batch = desc->q.shape[0], rows = desc->q.shape[2], dim = desc->q.shape[3];
    fa_dtype type = node_float_type(call, &cosines);
    if (!call->status && (!cosines.given || !sines.given))
        node_fail(call, "input %s is missing: do_rotary is 1", cosines.given ? "sin_cache" : "cos_cache");
    node_rank(call, &cosines, 2);
    node_rank(call, &sines, 2);
    node_dim(call, &sines, 0, cosines.dims[0], "axis 0 of cos_cache");
    node_dim(call, &sines, 1, cosines.dims[1], "axis 1 of cos_cache");
    if (!call->status && node_float_type(call, &sines) != type)
        node_fail(call, "input sin_cache is not of the type of cos_cache");
    rotation turn = {.half = cosines.dims[1]};
    if (!call->status && (turn.half < 1 || 2 * turn.half > dim))
        node_fail(call, "input cos_cache: axis 1 is %lld; the head size is %lld", (long long)turn.half,
                  (long long)dim);
    if (ids.given && node_rank(call, &ids, 2)) {
        node_dim(call, &ids, 0, batch, "the batch size");
        node_dim(call, &ids, 1, rows, "the number of rows of query");
        node_integers(call, &ids, batch * rows, true);
    }
    turn.cosines = node_scratch(call, batch * rows * turn.half, sizeof(float));
    turn.sines = node_scratch(call, batch * rows * turn.half, sizeof(float));
    turn.slots = node_scratch(call, batch * rows, sizeof(int32_t));
    turn.positions = node_scratch(call, batch * rows, sizeof(int32_t));
    if (!call->status && batch * present_keys > INT32_MAX)
        node_fail(call, "output present_key has more than %d rows of a head", INT32_MAX);
    for (int64_t i = 0; i < batch * rows && !call->status; i++) {
        int64_t entry = i / rows, row = i % rows;
        bool real = row < lens->new_rows[entry];
        int64_t position = lens->old_rows[entry] + row;
        if (ids.given) /* of a prompt, the operator takes the first number alone */
            position = lens->prompt ? ((const int64_t *)ids.data)[0] + row : ((const int64_t *)ids.data)[i];
        if (!real)
            position = 0;
        if (position < 0 || position >= cosines.dims[0]) {
            node_fail(call, "input cos_cache has %lld positions; batch entry %lld has a row at %lld",
                      (long long)cosines.dims[0], (long long)entry, (long long)position);
            break;
        }
        for (int64_t j = 0; j < turn.half; j++) {
            turn.cosines[i * turn.half + j] = fa_element(type, cosines.data, position * turn.half + j);
            turn.sines[i * turn.half + j] = fa_element(type, sines.data, position * turn.half + j);
        }
        turn.slots[i] = real ? (int32_t)(entry * present_keys + lens->old_rows[entry] + row) : -1;
        turn.positions[i] = (int32_t)i;
    }
    return turn;
}

/* Rotates query into memory of the run, and key into the cache. */
static void rotate(node_call *call, node_problem *problem, const lengths *lens, void *present,
                   int64_t present_keys)
{
    fa_attention_desc *desc = &problem->desc;
    const int64_t *s = desc->q.shape;
    rotation turn = read_rotation(call, desc, lens, present_keys);
    fa_tensor rotated = node_heads_first(desc->q.dtype, s[0], s[1], s[2], s[3]);
    void *memory = node_scratch(call, s[0] * s[1] * s[2] * s[3], fa_dtype_size(rotated.dtype));
    if (call->status)
        return;
    size_t rows = (size_t)(s[0] * s[2]), table = rows * (size_t)turn.half * sizeof(float);
    fa_append_desc append_desc = {
        .struct_size = sizeof(append_desc),
        .k = desc->k,
        .cache_k = node_heads_first(desc->k.dtype, s[0], desc->k.shape[1], present_keys, s[3]),
        .rotary = {.form = call->kernel->interleaved ? FA_ROTARY_INTERLEAVED : FA_ROTARY_HALVES,
                   .dims = (int32_t)(2 * turn.half),
                   .table_positions = (int32_t)rows},
        .q = desc->q,
        .q_out = rotated,
    };
    const char *message;
    fa_device *device = node_device(&message);
    fa_queue *queue = NULL;
    fa_append *append = NULL;
    fa_append_args args = {
        .struct_size = sizeof(args),
        .k = wrap(call, device, problem->args.k, span_of(&append_desc.k)),
        .slots = wrap(call, device, turn.slots, rows * sizeof(int32_t)),
        .cache_k = wrap(call, device, present, span_of(&append_desc.cache_k)),
        .positions = wrap(call, device, turn.positions, rows * sizeof(int32_t)),
        .cosines = wrap(call, device, turn.cosines, table),
        .sines = wrap(call, device, turn.sines, table),
        .q = wrap(call, device, problem->args.q, span_of(&append_desc.q)),
        .q_out = wrap(call, device, memory, span_of(&rotated)),
    };
    node_use_threads(call);
    if (!call->status &&
        (fa_append_create(device, &append_desc, &append) != FA_OK ||
         fa_queue_create(device, &queue) != FA_OK || fa_append_run(append, queue, &args) != FA_OK))
        node_fail(call, "%s", fa_last_error());
    node_use_threads(NULL);
    fa_queue_destroy(queue);
    fa_append_destroy(append);
    fa_buffer *const wrapped[] = {args.k,       args.slots, args.cache_k, args.positions,
                                  args.cosines, args.sines, args.q,       args.q_out};
    for (size_t i = 0; i < sizeof(wrapped) / sizeof(wrapped[0]); i++)
        fa_buffer_destroy(wrapped[i]);
    desc->q = rotated;
    problem->args.q = memory;
}

static void set_score_bias(node_call *call, node_problem *problem, int64_t total)
{
    node_tensor bias = node_input(call, SCORE_BIAS);
    const int64_t *s = problem->desc.q.shape;
    if (call->status || !bias.given || !node_rank(call, &bias, 4))
        return;
    if (bias.dims[3] < total)
        node_fail(call, "input attention_bias: axis 3 is %lld; total_sequence_length is %lld",
                  (long long)bias.dims[3], (long long)total);
    fa_dtype dtype = node_float_type(call, &bias);
    problem->desc.bias = node_repeated(call, &bias, dtype, (int64_t[4]){s[0], s[1], s[2], 0});
    problem->args.bias = bias.data;
}

/* A logit for each head that takes weight and gives no value: 0 with smooth_softmax. */
static void set_sinks(node_call *call, fa_attention_desc *desc)
{
    node_tensor sink = node_input(call, SINK);
    int64_t heads = call->kernel->heads_q;
    if (call->status || (!sink.given && !call->kernel->smooth))
        return;
    node_rank(call, &sink, 1);
    node_dim(call, &sink, 0, heads, "attribute num_heads");
    fa_dtype type = node_float_type(call, &sink);
    float *sinks = node_scratch(call, heads, sizeof(float));
    for (int64_t i = 0; i < heads && !call->status; i++)
        sinks[i] = sink.given ? fa_element(type, sink.data, i) : 0;
    desc->sinks = sinks;
}

static void compute(node_call *call)
{
    const node_kernel *kernel = call->kernel;
    node_problem problem = node_problem_make(kernel);
    fa_attention_desc *desc = &problem.desc;
    set_operands(call, &problem);
    if (call->status)
        return;
    int64_t batch = desc->q.shape[0], rows = desc->q.shape[2], dim = desc->q.shape[3];
    node_tensor past_key = past_input(call, PAST_KEY, &desc->k);
    node_tensor past_value = past_input(call, PAST_VALUE, &desc->v);
    if (past_key.given != past_value.given)
        node_fail(call, "inputs past_key and past_value come together");
    else if (past_key.given)
        node_dim(call, &past_value, 2, past_key.dims[2], "axis 2 of past_key");
    int64_t past_keys = past_key.given ? past_key.dims[2] : 0;
    lengths lens = read_lengths(call, batch, rows, past_keys);
    int64_t keys = lens.total > past_keys ? lens.total : past_keys;
    int32_t *no_rows = NULL;
    if (kernel->rotary) {
        no_rows = node_scratch(call, batch, sizeof(int32_t));
        if (no_rows)
            memset(no_rows, 0, (size_t)batch * sizeof(int32_t));
    }
    void *cache_k = extend(call, &past_key, PRESENT_KEY, &desc->k, problem.args.k, &lens, keys, no_rows);
    void *cache_v = extend(call, &past_value, PRESENT_VALUE, &desc->v, problem.args.v, &lens, keys, NULL);
    if (kernel->rotary && batch * rows > 0)
        rotate(call, &problem, &lens, cache_k, keys);
    if (call->status)
        return;
    desc->k = node_heads_first(desc->k.dtype, batch, kernel->heads_kv, keys, dim);
    desc->v = desc->k;
    problem.args.k = cache_k;
    problem.args.v = cache_v;
    desc->lens_kv32 = lens.keys;
    desc->lens_q32 = lens.padded ? lens.new_rows : NULL;
    desc->mask = kernel->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    set_score_bias(call, &problem, lens.total);
    set_sinks(call, desc);

    int64_t dims[3] = {batch, rows, kernel->heads_q * dim};
    desc->o = node_rows_first(desc->q.dtype, batch, kernel->heads_q, rows, dim);
    problem.args.o = node_output(call, OUTPUT, desc->o.dtype, 3, dims);
    if (!call->status && lens.padded)
        memset(problem.args.o, 0, (size_t)(dims[0] * dims[1] * dims[2]) * fa_dtype_size(desc->o.dtype));
    node_run(call, &problem);
}

const node_operator group_query_operator = {
    .name = "GroupQueryAttention",
    .inputs = inputs,
    .outputs = outputs,
    .input_count = 17,
    .required = 1,
    .output_count = 4,
    .refused_inputs = refused_inputs,
    .refused_outputs = refused_outputs,
    .create = create,
    .compute = compute,
};
