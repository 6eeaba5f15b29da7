/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"

enum {
    GUARD = 192,         /* bytes around an output, a few vectors of any device                  */
    WORK_GUARD = 256,    /* bytes around work, which must lie at a multiple of as much           */
    WORKSPACE_GUARD = 64 /* bytes around the workspace, which must lie at a multiple of as much */
};

/* No two neighbours alike, so that a guard overwritten by a copy of its surroundings shows. */
static unsigned char pattern(size_t at)
{
    return (unsigned char)(0xa5 ^ at * 37);
}

/* The pattern as counted from byte `first` on, so that outputs at other places have the same gaps. */
static unsigned char *make_guarded(size_t bytes, size_t first)
{
    unsigned char *memory = malloc(bytes);
    for (size_t i = 0; memory && i < bytes; i++)
        memory[i] = pattern(i - first);
    return memory;
}

/* So many bytes off the alignment that the guard gives. */
static bool make_output(const conform_data *data, size_t off, conform_output *output)
{
    const fa_tensor *o = &data->desc.o;
    size_t span;
    *output = (conform_output){0};
    if (fa_tensor_span(o, &span) != FA_OK)
        return false;
    output->o_offset = GUARD + off;
    output->o_bytes = output->o_offset + span + GUARD;
    output->o = make_guarded(output->o_bytes, output->o_offset);
    if (data->desc.want_status) {
        output->status = malloc(((size_t)conform_sequences(&data->desc) + 1) * sizeof(*output->status));
        if (!output->status)
            return false;
        for (int64_t n = 0; n <= conform_sequences(&data->desc); n++)
            output->status[n] = GUARD;
    }
    if (!data->desc.want_lse)
        return output->o != NULL;
    output->lse_offset = GUARD + sizeof(float);
    size_t rows = (size_t)(o->shape[0] * o->shape[1] * o->shape[2]);
    output->lse_bytes = output->lse_offset + rows * sizeof(float) + GUARD;
    output->lse = make_guarded(output->lse_bytes, output->lse_offset);
    return output->o && output->lse;
}

bool conform_output_make(const conform_data *data, conform_output *output)
{
    return make_output(data, fa_dtype_size(data->desc.o.dtype), output);
}

bool conform_output_make_aligned(const conform_data *data, conform_output *output)
{
    return make_output(data, 0, output);
}

void conform_output_free(conform_output *output)
{
    free(output->o);
    free(output->lse);
    free(output->status);
    *output = (conform_output){0};
}

const void *conform_output_o(const conform_output *output)
{
    return output->o + output->o_offset;
}

const float *conform_output_lse(const conform_output *output)
{
    return output->lse ? (const float *)(const void *)(output->lse + output->lse_offset) : NULL;
}

/* Whether `memory` is the pattern but for `bytes` behind `offset` in each used row. */
static bool intact(const unsigned char *memory, size_t total, size_t offset, const fa_tensor *t,
                   const conform_data *data, const char *name, char *message, size_t size)
{
    unsigned char *expected = make_guarded(total, offset);
    if (!expected) {
        (void)snprintf(message, size, "out of memory");
        return false;
    }
    size_t element = fa_dtype_size(t->dtype), row_bytes = (size_t)t->shape[3] * element;
    for (int64_t i = 0; i < t->shape[0] * t->shape[1] * t->shape[2]; i++) {
        int64_t b = i / t->shape[2] / t->shape[1], h = i / t->shape[2] % t->shape[1], r = i % t->shape[2];
        size_t at = offset + (size_t)(b * t->stride[0] + h * t->stride[1] + r * t->stride[2]) * element;
        if (conform_data_uses_row(data, b, r))
            memcpy(expected + at, memory + at, row_bytes);
    }
    size_t at = 0;
    while (at < total && memory[at] == expected[at])
        at++;
    free(expected);
    if (at < total)
        (void)snprintf(message, size,
                       "%s: the byte at %lld from its first element was written, it belongs to no row", name,
                       (long long)at - (long long)offset);
    return at == total;
}

