/* SPDX-License-Identifier: Apache-2.0 */
#include "core/merge/merge.h"

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/overlap.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static const char *const names[] = {"partial", "o", "partial_lse", "lse", "factors"};

static fa_status check_tensor(fa_tensor *t, const char *name, size_t *span)
{
    char field[16] = "";
    (void)strcat(strcat(field, name), ".dtype");
    FA_TRY(fa_dtype_check_float(t->dtype, field));
    FA_TRY(fa_tensor_normalise(t, name, false));
    return fa_tensor_extent(t, name, span);
}

/* Sizes are those of o or 1; heads of states may share heads of factors evenly. */
static fa_status check_factors(fa_merge_desc *d, size_t *span)
{
    fa_tensor *t = &d->factors;
    *span = 0;
    if (fa_tensor_is_absent(t)) {
        if (d->factor_stride != 0)
            return fa_fail(FA_INVALID, "factor_stride is %lld, expected 0 without factors",
                           (long long)d->factor_stride);
        return FA_OK;
    }
    FA_TRY(fa_dtype_check_one(t->dtype, FA_F32, "factors.dtype"));
    FA_TRY(fa_tensor_normalise(t, "factors", false));
    for (int axis = 0; axis < 4; axis++) {
        const int64_t size = t->shape[axis], whole = d->o.shape[axis];
        const bool repeats = axis < 3 && size == 1, divides = axis == 1 && size > 0 && whole % size == 0;
        if (size != whole && !repeats && !divides)
            return fa_fail(FA_INVALID, "factors.shape[%d] is %lld, expected %s%lld as o.shape[%d]", axis,
                           (long long)size,
                           axis == 3   ? ""
                           : axis == 1 ? "a divisor of "
                                       : "1 or ",
                           (long long)whole, axis);
    }
    if (d->factor_stride < 0)
        return fa_fail(FA_INVALID, "factor_stride is %lld, expected at least 0", (long long)d->factor_stride);
    FA_TRY(fa_tensor_extent(t, "factors", span));
    if (*span > 0 && d->parts > 0 &&
        !fa_grow(span, (size_t)d->factor_stride, sizeof(float) * (size_t)(d->parts - 1)))
        return fa_fail(FA_OUT_OF_MEMORY, "factor_stride %lld with parts %lld overflows memory",
                       (long long)d->factor_stride, (long long)d->parts);
    return FA_OK;
}

/* Whether all states can be counted, and what lies where the last part begins. */
static fa_status check_sizes(const fa_merge_desc *d)
{
    const int64_t *shape = d->o.shape;
    int64_t last, states = 0;
    if (!fa_mul_i64(shape[0], shape[1], &states) || !fa_mul_i64(states, shape[2], &states) ||
        !fa_mul_i64(states, FA_MAX(d->parts, 1), &states) || states > PTRDIFF_MAX / 4)
        return fa_fail(FA_OUT_OF_MEMORY,
                       "o.shape is %lld x %lld x %lld rows, parts %lld: more states than fit in memory",
                       (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)d->parts);
    if (!fa_mul_i64(d->parts, d->part_stride, &last) || last > PTRDIFF_MAX / 8)
        return fa_fail(FA_OUT_OF_MEMORY, "parts %lld with part_stride %lld overflows memory",
                       (long long)d->parts, (long long)d->part_stride);
    return FA_OK;
}

static fa_status check(const fa_merge_desc *given, fa_merge_desc *d, size_t *partial, size_t span[])
{
    if (!given)
        return fa_fail(FA_INVALID, "desc is NULL, expected an fa_merge_desc");
    FA_TRY(fa_copy_struct(d, sizeof(*d), FA_MERGE_DESC_0_1, given, "fa_merge_desc"));
    FA_TRY(check_tensor(&d->partial, "partial", partial));
    FA_TRY(check_tensor(&d->o, "o", &span[FA_MERGE_O]));
    if (d->parts < 0 || d->part_stride < 0)
        return fa_fail(FA_INVALID, "%s is %lld, expected at least 0", d->parts < 0 ? "parts" : "part_stride",
                       (long long)(d->parts < 0 ? d->parts : d->part_stride));
    for (int axis = 0; axis < 4; axis++) {
        if (d->o.shape[axis] != d->partial.shape[axis])
            return fa_fail(FA_INVALID, "o.shape[%d] is %lld, expected %lld as partial.shape[%d]", axis,
                           (long long)d->o.shape[axis], (long long)d->partial.shape[axis], axis);
    }
    if (!fa_tensor_is_injective(&d->o))
        return fa_fail(FA_INVALID, "o.stride is (%lld, %lld, %lld, %lld): elements of o overlap",
                       (long long)d->o.stride[0], (long long)d->o.stride[1], (long long)d->o.stride[2],
                       (long long)d->o.stride[3]);
    if (d->part_stride == 0)
        d->part_stride = (int64_t)(*partial / fa_dtype_size(d->partial.dtype));
    FA_TRY(check_sizes(d));
    return check_factors(d, &span[FA_MERGE_FACTORS]);
}

