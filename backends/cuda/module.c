/* SPDX-License-Identifier: Apache-2.0 */
/* Modules: found in the device's list, loaded from the library or from the cache on disk, or compiled. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "backends/cuda/task.h"
#include "backends/gpu/cache.h"
#include "core/context.h"
#include "core/status.h"

enum { MAX_ARCHS = 64 };

/* What a module is compiled of. */
typedef struct fa_cu_program {
    int line, type; /* as fa_cu_module_name() has them                             */
    bool lists;     /* it reads lists of key blocks                                */
    bool fixed;     /* a task whose constants are these, not read from each launch */
    int32_t constant[FA_TASK_CONSTANTS];
} fa_cu_program;

typedef struct fa_cu_module {
    struct fa_cu_module *next;
    CUmodule handle;
    fa_cu_program of;
} fa_cu_module;

const char *fa_cu_module_name(int line, int type)
{
    static const char *const tasks[FA_TASKS] = {[FA_TASK_APPEND] = "append",
                                                [FA_TASK_FILL] = "fill",
                                                [FA_TASK_MERGE] = "states",
                                                [FA_TASK_PAGES] = "pages",
                                                [FA_TASK_APPEND_SCALED] = "append_scaled",
                                                [FA_TASK_SALIENCY] = "saliency",
                                                [FA_TASK_SHIFT] = "shift",
                                                [FA_TASK_RELIST] = "relist",
                                                [FA_TASK_MIX] = "mix",
                                                [FA_TASK_POOL] = "pool",
                                                [FA_TASK_ROW_SCORES] = "row_scores",
                                                [FA_TASK_SELECT] = "select",
                                                [FA_TASK_KEY_LIST] = "key_list",
                                                [FA_TASK_GATHER] = "gather",
                                                [FA_TASK_SORT] = "sort",
                                                [FA_TASK_HASH] = "hash",
                                                [FA_TASK_CLUSTER] = "cluster"};
    return type == FA_CUDA_TASK ? tasks[line] : fa_cuda_table[line].name;
}

_Static_assert(FA_TASK_CONSTANTS == 4, "the key of the cache names each");

static const char *name_of(const fa_cu_program *p)
{
    return fa_cu_module_name(p->line, p->type);
}

static bool same(const fa_cu_program *a, const fa_cu_program *b)
{
    bool same = a->line == b->line && a->type == b->type && a->lists == b->lists && a->fixed == b->fixed;
    for (int i = 0; i < FA_TASK_CONSTANTS; i++)
        same = same && a->constant[i] == b->constant[i];
    return same;
}

/* Whether the library's images run on the device: machine code of its generation, or PTX. */
static bool have_images(const fa_cu_caps *caps)
{
    if (!caps->images || fa_cuda_image_count == 0)
        return false;
    for (const int *arch = fa_cuda_archs; *arch; arch++) {
        if (*arch / 10 == caps->runs_arch / 10 && *arch <= caps->runs_arch)
            return true;
    }
    return fa_cuda_ptx_arch > 0 && fa_cuda_ptx_arch <= caps->runs_arch;
}

/* Whether they hold code of 9.0's own instructions, which is of no other generation. */
static bool have_hopper(const fa_cu_caps *caps)
{
    bool found = false;
    for (size_t i = 0; have_images(caps) && i < fa_cuda_image_count; i++)
        found = found ||
                (fa_cuda_images[i].type != FA_CUDA_TASK && fa_cuda_table[fa_cuda_images[i].line].unit == 90);
    return found;
}

/* What NVRTC can compile for whose machine code runs on the device; 0 with the reason. */
static int target_arch(const fa_nvrtc *nvrtc, const fa_cu_caps *caps, char *reason, size_t reason_size)
{
    int archs[MAX_ARCHS], count = 0, best = 0, major = 0, minor = 0;
    if (nvrtc->nvrtcGetNumSupportedArchs(&count) != 0 || count < 0 || count > MAX_ARCHS ||
        nvrtc->nvrtcGetSupportedArchs(archs) != 0)
        count = 0;
    for (int i = 0; i < count; i++) {
        if (archs[i] / 10 == caps->runs_arch / 10 && archs[i] <= caps->runs_arch && archs[i] > best)
            best = archs[i];
    }
    (void)nvrtc->nvrtcVersion(&major, &minor);
    if (best == 0)
        (void)snprintf(reason, reason_size, "NVRTC %d.%d does not compile for compute capability %d.%d",
                       major, minor, caps->runs_arch / 10, caps->runs_arch % 10);
    return best;
}

