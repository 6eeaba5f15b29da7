/* SPDX-License-Identifier: Apache-2.0 */
/* The ceilings of an OpenCL device, by loops of its own and the device's clock. */
#include "tools/bench/bench.h"

#if FA_WITH_OPENCL
#include <math.h>

#include "backends/opencl/opencl.h"

#define MIN_BUFFER ((size_t)1 << 30)
#define MAX_BUFFER ((size_t)4 << 30) /* what the kernels count fits an int then */
#define CHUNK_SECONDS 0.01
#define FAR_BEHIND 0.7
enum { ROUNDS = 5, CACHE_MULTIPLE = 4, GROUP = 256, GROUPS_PER_UNIT = 8, VECTOR = 16 };
enum { ACCUMULATORS = 8, UNROLL = 16 }; /* of the kernels multiply_add */

/*
 * A GPU's lanes are its work-items, a CPU wants vectors in each; a GPU reads best where neighbours read what
 * lies side by side, a CPU where each reads a piece of its own. The fastest of them is the ceiling.
 */
static const char arithmetic[] =
    "#ifdef FP_FAST_FMAF\n"
    "#define FMA fma\n"
    "#else\n"
    "#define FMA mad\n"
    "#endif\n"
    "float sum_float(float v) { return v; }\n"
    "float sum_float4(float4 v) { return v.s0 + v.s1 + v.s2 + v.s3; }\n"
    "float sum_float16(float16 v) { return sum_float4(v.s0123 + v.s4567 + v.s89ab + v.scdef); }\n"
    "#define STEP a0 = FMA(a0, h, h); a1 = FMA(a1, h, h); a2 = FMA(a2, h, h); a3 = FMA(a3, h, h); \\\n"
    "             a4 = FMA(a4, h, h); a5 = FMA(a5, h, h); a6 = FMA(a6, h, h); a7 = FMA(a7, h, h);\n"
    "#define STEPS4 STEP STEP STEP STEP\n"
    "#define ARGUMENTS __global const float16 *data, __global float *out, int n, float half_one\n"
    "#define MULTIPLY_ADD(type) \\\n"
    "__kernel void multiply_add_##type(ARGUMENTS) \\\n"
    "{ \\\n"
    "    const type h = (type)(half_one), x = (type)((float)get_local_id(0)); \\\n"
    "    type a0 = x, a1 = x + 1, a2 = x + 2, a3 = x + 3, a4 = x + 4, a5 = x + 5, a6 = x + 6, a7 = x + 7; "
    "\\\n"
    "    for (int i = 0; i < n; i++) { STEPS4 STEPS4 STEPS4 STEPS4 } \\\n"
    "    out[get_global_id(0)] = sum_##type(a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7); \\\n"
    "}\n"
    "MULTIPLY_ADD(float) MULTIPLY_ADD(float4) MULTIPLY_ADD(float16)\n";

static const char memory[] =
    "#define READ(type) \\\n"
    "__kernel void read_side_by_side_##type(ARGUMENTS) \\\n"
    "{ \\\n"
    "    __global const type *from = (__global const type *)data; \\\n"
    "    const int step = get_global_size(0); \\\n"
    "    type total = (type)(0.0f); \\\n"
    "    for (int i = get_global_id(0); i < n; i += step) \\\n"
    "        total += from[i]; \\\n"
    "    out[get_global_id(0)] = sum_##type(total); \\\n"
    "} \\\n"
    "__kernel void read_pieces_##type(ARGUMENTS) \\\n"
    "{ \\\n"
    "    const int piece = n / (int)get_global_size(0); \\\n"
    "    __global const type *from = (__global const type *)data + (size_t)get_global_id(0) * piece; \\\n"
    "    type total = (type)(0.0f), other = (type)(0.0f); \\\n"
    "    for (int i = 0; i < piece; i += 2) { \\\n"
    "        total += from[i]; \\\n"
    "        other += from[i + 1]; \\\n"
    "    } \\\n"
    "    out[get_global_id(0)] = sum_##type(total + other); \\\n"
    "}\n"
    "READ(float4) READ(float16)\n"
    "__kernel void write(__global float16 *data, int n)\n"
    "{\n"
    "    for (int i = get_global_id(0); i < n; i += (int)get_global_size(0))\n"
    "        data[i] = (float16)((float)(i & 255));\n"
    "}\n";

/* Floats that a kernel handles at once, and whether it reads memory. */
typedef struct loop {
    const char *name;
    int width;
    bool reads;
} loop;

static const loop loops[] = {
    {"multiply_add_float", 1, false},        {"multiply_add_float4", 4, false},
    {"multiply_add_float16", 16, false},     {"read_side_by_side_float4", 4, true},
    {"read_side_by_side_float16", 16, true}, {"read_pieces_float4", 4, true},
    {"read_pieces_float16", 16, true},
};
enum { LOOPS = sizeof(loops) / sizeof(loops[0]) };

