/* SPDX-License-Identifier: Apache-2.0 */
/** What ONNX Runtime meets: RegisterCustomOps(), and each operator once for each type of its first input. */
#include "node.h"

#include <stdlib.h>

_Static_assert(ORT_API_VERSION >= NODE_API, "onnxruntime_c_api.h is of a release before 1.18");

typedef struct custom_op {
    OrtCustomOp base; /* first: ONNX Runtime hands it back */
    const node_operator *kind;
    ONNXTensorElementDataType type;
} custom_op;

static const node_operator *of(const OrtCustomOp *op)
{
    return ((const custom_op *)op)->kind;
}

static const char *ORT_API_CALL get_name(const OrtCustomOp *op)
{
    return of(op)->name;
}

static const char *ORT_API_CALL get_provider(const OrtCustomOp *op)
{
    (void)op;
    return NULL; /* the CPU's */
}

/* The first input and all outputs are of one type; what else an input may be, the operator says by name. */
static ONNXTensorElementDataType ORT_API_CALL input_type(const OrtCustomOp *op, size_t index)
{
    return index == 0 ? ((const custom_op *)op)->type : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

static size_t ORT_API_CALL input_count(const OrtCustomOp *op)
{
    return (size_t)of(op)->input_count;
}

static ONNXTensorElementDataType ORT_API_CALL output_type(const OrtCustomOp *op, size_t index)
{
    (void)index;
    return ((const custom_op *)op)->type;
}

static size_t ORT_API_CALL output_count(const OrtCustomOp *op)
{
    return (size_t)of(op)->output_count;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL input_kind(const OrtCustomOp *op, size_t index)
{
    return index < (size_t)of(op)->required ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL output_kind(const OrtCustomOp *op, size_t index)
{
    (void)op;
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

static OrtMemType ORT_API_CALL memory_type(const OrtCustomOp *op, size_t index)
{
    (void)op;
    (void)index;
    return OrtMemTypeDefault;
}

static int ORT_API_CALL no_arity(const OrtCustomOp *op)
{
    (void)op;
    return 0; /* no operator here takes any number of inputs */
}

/* Whether the node has an input or output: ONNX gives those that are left out an empty name. */
static bool has_name(node_call *call,
                     OrtStatusPtr(ORT_API_CALL *name_of)(const OrtKernelInfo *, size_t, char *, size_t *),
                     size_t count, size_t index)
{
    size_t size = 0;
    if (index >= count)
        return false;
    OrtStatus *status = name_of(call->info, index, NULL, &size);
    if (status)
        call->api->ReleaseStatus(status);
    return !status && size > 1;
}

static void refuse(node_call *call)
{
    const OrtApi *api = call->api;
    const node_operator *kind = call->kernel->kind;
    size_t inputs = 0, outputs = 0;
    OrtStatus *failed = api->KernelInfo_GetInputCount(call->info, &inputs);
    if (!failed)
        failed = api->KernelInfo_GetOutputCount(call->info, &outputs);
    if (failed) {
        call->status = failed;
        return;
    }
    for (const node_refusal *one = kind->refused_inputs; one->why; one++)
        if (has_name(call, api->KernelInfo_GetInputName, inputs, (size_t)one->index))
            node_fail(call, "input %s is not served: %s", kind->inputs[one->index], one->why);
    for (const node_refusal *one = kind->refused_outputs; one->why; one++)
        if (has_name(call, api->KernelInfo_GetOutputName, outputs, (size_t)one->index))
            node_fail(call, "output %s is not served: %s", kind->outputs[one->index], one->why);
}

static void ORT_API_CALL destroy(void *memory)
{
    node_kernel *kernel = memory;
    if (!kernel)
        return;
    node_drop_plans(kernel);
    if (kernel->allocator)
        kernel->api->ReleaseAllocator(kernel->allocator);
    pthread_mutex_destroy(&kernel->mutex);
    free(kernel->name);
    free(kernel);
}

static OrtStatusPtr ORT_API_CALL create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                        void **made)
{
    node_kernel *kernel = calloc(1, sizeof(*kernel));
    *made = NULL;
    if (!kernel || pthread_mutex_init(&kernel->mutex, NULL) != 0) {
        free(kernel);
        return api->CreateStatus(ORT_FAIL, "fastattn: no memory for a node");
    }
    kernel->kind = of(op);
    kernel->api = api;
    size_t size = 0;
    OrtStatus *status = api->KernelInfo_GetNodeName(info, NULL, &size);
    if (!status)
        kernel->name = calloc(size + 1, 1);
    if (kernel->name)
        status = api->KernelInfo_GetNodeName(info, kernel->name, &size);
    if (!status)
        status = api->KernelInfoGetAllocator(info, OrtMemTypeDefault, &kernel->allocator);
    node_call call = {.kernel = kernel, .api = api, .info = info, .status = status};
    if (!call.status)
        refuse(&call);
    if (!call.status)
        kernel->kind->create(&call);
    if (call.status)
        destroy(kernel);
    else
        *made = kernel;
    return call.status;
}

static OrtStatusPtr ORT_API_CALL compute(void *memory, OrtKernelContext *context)
{
    node_kernel *kernel = memory;
    node_call call = {.kernel = kernel, .api = kernel->api, .context = context};
    kernel->kind->compute(&call);
    for (int i = 0; i < call.scratches; i++) {
        OrtStatus *status = kernel->api->AllocatorFree(kernel->allocator, call.scratch[i]);
        if (status)
            kernel->api->ReleaseStatus(status);
    }
    return call.status;
}

#define TYPES 3
static const ONNXTensorElementDataType types[TYPES] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
static const node_operator *const operators[] = {&attention_operator, &multi_head_operator,
                                                 &group_query_operator};
#define OPERATORS (sizeof(operators) / sizeof(operators[0]))

static pthread_mutex_t domain_mutex = PTHREAD_MUTEX_INITIALIZER;
static OrtCustomOpDomain *domain;
static custom_op ops[OPERATORS * TYPES];

static OrtStatus *make_domain(const OrtApi *api)
{
    OrtCustomOpDomain *made = NULL;
    OrtStatus *status = api->CreateCustomOpDomain("fastattn", &made);
    for (size_t i = 0; i < OPERATORS * TYPES && !status; i++) {
        ops[i].kind = operators[i / TYPES];
        ops[i].type = types[i % TYPES];
        ops[i].base = (OrtCustomOp){
            .version = NODE_API,
            .GetName = get_name,
            .GetExecutionProviderType = get_provider,
            .GetInputType = input_type,
            .GetInputTypeCount = input_count,
            .GetOutputType = output_type,
            .GetOutputTypeCount = output_count,
            .KernelDestroy = destroy,
            .GetInputCharacteristic = input_kind,
            .GetOutputCharacteristic = output_kind,
            .GetInputMemoryType = memory_type,
            .GetVariadicInputMinArity = no_arity,
            .GetVariadicInputHomogeneity = no_arity,
            .GetVariadicOutputMinArity = no_arity,
            .GetVariadicOutputHomogeneity = no_arity,
            .CreateKernelV2 = create,
            .KernelComputeV2 = compute,
        };
        status = api->CustomOpDomain_Add(made, &ops[i].base);
    }
    if (status && made)
        api->ReleaseCustomOpDomain(made);
    else
        domain = made;
    return status;
}

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
OrtStatus *ORT_API_CALL
RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

/* What SessionOptions.register_custom_ops_library() calls. One domain serves all sessions. */
OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base)
{
    const OrtApi *api = base->GetApi(NODE_API);
    const char *message;
    OrtStatus *status = NULL;
    if (!api)
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "fastattn: ONNX Runtime 1.18 or later is needed");
    if (!node_device(&message))
        return api->CreateStatus(ORT_FAIL, message);
    pthread_mutex_lock(&domain_mutex);
    if (!domain)
        status = make_domain(api);
    pthread_mutex_unlock(&domain_mutex);
    return status ? status : api->AddCustomOpDomain(options, domain);
}