bool fa_cu_can_compile(fa_cu_caps *caps, char *reason, size_t reason_size)
{
    char why[200];
    const fa_nvrtc *nvrtc = fa_nvrtc_load(why, sizeof(why));
    int major = 0, minor = 0;
    caps->compiles = nvrtc && target_arch(nvrtc, caps, why, sizeof(why)) > 0;
    if (caps->compiles)
        (void)nvrtc->nvrtcVersion(&major, &minor);
    /* Compilers know sm_90a from 12.0 on. */
    caps->compiles_hopper = caps->runs_arch == 90 && major >= 12;
    caps->hopper = caps->compiles_hopper || (caps->runs_arch == 90 && have_hopper(caps));
    if (caps->compiles || have_images(caps))
        return true;
    (void)snprintf(reason, reason_size, "no kernels for compute capability %d.%d in this library, and %s",
                   caps->runs_arch / 10, caps->runs_arch % 10, why);
    return false;
}

/* The end of the log is where the errors are counted and the last of them stands. */
static fa_status compile_failed(const fa_device *device, const fa_nvrtc *nvrtc, nvrtcProgram program,
                                const char *name, int error)
{
    size_t size = 0, length = 0;
    char *log = NULL;
    if (nvrtc->nvrtcGetProgramLogSize(program, &size) == 0 && size > 0)
        log = fa_alloc_zeroed(device->context, size + 1);
    if (log && nvrtc->nvrtcGetProgramLog(program, log) == 0)
        length = strlen(log);
    while (length > 0 && isspace((unsigned char)log[length - 1]))
        log[--length] = '\0';
    const size_t room = FA_MESSAGE_SIZE - 160;
    const char *tail = length > room ? log + length - room : log;
    const char *line = length > room ? strchr(tail, '\n') : NULL;
    if (line) /* of what is cut, whole lines */
        tail = line + 1;
    fa_status status = fa_fail(FA_COMPILE, "nvrtcCompileProgram: error %d of %s on %.60s: %s", error, name,
                               device->info.name, length > 0 ? tail : "no log");
    fa_release(device->context, log, size + 1);
    return status;
}

/* The caller releases *cubin. */
static fa_status compile(const fa_device *device, const fa_nvrtc *nvrtc, int arch, const fa_cu_program *of,
                         void **cubin, size_t *size)
{
    const bool task = of->type == FA_CUDA_TASK;
    char target[32], defines[2 + FA_TASK_CONSTANTS][40];
    const char *options[7 + FA_TASK_CONSTANTS] = {target, "--std=c++17", "-default-device", defines[0],
                                                  defines[1]};
    int count = 5;
    nvrtcProgram program = NULL;
    (void)snprintf(target, sizeof(target), "--gpu-architecture=sm_%d%s", arch,
                   task ? "" : fa_cuda_arch_suffix(fa_cuda_table[of->line]));
    (void)snprintf(defines[0], sizeof(defines[0]), "-DFA_ROW=%d", of->line);
    (void)snprintf(defines[1], sizeof(defines[1]), "-DFA_TYPE=%d", of->type);
    if (task)
        options[count++] = "--fmad=false";
    if (of->lists)
        options[count++] = "-DFA_HAS_LISTS";
    for (int i = 0; of->fixed && i < FA_TASK_CONSTANTS; i++) {
        (void)snprintf(defines[2 + i], sizeof(defines[0]), "-DFA_CONSTANT_%d=%d", i, of->constant[i]);
        options[count++] = defines[2 + i];
    }
    int error = nvrtc->nvrtcCreateProgram(&program, task ? fa_cuda_task_source : fa_cuda_source,
                                          task ? "task.cu" : "attention.cu", 0, NULL, NULL);
    if (error != 0)
        return fa_fail(FA_OUT_OF_MEMORY, "nvrtcCreateProgram: error %d", error);
    fa_status status = FA_OK;
    error = nvrtc->nvrtcCompileProgram(program, count, options);
    if (error != 0)
        status = compile_failed(device, nvrtc, program, name_of(of), error);
    else if (nvrtc->nvrtcGetCUBINSize(program, size) != 0 || *size == 0)
        status = fa_fail(FA_COMPILE, "nvrtcGetCUBINSize: no machine code of %s", name_of(of));
    *cubin = status == FA_OK ? fa_alloc(device->context, *size) : NULL;
    if (*cubin && nvrtc->nvrtcGetCUBIN(program, *cubin) != 0) {
        status = fa_fail(FA_COMPILE, "nvrtcGetCUBIN: no machine code of %s", name_of(of));
        fa_release(device->context, *cubin, *size);
        *cubin = NULL;
    }
    (void)nvrtc->nvrtcDestroyProgram(&program);
    return status != FA_OK ? status : *cubin ? FA_OK : FA_OUT_OF_MEMORY;
}

