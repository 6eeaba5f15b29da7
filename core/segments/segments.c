/* SPDX-License-Identifier: Apache-2.0 */
/* Plans for segments, and their runs. */
#include "core/segments/segments.h"

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

/* Where the work of each lies: each begins at a multiple of 256. */
static fa_status lay_out_work(fa_segments *s)
{
    size_t end = 0;
    for (int64_t n = 0; n < s->count; n++) {
        const size_t bytes = fa_plan_work(s->parts.plan[n]);
        if (!fa_grow(&end, bytes / 256 + (bytes % 256 != 0), 256))
            return fa_fail(FA_OUT_OF_MEMORY, "the work of %lld segments overflows memory",
                           (long long)s->count);
        s->work_at[n + 1] = end;
    }
    return FA_OK;
}

static fa_status make_plan(fa_segments *s, const fa_segments_desc *desc, bool alone, int64_t n)
{
    fa_attention_desc d;
    FA_TRY(fa_segments_describe(desc, n, &d));
    if (!alone)
        d = fa_parts_desc(&d);
    FA_TRY(fa_plan_create(s->device, &d, &s->parts.plan[n]));
    s->parts.count++;
    return FA_OK;
}

static fa_status make(fa_segments *s, const fa_segments_desc *given)
{
    fa_segments_desc desc;
    fa_attention_desc whole;
    FA_TRY(fa_copy_struct(&desc, sizeof(desc), FA_SEGMENTS_DESC_0_1, given, "fa_segments_desc"));
    FA_TRY(fa_segments_read(&desc, s));
    const bool alone = s->count == 1 && fa_tensor_is_absent(&s->channels);
    for (int64_t n = 0; n < s->count; n++)
        FA_TRY(fa_segments_name(make_plan(s, &desc, alone, n), n));
    FA_TRY(lay_out_work(s));
    FA_TRY(fa_problem_read_desc(desc.attention, &whole));
    if (!alone)
        return fa_parts_merged(&s->parts, s->device, &whole, &desc.v_channels, desc.v_channels_stride);
    fa_parts_alone(&s->parts);
    return FA_OK;
}

fa_status fa_segments_create(fa_device *device, const fa_segments_desc *desc, fa_segments **segments)
{
    fa_clear_error();
    if (!segments)
        return fa_fail(FA_INVALID, "segments is NULL, expected where to store the new segments");
    *segments = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_segments *s = fa_alloc_zeroed(device->context, sizeof(*s));
    if (!s)
        return FA_OUT_OF_MEMORY;
    s->device = device;
    const fa_status status = make(s, desc);
    if (status == FA_OK)
        *segments = s;
    else
        fa_segments_destroy(s);
    return fa_finish(status);
}

void fa_segments_destroy(fa_segments *s)
{
    if (!s)
        return;
    fa_parts_release(&s->parts);
    fa_segments_release(s);
    fa_release(s->device->context, s, sizeof(*s));
}

size_t fa_segments_workspace(const fa_segments *segments)
{
    return segments ? segments->parts.workspace : 0;
}

size_t fa_segments_work(const fa_segments *segments)
{
    return segments ? segments->work_at[segments->count] : 0;
}

static fa_status check_call(const fa_segments *s, const fa_queue *queue, const void *argument,
                            const char *name)
{
    return fa_call_check("segments", s, s ? s->device : NULL, queue, name, argument);
}

static fa_status check_work(const fa_segments *s, const fa_buffer *work, size_t offset)
{
    if (s->work_at[s->count] == 0)
        return fa_fail(FA_INVALID, "the description has dynamic_lengths 0, expected 1");
    return fa_work_check(s->device, "", work, offset, s->work_at[s->count]);
}

fa_status fa_segments_schedule(const fa_segments *segments, fa_queue *queue, const fa_lengths *const *lengths,
                               fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    fa_lengths copy[FA_SEGMENTS_MAX];
    FA_TRY(check_call(segments, queue, lengths, "lengths"));
    FA_TRY(check_work(segments, work, work_offset));
    for (int64_t n = 0; n < segments->count; n++) {
        if (!lengths[n])
            continue;
        FA_TRY(fa_segments_name(
            fa_copy_struct(&copy[n], sizeof(copy[n]), FA_LENGTHS_0_1, lengths[n], "fa_lengths"), n));
        FA_TRY(fa_segments_name(fa_segments_check_lengths(segments, n, &copy[n]), n));
        copy[n].struct_size = sizeof(copy[n]);
        copy[n].cu_rows_q = segments->cu_rows;
    }
    for (int64_t n = 0; n < segments->count; n++) {
        if (lengths[n])
            FA_TRY(fa_segments_name(fa_plan_schedule(segments->parts.plan[n], queue, &copy[n], work,
                                                     work_offset + segments->work_at[n]),
                                    n));
    }
    return FA_OK;
}

