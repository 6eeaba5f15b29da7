/* SPDX-License-Identifier: Apache-2.0 */
#include "node.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

bool node_fail(node_call *call, const char *format, ...)
{
    if (call->status)
        return false;
    char text[640];
    int begin = snprintf(text, sizeof(text), "fastattn.%s '%.128s': ", call->kernel->kind->name,
                         call->kernel->name ? call->kernel->name : "");
    va_list list;
    va_start(list, format);
    vsnprintf(text + begin, sizeof(text) - (size_t)begin, format, list);
    va_end(list);
    call->status = call->api->CreateStatus(ORT_INVALID_ARGUMENT, text);
    return false;
}

/* A failure of ONNX Runtime's own. */
static bool passed(node_call *call, OrtStatus *status)
{
    if (!status)
        return true;
    if (call->status)
        call->api->ReleaseStatus(status);
    else
        call->status = status;
    return false;
}

/* A status that only says no. */
static bool answered(node_call *call, OrtStatus *status)
{
    if (status)
        call->api->ReleaseStatus(status);
    return !status;
}

static bool has_string(node_call *call, const char *name)
{
    size_t size = 0;
    return answered(call, call->api->KernelInfoGetAttribute_string(call->info, name, NULL, &size)) && size;
}

int64_t node_int(node_call *call, const char *name, int64_t otherwise, int64_t least, int64_t most)
{
    int64_t value = otherwise;
    float number;
    if (call->status)
        return otherwise;
    if (!answered(call, call->api->KernelInfoGetAttribute_int64(call->info, name, &value))) {
        if (answered(call, call->api->KernelInfoGetAttribute_float(call->info, name, &number)) ||
            has_string(call, name))
            node_fail(call, "attribute %s is no integer", name);
        return otherwise;
    }
    if (value < least || value > most)
        node_fail(call, "attribute %s is %lld; served are %lld to %lld", name, (long long)value,
                  (long long)least, (long long)most);
    return value;
}

float node_float(node_call *call, const char *name, float otherwise, bool *given)
{
    float value = otherwise;
    int64_t number;
    *given = false;
    if (call->status)
        return otherwise;
    if (!answered(call, call->api->KernelInfoGetAttribute_float(call->info, name, &value))) {
        if (answered(call, call->api->KernelInfoGetAttribute_int64(call->info, name, &number)) ||
            has_string(call, name))
            node_fail(call, "attribute %s is no float", name);
        return otherwise;
    }
    if (!isfinite(value))
        node_fail(call, "attribute %s is %g; it must be finite", name, (double)value);
    *given = true;
    return value;
}

void node_expect_string(node_call *call, const char *name, const char *value, const char *why)
{
    char text[64];
    size_t size = sizeof(text);
    if (call->status || !has_string(call, name))
        return;
    if (!answered(call, call->api->KernelInfoGetAttribute_string(call->info, name, text, &size)) ||
        strcmp(text, value) != 0)
        node_fail(call, "attribute %s is not \"%s\": %s", name, value, why);
}

node_tensor node_input(node_call *call, int index)
{
    node_tensor tensor = {.name = call->kernel->kind->inputs[index]};
    const OrtApi *api = call->api;
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t count, rank;
    if (call->status || !passed(call, api->KernelContext_GetInputCount(call->context, &count)) ||
        (size_t)index >= count ||
        !passed(call, api->KernelContext_GetInput(call->context, (size_t)index, &value)) || !value)
        return tensor;
    int is_tensor = 0;
    if (!passed(call, api->IsTensor(value, &is_tensor)))
        return tensor;
    if (!is_tensor) {
        node_fail(call, "input %s is no tensor", tensor.name);
        return tensor;
    }
    if (!passed(call, api->GetTensorTypeAndShape(value, &info)))
        return tensor;
    if (passed(call, api->GetTensorElementType(info, &tensor.type)) &&
        passed(call, api->GetDimensionsCount(info, &rank))) {
        if (rank > NODE_RANK)
            node_fail(call, "input %s has %zu axes; at most %d are served", tensor.name, rank, NODE_RANK);
        else if (passed(call, api->GetDimensions(info, tensor.dims, rank)) &&
                 passed(call, api->GetTensorMutableData((OrtValue *)value, &tensor.data))) {
            tensor.rank = (int)rank;
            tensor.given = true;
        }
    }
    api->ReleaseTensorTypeAndShapeInfo(info);
    return tensor;
}

bool node_rank(node_call *call, const node_tensor *tensor, int rank)
{
    if (call->status)
        return false;
    if (tensor->given && tensor->rank != rank)
        return node_fail(call, "input %s has %d axes, not %d", tensor->name, tensor->rank, rank);
    return true;
}

bool node_dim(node_call *call, const node_tensor *tensor, int axis, int64_t size, const char *what)
{
    if (call->status)
        return false;
    if (tensor->given && tensor->dims[axis] != size)
        return node_fail(call, "input %s: axis %d is %lld; %s is %lld", tensor->name, axis,
                         (long long)tensor->dims[axis], what, (long long)size);
    return true;
}

