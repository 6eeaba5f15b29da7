/* SPDX-License-Identifier: Apache-2.0 */
/* A program with its own OpenCL context, queue and memory, on whatever driver there is. */
#include <fastattn/opencl.h>
#include <fastattn/ranks.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver.h"
#include "tests/unit/helpers.h"

enum { HEADS = 2, ROWS = 37, KEYS = 53, DIM = 32, Q = 0, K = 1, V = 2, O = 3, TENSORS = 4 };

/* Buffers as large as the largest, so that each can take the place of another. */
enum { ELEMENTS = HEADS * KEYS * DIM, BYTES = ELEMENTS * (int)sizeof(float), OUTPUTS = HEADS * ROWS * DIM };

static const driver *cl;
static cl_device_id id;

/* The caller's, made before each test. */
static cl_context cl_own;
static cl_command_queue cl_queue;
static cl_mem cl_memory[TENSORS];

/* fastattn's, of the above. */
static fa_device *device;
static fa_queue *queue;
static fa_buffer *buffer[TENSORS];
static fa_plan *plan;
static fa_attention_desc desc;
static float host[TENSORS][ELEMENTS];

static cl_command_queue make_queue(cl_context in, cl_command_queue_properties properties)
{
    cl_int error;
    cl_command_queue made = cl->clCreateCommandQueue(in, id, properties, &error);
    return error == CL_SUCCESS ? made : NULL;
}