fa_status fa_segments_schedule_device(const fa_segments *segments, fa_queue *queue,
                                      const fa_device_lengths *const *lengths, fa_buffer *work,
                                      size_t work_offset)
{
    fa_clear_error();
    FA_TRY(check_call(segments, queue, lengths, "lengths"));
    FA_TRY(check_work(segments, work, work_offset));
    for (int64_t n = 0; n < segments->count; n++) {
        if (!lengths[n])
            return fa_fail(FA_INVALID, "lengths[%lld] is NULL", (long long)n);
    }
    for (int64_t n = 0; n < segments->count; n++)
        FA_TRY(fa_segments_name(fa_plan_schedule_device(segments->parts.plan[n], queue, lengths[n], work,
                                                        work_offset + segments->work_at[n]),
                                n));
    return FA_OK;
}

fa_attention_args fa_segments_args_of(const fa_segments_args *all, const fa_segment_args *own)
{
    return (fa_attention_args){
        .struct_size = sizeof(fa_attention_args),
        .q = all->q,
        .k = own->k,
        .v = own->v,
        .o = all->o,
        .page_table = own->page_table,
        .k_scale = own->k_scale,
        .v_scale = own->v_scale,
        .k_zero = own->k_zero,
        .v_zero = own->v_zero,
        .lse = all->lse,
        .workspace = all->workspace,
        .q_offset = all->q_offset,
        .k_offset = own->k_offset,
        .v_offset = own->v_offset,
        .o_offset = all->o_offset,
        .page_table_offset = own->page_table_offset,
        .k_scale_offset = own->k_scale_offset,
        .v_scale_offset = own->v_scale_offset,
        .k_zero_offset = own->k_zero_offset,
        .v_zero_offset = own->v_zero_offset,
        .lse_offset = all->lse_offset,
        .workspace_offset = all->workspace_offset,
        .work = all->work,
        .work_offset = all->work_offset,
    };
}

/* Everything that a segment reads and a run writes. */
static fa_status check_segment(const fa_segments *s, int64_t n, const fa_attention_args *a)
{
    const fa_binding binding = fa_binding_of(a);
    return fa_binding_check(&binding, s->device, &s->problem[n], s->parts.workspace,
                            a->work ? s->work_at[s->count] : 0);
}

fa_status fa_segments_check_channels(const fa_segments *s, const fa_segments_args *a)
{
    if (s->channels_span == 0)
        return a->v_channels ? fa_fail(FA_INVALID, "args.v_channels is given, expected NULL: the description "
                                                   "has no v_channels")
                             : FA_OK;
    FA_TRY(fa_buffer_check(s->device, "args.", "v_channels", a->v_channels, a->v_channels_offset,
                           sizeof(float), s->channels_span));
    const fa_problem *p = &s->problem[0];
    fa_memory memory[4] = {
        {"v_channels", fa_buffer_bytes(s->channels_span, a->v_channels, a->v_channels_offset), false}};
    int count = 1;
    if (p->span[FA_O] > 0)
        memory[count++] =
            (fa_memory){"o", fa_buffer_extent(&p->tensor[FA_O], p->span[FA_O], a->o, a->o_offset), true};
    if (p->span[FA_LSE] > 0)
        memory[count++] = (fa_memory){"lse", fa_buffer_bytes(p->span[FA_LSE], a->lse, a->lse_offset), true};
    if (s->parts.workspace > 0)
        memory[count++] = (fa_memory){
            "workspace", fa_buffer_bytes(s->parts.workspace, a->workspace, a->workspace_offset), true};
    return fa_memory_check_overlap(memory, count);
}

static fa_status take_args(const fa_segments *s, const fa_segments_args *a,
                           fa_attention_args part[FA_SEGMENTS_MAX])
{
    if (!a->segment)
        return fa_fail(FA_INVALID, "args.segment is NULL");
    for (int64_t n = 0; n < s->count; n++) {
        fa_segment_args own;
        if (!a->segment[n])
            return fa_fail(FA_INVALID, "args.segment[%lld] is NULL", (long long)n);
        FA_TRY(fa_copy_struct(&own, sizeof(own), FA_SEGMENT_ARGS_0_1, a->segment[n], "fa_segment_args"));
        part[n] = fa_segments_args_of(a, &own);
        FA_TRY(fa_segments_name(check_segment(s, n, &part[n]), n));
    }
    return fa_segments_check_channels(s, a);
}

fa_status fa_segments_run(const fa_segments *segments, fa_queue *queue, const fa_segments_args *args)
{
    fa_clear_error();
    fa_segments_args copy;
    fa_attention_args part[FA_SEGMENTS_MAX];
    FA_TRY(check_call(segments, queue, args, "args"));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_SEGMENTS_ARGS_0_1, args, "fa_segments_args"));
    FA_TRY(take_args(segments, &copy, part));
    for (int64_t n = 0; n < segments->count; n++) {
        fa_attention_args own = fa_parts_args(&segments->parts, &part[n], n);
        if (own.work)
            own.work_offset += segments->work_at[n];
        FA_TRY(fa_segments_name(fa_plan_run(segments->parts.plan[n], queue, &own), n));
    }
    return fa_parts_merge(&segments->parts, queue, &part[0], copy.v_channels, copy.v_channels_offset);
}