typedef struct session {
    const fa_cl_device *device;
    const fa_cl *cl;
    cl_command_queue queue;
    cl_program program;
    cl_kernel write, kernel[LOOPS];
    cl_mem data, out;
    size_t bytes, items;
    char *message;
    size_t message_size;
} session;

/* False with the reason unless `error` is CL_SUCCESS, so that a step can end in `return done(...)`. */
static bool done(session *s, cl_int error, const char *call)
{
    if (error == CL_SUCCESS)
        return true;
    (void)fa_cl_fail(error, call);
    (void)snprintf(s->message, s->message_size, "%s", fa_last_error());
    return false;
}

static bool open_kernel(session *s, const char *name, cl_kernel *kernel)
{
    cl_int error;
    *kernel = s->cl->clCreateKernel(s->program, name, &error);
    return done(s, error, "clCreateKernel");
}

static bool open_program(session *s)
{
    cl_int error;
    const char *sources[] = {arithmetic, memory};
    s->queue =
        s->cl->clCreateCommandQueue(s->device->context, s->device->id, CL_QUEUE_PROFILING_ENABLE, &error);
    if (!done(s, error, "clCreateCommandQueue"))
        return false;
    s->program = s->cl->clCreateProgramWithSource(s->device->context, 2, sources, NULL, &error);
    if (!done(s, error, "clCreateProgramWithSource") ||
        !done(s, s->cl->clBuildProgram(s->program, 1, &s->device->id, "", NULL, NULL), "clBuildProgram"))
        return false;
    bool ok = open_kernel(s, "write", &s->write);
    for (int i = 0; ok && i < LOOPS; i++)
        ok = open_kernel(s, loops[i].name, &s->kernel[i]);
    return ok;
}

/* One for all: neighbours of a loop start together, and every loop reads the whole of the buffer. */
static bool open_buffers(session *s, size_t cache)
{
    const fa_cl_caps *caps = &s->device->caps;
    const size_t granule = s->items * VECTOR * sizeof(float) * 2;
    size_t wanted = cache * CACHE_MULTIPLE, most = caps->alloc_bytes;
    most = caps->global_bytes / 4 < most ? (size_t)(caps->global_bytes / 4) : most;
    if (caps->unified && bench_memory_available() / 4 < most)
        most = bench_memory_available() / 4;
    wanted = wanted < MIN_BUFFER ? MIN_BUFFER : wanted > MAX_BUFFER ? MAX_BUFFER : wanted;
    wanted = wanted < most ? wanted : most;
    s->bytes = wanted / granule * granule;
    if (!s->bytes) {
        (void)snprintf(s->message, s->message_size, "no memory for %zu bytes to read from", granule);
        return false;
    }
    cl_int error;
    s->data = s->cl->clCreateBuffer(s->device->context, CL_MEM_READ_WRITE, s->bytes, NULL, &error);
    if (!done(s, error, "clCreateBuffer"))
        return false;
    s->out =
        s->cl->clCreateBuffer(s->device->context, CL_MEM_READ_WRITE, s->items * sizeof(float), NULL, &error);
    return done(s, error, "clCreateBuffer");
}

/* The largest power of two that the kernel and the device allow, up to GROUP; `items` is a multiple of it. */
static bool group_size(session *s, cl_kernel kernel, size_t *group)
{
    size_t most;
    cl_int error = s->cl->clGetKernelWorkGroupInfo(kernel, s->device->id, CL_KERNEL_WORK_GROUP_SIZE,
                                                   sizeof(most), &most, NULL);
    if (!done(s, error, "clGetKernelWorkGroupInfo"))
        return false;
    most = most < s->device->caps.group_size ? most : s->device->caps.group_size;
    for (*group = GROUP; *group > 1 && *group > most;)
        *group /= 2;
    return true;
}

/* By the device's clock. */
static bool time_kernel(session *s, cl_kernel kernel, double *seconds)
{
    cl_event event;
    cl_ulong start = 0, end = 0;
    size_t group;
    if (!group_size(s, kernel, &group) ||
        !done(s, s->cl->clEnqueueNDRangeKernel(s->queue, kernel, 1, NULL, &s->items, &group, 0, NULL, &event),
              "clEnqueueNDRangeKernel"))
        return false;
    bool ok =
        done(s, s->cl->clFinish(s->queue), "clFinish") &&
        done(s,
             s->cl->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof(start), &start, NULL),
             "clGetEventProfilingInfo") &&
        done(s, s->cl->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof(end), &end, NULL),
             "clGetEventProfilingInfo");
    (void)s->cl->clReleaseEvent(event);
    *seconds = 1e-9 * (double)(end - start);
    return ok;
}

