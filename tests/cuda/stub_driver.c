/* SPDX-License-Identifier: Apache-2.0 */
/* The stub's driver. */
#include "backends/cuda/task.h"
#include "backends/cuda/traits.h"
#include "core/append/append.h"
#include "core/merge/merge.h"
#include "core/portable/fill.h"
#include "tests/cuda/stub_internal.h"

enum { MOST_DEPTH = 16 };

static _Thread_local object *current[MOST_DEPTH];
static _Thread_local int depth;

static void need_context(const char *function)
{
    if (depth == 0 || !stub_check(current[depth - 1], CONTEXT, "the current context is gone"))
        stub_misuse(function);
}

long EXPORT stub_live(void)
{
    long retained = 0;
    for (int i = 0; i < MOST_DEVICES; i++)
        retained += stub.primary[i].retained;
    return stub.live + retained + depth;
}

CUresult cuInit(unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    for (int i = 0; i < MOST_DEVICES; i++) {
        stub.primary[i].kind = CONTEXT;
        stub.primary[i].device = i;
    }
    stub.started = true;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    *name = error == CUDA_ERROR_OUT_OF_MEMORY    ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == CUDA_ERROR_INVALID_HANDLE ? "CUDA_ERROR_INVALID_HANDLE"
            : error == CUDA_ERROR_INVALID_VALUE  ? "CUDA_ERROR_INVALID_VALUE"
                                                 : NULL;
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetCount(int *count)
{
    MAY_FAIL();
    if (!stub.started)
        stub_misuse("cuDeviceGetCount before cuInit");
    *count = stub.devices;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    MAY_FAIL();
    if (ordinal < 0 || ordinal >= stub.devices)
        return CUDA_ERROR_INVALID_VALUE;
    *device = 100 + ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    MAY_FAIL();
    (void)snprintf(name, (size_t)size, "stub %d", device - 100);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    MAY_FAIL();
    if (device < 100 || device >= 100 + stub.devices)
        stub_misuse("cuDeviceGetAttribute");
    for (int i = 0; i < stub.attribute_count; i++) {
        if (stub.attributes[i].attribute == attribute) {
            *value = stub.attributes[i].value;
            return CUDA_SUCCESS;
        }
    }
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = stub.arch / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = stub.arch % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1500000; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 1000000; break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 256; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 101376; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = 102400; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device)
{
    (void)device;
    MAY_FAIL();
    *bytes = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    MAY_FAIL();
    object *o = &stub.primary[device - 100];
    (void)pthread_mutex_lock(&stub.lock);
    o->retained++;
    (void)pthread_mutex_unlock(&stub.lock);
    *context = (CUcontext)(void *)o;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    (void)pthread_mutex_lock(&stub.lock);
    if (stub.primary[device - 100].retained-- <= 0)
        stub_misuse("cuDevicePrimaryCtxRelease");
    (void)pthread_mutex_unlock(&stub.lock);
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context)
{
    MAY_FAIL();
    const object *o = (const object *)(const void *)context;
    if (!o || o->kind != CONTEXT)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (depth == MOST_DEPTH)
        abort();
    current[depth++] = (object *)(void *)context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context)
{
    need_context(__func__);
    *context = (CUcontext)(void *)current[--depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    MAY_FAIL();
    need_context(__func__);
    *device = 100 + current[depth - 1]->device;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    MAY_FAIL();
    need_context(__func__);
    if (!image)
        stub_misuse("cuModuleLoadData");
    object *made = stub_make(MODULE);
    if (image && strncmp(image, STUB_CUBIN, sizeof(STUB_CUBIN) - 1) == 0)
        made->row = ((const char *)image)[sizeof(STUB_CUBIN) - 1] - '0';
    *module = (CUmodule)(void *)made;
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module)
{
    need_context(__func__);
    stub_drop(module, MODULE, "cuModuleUnload");
    return CUDA_SUCCESS;
}

/* A module is its own function: it needs no second object to be told apart. */
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    MAY_FAIL();
    need_context(__func__);
    (void)stub_check(module, MODULE, "cuModuleGetFunction");
    if (strncmp(name, "fa_kernel_", 10) != 0 && strcmp(name, "fa_task") != 0)
        stub_misuse("cuModuleGetFunction: a name that no module has");
    ((object *)(void *)module)->of_task = strcmp(name, "fa_task") == 0;
    *function = (CUfunction)(void *)module;
    return CUDA_SUCCESS;
}

static int most_shared(void)
{
    int value = 0;
    (void)cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 100);
    return value;
}

CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    MAY_FAIL();
    (void)stub_check(function, MODULE, "cuFuncSetAttribute");
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value > most_shared())
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* The memory that a range lies in. */
static object *find_memory(CUdeviceptr at, size_t bytes)
{
    (void)pthread_mutex_lock(&stub.lock);
    object *o = stub.memory;
    while (o && !(at >= (CUdeviceptr)(uintptr_t)o->bytes &&
                  at + bytes <= (CUdeviceptr)(uintptr_t)o->bytes + o->size))
        o = o->next;
    (void)pthread_mutex_unlock(&stub.lock);
    return o;
}

CUresult cuMemAlloc(CUdeviceptr *memory, size_t bytes)
{
    MAY_FAIL();
    need_context(__func__);
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > (size_t)1 << 30)
        return CUDA_ERROR_OUT_OF_MEMORY;
    object *o = stub_make(MEMORY);
    o->size = bytes;
    o->bytes = aligned_alloc(512, (bytes + 511) / 512 * 512);
    if (!o->bytes)
        abort();
    memset(o->bytes, 0, bytes);
    (void)pthread_mutex_lock(&stub.lock);
    o->next = stub.memory;
    stub.memory = o;
    (void)pthread_mutex_unlock(&stub.lock);
    *memory = (CUdeviceptr)(uintptr_t)o->bytes;
    return CUDA_SUCCESS;
}

static void free_memory(object **list, const void *memory, object_kind kind, const char *function)
{
    (void)pthread_mutex_lock(&stub.lock);
    object **at = list;
    while (*at && (*at)->bytes != memory)
        at = &(*at)->next;
    object *o = *at;
    if (o)
        *at = o->next;
    (void)pthread_mutex_unlock(&stub.lock);
    if (o)
        free(o->bytes);
    stub_drop(o, kind, function);
}

CUresult cuMemFree(CUdeviceptr memory)
{
    need_context(__func__);
    free_memory(&stub.memory, (const void *)(uintptr_t)memory, MEMORY, __func__);
    return CUDA_SUCCESS;
}

CUresult cuMemAllocHost(void **memory, size_t bytes)
{
    MAY_FAIL();
    need_context(__func__);
    object *o = stub_make(HOST_MEMORY);
    o->bytes = malloc(bytes);
    if (!o->bytes)
        abort();
    (void)pthread_mutex_lock(&stub.lock);
    o->next = stub.host_memory;
    stub.host_memory = o;
    (void)pthread_mutex_unlock(&stub.lock);
    *memory = o->bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *memory)
{
    need_context(__func__);
    free_memory(&stub.host_memory, memory, HOST_MEMORY, __func__);
    return CUDA_SUCCESS;
}

static void check_stream(CUstream stream, const char *function)
{
    need_context(function);
    if (stream)
        (void)stub_check(stream, STREAM, function);
}

static CUresult copy_bytes(void *to, const void *from, size_t bytes, CUdeviceptr device_side,
                           const char *function)
{
    if (!find_memory(device_side, bytes))
        stub_misuse(function);
    else
        memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes)
{
    MAY_FAIL();
    need_context(__func__);
    return copy_bytes((void *)(uintptr_t)to, from, bytes, to, __func__);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    return copy_bytes((void *)(uintptr_t)to, from, bytes, to, __func__);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    return copy_bytes(to, (const void *)(uintptr_t)from, bytes, from, __func__);
}

CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr memory)
{
    MAY_FAIL();
    const object *o = find_memory(memory, 1);
    if (!o)
        return CUDA_ERROR_INVALID_VALUE;
    const CUdeviceptr start = (CUdeviceptr)(uintptr_t)o->bytes;
    if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
        memcpy(value, &o->device, sizeof(o->device));
    else if (attribute == CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)
        memcpy(value, &start, sizeof(start));
    else
        memcpy(value, &o->size, sizeof(o->size));
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    need_context(__func__);
    *stream = stub_stream((CUcontext)(void *)current[depth - 1]);
    return CUDA_SUCCESS;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    (void)flags;
    MAY_FAIL();
    need_context(__func__);
    if (priority > 0)
        stub_misuse("cuStreamCreateWithPriority");
    *stream = stub_stream((CUcontext)(void *)current[depth - 1]);
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    if (!stub_check(event, EVENT, "cuStreamWaitEvent") || !((const object *)(const void *)event)->recorded ||
        flags != 0)
        stub_misuse("cuStreamWaitEvent of an event that is not recorded");
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream)
{
    check_stream(stream, __func__);
    stub_drop(stream, STREAM, "cuStreamDestroy");
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    if (stream && ((const object *)(const void *)stream)->captures)
        stub_misuse("cuStreamSynchronize while capturing");
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, int *status)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    *status = stream && ((const object *)(const void *)stream)->captures;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    MAY_FAIL();
    const object *o = (const object *)(const void *)stream;
    if (o->kind != STREAM)
        return CUDA_ERROR_INVALID_HANDLE;
    *context = (CUcontext)(void *)o->of;
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    need_context(__func__);
    *event = (CUevent)(void *)stub_make(EVENT);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event)
{
    need_context(__func__);
    stub_drop(event, EVENT, "cuEventDestroy");
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    if (stub_check(event, EVENT, "cuEventRecord"))
        ((object *)(void *)event)->recorded = true;
    (void)atomic_fetch_add(&stub.records, 1);
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event)
{
    MAY_FAIL();
    need_context(__func__);
    if (!stub_check(event, EVENT, "cuEventSynchronize") || !((const object *)(const void *)event)->recorded)
        stub_misuse("cuEventSynchronize of an event that was not recorded");
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end)
{
    MAY_FAIL();
    need_context(__func__);
    if (!stub_check(start, EVENT, "cuEventElapsedTime") || !stub_check(end, EVENT, "cuEventElapsedTime") ||
        !((const object *)(const void *)start)->recorded || !((const object *)(const void *)end)->recorded)
        stub_misuse("cuEventElapsedTime of an event that was not recorded");
    *milliseconds = 0.25f;
    return CUDA_SUCCESS;
}