bool conform_output_intact(const conform_output *output, const conform_data *data, char *message, size_t size)
{
    fa_tensor o = conform_strides(data->desc.o);
    fa_tensor lse = conform_strides(fa_tensor_make(FA_F32, o.shape[0], o.shape[1], o.shape[2], 1));
    if (output->status && output->status[conform_sequences(&data->desc)] != GUARD) {
        (void)snprintf(message, size, "the int behind the status was written");
        return false;
    }
    return intact(output->o, output->o_bytes, output->o_offset, &o, data, "o", message, size) &&
           (!output->lse ||
            intact(output->lse, output->lse_bytes, output->lse_offset, &lse, data, "lse", message, size));
}

/* The buffers of one run. */
typedef struct execution {
    fa_device *device;
    fa_queue *queue;
    fa_buffer *input[CONFORM_INPUTS], *o, *lse, *workspace, *work; /* NULL where the plan's own is run */
    fa_buffer *lists;                                              /* of lengths on the device */
    fa_buffer *status;                                             /* NULL: not wanted         */
    size_t workspace_bytes, work_bytes;
    unsigned char *scratch; /* as large as the largest buffer */
} execution;

static fa_status upload(execution *e, fa_buffer **buffer, size_t lead, const void *source, size_t bytes)
{
    fa_status status = fa_buffer_create(e->device, lead + bytes, buffer);
    return status == FA_OK ? fa_buffer_write(e->queue, *buffer, lead, source, bytes) : status;
}

/* Inputs lie one element off a buffer's own alignment. */
static size_t lead_of(const conform_data *data, int t)
{
    fa_attention_desc desc = data->desc;
    return fa_dtype_align(conform_tensor(&desc, t)->dtype);
}

/* An int of each sequence, and one that must stay. */
static size_t status_bytes(const conform_data *data)
{
    return ((size_t)conform_sequences(&data->desc) + 1) * sizeof(int32_t);
}

static fa_status prepare(execution *e, const fa_plan *plan, const conform_data *data,
                         const conform_output *output)
{
    fa_status status = fa_queue_create(e->device, &e->queue);
    for (int t = 0; t < CONFORM_INPUTS && status == FA_OK; t++) {
        if (data->memory[t])
            status = upload(e, &e->input[t], lead_of(data, t), data->memory[t], data->bytes[t]);
    }
    if (status == FA_OK)
        status = upload(e, &e->o, 0, output->o, output->o_bytes);
    if (status == FA_OK && output->lse)
        status = upload(e, &e->lse, 0, output->lse, output->lse_bytes);
    if (status == FA_OK && output->status)
        status = upload(e, &e->status, sizeof(int32_t), output->status, status_bytes(data));
    size_t largest = e->workspace_bytes = WORKSPACE_GUARD + fa_plan_workspace(plan) + WORKSPACE_GUARD;
    for (int t = 0; t < CONFORM_INPUTS; t++)
        largest = data->bytes[t] > largest ? data->bytes[t] : largest;
    if (status == FA_OK && !(e->scratch = malloc(largest)))
        status = FA_OUT_OF_MEMORY;
    if (status != FA_OK)
        return status;
    memset(e->scratch, 0xff, e->workspace_bytes);
    return upload(e, &e->workspace, 0, e->scratch, e->workspace_bytes);
}

/* Writes work, of lengths in memory of the device where the plan takes such. *lists keeps them. */
static fa_status schedule_one(fa_queue *queue, fa_device *device, const fa_plan *plan,
                              const conform_lengths *lengths, const fa_lengths *of, fa_buffer **lists,
                              fa_buffer *work, size_t offset)
{
    if (lengths->planned->dynamic_lengths != 2)
        return fa_plan_schedule(plan, queue, of, work, offset);
    const size_t lead = sizeof(int32_t);
    const conform_lists l = conform_lists_make(lengths, of);
    const size_t bytes = (size_t)l.count * sizeof(int32_t);
    fa_status status = l.list[0] ? FA_OK : FA_OUT_OF_MEMORY;
    if (status == FA_OK && !*lists)
        status = fa_buffer_create(device, lead + CONFORM_LISTS * bytes, lists);
    if (status == FA_OK)
        status = fa_buffer_write(queue, *lists, lead, l.list[0], CONFORM_LISTS * bytes);
    const fa_device_lengths on_device = {
        .struct_size = sizeof(on_device),
        .cu_rows_q = l.given[0] ? *lists : NULL,
        .cu_rows_kv = l.given[1] ? *lists : NULL,
        .lens_q = l.given[2] ? *lists : NULL,
        .lens_kv = l.given[3] ? *lists : NULL,
        .first_kv = l.given[4] ? *lists : NULL,
        .cu_rows_q_offset = lead,
        .cu_rows_kv_offset = lead + bytes,
        .lens_q_offset = lead + 2 * bytes,
        .lens_kv_offset = lead + 3 * bytes,
        .first_kv_offset = lead + 4 * bytes,
    };
    free(l.list[0]);
    return status == FA_OK ? fa_plan_schedule_device(plan, queue, &on_device, work, offset) : status;
}

