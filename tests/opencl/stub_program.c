/* SPDX-License-Identifier: Apache-2.0 */
/* The stub driver's programs and kernels. A binary is a header and the source. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub_internal.h"

#define MAX_ARGS 64
#define MAX_ARG_BYTES 256

typedef struct binary_header {
    char magic[8];
    uint64_t check; /* of what follows the header */
    uint64_t bytes;
} binary_header;

struct _cl_program {
    stub_object object;
    cl_context context;
    char *text; /* source, or a binary's contents */
    size_t text_size;
    char *options;
    bool from_binary, built;
    cl_build_status status;
};

struct _cl_kernel {
    stub_object object;
    cl_program program;
    unsigned char arg[MAX_ARGS][MAX_ARG_BYTES];
    size_t arg_size[MAX_ARGS];
    pthread_t setter[MAX_ARGS];
};

static uint64_t checksum(const char *text, size_t size)
{
    uint64_t sum = 1;
    for (size_t i = 0; i < size; i++)
        sum = sum * 31 + (unsigned char)text[i];
    return sum;
}

static void free_program(stub_object *object)
{
    struct _cl_program *program = (struct _cl_program *)object;
    free(program->text);
    free(program->options);
}

static cl_program make_program(cl_context context, const char *text, size_t size)
{
    cl_program made = stub_object_make(sizeof(*made), STUB_PROGRAM, &context->object);
    if (!made)
        return NULL;
    made->object.destroy = free_program;
    made->context = context;
    made->status = CL_BUILD_NONE;
    made->text_size = size;
    made->text = malloc(size + 1);
    if (!made->text) {
        stub_object_release(&made->object);
        return NULL;
    }
    memcpy(made->text, text, size);
    made->text[size] = '\0';
    return made;
}

CL_API_ENTRY cl_program CL_API_CALL clCreateProgramWithSource(cl_context context, cl_uint count,
                                                              const char **strings, const size_t *lengths,
                                                              cl_int *error)
{
    cl_program made = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(context, STUB_CONTEXT))
        status = stub_wrong(CL_INVALID_CONTEXT, __func__);
    else if (status == CL_SUCCESS && (count != 1 || !strings || !strings[0]))
        status = stub_wrong(CL_INVALID_VALUE, "the stub takes one piece of source");
    if (status == CL_SUCCESS) {
        made = make_program(context, strings[0], lengths && lengths[0] ? lengths[0] : strlen(strings[0]));
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    stub_leave();
    if (error)
        *error = status;
    return made;
}

static bool is_binary(const unsigned char *bytes, size_t size)
{
    binary_header header;
    if (size < sizeof(header))
        return false;
    memcpy(&header, bytes, sizeof(header));
    const char *text = (const char *)bytes + sizeof(header);
    return memcmp(header.magic, "STUBBIN", 8) == 0 && header.bytes == size - sizeof(header) &&
           header.check == checksum(text, size - sizeof(header));
}

