/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded source with the real run-time compiler, which has no search path: for the oldest GPU that a kernel's
 * instructions are of and that this NVRTC knows, tasks for each GPU that it knows. Skipped, with exit status 77, where
 * there is none. A compiler that may leave out optimisations does: what it makes is not run.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/cuda/cuda.h"
#include "backends/cuda/task.h"
#include "core/append/append.h"
#include "core/portable/task.h"

enum { SKIPPED = 77, MOST_ARCHS = 64, NVRTC_INVALID_OPTION = 5 };

static int least_arch(const fa_nvrtc *nvrtc, int unit)
{
    int archs[MOST_ARCHS], count = 0, least = 0;
    if (nvrtc->nvrtcGetNumSupportedArchs(&count) != 0 || count > MOST_ARCHS ||
        nvrtc->nvrtcGetSupportedArchs(archs) != 0)
        return 0;
    for (int i = 0; i < count; i++) {
        if (archs[i] >= 60 && archs[i] >= unit && (least == 0 || archs[i] < least))
            least = archs[i];
    }
    return least;
}

/* A line of kernels.inc, or where the type is FA_CUDA_TASK, a task, for `constants` if that is not NULL. With `lists`, one that
 * reads lists of key blocks. */
static bool compile(const fa_nvrtc *nvrtc, int arch, int line, int type, bool lists, const int *constants)
{
    char target[32], defines[2 + FA_TASK_CONSTANTS][40], log[4096] = "";
    const char *options[8 + FA_TASK_CONSTANTS] = {target, "--std=c++17", "-default-device", defines[0],
                                                  defines[1]};
    const bool task = type == FA_CUDA_TASK;
    int count = 5;
    if (task)
        options[count++] = "--fmad=false";
    if (lists)
        options[count++] = "-DFA_HAS_LISTS";
    for (int i = 0; constants && i < FA_TASK_CONSTANTS; i++) {
        (void)snprintf(defines[2 + i], sizeof(defines[0]), "-DFA_CONSTANT_%d=%d", i, constants[i]);
        options[count++] = defines[2 + i];
    }
    nvrtcProgram program = NULL;
    size_t size = 0;
    options[count] = "--Ofast-compile=max";
    (void)snprintf(target, sizeof(target), "--gpu-architecture=sm_%d%s", arch,
                   task ? "" : fa_cuda_arch_suffix(fa_cuda_table[line]));
    (void)snprintf(defines[0], sizeof(defines[0]), "-DFA_ROW=%d", line);
    (void)snprintf(defines[1], sizeof(defines[1]), "-DFA_TYPE=%d", type);
    if (nvrtc->nvrtcCreateProgram(&program, task ? fa_cuda_task_source : fa_cuda_source,
                                  task ? "task.cu" : "attention.cu", 0, NULL, NULL) != 0)
        return false;
    int error = nvrtc->nvrtcCompileProgram(program, count + 1, options);
    if (error == NVRTC_INVALID_OPTION)
        error = nvrtc->nvrtcCompileProgram(program, count, options);
    if (error == 0)
        (void)nvrtc->nvrtcGetCUBINSize(program, &size);
    else if (nvrtc->nvrtcGetProgramLogSize(program, &size) == 0 && size <= sizeof(log))
        (void)nvrtc->nvrtcGetProgramLog(program, log);
    (void)printf("%s%s, %s: %s, %zu bytes\n%s", fa_cu_module_name(line, type), lists ? " with lists" : "",
                 target, error == 0 ? "compiled" : "FAILED", size, log);
    (void)nvrtc->nvrtcDestroyProgram(&program);
    return error == 0 && size > 0;
}

static bool compile_line(const fa_nvrtc *nvrtc, int line, int type)
{
    return compile(nvrtc, least_arch(nvrtc, fa_cuda_table[line].unit), line, type, false, NULL);
}

static bool compile_listed(const fa_nvrtc *nvrtc, int line, int type)
{
    return compile(nvrtc, least_arch(nvrtc, fa_cuda_table[line].unit), line, type, true, NULL);
}