static bool time_loop(session *s, int index, cl_int n, double *seconds)
{
    const cl_float half = 0.5f;
    cl_kernel kernel = s->kernel[index];
    return done(s, s->cl->clSetKernelArg(kernel, 0, sizeof(s->data), &s->data), "clSetKernelArg") &&
           done(s, s->cl->clSetKernelArg(kernel, 1, sizeof(s->out), &s->out), "clSetKernelArg") &&
           done(s, s->cl->clSetKernelArg(kernel, 2, sizeof(n), &n), "clSetKernelArg") &&
           done(s, s->cl->clSetKernelArg(kernel, 3, sizeof(half), &half), "clSetKernelArg") &&
           time_kernel(s, kernel, seconds);
}

/* Memory that was never written need not be there. */
static bool write_data(session *s)
{
    const cl_int n = (cl_int)(s->bytes / (VECTOR * sizeof(float)));
    double seconds;
    return done(s, s->cl->clSetKernelArg(s->write, 0, sizeof(s->data), &s->data), "clSetKernelArg") &&
           done(s, s->cl->clSetKernelArg(s->write, 1, sizeof(n), &n), "clSetKernelArg") &&
           time_kernel(s, s->write, &seconds);
}

/* How often a loop of multiply-adds goes round, or what one that reads counts. */
static bool calibrate(session *s, int index, cl_int *n)
{
    *n = (cl_int)(s->bytes / (sizeof(float) * (size_t)loops[index].width));
    if (loops[index].reads)
        return true;
    double seconds = 0.0;
    for (*n = 16; *n < INT32_MAX / 32; *n *= seconds < CHUNK_SECONDS / 16 ? 16 : 2) {
        if (!time_loop(s, index, *n, &seconds))
            return false;
        if (seconds >= CHUNK_SECONDS)
            break;
    }
    return true;
}

/*
 * All loops in turn: whatever else the machine does for a while lowers no single one of the results. What the
 * first round finds far behind has no further turn.
 */
static bool measure(session *s, bench_peak *peak)
{
    cl_int n[LOOPS];
    double best[LOOPS] = {0.0};
    for (int i = 0; i < LOOPS; i++) {
        if (!calibrate(s, i, &n[i]))
            return false;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LOOPS; i++) {
            double *top = loops[i].reads ? &peak->bytes : &peak->flops, seconds;
            if (round > 0 && best[i] < FAR_BEHIND * *top)
                continue;
            if (!time_loop(s, i, n[i], &seconds))
                return false;
            double flops = 2.0 * UNROLL * ACCUMULATORS * loops[i].width * (double)n[i] * (double)s->items;
            double rate = (loops[i].reads ? (double)s->bytes : flops) / seconds;
            best[i] = seconds > 0 ? fmax(best[i], rate) : best[i];
            *top = fmax(*top, best[i]);
        }
    }
    return true;
}

static void close_session(session *s)
{
    for (int i = 0; i < LOOPS; i++) {
        if (s->kernel[i])
            (void)s->cl->clReleaseKernel(s->kernel[i]);
    }
    if (s->write)
        (void)s->cl->clReleaseKernel(s->write);
    if (s->data)
        (void)s->cl->clReleaseMemObject(s->data);
    if (s->out)
        (void)s->cl->clReleaseMemObject(s->out);
    if (s->program)
        (void)s->cl->clReleaseProgram(s->program);
    if (s->queue)
        (void)s->cl->clReleaseCommandQueue(s->queue);
}

bool bench_peak_opencl(const fa_device *device, bench_peak *peak, char *message, size_t message_size)
{
    const fa_cl_device *impl = fa_cl_device_of(device);
    session s = {.device = impl, .cl = impl->cl, .message = message, .message_size = message_size};
    const size_t units = impl->caps.units > 0 ? impl->caps.units : 1;
    const size_t cache = impl->caps.type & CL_DEVICE_TYPE_CPU ? bench_cache_bytes() : 0;
    s.items = units * GROUPS_PER_UNIT * GROUP;
    *peak = (bench_peak){.known = false};
    bool ok = open_program(&s) && open_buffers(&s, cache) && write_data(&s) && measure(&s, peak);
    if (ok && !(peak->flops > 0 && peak->bytes > 0)) {
        (void)snprintf(message, message_size, "the device's clock says that nothing takes time");
        ok = false;
    }
    peak->known = ok;
    peak->isa = "opencl";
    peak->units_name = "units";
    peak->units = (int)units;
    peak->buffer_bytes = s.bytes;
    peak->cache_bytes = cache;
    close_session(&s);
    return ok;
}

#else
bool bench_peak_opencl(const fa_device *device, bench_peak *peak, char *message, size_t message_size)
{
    (void)device;
    *peak = (bench_peak){.known = false};
    (void)snprintf(message, message_size, "this command was built without OpenCL");
    return false;
}
#endif