CL_API_ENTRY cl_program CL_API_CALL clCreateProgramWithBinary(cl_context context, cl_uint count,
                                                              const cl_device_id *list, const size_t *sizes,
                                                              const unsigned char **binaries,
                                                              cl_int *accepted, cl_int *error)
{
    cl_program made = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(context, STUB_CONTEXT))
        status = stub_wrong(CL_INVALID_CONTEXT, __func__);
    else if (status == CL_SUCCESS &&
             (count != 1 || list[0] != context->device || !binaries[0] || sizes[0] == 0))
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    else if (status == CL_SUCCESS && !is_binary(binaries[0], sizes[0]))
        status = CL_INVALID_BINARY;
    if (status == CL_SUCCESS) {
        made = make_program(context, (const char *)binaries[0] + sizeof(binary_header),
                            sizes[0] - sizeof(binary_header));
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (made)
        made->from_binary = true;
    if (accepted)
        *accepted = status;
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_int CL_API_CALL clBuildProgram(cl_program program, cl_uint count, const cl_device_id *list,
                                               const char *options,
                                               void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    (void)count, (void)list, (void)user;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && (!stub_is(program, STUB_PROGRAM) || notify))
        status = stub_wrong(CL_INVALID_PROGRAM, __func__);
    if (status == CL_SUCCESS && !program->options) {
        size_t size = strlen(options ? options : "") + 1;
        program->options = malloc(size);
        if (program->options)
            memcpy(program->options, options ? options : "", size);
        status = program->options ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (status == CL_SUCCESS && !program->from_binary)
        stub_count_compilation();
    if (stub_is(program, STUB_PROGRAM)) {
        program->built = status == CL_SUCCESS;
        program->status = status == CL_SUCCESS ? CL_BUILD_SUCCESS : CL_BUILD_ERROR;
    }
    stub_leave();
    return status;
}

/* Many lines of notes, and the error at the end, as compilers write it. */
static cl_int answer_log(size_t room, void *target, size_t *actual)
{
    static char log[STUB_LOG_BYTES + 1];
    static const char note[] = "attention.cl:1: note: in an expansion of a macro\n";
    for (size_t i = 0; i < STUB_LOG_BYTES; i++)
        log[i] = note[i % (sizeof(note) - 1)];
    memcpy(log + STUB_LOG_BYTES - strlen(STUB_LOG_END), STUB_LOG_END, strlen(STUB_LOG_END));
    log[STUB_LOG_BYTES - strlen(STUB_LOG_END) - 1] = '\n';
    return stub_answer(log, sizeof(log), room, target, actual);
}

CL_API_ENTRY cl_int CL_API_CALL clGetProgramBuildInfo(cl_program program, cl_device_id device,
                                                      cl_program_build_info name, size_t room, void *target,
                                                      size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && (!stub_is(program, STUB_PROGRAM) || program->context->device != device))
        status = stub_wrong(CL_INVALID_PROGRAM, __func__);
    else if (status == CL_SUCCESS && name == CL_PROGRAM_BUILD_LOG)
        status = program->status == CL_BUILD_ERROR ? answer_log(room, target, actual)
                                                   : stub_answer("", 1, room, target, actual);
    else if (status == CL_SUCCESS && name == CL_PROGRAM_BUILD_STATUS)
        status = stub_answer(&program->status, sizeof(program->status), room, target, actual);
    else if (status == CL_SUCCESS)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    stub_leave();
    return status;
}

static void write_binary(cl_program program, unsigned char *bytes)
{
    binary_header header = {"STUBBIN", checksum(program->text, program->text_size), program->text_size};
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), program->text, program->text_size);
}

static cl_int program_info(cl_program program, cl_program_info name, size_t room, void *target,
                           size_t *actual)
{
    const cl_uint one = 1;
    const size_t size = program->built ? sizeof(binary_header) + program->text_size : 0;
    switch (name) {
    case CL_PROGRAM_NUM_DEVICES: return stub_answer(&one, sizeof(one), room, target, actual);
    case CL_PROGRAM_DEVICES:
        return stub_answer(&program->context->device, sizeof(cl_device_id), room, target, actual);
    case CL_PROGRAM_CONTEXT: return stub_answer(&program->context, sizeof(cl_context), room, target, actual);
    case CL_PROGRAM_BINARY_SIZES: return stub_answer(&size, sizeof(size), room, target, actual);
    case CL_PROGRAM_BINARIES:
        if (target && room < sizeof(unsigned char *))
            return stub_wrong(CL_INVALID_VALUE, "no room for an answer");
        if (target && size > 0 && *(unsigned char **)target)
            write_binary(program, *(unsigned char **)target);
        if (actual)
            *actual = sizeof(unsigned char *);
        return CL_SUCCESS;
    default: return stub_wrong(CL_INVALID_VALUE, "clGetProgramInfo");
    }
}