/* The stub does what a task does, in C. */
static void run_task(const fa_cuda_task *t, int kind, unsigned groups)
{
    int shared[FA_TASK_SHARED_INTS] = {0};
    fa_task_view view = {.constant = t->constant, .params = t->params, .shared = shared};
    const size_t params = kind == FA_TASK_FILL    ? sizeof(fa_fill_params)
                          : kind == FA_TASK_MERGE ? sizeof(fa_merge_params)
                                                  : sizeof(fa_append_params);
    if (!find_memory((CUdeviceptr)(uintptr_t)t->params, params))
        stub_misuse("a task without parameters");
    for (int n = 0; n < FA_TASK_OPERANDS; n++) {
        view.at[n] = (char *)(uintptr_t)t->at[n];
        if (view.at[n] && !find_memory((CUdeviceptr)(uintptr_t)view.at[n], 1))
            stub_misuse("an operand of a task");
    }
    for (unsigned group = 0; group < groups; group++) {
        if (kind == FA_TASK_FILL)
            fa_fill_group(&view, (int)group, 0, 1);
        else if (kind == FA_TASK_MERGE)
            fa_merge_group(&view, (int)group, 0, 1);
        else if (kind == FA_TASK_APPEND || kind == FA_TASK_APPEND_SCALED)
            fa_append_group(&view, (int)group, 0, 1);
        else
            stub_misuse("a task that the stub does not know");
    }
}

static CUresult launch(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                       void **parameters, void **extra)
{
    (void)stub_check(function, MODULE, "cuLaunchKernel");
    if (grid_x == 0 || grid_y == 0 || grid_y > 65535 || grid_z != 1 || block_x == 0 || block_x > 1024 ||
        block_y != 1 || block_z != 1 || shared_bytes > 101376 || !parameters || extra)
        stub_misuse("cuLaunchKernel");
    (void)atomic_fetch_add(&stub.launches, 1);
    (void)atomic_fetch_add(&stub.groups, (long)grid_x * grid_y);
    stub.kernel = (uintptr_t)function;
    if (parameters && ((const object *)(const void *)function)->of_task) {
        run_task(parameters[0], ((const object *)(const void *)function)->row, grid_x);
        return CUDA_SUCCESS;
    }
    /* What it writes is q, so that threads see whether they got another's. */
    const fa_cuda_args *a = parameters ? parameters[0] : NULL;
    stub.work = a ? (uintptr_t)a->table : 0;
    const object *q = a ? find_memory((CUdeviceptr)(uintptr_t)a->q, 1) : NULL,
                 *o = a ? find_memory((CUdeviceptr)(uintptr_t)a->o, 1) : NULL;
    if (q && o)
        memcpy(o->bytes, q->bytes, q->size < o->size ? q->size : o->size);
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        CUstream stream, void **parameters, void **extra)
{
    MAY_FAIL();
    check_stream(stream, __func__);
    return launch(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, parameters,
                  extra);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra)
{
    MAY_FAIL();
    check_stream(config->stream, __func__);
    if (config->attributes != 1 ||
        config->attribute->id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION ||
        config->attribute->value.allowed != 1 || stub.arch < 90)
        stub_misuse("cuLaunchKernelEx");
    return launch(function, config->grid_x, config->grid_y, config->grid_z, config->block_x, config->block_y,
                  config->block_z, config->shared_bytes, parameters, extra);
}