/* Writes the work of the lengths before, then of those now. */
static fa_status schedule(execution *e, const fa_plan *plan, const conform_lengths *lengths)
{
    e->work_bytes = WORK_GUARD + fa_plan_work(plan) + WORK_GUARD;
    unsigned char *guarded = make_guarded(e->work_bytes, 0);
    fa_status status = guarded ? upload(e, &e->work, 0, guarded, e->work_bytes) : FA_OUT_OF_MEMORY;
    free(guarded);
    const fa_lengths *turns[] = {&lengths->before, &lengths->now};
    for (int i = 0; i < 2 && status == FA_OK; i++)
        status = schedule_one(e->queue, e->device, plan, lengths, turns[i], &e->lists, e->work, WORK_GUARD);
    return status;
}

static fa_status launch(execution *e, const fa_plan *plan, const conform_data *data, conform_output *output)
{
    size_t offset[CONFORM_INPUTS];
    fa_buffer *buffer[CONFORM_INPUTS];
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        buffer[t] = e->input[data->home[t]];
        offset[t] = buffer[t] ? lead_of(data, data->home[t]) + data->offset[t] : 0;
    }
    fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = buffer[CONFORM_Q],
        .k = buffer[CONFORM_K],
        .v = data->desc.v_in_k ? NULL : buffer[CONFORM_V],
        .o = e->o,
        .bias = buffer[CONFORM_BIAS],
        .keep = buffer[CONFORM_KEEP],
        .page_table = buffer[CONFORM_PAGES],
        .k_scale = buffer[CONFORM_K_SCALE],
        .v_scale = buffer[CONFORM_V_SCALE],
        .k_zero = buffer[CONFORM_K_ZERO],
        .v_zero = buffer[CONFORM_V_ZERO],
        .lse = e->lse,
        .workspace = fa_plan_workspace(plan) > 0 ? e->workspace : NULL,
        .q_offset = offset[CONFORM_Q],
        .k_offset = offset[CONFORM_K],
        .v_offset = data->desc.v_in_k ? 0 : offset[CONFORM_V],
        .o_offset = output->o_offset,
        .bias_offset = offset[CONFORM_BIAS],
        .keep_offset = offset[CONFORM_KEEP],
        .page_table_offset = offset[CONFORM_PAGES],
        .k_scale_offset = offset[CONFORM_K_SCALE],
        .v_scale_offset = offset[CONFORM_V_SCALE],
        .k_zero_offset = offset[CONFORM_K_ZERO],
        .v_zero_offset = offset[CONFORM_V_ZERO],
        .lse_offset = output->lse_offset,
        .workspace_offset = WORKSPACE_GUARD,
        .work = e->work,
        .work_offset = e->work ? WORK_GUARD : 0,
        .status = e->status,
        .status_offset = e->status ? sizeof(int32_t) : 0,
    };
    fa_status status = fa_plan_run(plan, e->queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(e->queue);
    if (status == FA_OK)
        status = fa_buffer_read(e->queue, e->o, 0, output->o, output->o_bytes);
    if (status == FA_OK && output->lse)
        status = fa_buffer_read(e->queue, e->lse, 0, output->lse, output->lse_bytes);
    if (status == FA_OK && output->status)
        status = fa_buffer_read(e->queue, e->status, sizeof(int32_t), output->status, status_bytes(data));
    return status;
}

