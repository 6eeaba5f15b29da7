/* SPDX-License-Identifier: Apache-2.0 */
/* What the stub keeps, how tests steer it, and its NVRTC. */
#include "tests/cuda/stub_internal.h"

stub_state stub = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .arch = 90, .devices = 1, .compiled = {75, 80, 90, 100}};

void stub_misuse(const char *what)
{
    (void)fprintf(stderr, "stub: %s\n", what);
    (void)atomic_fetch_add(&stub.misuses, 1);
}

/* What a call is to return. */
CUresult stub_result(const char *function)
{
    CUresult error = CUDA_SUCCESS;
    (void)pthread_mutex_lock(&stub.lock);
    if (strcmp(function, stub.failing) == 0 && ++stub.calls == stub.nth) {
        stub.failed = true;
        error = stub.error;
    }
    (void)pthread_mutex_unlock(&stub.lock);
    return error;
}

object *stub_make(object_kind kind)
{
    object *o = calloc(1, sizeof(*o));
    if (!o)
        abort();
    o->kind = kind;
    (void)atomic_fetch_add(&stub.live, 1);
    return o;
}

bool stub_check(const void *handle, object_kind kind, const char *what)
{
    const object *o = handle;
    if (o && o->kind == kind)
        return true;
    stub_misuse(what);
    return false;
}

void stub_drop(void *handle, object_kind kind, const char *what)
{
    if (!stub_check(handle, kind, what))
        return;
    (void)atomic_fetch_sub(&stub.live, 1);
    free(handle);
}

void EXPORT stub_fail(const char *function, int nth, CUresult error)
{
    (void)snprintf(stub.failing, sizeof(stub.failing), "%s", function ? function : "");
    stub.nth = nth;
    stub.calls = 0;
    stub.error = error;
    stub.failed = false;
}

int EXPORT stub_has_failed(void)
{
    return stub.failed;
}

void EXPORT stub_set_arch(int arch)
{
    stub.arch = arch;
}

void EXPORT stub_set_devices(int count)
{
    stub.devices = count;
}

void EXPORT stub_set_attribute(int attribute, int value)
{
    stub.attributes[stub.attribute_count].attribute = attribute;
    stub.attributes[stub.attribute_count++].value = value;
}

CUstream EXPORT stub_stream(CUcontext context)
{
    object *o = stub_make(STREAM);
    o->of = (object *)(void *)context;
    return (CUstream)(void *)o;
}

void EXPORT stub_stream_destroy(CUstream stream)
{
    stub_drop(stream, STREAM, "stub_stream_destroy");
}

void EXPORT stub_capture(CUstream stream, int captures)
{
    ((object *)(void *)stream)->captures = captures;
}

CUcontext EXPORT stub_context(int device)
{
    object *o = stub_make(CONTEXT);
    o->device = device;
    return (CUcontext)(void *)o;
}

void EXPORT stub_context_destroy(CUcontext context)
{
    stub_drop(context, CONTEXT, "stub_context_destroy");
}

EXPORT void *stub_address(size_t bytes)
{
    object *o = stub.memory;
    while (o && o->size != bytes)
        o = o->next;
    return o ? o->bytes : NULL;
}

long EXPORT stub_misuses(void)
{
    return stub.misuses;
}

long EXPORT stub_launches(void)
{
    return stub.launches;
}

long EXPORT stub_groups(void)
{
    return stub.groups;
}

uintptr_t EXPORT stub_kernel(void)
{
    return stub.kernel;
}

uintptr_t EXPORT stub_work(void)
{
    return stub.work;
}

long EXPORT stub_records(void)
{
    return stub.records;
}

long EXPORT stub_compiles(void)
{
    return stub.compiles;
}

CUresult nvrtcVersion(int *major, int *minor)
{
    *major = 12;
    *minor = 9;
    return CUDA_SUCCESS;
}

CUresult nvrtcGetNumSupportedArchs(int *count)
{
    MAY_FAIL();
    *count = 0;
    while (stub.compiled[*count])
        (*count)++;
    return CUDA_SUCCESS;
}

CUresult nvrtcGetSupportedArchs(int *archs)
{
    MAY_FAIL();
    for (int i = 0; stub.compiled[i]; i++)
        archs[i] = stub.compiled[i];
    return CUDA_SUCCESS;
}

CUresult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int headers,
                            const char *const *header_sources, const char *const *header_names)
{
    MAY_FAIL();
    if ((!strstr(source, "fa_kernel_0") && !strstr(source, "fa_task")) || !name || headers ||
        header_sources || header_names)
        stub_misuse("nvrtcCreateProgram");
    *program = (nvrtcProgram)(void *)stub_make(PROGRAM);
    return CUDA_SUCCESS;
}

CUresult nvrtcDestroyProgram(nvrtcProgram *program)
{
    stub_drop(*program, PROGRAM, "nvrtcDestroyProgram");
    *program = NULL;
    return CUDA_SUCCESS;
}

CUresult nvrtcCompileProgram(nvrtcProgram program, int options, const char *const *option)
{
    MAY_FAIL();
    (void)stub_check(program, PROGRAM, "nvrtcCompileProgram");
    if (options < 1 || strncmp(option[0], "--gpu-architecture=sm_", 22) != 0)
        stub_misuse("nvrtcCompileProgram");
    for (int i = 0; i < options; i++)
        (void)sscanf(option[i], "-DFA_ROW=%d", &((object *)(void *)program)->row);
    (void)atomic_fetch_add(&stub.compiles, 1);
    return CUDA_SUCCESS;
}

static const char cubin[] = STUB_CUBIN "?";

CUresult nvrtcGetCUBINSize(nvrtcProgram program, size_t *size)
{
    MAY_FAIL();
    (void)stub_check(program, PROGRAM, "nvrtcGetCUBINSize");
    *size = sizeof(cubin);
    return CUDA_SUCCESS;
}

CUresult nvrtcGetCUBIN(nvrtcProgram program, char *to)
{
    MAY_FAIL();
    (void)stub_check(program, PROGRAM, "nvrtcGetCUBIN");
    memcpy(to, cubin, sizeof(cubin));
    to[sizeof(STUB_CUBIN) - 1] = (char)('0' + ((const object *)(const void *)program)->row);
    return CUDA_SUCCESS;
}

static const char build_log[] = "attention.cu(1): error: an identifier is undefined\n\n";

CUresult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size)
{
    (void)stub_check(program, PROGRAM, "nvrtcGetProgramLogSize");
    *size = sizeof(build_log);
    return CUDA_SUCCESS;
}

CUresult nvrtcGetProgramLog(nvrtcProgram program, char *log)
{
    (void)stub_check(program, PROGRAM, "nvrtcGetProgramLog");
    memcpy(log, build_log, sizeof(build_log));
    return CUDA_SUCCESS;
}