/* What kernels count in 32 bits. */
static fa_status fill_params(fa_merge *m)
{
    const fa_merge_desc *d = &m->desc;
    const int64_t *shape = d->o.shape, states = shape[0] * shape[1] * shape[2];
    if (states > INT32_MAX || d->parts > INT32_MAX || shape[3] > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED,
                       "o.shape is %lld x %lld x %lld rows of %lld dims, parts %lld: at most %d "
                       "of each are served",
                       (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3],
                       (long long)d->parts, INT32_MAX);
    fa_merge_params *p = &m->params;
    for (int axis = 0; axis < 3; axis++) {
        p->partial_stride[axis] = d->partial.stride[axis];
        p->o_stride[axis] = d->o.stride[axis];
        p->factor_stride[axis] = d->factors.stride[axis];
    }
    p->factor_part_stride = d->factor_stride;
    p->factor_heads = d->factors.shape[1] > 0 ? (int)FA_MIN(shape[1] / d->factors.shape[1], INT32_MAX) : 1;
    p->part_stride = d->part_stride;
    p->parts = (int)d->parts;
    p->heads = (int)FA_MIN(shape[1], INT32_MAX); /* more only where there are no states */
    p->rows = (int)FA_MIN(shape[2], INT32_MAX);
    p->dim = (int)shape[3];
    p->states = (int)states;
    p->want_lse = d->want_lse != 0;
    return FA_OK;
}

static fa_status init(fa_merge *m, const fa_merge_desc *desc)
{
    size_t partial = 0;
    FA_TRY(check(desc, &m->desc, &partial, m->span));
    FA_TRY(fill_params(m));
    const fa_merge_desc *d = &m->desc;
    const size_t states = (size_t)m->params.states * sizeof(float), parts = (size_t)d->parts;
    bool fits = true;
    if (partial > 0 && parts > 0) {
        fits = fa_grow(&partial, (size_t)d->part_stride * fa_dtype_size(d->partial.dtype), parts - 1);
        m->span[FA_MERGE_PARTIAL] = partial;
    }
    m->span[FA_MERGE_PARTIAL_LSE] = states * parts;
    m->span[FA_MERGE_LSE] = d->want_lse ? states : 0;
    return fits ? FA_OK
                : fa_fail(FA_OUT_OF_MEMORY, "parts %lld with part_stride %lld overflows memory",
                          (long long)d->parts, (long long)d->part_stride);
}

/* Where the operands of a run begin. */
typedef struct place {
    const void *storage; /* as an fa_extent has it */
    uintptr_t at;
} place;

/* Parts [first, first + count) of the outputs. */
static fa_extent extent_of_parts(const fa_merge *m, const place *partial, int64_t first, int64_t count)
{
    const fa_merge_desc *d = &m->desc;
    const size_t stride = (size_t)d->part_stride * fa_dtype_size(d->partial.dtype);
    size_t span = 0;
    if (count > 0)
        (void)fa_tensor_extent(&d->partial, "partial", &span); /* check() has seen that it has one */
    fa_extent e = fa_extent_of_tensor(&d->partial, span, partial->storage,
                                      partial->at + (size_t)(first * (int64_t)stride));
    fa_extent_repeat(&e, count, stride);
    return e;
}

/* Which of the parts o lies on element for element, and so may replace; -1: none. */
static int64_t part_in_place(const fa_merge_desc *d, const place *partial, const place *o)
{
    const size_t stride = (size_t)d->part_stride * fa_dtype_size(d->partial.dtype);
    if (d->o.dtype != d->partial.dtype || o->storage != partial->storage || o->at < partial->at ||
        stride == 0 || (o->at - partial->at) % stride != 0 ||
        (o->at - partial->at) / stride >= (uintptr_t)d->parts)
        return -1;
    for (int axis = 0; axis < 3; axis++) {
        if (d->o.shape[axis] > 1 && d->o.stride[axis] != d->partial.stride[axis])
            return -1;
    }
    return (int64_t)((o->at - partial->at) / stride);
}