fa_dtype node_float_type(node_call *call, const node_tensor *tensor)
{
    switch (tensor->type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return FA_F32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return FA_F16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return FA_BF16;
    default:
        if (tensor->given)
            node_fail(call, "input %s is of ONNX type %d; served are float, float16 and bfloat16",
                      tensor->name, (int)tensor->type);
        return FA_F32;
    }
}

bool node_integers(node_call *call, const node_tensor *tensor, int64_t count, bool wide)
{
    if (call->status)
        return false;
    if (!tensor->given)
        return node_fail(call, "input %s is missing", tensor->name);
    if (tensor->type != (wide ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32))
        return node_fail(call, "input %s is not of type %s", tensor->name, wide ? "int64" : "int32");
    int64_t held = 1;
    for (int i = 0; i < tensor->rank; i++)
        held *= tensor->dims[i];
    if (held != count)
        return node_fail(call, "input %s has %lld elements, not %lld", tensor->name, (long long)held,
                         (long long)count);
    return true;
}

void *node_output(node_call *call, int index, fa_dtype dtype, int rank, const int64_t *dims)
{
    const node_operator *kind = call->kernel->kind;
    const OrtApi *api = call->api;
    OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    node_tensor output = {.name = kind->outputs[index], .given = true};
    size_t count;
    if (call->status || !passed(call, api->KernelContext_GetOutputCount(call->context, &count)) ||
        (size_t)index >= count ||
        !passed(call,
                api->KernelContext_GetOutput(call->context, (size_t)index, dims, (size_t)rank, &value)) ||
        !value || !passed(call, api->GetTensorTypeAndShape(value, &info)))
        return NULL;
    bool known = passed(call, api->GetTensorElementType(info, &output.type));
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (known && node_float_type(call, &output) != dtype)
        node_fail(call, "output %s has the type of input %s, %s; its rows are %s", output.name,
                  kind->inputs[0], fa_dtype_name(node_float_type(call, &output)), fa_dtype_name(dtype));
    if (call->status || !passed(call, api->GetTensorMutableData(value, &output.data)))
        return NULL;
    return output.data;
}

void *node_scratch(node_call *call, int64_t count, size_t size)
{
    void *memory = NULL;
    if (call->status)
        return NULL;
    if (call->scratches == NODE_INPUTS || count < 0 || (uint64_t)count > (SIZE_MAX - 64) / size) {
        node_fail(call, "no memory for %lld elements", (long long)count);
        return NULL;
    }
    OrtAllocator *allocator = call->kernel->allocator;
    if (!passed(call, call->api->AllocatorAlloc(allocator, (size_t)count * size + 64, &memory)))
        return NULL;
    if (!memory) {
        node_fail(call, "no memory for %lld elements", (long long)count);
        return NULL;
    }
    call->scratch[call->scratches++] = memory;
    return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

void node_parallel(node_call *call, int64_t count, void (*task)(void *argument, size_t index), void *argument)
{
    if (call->status || count <= 0)
        return;
    if (count == 1)
        task(argument, 0);
    else
        passed(call, call->api->KernelContext_ParallelFor(call->context, task, (size_t)count, (size_t)count,
                                                          argument));
}

static fa_tensor tensor_of(fa_dtype dtype, const int64_t shape[4], const int64_t stride[4])
{
    fa_tensor tensor;
    memset(&tensor, 0, sizeof(tensor)); /* padding too: plans are found by their bytes */
    tensor.dtype = dtype;
    memcpy(tensor.shape, shape, sizeof(tensor.shape));
    memcpy(tensor.stride, stride, sizeof(tensor.stride));
    return tensor;
}

fa_tensor node_heads_first(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim)
{
    return tensor_of(dtype, (int64_t[4]){batch, heads, rows, dim},
                     (int64_t[4]){heads * rows * dim, rows * dim, dim, 1});
}

fa_tensor node_rows_first(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim)
{
    return tensor_of(dtype, (int64_t[4]){batch, heads, rows, dim},
                     (int64_t[4]){rows * heads * dim, dim, heads * dim, 1});
}

fa_tensor node_repeated(node_call *call, const node_tensor *tensor, fa_dtype dtype, const int64_t full[4])
{
    int64_t shape[4] = {1, 1, 1, 1}, stride[4];
    int missing = 4 - tensor->rank;
    if (tensor->rank < 1 || tensor->rank > 4)
        node_fail(call, "input %s has %d axes; 1 to 4 are served", tensor->name, tensor->rank);
    for (int i = missing < 0 ? 0 : missing; i < 4 && !call->status; i++) {
        shape[i] = tensor->dims[i - missing];
        if (i < 3 && shape[i] != 1 && shape[i] != full[i])
            node_fail(call, "input %s: axis %d is %lld, neither 1 nor %lld", tensor->name, i - missing,
                      (long long)shape[i], (long long)full[i]);
    }
    stride[3] = 1;
    for (int i = 2; i >= 0; i--)
        stride[i] = stride[i + 1] * shape[i + 1];
    return tensor_of(dtype, shape, stride);
}