CL_API_ENTRY cl_int CL_API_CALL clGetProgramInfo(cl_program program, cl_program_info name, size_t room,
                                                 void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS)
        status = stub_is(program, STUB_PROGRAM) ? program_info(program, name, room, target, actual)
                                                : stub_wrong(CL_INVALID_PROGRAM, __func__);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clRetainProgram(cl_program program)
{
    return stub_change_references(__func__, program, STUB_PROGRAM, CL_INVALID_PROGRAM, 1);
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseProgram(cl_program program)
{
    return stub_change_references(__func__, program, STUB_PROGRAM, CL_INVALID_PROGRAM, -1);
}

CL_API_ENTRY cl_kernel CL_API_CALL clCreateKernel(cl_program program, const char *name, cl_int *error)
{
    cl_kernel made = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(program, STUB_PROGRAM))
        status = stub_wrong(CL_INVALID_PROGRAM, __func__);
    else if (status == CL_SUCCESS && !program->built)
        status = stub_wrong(CL_INVALID_PROGRAM_EXECUTABLE, __func__);
    else if (status == CL_SUCCESS && !name)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    else if (status == CL_SUCCESS && !strstr(program->text, name))
        status = stub_wrong(CL_INVALID_KERNEL_NAME, name);
    if (status == CL_SUCCESS) {
        made = stub_object_make(sizeof(*made), STUB_KERNEL, &program->object);
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (made)
        made->program = program;
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseKernel(cl_kernel kernel)
{
    return stub_change_references(__func__, kernel, STUB_KERNEL, CL_INVALID_KERNEL, -1);
}

CL_API_ENTRY cl_int CL_API_CALL clSetKernelArg(cl_kernel kernel, cl_uint index, size_t size,
                                               const void *value)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(kernel, STUB_KERNEL))
        status = stub_wrong(CL_INVALID_KERNEL, __func__);
    else if (status == CL_SUCCESS && index >= MAX_ARGS)
        status = stub_wrong(CL_INVALID_ARG_INDEX, __func__);
    else if (status == CL_SUCCESS && (size == 0 || (value && size > MAX_ARG_BYTES)))
        status = stub_wrong(CL_INVALID_ARG_SIZE, __func__);
    if (status == CL_SUCCESS) {
        kernel->arg_size[index] = size;
        kernel->setter[index] = pthread_self();
        memset(kernel->arg[index], 0, MAX_ARG_BYTES);
        if (value)
            memcpy(kernel->arg[index], value, size);
    }
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clGetKernelWorkGroupInfo(cl_kernel kernel, cl_device_id device,
                                                         cl_kernel_work_group_info name, size_t room,
                                                         void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    const size_t most = stub_device_size(device, CL_DEVICE_MAX_WORK_GROUP_SIZE), multiple = 32;
    const size_t compiled[3] = {0};
    const cl_ulong bytes = 1024;
    if (status == CL_SUCCESS && !stub_is(kernel, STUB_KERNEL))
        status = stub_wrong(CL_INVALID_KERNEL, __func__);
    else if (status == CL_SUCCESS && name == CL_KERNEL_WORK_GROUP_SIZE)
        status = stub_answer(&most, sizeof(most), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE)
        status = stub_answer(&multiple, sizeof(multiple), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_KERNEL_COMPILE_WORK_GROUP_SIZE)
        status = stub_answer(compiled, sizeof(compiled), room, target, actual);
    else if (status == CL_SUCCESS && (name == CL_KERNEL_LOCAL_MEM_SIZE || name == CL_KERNEL_PRIVATE_MEM_SIZE))
        status = stub_answer(&bytes, sizeof(bytes), room, target, actual);
    else if (status == CL_SUCCESS)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    stub_leave();
    return status;
}

static cl_int check_range(cl_command_queue queue, cl_uint dimensions, const size_t *global,
                          const size_t *local)
{
    if (dimensions < 1 || dimensions > 3 || !global)
        return stub_wrong(CL_INVALID_WORK_DIMENSION, "clEnqueueNDRangeKernel");
    size_t items = 1;
    for (cl_uint d = 0; d < dimensions; d++) {
        if (global[d] == 0 || (local && (local[d] == 0 || global[d] % local[d] != 0)))
            return stub_wrong(CL_INVALID_WORK_GROUP_SIZE, "clEnqueueNDRangeKernel");
        items *= local ? local[d] : 1;
    }
    if (items > stub_device_size(queue->device, CL_DEVICE_MAX_WORK_GROUP_SIZE))
        return stub_wrong(CL_INVALID_WORK_GROUP_SIZE, "a work-group is larger than the device's");
    return CL_SUCCESS;
}

/* The memory that an argument is; NULL: it is something else. */
static cl_mem memory_of(cl_kernel kernel, int index)
{
    cl_mem memory;
    memcpy(&memory, kernel->arg[index], sizeof(memory));
    return kernel->arg_size[index] == sizeof(memory) && stub_is(memory, STUB_MEM) ? memory : NULL;
}

static int count_args(cl_kernel kernel)
{
    int count = MAX_ARGS;
    while (count > 0 && kernel->arg_size[count - 1] == 0)
        count--;
    return count;
}

/*
 * No argument is missing, and none is another thread's. Memory is alive and not mapped; the host's is as the
 * host left it.
 */
static cl_int check_args(cl_kernel kernel)
{
    for (int i = 0; i < count_args(kernel); i++) {
        void *handle;
        memcpy(&handle, kernel->arg[i], sizeof(handle));
        const struct _cl_mem *memory = memory_of(kernel, i);
        if (kernel->arg_size[i] == 0)
            return stub_wrong(CL_INVALID_KERNEL_ARGS, "a kernel runs without one of its arguments");
        if (!pthread_equal(kernel->setter[i], pthread_self()))
            return stub_wrong(CL_INVALID_KERNEL_ARGS,
                              "a kernel runs with an argument that another thread set");
        if (kernel->arg_size[i] == sizeof(handle) && stub_is_dead(handle))
            return stub_wrong(CL_INVALID_KERNEL_ARGS, "a kernel runs with memory that was released");
        if (memory && memory->mapped > 0)
            return stub_wrong(CL_INVALID_KERNEL_ARGS, "a kernel runs with memory that is mapped");
        if (memory && memory->host && !memory->newer &&
            memcmp(memory->host, memory->bytes, memory->size) != 0)
            return stub_wrong(CL_INVALID_KERNEL_ARGS, "a kernel runs with what the host had before");
    }
    return CL_SUCCESS;
}

static void leave_marks(cl_kernel kernel)
{
    for (int i = 0; i < count_args(kernel); i++) {
        struct _cl_mem *memory = memory_of(kernel, i);
        if (memory && !(memory->flags & CL_MEM_READ_ONLY)) {
            memory->bytes[0] = STUB_MARK;
            memory->newer = true;
        }
    }
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel,
                                                       cl_uint dimensions, const size_t *origin,
                                                       const size_t *global, const size_t *local,
                                                       cl_uint waits, const cl_event *list, cl_event *event)
{
    (void)origin;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(queue, STUB_QUEUE))
        status = stub_wrong(CL_INVALID_COMMAND_QUEUE, __func__);
    else if (status == CL_SUCCESS && !stub_is(kernel, STUB_KERNEL))
        status = stub_wrong(CL_INVALID_KERNEL, __func__);
    if (status == CL_SUCCESS)
        status = check_range(queue, dimensions, global, local);
    if (status == CL_SUCCESS)
        status = check_args(kernel);
    if (status == CL_SUCCESS)
        status = stub_wait_list(waits, list);
    if (status == CL_SUCCESS)
        status = stub_event_make(queue, CL_COMMAND_NDRANGE_KERNEL, event);
    if (status == CL_SUCCESS)
        leave_marks(kernel);
    stub_leave();
    return status;
}
