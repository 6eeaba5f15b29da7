/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel: compiled with its options, given its arguments, enqueued. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/opencl/plan.h"
#include "core/status.h"

void fa_cl_options_add(fa_cl_options *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(text->bytes + text->used, sizeof(text->bytes) - text->used, format, arguments);
    va_end(arguments);
    text->used += wrote > 0 ? (size_t)wrote : 0;
}

void fa_cl_options_common(fa_cl_options *text, const fa_device *device, const fa_dtype type[FA_O + 1],
                          bool far, int chunks)
{
    fa_cl_options_add(text, "-DFA_TYPE_Q=%d -DFA_TYPE_K=%d -DFA_TYPE_V=%d -DFA_TYPE_O=%d -DFA_STRIDE=%s ",
                      type[FA_Q], type[FA_K], type[FA_V], type[FA_O], far ? "long" : "int");
    fa_cl_options_device(text, device, chunks);
}

void fa_cl_options_device(fa_cl_options *text, const fa_device *device, int chunks)
{
    const fa_cl_caps *caps = &fa_cl_device_of(device)->caps;
    fa_cl_options_add(text, "-DFA_CHUNKS=%d", chunks);
    if (chunks > 1)
        fa_cl_options_add(text, " -DFA_CHUNK_SHIFT=%d", fa_cl_chunk_shift(caps));
    if (caps->fp16)
        fa_cl_options_add(text, " -DFA_FP16");
    if (!caps->local_real)
        fa_cl_options_add(text, " -DFA_COMPACT");
    if (caps->subgroups) /* they came with OpenCL C 2.0 */
        fa_cl_options_add(text, " -DFA_SUBGROUPS -cl-std=CL%d.0", caps->version / 10);
}

fa_status fa_cl_kernel_make(fa_device *device, const fa_cl_source *source, const fa_cl_options *options,
                            const char *name, cl_kernel *kernel)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    cl_program program;
    cl_int error;
    fa_status status = fa_cl_program_get(device, source, options->bytes, &program);
    if (status != FA_OK)
        return status;
    *kernel = d->cl->clCreateKernel(program, name, &error);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clCreateKernel");
}

void fa_cl_pass(fa_cl_launch *l, size_t size, const void *value)
{
    if (l->error == CL_SUCCESS)
        l->error = l->cl->clSetKernelArg(l->kernel, l->argument++, size, value);
}

void fa_cl_pass_memory(fa_cl_launch *l, const fa_cl_place *p, int chunks)
{
    for (int i = 0; i < chunks; i++)
        fa_cl_pass(l, sizeof(cl_mem), &p->chunk[i]);
}

fa_status fa_cl_enqueue(const fa_cl_launch *l, cl_command_queue queue, int64_t groups, size_t lines,
                        size_t group, cl_event *event)
{
    if (l->error != CL_SUCCESS)
        return fa_cl_fail(l->error, "clSetKernelArg");
    const size_t global[2] = {(size_t)groups * group, lines}, local[2] = {group, 1};
    cl_int error = l->cl->clEnqueueNDRangeKernel(queue, l->kernel, 2, NULL, global, local, 0, NULL, event);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clEnqueueNDRangeKernel");
}