static cl_context make_context(void)
{
    cl_int error;
    cl_context made = cl->clCreateContext(NULL, 1, &id, NULL, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    return made;
}

static cl_mem make_memory(cl_context in, size_t bytes)
{
    cl_int error;
    cl_mem made = cl->clCreateBuffer(in, CL_MEM_READ_WRITE, bytes, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    return made;
}

static void wrap(int t, cl_mem memory_of_caller, size_t offset, size_t size)
{
    fa_buffer_destroy(buffer[t]);
    fa_status status = fa_buffer_wrap_opencl(device, memory_of_caller, offset, size, &buffer[t]);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

static void setup(void)
{
    random_state random = {7};
    for (int t = 0; t < TENSORS; t++) {
        for (int i = 0; i < ELEMENTS; i++)
            host[t][i] = random_float(&random, -1, 1);
    }
    cl_own = make_context();
    cl_queue = make_queue(cl_own, CL_QUEUE_PROFILING_ENABLE);
    ck_assert_ptr_nonnull(cl_queue);
    ck_assert_msg(fa_device_open_opencl(context, cl_own, id, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_queue_wrap_opencl(device, cl_queue, &queue) == FA_OK, "%s", fa_last_error());
    desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    ck_assert_msg(fa_plan_create(device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    for (int t = 0; t < TENSORS; t++) {
        cl_memory[t] = make_memory(cl_own, BYTES);
        wrap(t, cl_memory[t], 0, 0);
        ck_assert_uint_eq(fa_buffer_size(buffer[t]), BYTES);
    }
}

static cl_uint references_of_memory(void *of)
{
    cl_uint count = 0;
    ck_assert_int_eq(cl->clGetMemObjectInfo(of, CL_MEM_REFERENCE_COUNT, sizeof(count), &count, NULL),
                     CL_SUCCESS);
    return count;
}

static cl_uint references_of_queue(void *of)
{
    cl_uint count = 0;
    ck_assert_int_eq(cl->clGetCommandQueueInfo(of, CL_QUEUE_REFERENCE_COUNT, sizeof(count), &count, NULL),
                     CL_SUCCESS);
    return count;
}

/* Only the caller's reference is left, at once or soon: PoCL drops a command's after it told of the command's end. */
static void check_released(cl_uint (*references)(void *), void *of)
{
    enum { PATIENCE = 5000 };
    const struct timespec millisecond = {.tv_nsec = 1000000};
    for (int waited = 0; waited < PATIENCE && references(of) > 1; waited++)
        (void)nanosleep(&millisecond, NULL);
    ck_assert_uint_eq(references(of), 1);
}

/* All that was retained is released again. */
static void teardown(void)
{
    for (int t = 0; t < TENSORS; t++) {
        fa_buffer_destroy(buffer[t]);
        buffer[t] = NULL;
        check_released(references_of_memory, cl_memory[t]);
        (void)cl->clReleaseMemObject(cl_memory[t]);
    }
    fa_plan_destroy(plan);
    fa_queue_destroy(queue);
    fa_device_close(device);
    check_released(references_of_queue, cl_queue);
    (void)cl->clReleaseCommandQueue(cl_queue);
    (void)cl->clReleaseContext(cl_own);
}

static void enqueue_write(cl_mem to, size_t offset, const float *from, size_t bytes)
{
    ck_assert_int_eq(cl->clEnqueueWriteBuffer(cl_queue, to, CL_FALSE, offset, bytes, from, 0, NULL, NULL),
                     CL_SUCCESS);
}

static void enqueue_read(cl_mem from, size_t offset, float *to, size_t bytes)
{
    ck_assert_int_eq(cl->clEnqueueReadBuffer(cl_queue, from, CL_FALSE, offset, bytes, to, 0, NULL, NULL),
                     CL_SUCCESS);
}

static fa_status run(fa_buffer *q, fa_buffer *k, fa_buffer *v, fa_buffer *o)
{
    static fa_buffer *workspace;
    fa_attention_args args = {.struct_size = sizeof(args), .q = q, .k = k, .v = v, .o = o};
    if (fa_plan_workspace(plan) > 0)
        ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &workspace), FA_OK);
    args.workspace = workspace;
    fa_status status = fa_plan_run(plan, queue, &args);
    fa_buffer_destroy(workspace);
    workspace = NULL;
    return status;
}

/* The attention of these inputs as the reference has it. */
static void assert_attention(const float *q, const float *k, const float *v, const float *o)
{
    static double expected[OUTPUTS];
    const fa_inputs inputs = {.q = q, .k = k, .v = v};
    ck_assert_int_eq(fa_reference_attention(context, &desc, &inputs, expected, NULL), FA_OK);
    for (int i = 0; i < OUTPUTS; i++)
        ck_assert_msg(fabs(expected[i] - (double)o[i]) < 1e-5, "o[%d] is %g, expected %g", i, (double)o[i],
                      expected[i]);
}

START_TEST(between_the_callers_commands)
{
    static float out[ELEMENTS], again[ELEMENTS];
    for (int t = Q; t <= V; t++)
        enqueue_write(cl_memory[t], 0, host[t], BYTES);
    ck_assert_msg(run(buffer[Q], buffer[K], buffer[V], buffer[O]) == FA_OK, "%s", fa_last_error());
    enqueue_read(cl_memory[O], 0, out, BYTES);
    /* The output is the next one's q: the queue's order is all that keeps them apart. */
    ck_assert_msg(run(buffer[O], buffer[K], buffer[V], buffer[Q]) == FA_OK, "%s", fa_last_error());
    enqueue_read(cl_memory[Q], 0, again, BYTES);
    ck_assert_int_eq(cl->clFinish(cl_queue), CL_SUCCESS);
    assert_attention(host[Q], host[K], host[V], out);
    assert_attention(out, host[K], host[V], again);
}
END_TEST

START_TEST(our_wait_and_times_and_transfers)
{
    static float out[ELEMENTS], back[ELEMENTS];
    enqueue_write(cl_memory[Q], 0, host[Q], BYTES);
    ck_assert_int_eq(fa_buffer_write(queue, buffer[K], 0, host[K], BYTES), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, buffer[V], 0, host[V], BYTES), FA_OK);
    ck_assert_int_eq(run(buffer[Q], buffer[K], buffer[V], buffer[O]), FA_OK);
    enqueue_read(cl_memory[O], 0, out, BYTES);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK); /* for the caller's read too */
    assert_attention(host[Q], host[K], host[V], out);
    ck_assert_int_eq(fa_buffer_read(queue, buffer[O], 0, back, OUTPUTS * sizeof(float)), FA_OK);
    ck_assert_mem_eq(out, back, OUTPUTS * sizeof(float));
    double seconds = -1;
    ck_assert_msg(fa_queue_seconds(queue, &seconds) == FA_OK, "%s", fa_last_error());
    ck_assert(seconds >= 0 && seconds < 60);
}
END_TEST

static fa_status project_nothing(void *user, int64_t first, int64_t count)
{
    (void)first;
    *(int64_t *)user += count;
    return FA_OK;
}

/* A layer over ranks, here one, reads nothing of o: it may be memory that no host may read. */
START_TEST(layers_of_memory_without_the_host)
{
    const fa_transport_local_desc one = {.struct_size = sizeof(one), .ranks = 1};
    int64_t projected = 0;
    fa_transport *transport = NULL;
    fa_sharded_layer *layer = NULL;
    fa_buffer *workspace = NULL;
    float y[ROWS] = {0};
    cl_int error;
    cl_mem apart = cl->clCreateBuffer(cl_own, CL_MEM_READ_WRITE | CL_MEM_HOST_NO_ACCESS, BYTES, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    wrap(O, apart, 0, 0);
    for (int t = Q; t <= V; t++)
        enqueue_write(cl_memory[t], 0, host[t], BYTES);
    const fa_sharded_layer_desc layer_desc = {.struct_size = sizeof(layer_desc),
                                              .attention = &desc,
                                              .width = 1,
                                              .project = project_nothing,
                                              .project_user = &projected};
    ck_assert_int_eq(fa_transport_create_local(context, &one, &transport), FA_OK);
    ck_assert_msg(fa_sharded_layer_create(device, transport, &layer_desc, &layer) == FA_OK, "%s",
                  fa_last_error());
    ck_assert_int_eq(fa_buffer_create(device, fa_sharded_layer_workspace(layer), &workspace), FA_OK);
    const fa_attention_args attention = {.struct_size = sizeof(attention),
                                         .q = buffer[Q],
                                         .k = buffer[K],
                                         .v = buffer[V],
                                         .o = buffer[O],
                                         .workspace = workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &attention, .y = y};
    ck_assert_msg(fa_sharded_layer_run(layer, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(projected, ROWS);
    fa_sharded_layer_destroy(layer);
    fa_transport_destroy(transport);
    fa_buffer_destroy(workspace);
    wrap(O, cl_memory[O], 0, 0);
    (void)cl->clReleaseMemObject(apart);
}
END_TEST

START_TEST(queues_without_times)
{
    cl_command_queue plain = make_queue(cl_own, 0);
    ck_assert_ptr_nonnull(plain);
    fa_queue_destroy(queue);
    ck_assert_int_eq(fa_queue_wrap_opencl(device, plain, &queue), FA_OK);
    (void)cl->clReleaseCommandQueue(plain); /* ours is enough */
    ck_assert_int_eq(fa_buffer_write(queue, buffer[Q], 0, host[Q], BYTES), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, buffer[K], 0, host[K], BYTES), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, buffer[V], 0, host[V], BYTES), FA_OK);
    ck_assert_int_eq(run(buffer[Q], buffer[K], buffer[V], buffer[O]), FA_OK);
    double seconds;
    ck_assert_int_eq(fa_queue_seconds(queue, &seconds), FA_UNSUPPORTED);
    assert_message("CL_QUEUE_PROFILING_ENABLE");
    ck_assert_int_eq(fa_buffer_read(queue, buffer[O], 0, host[O], BYTES), FA_OK);
    assert_attention(host[Q], host[K], host[V], host[O]);
}
END_TEST

/* Bytes between the parts of one cl_mem: sub-buffers begin at multiples of what the device says. */
static size_t part_stride(void)
{
    cl_uint bits = 0;
    ck_assert_int_eq(cl->clGetDeviceInfo(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof(bits), &bits, NULL),
                     CL_SUCCESS);
    size_t align = bits / 8 > 64 ? bits / 8 : 64;
    return (BYTES + align - 1) / align * align;
}

/* All in one cl_mem: k behind an offset, o in a sub-buffer, v in a sub-buffer behind an offset. */
START_TEST(parts_of_one_memory)
{
    static float out[ELEMENTS];
    const size_t part = part_stride();
    cl_mem whole = make_memory(cl_own, 6 * part);
    const cl_buffer_region regions[2] = {{2 * part, 2 * part}, {4 * part, part}};
    cl_mem sub[2];
    for (int i = 0; i < 2; i++) {
        cl_int error;
        sub[i] = cl->clCreateSubBuffer(whole, 0, CL_BUFFER_CREATE_TYPE_REGION, &regions[i], &error);
        ck_assert_int_eq(error, CL_SUCCESS);
    }
    wrap(Q, whole, 0, BYTES);
    wrap(K, whole, part, BYTES);
    wrap(V, sub[0], part, BYTES);
    wrap(O, sub[1], 0, 0);
    ck_assert_uint_eq(fa_buffer_size(buffer[O]), part);
    enqueue_write(whole, 0, host[Q], BYTES);
    enqueue_write(whole, part, host[K], BYTES);
    enqueue_write(whole, 3 * part, host[V], BYTES);
    ck_assert_msg(run(buffer[Q], buffer[K], buffer[V], buffer[O]) == FA_OK, "%s", fa_last_error());
    enqueue_read(whole, 4 * part, out, BYTES);
    ck_assert_int_eq(cl->clFinish(cl_queue), CL_SUCCESS);
    assert_attention(host[Q], host[K], host[V], out);
    for (int t = 0; t < TENSORS; t++)
        wrap(t, cl_memory[t], 0, 0);
    check_released(references_of_memory, sub[0]);
    check_released(references_of_memory, sub[1]);
    (void)cl->clReleaseMemObject(sub[0]);
    (void)cl->clReleaseMemObject(sub[1]);
    (void)cl->clReleaseMemObject(whole);
}
END_TEST

START_TEST(overlaps_are_found)
{
    const size_t part = part_stride();
    cl_mem whole = make_memory(cl_own, 4 * part);
    const cl_buffer_region region = {part, part};
    cl_int error;
    cl_mem sub = cl->clCreateSubBuffer(whole, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    static const char *const names[] = {"q", "k", "v"};
    for (int t = Q; t <= V; t++) {
        char message[64];
        (void)snprintf(message, sizeof(message), "args.o overlaps args.%s", names[t]);
        wrap(t, whole, part, BYTES);
        wrap(O, whole, part + BYTES / 2 / 64 * 64, 0); /* by half */
        ck_assert_int_eq(run(buffer[Q], buffer[K], buffer[V], buffer[O]), FA_INVALID);
        assert_message(message);
        wrap(O, sub, 0, 0); /* another handle of the same bytes */
        ck_assert_int_eq(run(buffer[Q], buffer[K], buffer[V], buffer[O]), FA_INVALID);
        assert_message(message);
        wrap(O, whole, 2 * part, 0); /* side by side */
        ck_assert_msg(run(buffer[Q], buffer[K], buffer[V], buffer[O]) == FA_OK, "%s", fa_last_error());
        wrap(t, cl_memory[t], 0, 0);
    }
    wrap(O, cl_memory[O], 0, 0);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    (void)cl->clReleaseMemObject(sub);
    (void)cl->clReleaseMemObject(whole);
}
END_TEST

static void refuse_buffer(fa_device *of, cl_mem handle, size_t offset, size_t size, const char *message)
{
    fa_buffer *made = (fa_buffer *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_buffer_wrap_opencl(of, handle, offset, size, &made), FA_INVALID);
    assert_message(message);
    ck_assert_ptr_null(made);
}

static void refuse_queue(fa_device *of, cl_command_queue handle, const char *message)
{
    fa_queue *made = (fa_queue *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_queue_wrap_opencl(of, handle, &made), FA_INVALID);
    assert_message(message);
    ck_assert_ptr_null(made);
}

/* Operands that cross the ends of what the device allocates at once, in buffers of ours and in the caller's memory:
 * what they come to is the same wherever they lie. */
START_TEST(across_the_ends_of_allocations)
{
    enum { PART = 16384, SIZE = 5 * PART };
    float expected[OUTPUTS], found[OUTPUTS];
    fa_device *small;
    fa_queue *q;
    fa_plan *p;
    fa_buffer *created, *wrapped;
    cl_mem large = make_memory(cl_own, SIZE);
    setenv("FASTATTN_OPENCL_LIMITS", "alloc=16384", 1);
    ck_assert_msg(fa_device_open_opencl(context, cl_own, id, &small) == FA_OK, "%s", fa_last_error());
    unsetenv("FASTATTN_OPENCL_LIMITS");
    ck_assert_int_eq(fa_queue_wrap_opencl(small, cl_queue, &q), FA_OK);
    ck_assert_msg(fa_plan_create(small, &desc, &p) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(small, SIZE, &created), FA_OK);
    ck_assert_msg(fa_buffer_wrap_opencl(small, large, 64, 0, &wrapped) == FA_OK, "%s", fa_last_error());
    fa_buffer *workspace = NULL;
    if (fa_plan_workspace(p) > 0)
        ck_assert_int_eq(fa_buffer_create(small, fa_plan_workspace(p), &workspace), FA_OK);
    /* Of q, k, v and o: in our buffer or in the caller's, and where. */
    static const struct {
        bool callers[TENSORS];
        size_t offset[TENSORS];
    } row[] = {
        {{false, false, false, false}, {0, PART, 2 * PART, 3 * PART}},
        {{false, false, false, false}, {PART - 64, 2 * PART - 32, 3 * PART - 16, 4 * PART - 4}},
        {{true, true, true, true}, {PART - 64, 2 * PART - 32, 3 * PART - 16, 4 * PART - 4}},
        {{true, false, true, false}, {3 * PART, PART - 128, PART - 64, 4 * PART - 256}},
        {{false, true, false, true}, {3 * PART, PART - 128, PART - 64, 4 * PART - 256}},
    };
    for (int i = 0; i < COUNT(row); i++) {
        fa_buffer *at[TENSORS];
        for (int t = 0; t < TENSORS; t++) {
            at[t] = row[i].callers[t] ? wrapped : created;
            size_t bytes = t == Q || t == O ? sizeof(expected) : BYTES;
            ck_assert_int_eq(fa_buffer_write(q, at[t], row[i].offset[t], host[t], bytes), FA_OK);
        }
        const fa_attention_args args = {.struct_size = sizeof(args),
                                        .q = at[Q],
                                        .k = at[K],
                                        .v = at[V],
                                        .o = at[O],
                                        .q_offset = row[i].offset[Q],
                                        .k_offset = row[i].offset[K],
                                        .v_offset = row[i].offset[V],
                                        .o_offset = row[i].offset[O],
                                        .workspace = workspace};
        ck_assert_msg(fa_plan_run(p, q, &args) == FA_OK, "row %d: %s", i, fa_last_error());
        ck_assert_int_eq(
            fa_buffer_read(q, at[O], row[i].offset[O], i == 0 ? expected : found, sizeof(expected)), FA_OK);
        for (int n = 0; i > 0 && n < OUTPUTS; n++)
            ck_assert_msg(fabsf(found[n] - expected[n]) <= 1e-6f, "row %d, element %d: %g, expected %g", i, n,
                          (double)found[n], (double)expected[n]);
    }
    ck_assert(fabsf(expected[0]) > 0);
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(wrapped);
    fa_buffer_destroy(created);
    fa_plan_destroy(p);
    fa_queue_destroy(q);
    fa_device_close(small);
    check_released(references_of_memory, large);
    (void)cl->clReleaseMemObject(large);
}
END_TEST

START_TEST(memory_refused_by_name)
{
    cl_context other = make_context();
    cl_mem foreign = make_memory(other, BYTES);
    refuse_buffer(NULL, cl_memory[Q], 0, 0, "device is NULL");
    refuse_buffer(device, NULL, 0, 0, "cl_mem is NULL");
    refuse_buffer(device, foreign, 0, 0, "cl_mem belongs to another context");
    refuse_buffer(device, cl_memory[Q], 4, 0, "offset is 4, expected a multiple of 64");
    refuse_buffer(device, cl_memory[Q], BYTES + 64, 0, "is outside cl_mem's");
    refuse_buffer(device, cl_memory[Q], 0, BYTES + 1, "is outside cl_mem's");
    refuse_buffer(device, cl_memory[Q], 64, BYTES, "offset 64 with size");
    refuse_buffer(device, cl_memory[Q], 64, SIZE_MAX, "is outside cl_mem's");
    refuse_buffer(device, cl_memory[Q], SIZE_MAX / 64 * 64, 64, "is outside cl_mem's");
    ck_assert_int_eq(fa_buffer_wrap_opencl(device, cl_memory[Q], 0, 0, NULL), FA_INVALID);
    assert_message("buffer is NULL");
    fa_device *none = open_null();
    refuse_buffer(none, cl_memory[Q], 0, 0, "device is of the null backend, expected opencl");
    refuse_queue(none, cl_queue, "device is of the null backend, expected opencl");
    fa_device_close(none);
    (void)cl->clReleaseMemObject(foreign);
    (void)cl->clReleaseContext(other);
}
END_TEST

START_TEST(queues_refused_by_name)
{
    cl_context other = make_context();
    cl_command_queue foreign = make_queue(other, 0);
    refuse_queue(NULL, cl_queue, "device is NULL");
    refuse_queue(device, NULL, "cl_queue is NULL");
    refuse_queue(device, foreign, "cl_queue belongs to another context");
    ck_assert_int_eq(fa_queue_wrap_opencl(device, cl_queue, NULL), FA_INVALID);
    assert_message("queue is NULL");
    cl_command_queue unordered = make_queue(cl_own, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
    if (unordered) { /* not every device has them */
        refuse_queue(device, unordered, "cl_queue is out of order, expected an in-order queue");
        (void)cl->clReleaseCommandQueue(unordered);
    }
    (void)cl->clReleaseCommandQueue(foreign);
    (void)cl->clReleaseContext(other);
}
END_TEST

START_TEST(devices_refused_by_name)
{
    fa_device *made = (fa_device *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_device_open_opencl(NULL, cl_own, id, &made), FA_INVALID);
    assert_message("context is NULL");
    ck_assert_ptr_null(made);
    ck_assert_int_eq(fa_device_open_opencl(context, NULL, id, &made), FA_INVALID);
    assert_message("cl_context is NULL");
    ck_assert_int_eq(fa_device_open_opencl(context, cl_own, NULL, &made), FA_INVALID);
    assert_message("cl_device is NULL");
    ck_assert_int_eq(fa_device_open_opencl(context, cl_own, id, NULL), FA_INVALID);
    assert_message("device is NULL");
}
END_TEST

/* What is wrapped lives on when the caller lets go of it. */
START_TEST(handles_released_early)
{
    cl_context gone = make_context();
    cl_command_queue gone_queue = make_queue(gone, 0);
    cl_mem gone_memory = make_memory(gone, BYTES);
    fa_device *kept;
    fa_queue *kept_queue;
    fa_buffer *kept_buffer;
    ck_assert_int_eq(fa_device_open_opencl(context, gone, id, &kept), FA_OK);
    ck_assert_int_eq(fa_queue_wrap_opencl(kept, gone_queue, &kept_queue), FA_OK);
    ck_assert_int_eq(fa_buffer_wrap_opencl(kept, gone_memory, 0, 0, &kept_buffer), FA_OK);
    (void)cl->clReleaseMemObject(gone_memory);
    (void)cl->clReleaseCommandQueue(gone_queue);
    (void)cl->clReleaseContext(gone);
    ck_assert_int_eq(fa_buffer_write(kept_queue, kept_buffer, 0, host[Q], BYTES), FA_OK);
    ck_assert_int_eq(fa_buffer_read(kept_queue, kept_buffer, 0, host[O], BYTES), FA_OK);
    ck_assert_mem_eq(host[Q], host[O], BYTES);
    ck_assert_int_eq(fa_attention_host(kept, &desc, host[Q], host[K], host[V], NULL, NULL, host[O], NULL),
                     FA_OK);
    assert_attention(host[Q], host[K], host[V], host[O]);
    fa_buffer_destroy(kept_buffer);
    fa_queue_destroy(kept_queue);
    fa_device_close(kept);
}
END_TEST

int main(void)
{
    const char *reason;
    cl = driver_load(&id, &reason);
    if (!cl) {
        (void)printf("skipped: %s\n", reason);
        return 77;
    }
    Suite *suite = suite_create("opencl interop");
    TCase *tc = add_context_case(suite, "the caller's context");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, between_the_callers_commands);
    tcase_add_test(tc, our_wait_and_times_and_transfers);
    tcase_add_test(tc, layers_of_memory_without_the_host);
    tcase_add_test(tc, queues_without_times);
    tcase_add_test(tc, parts_of_one_memory);
    tcase_add_test(tc, overlaps_are_found);
    tcase_add_test(tc, across_the_ends_of_allocations);
    tcase_add_test(tc, memory_refused_by_name);
    tcase_add_test(tc, queues_refused_by_name);
    tcase_add_test(tc, devices_refused_by_name);
    tcase_add_test(tc, handles_released_early);
    return run_unforked(suite);
}