/* From the cache on disk, else compiled and stored there. */
static fa_status make_module(const fa_device *device, const fa_cu_program *of, CUmodule *module)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    char why[200], key[200];
    void *cubin;
    size_t size;
    int major = 0, minor = 0;
    const bool task = of->type == FA_CUDA_TASK;
    const char *source = task ? fa_cuda_task_source : fa_cuda_source;
    const size_t source_size = task ? fa_cuda_task_source_size : fa_cuda_source_size;
    const fa_nvrtc *nvrtc = fa_nvrtc_load(why, sizeof(why));
    int arch = nvrtc ? target_arch(nvrtc, &d->caps, why, sizeof(why)) : 0;
    if (arch == 0)
        return fa_fail(FA_COMPILE, "%s: %s", name_of(of), why);
    (void)nvrtc->nvrtcVersion(&major, &minor);
    (void)snprintf(key, sizeof(key),
                   "cuda sm_%d NVRTC %d.%d line %d type %d lists %d constants %d %d %d %d %d\n%016llx %zu",
                   arch, major, minor, of->line, of->type, of->lists, of->fixed, of->constant[0],
                   of->constant[1], of->constant[2], of->constant[3],
                   (unsigned long long)fa_cache_hash(source, source_size), source_size);
    if (fa_cache_load(device->context, key, &cubin, &size)) {
        CUresult error = d->cu->cuModuleLoadData(module, cubin);
        fa_release(device->context, cubin, size);
        if (error == CUDA_SUCCESS)
            return FA_OK;
    }
    fa_status status = compile(device, nvrtc, arch, of, &cubin, &size);
    if (status != FA_OK)
        return status;
    CUresult error = d->cu->cuModuleLoadData(module, cubin);
    if (error == CUDA_SUCCESS)
        fa_cache_store(device->context, key, cubin, size);
    fa_release(device->context, cubin, size);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuModuleLoadData");
}

/* From the library where that has it for this device. */
static fa_status load_module(const fa_device *device, const fa_cu_program *of, CUmodule *module,
                             bool *compiled)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    *compiled = true;
    for (size_t i = 0; have_images(&d->caps) && !of->lists && !of->fixed && i < fa_cuda_image_count; i++) {
        if (fa_cuda_images[i].line != of->line || fa_cuda_images[i].type != of->type)
            continue;
        *compiled = false;
        CUresult error = d->cu->cuModuleLoadData(module, fa_cuda_images[i].bytes);
        return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuModuleLoadData");
    }
    return make_module(device, of, module);
}