/* Appends for their constants: rows of f16 into blocks, rotated in halves beside q, and into codes with a scale and a zero. */
static bool compile_appends(const fa_nvrtc *nvrtc)
{
    const int rows = FA_F16 | FA_APPEND_NO_Q << 4, turned = FA_F16 | FA_F16 << 4 | FA_F32 << 8;
    const struct {
        int task, constant[FA_TASK_CONSTANTS];
    } appends[] = {
        {FA_TASK_APPEND,
         {rows, FA_F16, FA_APPEND_CACHE(FA_Q8_0, -1, -1), FA_APPEND_CACHE(FA_IQ4_NL, -1, -1)}},
        {FA_TASK_APPEND,
         {turned, FA_F16 | FA_ROTARY_HALVES << 4, FA_APPEND_CACHE(FA_Q5_1, -1, -1),
          FA_APPEND_CACHE(FA_E4M3, -1, -1)}},
        {FA_TASK_APPEND_SCALED,
         {rows, FA_BF16, FA_APPEND_CACHE(FA_U4, FA_F16, FA_F16), FA_APPEND_CACHE(FA_E2M1, FA_E4M3, -1)}},
        {FA_TASK_APPEND_SCALED,
         {turned, FA_F16 | FA_ROTARY_HALVES << 4, FA_APPEND_CACHE(FA_BITMAP_F16, -1, -1),
          FA_APPEND_CACHE(FA_BITMAP_F16, -1, -1)}},
    };
    bool good = true;
    for (size_t i = 0; i < sizeof(appends) / sizeof(appends[0]); i++)
        good =
            compile(nvrtc, least_arch(nvrtc, 0), appends[i].task, FA_CUDA_TASK, false, appends[i].constant) &&
            good;
    return good;
}

int main(void)
{
    char reason[256];
    const fa_nvrtc *nvrtc = fa_nvrtc_load(reason, sizeof(reason));
    if (!nvrtc) {
        (void)printf("no NVRTC: %s\n", reason);
        return SKIPPED;
    }
    bool good = true;
    /* Tasks are for every GPU: each, for the oldest. */
    for (int task = 0; task < FA_TASKS; task++)
        good = compile(nvrtc, least_arch(nvrtc, 0), task, FA_CUDA_TASK, false, NULL) && good;
    good = compile_appends(nvrtc) && good;
    int kind = -1, unit = -1;
    for (int line = 0; kind != FA_CUDA_MERGE; line++) {
        /* The first, which is the smallest, of each kind and unit. */
        if (fa_cuda_table[line].kind != kind || fa_cuda_table[line].unit != unit)
            good = compile_line(nvrtc, line,
                                fa_cuda_takes_formats(fa_cuda_table[line])
                                    ? fa_cuda_coded_type(FA_F16, FA_Q8_0, FA_Q4_1)
                                : fa_cuda_table[line].unit > 0 ? FA_F16
                                                               : FA_F32) &&
                   good;
        /* What asks lists is in every kind. */
        if (fa_cuda_table[line].kind != kind && fa_cuda_table[line].kind != FA_CUDA_MERGE)
            good = compile_listed(nvrtc, line, fa_cuda_table[line].unit > 0 ? FA_F16 : FA_F32) && good;
        if (fa_cuda_table[line].kind != kind &&
            (fa_cuda_table[line].kind == FA_CUDA_FMA || fa_cuda_table[line].kind == FA_CUDA_ROWS))
            good = compile_line(nvrtc, line, FA_CUDA_ANY) && compile_line(nvrtc, line, FA_CUDA_SCALED) &&
                   compile_line(nvrtc, line, FA_CUDA_PRUNED_ROWS) && good;
        if (fa_cuda_table[line].dim_v >= FA_MLA_DIMS && fa_cuda_table[line].unit == 0)
            good = compile_line(nvrtc, line, FA_CUDA_WHOLE_ROWS) && good;
        const bool first_tiles = fa_cuda_table[line].kind == FA_CUDA_TENSOR &&
                                 fa_cuda_table[line].unit >= 75 && fa_cuda_table[line].unit != unit;
        if ((fa_cuda_table[line].kind != kind && fa_cuda_table[line].kind == FA_CUDA_DECODE) || first_tiles)
            good = compile_line(nvrtc, line, fa_cuda_coded_type(FA_F16, FA_Q8_0, FA_Q5_1)) && good;
        if (fa_cuda_table[line].kind != kind && fa_cuda_table[line].kind == FA_CUDA_DECODE) {
            const int beside = fa_cuda_coded_type(FA_BF16, FA_BF16, FA_E4M3),
                      scaled = fa_cuda_scaled_type(fa_cuda_coded_type(FA_F16, FA_U8, FA_E2M1),
                                                   FA_CUDA_SCALED_ZEROS, FA_CUDA_SCALED_KEYS);
            good = compile_line(nvrtc, line, beside) && compile_line(nvrtc, line, scaled) && good;
        }
        kind = fa_cuda_table[line].kind;
        unit = fa_cuda_table[line].unit;
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