/* Whether the surroundings of the work are what they were. */
static fa_status inspect_work(execution *e, const char **fault)
{
    unsigned char *found = e->work ? malloc(e->work_bytes) : NULL;
    if (!e->work)
        return FA_OK;
    fa_status status = found ? fa_buffer_read(e->queue, e->work, 0, found, e->work_bytes) : FA_OUT_OF_MEMORY;
    for (size_t i = 0; status == FA_OK && i < WORK_GUARD; i++) {
        const size_t behind = e->work_bytes - 1 - i;
        if (found[i] != pattern(i) || found[behind] != pattern(behind))
            *fault = "a byte beside the work was written";
    }
    free(found);
    return status;
}

/* What the run must have left alone: its inputs, and the surroundings of the workspace. */
static fa_status inspect(execution *e, const conform_data *data, const char **fault)
{
    static const char *const changed[CONFORM_INPUTS] = {
        "q was changed by the run",       "k was changed by the run",
        "v was changed by the run",       "bias was changed by the run",
        "keep was changed by the run",    "page_table was changed by the run",
        "k_scale was changed by the run", "v_scale was changed by the run",
        "k_zero was changed by the run",  "v_zero was changed by the run"};
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        if (!data->memory[t])
            continue;
        fa_status status =
            fa_buffer_read(e->queue, e->input[t], lead_of(data, t), e->scratch, data->bytes[t]);
        if (status != FA_OK)
            return status;
        if (memcmp(e->scratch, data->pristine[t], data->bytes[t]) != 0)
            *fault = changed[t];
    }
    fa_status status = fa_buffer_read(e->queue, e->workspace, 0, e->scratch, e->workspace_bytes);
    for (size_t i = 0; status == FA_OK && i < WORKSPACE_GUARD; i++) {
        if (e->scratch[i] != 0xff || e->scratch[e->workspace_bytes - 1 - i] != 0xff)
            *fault = "a byte beside the workspace was written";
    }
    return status == FA_OK ? inspect_work(e, fault) : status;
}

static void release(execution *e)
{
    for (int t = 0; t < CONFORM_INPUTS; t++)
        fa_buffer_destroy(e->input[t]);
    fa_buffer_destroy(e->o);
    fa_buffer_destroy(e->lse);
    fa_buffer_destroy(e->workspace);
    fa_buffer_destroy(e->work);
    fa_buffer_destroy(e->lists);
    fa_buffer_destroy(e->status);
    fa_queue_destroy(e->queue);
    free(e->scratch);
}

bool conform_execute(fa_device *device, const fa_plan *plan, const conform_data *data,
                     const conform_lengths *lengths, conform_output *output, char *message, size_t size)
{
    execution e = {.device = device};
    const char *fault = NULL;
    fa_status status = prepare(&e, plan, data, output);
    if (status == FA_OK && lengths)
        status = schedule(&e, plan, lengths);
    if (status == FA_OK)
        status = launch(&e, plan, data, output);
    if (status == FA_OK)
        status = inspect(&e, data, &fault);
    if (status != FA_OK)
        (void)snprintf(message, size, "%s from a run on buffers: %s", fa_status_name(status),
                       fa_last_error());
    else if (fault)
        (void)snprintf(message, size, "%s", fault);
    release(&e);
    return status == FA_OK && !fault;
}

static fa_status merge(execution *e, const fa_merge_desc *desc, const float *partial, const float *lse,
                       size_t states, conform_output *output)
{
    const size_t parts = (size_t)desc->parts * states;
    fa_merge *made = NULL;
    fa_status status = fa_queue_create(e->device, &e->queue);
    if (status == FA_OK)
        status = upload(e, &e->input[0], 0, partial, parts * (size_t)desc->o.shape[3] * sizeof(float));
    if (status == FA_OK)
        status = upload(e, &e->input[1], 0, lse, parts * sizeof(float));
    if (status == FA_OK)
        status = upload(e, &e->o, 0, output->o, output->o_bytes);
    if (status == FA_OK)
        status = upload(e, &e->lse, 0, output->lse, output->lse_bytes);
    if (status == FA_OK)
        status = fa_merge_create(e->device, desc, &made);
    const fa_merge_args args = {
        .struct_size = sizeof(args),
        .partial = e->input[0],
        .partial_lse = e->input[1],
        .o = e->o,
        .lse = e->lse,
        .o_offset = output->o_offset,
        .lse_offset = output->lse_offset,
    };
    if (status == FA_OK)
        status = fa_merge_run(made, e->queue, &args);
    if (status == FA_OK)
        status = fa_buffer_read(e->queue, e->o, 0, output->o, output->o_bytes);
    if (status == FA_OK)
        status = fa_buffer_read(e->queue, e->lse, 0, output->lse, output->lse_bytes);
    fa_merge_destroy(made);
    return status;
}