static bool lse_in_place(const fa_merge *m, const place *partial_lse, const place *lse)
{
    const size_t states = (size_t)m->params.states * sizeof(float);
    return m->desc.want_lse && states > 0 && lse->storage == partial_lse->storage &&
           lse->at >= partial_lse->at && (lse->at - partial_lse->at) % states == 0 &&
           (lse->at - partial_lse->at) / states < (uintptr_t)m->desc.parts;
}

/* What is written is an input element for element, row by row, or shares no byte with one. `of` precedes names. */
static fa_status check_apart(const fa_merge *m, const char *of, const place at[FA_MERGE_OPERANDS])
{
    const fa_merge_desc *d = &m->desc;
    const place *partial = &at[FA_MERGE_PARTIAL], *partial_lse = &at[FA_MERGE_PARTIAL_LSE],
                *o = &at[FA_MERGE_O], *lse = &at[FA_MERGE_LSE];
    const int64_t part = part_in_place(d, partial, o);
    const fa_extent out = fa_extent_of_tensor(&d->o, m->span[FA_MERGE_O], o->storage, o->at),
                    out_lse = fa_extent_of_bytes(m->span[FA_MERGE_LSE], lse->storage, lse->at),
                    before = extent_of_parts(m, partial, 0, part < 0 ? d->parts : part),
                    after = extent_of_parts(m, partial, part + 1, part < 0 ? 0 : d->parts - part - 1),
                    all = extent_of_parts(m, partial, 0, d->parts),
                    all_lse = fa_extent_of_bytes(m->span[FA_MERGE_PARTIAL_LSE], partial_lse->storage,
                                                 partial_lse->at),
                    factors = fa_extent_of_bytes(m->span[FA_MERGE_FACTORS], at[FA_MERGE_FACTORS].storage,
                                                 at[FA_MERGE_FACTORS].at),
                    none = {.span = 0};
    const struct {
        const char *written, *other;
        const fa_extent *a, *b;
    } pair[] = {
        {"o", "partial", &out, &before},
        {"o", "partial", &out, &after},
        {"o", "partial_lse", &out, &all_lse},
        {"o", "lse", &out, &out_lse},
        {"o", "factors", &out, &factors},
        {"lse", "factors", &out_lse, &factors},
        {"lse", "partial", &out_lse, &all},
        {"lse", "partial_lse", &out_lse, lse_in_place(m, partial_lse, lse) ? &none : &all_lse},
    };
    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        if (fa_extents_meet(pair[i].a, pair[i].b) != FA_APART)
            return fa_fail(
                FA_INVALID,
                "%s%s overlaps %s%s, expected memory apart from it, or exactly that of one part with the "
                "same type and strides",
                of, pair[i].written, of, pair[i].other);
    }
    return FA_OK;
}

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_merge_group(view, group, 0, 1);
}

static bool writes_nothing(const fa_merge *m)
{
    return m->params.states == 0 || (m->params.dim == 0 && !m->params.want_lse);
}

static bool has_factors(const fa_merge *m)
{
    return m->span[FA_MERGE_FACTORS] > 0;
}

/* Whether a run has that operand at all. */
static bool has_operand(const fa_merge *m, int n)
{
    return n == FA_MERGE_LSE ? m->desc.want_lse != 0 : n != FA_MERGE_FACTORS || has_factors(m);
}

static void fill_task(fa_merge *m)
{
    m->task = (fa_task){
        .device = m->device,
        .kind = FA_TASK_MERGE,
        .name = "states",
        .group = 32,
        .constant = {(int32_t)m->desc.partial.dtype, (int32_t)m->desc.o.dtype, has_factors(m)},
        .params = &m->params,
        .params_bytes = sizeof(m->params),
        .run = run_group,
    };
    for (int n = 0; n < FA_MERGE_OPERANDS; n++) {
        if (has_operand(m, n))
            m->task.operand[n] =
                (fa_task_operand){names[n], m->span[n], n == FA_MERGE_O || n == FA_MERGE_LSE};
    }
}

static fa_status create(fa_device *device, const fa_merge_desc *desc, fa_merge *m)
{
    m->device = device;
    FA_TRY(init(m, desc));
    fill_task(m);
    return fa_task_prepare(&m->task);
}

fa_status fa_merge_create(fa_device *device, const fa_merge_desc *desc, fa_merge **merge)
{
    fa_clear_error();
    if (!merge)
        return fa_fail(FA_INVALID, "merge is NULL, expected where to store the new merge");
    *merge = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    fa_merge *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    fa_status status = create(device, desc, made);
    if (status == FA_OK)
        *merge = made;
    else
        fa_release(device->context, made, sizeof(*made));
    return fa_finish(status);
}