/* The module in the device's list; where there is none, `added`, unless that is NULL. */
static fa_cu_module *find_module(fa_cu_device *d, const fa_cu_program *of, fa_cu_module *added)
{
    (void)pthread_mutex_lock(&d->lock);
    fa_cu_module *found = d->modules;
    while (found && !same(&found->of, of))
        found = found->next;
    if (!found && added) {
        added->next = d->modules;
        d->modules = found = added;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return found;
}

/* Not under the lock: the caller's allocator and log are called. Another thread may be making the same. */
static fa_status add_module(fa_device *device, const fa_cu_program *of, fa_cu_module **added)
{
    fa_cu_device *d = fa_cu_device_of(device);
    bool compiled = false;
    fa_cu_module *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    fa_status status = load_module(device, of, &made->handle, &compiled);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    fa_clear_error(); /* of what the cache met on its way */
    made->of = *of;
    *added = find_module(d, of, made);
    if (*added != made) {
        (void)d->cu->cuModuleUnload(made->handle);
        fa_release(device->context, made, sizeof(*made));
    } else {
        fa_log(device->context, FA_LOG_DEBUG, "cuda: %s of type %d%s: %s", name_of(of), of->type,
               of->lists ? " with lists" : "", compiled ? "compiled, or from the cache" : "from the library");
    }
    return FA_OK;
}

static fa_status get_module(fa_device *device, const fa_cu_program *of, CUmodule *module)
{
    fa_cu_module *found = find_module(fa_cu_device_of(device), of, NULL);
    fa_status status = found ? FA_OK : add_module(device, of, &found);
    if (status == FA_OK)
        *module = found->handle;
    return status;
}

fa_status fa_cu_function_get(fa_device *device, int line, int type, bool lists, int variant,
                             CUfunction *function)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    const fa_cuda_traits *t = &fa_cuda_table[line];
    const int shared = t->kind == FA_CUDA_DECODE && type > FA_CUDA_PRUNED_ROWS
                           ? fa_cuda_decode_bytes(*t, type, variant,
                                                  fa_cu_coded_warps(&d->caps, t, type, variant, 0, INFINITY))
                           : fa_cuda_shared_bytes(*t, type, variant);
    char name[32];
    CUmodule module;
    fa_status status =
        get_module(device, &(fa_cu_program){.line = line, .type = type, .lists = lists}, &module);
    if (status != FA_OK)
        return status;
    (void)snprintf(name, sizeof(name), "fa_kernel_%d", variant);
    CUresult error = d->cu->cuModuleGetFunction(function, module, name);
    if (error != CUDA_SUCCESS)
        return fa_cu_fail(d->cu, error, "cuModuleGetFunction");
    error = d->cu->cuFuncSetAttribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuFuncSetAttribute");
}

fa_status fa_cu_task_function_get(const fa_task *task, CUfunction *function)
{
    const fa_cu_device *d = fa_cu_device_of(task->device);
    fa_cu_program of = {.line = task->kind, .type = FA_CUDA_TASK};
    for (int i = 0; i < FA_TASK_CONSTANTS && d->caps.compiles; i++) {
        of.constant[i] = task->constant[i];
        of.fixed = of.fixed || of.constant[i] != 0;
    }
    CUmodule module;
    fa_status status = get_module(task->device, &of, &module);
    if (status == FA_COMPILE && of.fixed && have_images(&d->caps)) {
        fa_clear_error();
        fa_log(task->device->context, FA_LOG_DEBUG,
               "cuda: %s is not compiled for its types, the library's serves", name_of(&of));
        of = (fa_cu_program){.line = task->kind, .type = FA_CUDA_TASK};
        status = get_module(task->device, &of, &module);
    }
    FA_TRY(status);
    CUresult error = d->cu->cuModuleGetFunction(function, module, "fa_task");
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuModuleGetFunction");
}

void fa_cu_modules_release(fa_device *device)
{
    fa_cu_device *d = fa_cu_device_of(device);
    bool entered = d->modules && fa_cu_enter(device) == FA_OK;
    while (d->modules) {
        fa_cu_module *next = d->modules->next;
        if (entered)
            (void)d->cu->cuModuleUnload(d->modules->handle);
        fa_release(device->context, d->modules, sizeof(*d->modules));
        d->modules = next;
    }
    if (entered)
        fa_cu_leave(device);
}