fa_status conform_execute_merge(fa_device *device, const fa_merge_desc *desc, const float *partial,
                                const float *lse, conform_output *output)
{
    const int64_t *shape = desc->o.shape;
    execution e = {.device = device};
    fa_status status = merge(&e, desc, partial, lse, (size_t)(shape[0] * shape[1] * shape[2]), output);
    release(&e);
    return status;
}

bool conform_execute_host(fa_device *device, const conform_data *data, conform_output *output, char *message,
                          size_t size)
{
    const fa_inputs *in = &data->inputs;
    float *lse = output->lse ? (float *)(void *)(output->lse + output->lse_offset) : NULL;
    fa_status status = fa_attention_host(device, &data->desc, in->q, in->k, in->v, in->bias, in->keep,
                                         output->o + output->o_offset, lse);
    bool changed = status == FA_OK && conform_data_changed(data);
    if (status != FA_OK)
        (void)snprintf(message, size, "%s from fa_attention_host: %s", fa_status_name(status),
                       fa_last_error());
    else if (changed)
        (void)snprintf(message, size, "an input was changed by fa_attention_host");
    return status == FA_OK && !changed;
}

/* The first multiple of WORKSPACE_GUARD in memory that is as much larger as that. */
static void *aligned(unsigned char *memory)
{
    return memory ? memory + WORKSPACE_GUARD - (uintptr_t)memory % WORKSPACE_GUARD : NULL;
}

/* The work of lengths, in memory of the host. */
static fa_status schedule_host(fa_device *device, const fa_plan *plan, const conform_lengths *lengths,
                               fa_queue *queue, void *work)
{
    fa_buffer *wrapped, *lists = NULL;
    fa_status status = fa_buffer_wrap_host(device, work, fa_plan_work(plan), &wrapped);
    if (status == FA_OK)
        status = schedule_one(queue, device, plan, lengths, &lengths->now, &lists, wrapped, 0);
    fa_buffer_destroy(wrapped);
    fa_buffer_destroy(lists);
    return status;
}

bool conform_execute_pointers(fa_device *device, const fa_plan *plan, const conform_data *data,
                              const conform_lengths *lengths, conform_output *output, char *message,
                              size_t size)
{
    const fa_inputs *in = &data->inputs;
    fa_queue *queue = NULL;
    unsigned char *workspace = malloc(fa_plan_workspace(plan) + WORKSPACE_GUARD);
    unsigned char *work = malloc(fa_plan_work(plan) + WORKSPACE_GUARD);
    fa_host_args args = {
        .struct_size = sizeof(args),
        .q = in->q,
        .k = in->k,
        .v = in->v,
        .bias = in->bias,
        .keep = in->keep,
        .page_table = in->page_table,
        .k_scale = in->k_scale,
        .v_scale = in->v_scale,
        .k_zero = in->k_zero,
        .v_zero = in->v_zero,
        .o = output->o + output->o_offset,
        .lse = output->lse ? (float *)(void *)(output->lse + output->lse_offset) : NULL,
        .workspace = aligned(workspace),
        .work = lengths ? aligned(work) : NULL,
        .status = output->status,
    };
    fa_status status = workspace && work ? fa_queue_create(device, &queue) : FA_OUT_OF_MEMORY;
    if (status == FA_OK && lengths)
        status = schedule_host(device, plan, lengths, queue, aligned(work));
    if (status == FA_OK)
        status = fa_plan_run_host(plan, queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    fa_queue_destroy(queue);
    free(workspace);
    free(work);
    bool changed = status == FA_OK && conform_data_changed(data);
    if (status != FA_OK)
        (void)snprintf(message, size, "%s from fa_plan_run_host: %s", fa_status_name(status),
                       fa_last_error());
    else if (changed)
        (void)snprintf(message, size, "an input was changed by fa_plan_run_host");
    return status == FA_OK && !changed;
}