void fa_merge_destroy(fa_merge *merge)
{
    if (!merge)
        return;
    fa_task_release(&merge->task);
    fa_release(merge->device->context, merge, sizeof(*merge));
}

static size_t alignment_of(const fa_merge *m, int operand)
{
    return operand == FA_MERGE_PARTIAL ? fa_dtype_align(m->desc.partial.dtype)
           : operand == FA_MERGE_O     ? fa_dtype_align(m->desc.o.dtype)
                                       : sizeof(float);
}

static fa_status check_binding(const fa_merge *m, const fa_task_binding *binding)
{
    place at[FA_MERGE_OPERANDS] = {{NULL, 0}};
    for (int n = 0; n < FA_MERGE_OPERANDS; n++) {
        const fa_buffer *buffer = binding->buffer[n];
        if (buffer && !has_operand(m, n))
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL as %s", names[n],
                           n == FA_MERGE_LSE ? "want_lse is 0" : "the description has none");
        if (m->span[n] == 0 && !buffer)
            continue;
        FA_TRY(fa_buffer_check(m->device, "args.", names[n], buffer, binding->offset[n], alignment_of(m, n),
                               m->span[n]));
        at[n] = (place){buffer->storage, (uintptr_t)buffer->address + binding->offset[n]};
    }
    return check_apart(m, "args.", at);
}

fa_status fa_merge_run(const fa_merge *merge, fa_queue *queue, const fa_merge_args *args)
{
    fa_clear_error();
    fa_merge_args copy;
    FA_TRY(fa_call_check("merge", merge, merge ? merge->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_MERGE_ARGS_0_1, args, "fa_merge_args"));
    const fa_task_binding binding = {
        .buffer = {copy.partial, copy.o, copy.partial_lse, copy.lse, copy.factors},
        .offset = {copy.partial_offset, copy.o_offset, copy.partial_lse_offset, copy.lse_offset,
                   copy.factors_offset},
        .groups = merge->params.states,
    };
    FA_TRY(check_binding(merge, &binding));
    if (writes_nothing(merge))
        return FA_OK;
    return fa_finish(fa_task_run(&merge->task, queue, &binding));
}

static fa_status check_host(const fa_merge *m, const void *const at[FA_MERGE_OPERANDS])
{
    place places[FA_MERGE_OPERANDS];
    if (!at[FA_MERGE_O] && m->params.dim > 0)
        return fa_fail(FA_INVALID, "o is NULL");
    if (m->params.parts > 0 && (!at[FA_MERGE_PARTIAL] || !at[FA_MERGE_PARTIAL_LSE]))
        return fa_fail(FA_INVALID, "%s is NULL with %d parts",
                       at[FA_MERGE_PARTIAL] ? "partial_lse" : "partial", m->params.parts);
    for (int n = 0; n < FA_MERGE_OPERANDS; n++) {
        places[n] = (place){NULL, (uintptr_t)at[n]};
        if (places[n].at % alignment_of(m, n) != 0)
            return fa_fail(FA_INVALID, "%s lies at address %p, expected a multiple of %zu", names[n], at[n],
                           alignment_of(m, n));
    }
    return check_apart(m, "", places);
}

fa_status fa_merge_host(const fa_merge_desc *desc, const void *partial, const float *partial_lse, void *o,
                        float *lse)
{
    fa_clear_error();
    fa_merge m = {.device = NULL};
    FA_TRY(init(&m, desc));
    if (!fa_tensor_is_absent(&m.desc.factors))
        return fa_fail(FA_INVALID, "factors.shape is not all 0, expected none: fa_merge_run() takes them");
    if (!m.desc.want_lse != !lse)
        return fa_fail(FA_INVALID, "lse is %s, expected %s as want_lse is %d", lse ? "given" : "NULL",
                       lse ? "NULL" : "memory", (int)m.desc.want_lse);
    const void *const at[FA_MERGE_OPERANDS] = {partial, o, partial_lse, lse, NULL};
    if (writes_nothing(&m))
        return FA_OK;
    FA_TRY(check_host(&m, at));
    fill_task(&m);
    const fa_task_view view = {
        .constant = m.task.constant,
        .params = &m.params,
        .at = {(char *)partial, o, (char *)partial_lse, (char *)lse}, /* the first and third are read only */
    };
    fa_float_state before = fa_float_enter();
    for (int row = 0; row < m.params.states; row++)
        run_group(&view, row);
    fa_float_leave(before);
    return FA_OK;
}
