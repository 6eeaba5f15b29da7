/* SPDX-License-Identifier: Apache-2.0 */
/* The branches of native sparse attention, each a plan, and their sum by gates. */
#include "core/nsa/nsa.h"

#include <fastattn/mix.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/attention/problem.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

enum { COMPRESSED, SELECTED, WINDOW, BRANCHES, BLOCK_KEYS = 64, WINDOW_KEYS = 512 };

#define OF "native sparse attention"

static const char *const names[BRANCHES] = {"compressed", "selected", "window"};

struct fa_nsa {
    fa_device *device;
    int64_t rows, heads, heads_kv, keys;
    fa_problem problem; /* attention's */
    bool has_problem;
    fa_tensor compressed[2]; /* k and v */
    size_t compressed_span[2];
    fa_plan *plan[BRANCHES];
    /* Row r of head h is the sum of that row of all branches, which follow each other in the workspace. */
    fa_mix *mix;
    fa_buffer *tables; /* of the mix: offsets, rows, places */
    size_t rows_at, places_at;
    size_t part_bytes, scratch_at, workspace;
};

/* Groups of rows that see as many compressed keys. */
typedef struct groups {
    int32_t *cu_rows, *lens;
    size_t bytes; /* of each */
    int64_t count;
} groups;

static fa_status in_branch(fa_status status, int branch)
{
    if (status == FA_OK)
        return FA_OK;
    const fa_message said = fa_message_keep();
    return fa_fail(status, "%s: %s", names[branch], said.text);
}

static fa_status check(fa_nsa *s, fa_nsa_desc *d, fa_attention_desc *a)
{
    FA_TRY(fa_nsa_check_sizes(&d->kernel, &d->stride));
    d->block_rows = d->block_rows ? d->block_rows : 1;
    d->block_keys = d->block_keys ? d->block_keys : BLOCK_KEYS;
    d->window = d->window ? d->window : WINDOW_KEYS;
    FA_TRY(fa_check_limit("block_rows", d->block_rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("block_keys", d->block_keys, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("window", d->window, 1, FA_MAX_LENGTH));
    if (a->mask != FA_MASK_CAUSAL_BOTTOM_RIGHT)
        return fa_fail(FA_UNSUPPORTED, "attention->mask is %d, expected %d: " OF " is causal", (int)a->mask,
                       (int)FA_MASK_CAUSAL_BOTTOM_RIGHT);
    FA_TRY(fa_problem_refuse_choices(a, OF));
    if (a->sinks || !fa_tensor_is_absent(&a->page_table))
        return fa_fail(FA_UNSUPPORTED, "attention->%s is given, expected none: " OF " does not serve it",
                       a->sinks ? "sinks" : "page_table");
    if (a->want_lse != 0 || a->v_in_k != 0)
        return fa_fail(FA_UNSUPPORTED, "attention->%s is %d, expected 0: " OF " does not serve it",
                       a->want_lse ? "want_lse" : "v_in_k", a->want_lse ? a->want_lse : a->v_in_k);
    FA_TRY(fa_check_limit("attention->q.shape[0]", a->q.shape[0], 1, 1));
    FA_TRY(fa_check_limit("attention->q.shape[1]", a->q.shape[1], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("attention->q.shape[2]", a->q.shape[2], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("attention->k.shape[2]", a->k.shape[2], 1, FA_MAX_LENGTH));
    s->heads = a->q.shape[1];
    s->heads_kv = a->k.shape[1];
    s->rows = a->q.shape[2];
    s->keys = a->k.shape[2];
    return FA_OK;
}

static fa_status check_compressed(const fa_nsa *s, const fa_nsa_desc *d, const char *name, fa_tensor *t,
                                  fa_dtype dtype)
{
    char field[32] = "";
    const int64_t expected[] = {1, s->heads_kv, fa_nsa_seen(s->keys - 1, d->kernel, d->stride)};
    (void)strcat(strcat(field, name), ".dtype");
    FA_TRY(fa_dtype_check_float(t->dtype, field));
    FA_TRY(fa_dtype_check_one(t->dtype, dtype, field));
    FA_TRY(fa_tensor_normalise(t, name, false));
    for (int axis = 0; axis < 3; axis++) {
        if (t->shape[axis] != expected[axis])
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld", name, axis,
                           (long long)t->shape[axis], (long long)expected[axis]);
    }
    return FA_OK;
}

static fa_status make_groups(const fa_nsa *s, const fa_nsa_desc *d, groups *g)
{
    const fa_context *context = s->device->context;
    int64_t before = -1;
    g->bytes = ((size_t)s->rows + 1) * sizeof(int32_t);
    g->cu_rows = fa_alloc(context, g->bytes);
    g->lens = fa_alloc(context, g->bytes);
    if (!g->cu_rows || !g->lens)
        return FA_OUT_OF_MEMORY;
    for (int64_t row = 0; row < s->rows; row++) {
        const int64_t seen = fa_nsa_seen(row + s->keys - s->rows, d->kernel, d->stride);
        if (seen != before) {
            g->cu_rows[g->count] = (int32_t)row;
            g->lens[g->count++] = (int32_t)seen;
        }
        before = seen;
    }
    g->cu_rows[g->count] = (int32_t)s->rows;
    return FA_OK;
}

/* The groups are packed sequences, which all have the same keys, each the first so many. */
static fa_status make_compressed(fa_nsa *s, const fa_nsa_desc *given, fa_attention_desc a)
{
    fa_nsa_desc d = *given;
    groups g = {.count = 0};
    const fa_tensor none = {.shape = {0}};
    FA_TRY(check_compressed(s, &d, "compressed_k", &d.compressed_k, d.compressed_k.dtype));
    FA_TRY(check_compressed(s, &d, "compressed_v", &d.compressed_v, d.compressed_k.dtype));
    s->compressed[0] = d.compressed_k;
    s->compressed[1] = d.compressed_v;
    FA_TRY(fa_tensor_extent(&s->compressed[0], "compressed_k", &s->compressed_span[0]));
    FA_TRY(fa_tensor_extent(&s->compressed[1], "compressed_v", &s->compressed_span[1]));
    fa_status status = make_groups(s, &d, &g);
    a.mask = FA_MASK_NONE;
    a.k = d.compressed_k;
    a.v = d.compressed_v;
    a.k.shape[0] = a.v.shape[0] = a.sequences = g.count;
    a.k_scale = a.v_scale = a.k_zero = a.v_zero = none;
    a.k_factor = a.v_factor = 0;
    a.cu_rows_q32 = g.cu_rows;
    a.lens_kv32 = g.lens;
    if (status == FA_OK)
        status = fa_plan_create(s->device, &a, &s->plan[COMPRESSED]);
    fa_release(s->device->context, g.cu_rows, g.bytes);
    fa_release(s->device->context, g.lens, g.bytes);
    return status;
}

static fa_status make_plans(fa_nsa *s, const fa_nsa_desc *d, fa_attention_desc a)
{
    const fa_block_lists lists = {
        .struct_size = sizeof(lists),
        .block_rows = d->block_rows,
        .block_keys = d->block_keys,
        .sequences = 1,
        .heads = a.k.shape[1],
        .row_blocks = fa_ceil_div(s->rows, d->block_rows),
        .key_blocks = fa_ceil_div(s->keys, d->block_keys),
        .index_count = d->index_count,
    };
    a.o = fa_tensor_make(FA_F32, 1, s->heads, s->rows, a.o.shape[3]);
    FA_TRY(in_branch(make_compressed(s, d, a), COMPRESSED));
    a.window_left = d->window;
    FA_TRY(in_branch(fa_plan_create(s->device, &a, &s->plan[WINDOW]), WINDOW));
    a.window_left = 0;
    a.lists = &lists;
    a.dynamic_lengths = 2;
    return in_branch(fa_plan_create(s->device, &a, &s->plan[SELECTED]), SELECTED);
}

/* Gates lie as rows of q do in a model: list n of the mix is of row n / heads and head n % heads. */
static fa_status write_tables(const fa_nsa *s, int32_t *words)
{
    const int64_t lists = s->heads * s->rows;
    int32_t *rows = words + lists + 1, *places = rows + BRANCHES * lists;
    for (int64_t n = 0; n <= lists; n++)
        words[n] = (int32_t)(BRANCHES * n);
    for (int64_t n = 0; n < lists; n++) {
        places[n] = (int32_t)(n % s->heads * s->rows + n / s->heads);
        for (int branch = 0; branch < BRANCHES; branch++)
            rows[BRANCHES * n + branch] = (int32_t)(branch * lists) + places[n];
    }
    fa_queue *queue;
    FA_TRY(fa_queue_create(s->device, &queue));
    fa_status status = fa_buffer_write(queue, s->tables, 0, words, fa_buffer_size(s->tables));
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    fa_queue_destroy(queue);
    return status;
}

static fa_status make_mix(fa_nsa *s, const fa_attention_desc *a)
{
    const int64_t lists = s->heads * s->rows;
    if (lists > INT32_MAX / BRANCHES - 1)
        return fa_fail(FA_UNSUPPORTED,
                       "attention->q has %lld rows of %lld heads, at most %d in all are served",
                       (long long)s->rows, (long long)s->heads, INT32_MAX / BRANCHES - 1);
    const fa_mix_desc mix = {
        .struct_size = sizeof(mix),
        .from = fa_tensor_make(FA_F32, BRANCHES, s->heads, s->rows, a->o.shape[3]),
        .to = a->o,
        .lists = lists,
        .entries = BRANCHES * lists,
        .longest = BRANCHES,
        .weighted = 1,
        .placed = 1,
    };
    const size_t bytes = (size_t)((2 + BRANCHES) * lists + 1) * sizeof(int32_t);
    s->rows_at = (size_t)(lists + 1) * sizeof(int32_t);
    s->places_at = s->rows_at + (size_t)(BRANCHES * lists) * sizeof(int32_t);
    FA_TRY(fa_mix_create(s->device, &mix, &s->mix));
    FA_TRY(fa_buffer_create(s->device, bytes, &s->tables));
    int32_t *words = fa_alloc(s->device->context, bytes);
    const fa_status status = words ? write_tables(s, words) : FA_OUT_OF_MEMORY;
    fa_release(s->device->context, words, bytes);
    return status;
}

static fa_status lay_out(fa_nsa *s, int64_t dim)
{
    size_t end = 0, scratch = 0;
    const bool fits = fa_grow(&s->part_bytes, (size_t)(s->heads * s->rows), (size_t)dim * sizeof(float)) &&
                      fa_grow(&end, BRANCHES, s->part_bytes);
    for (int branch = 0; branch < BRANCHES; branch++)
        scratch = FA_MAX(scratch, fa_plan_workspace(s->plan[branch]));
    s->scratch_at = s->workspace = fa_align64(end);
    if (!fits || !fa_grow(&s->workspace, scratch, 1))
        return fa_fail(FA_OUT_OF_MEMORY, "the outputs of %d branches of %lld rows overflow memory", BRANCHES,
                       (long long)s->rows);
    return FA_OK;
}

static fa_status create(fa_nsa *s, const fa_nsa_desc *given)
{
    fa_nsa_desc d;
    fa_attention_desc a;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_NSA_DESC_0_1, given, "fa_nsa_desc"));
    if (!d.attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    FA_TRY(fa_problem_read_desc(d.attention, &a));
    FA_TRY(check(s, &d, &a));
    FA_TRY(fa_problem_init(s->device->context, &a, &s->problem));
    s->has_problem = true;
    FA_TRY(make_plans(s, &d, a));
    FA_TRY(make_mix(s, &a));
    return lay_out(s, a.o.shape[3]);
}

fa_status fa_nsa_create(fa_device *device, const fa_nsa_desc *desc, fa_nsa **nsa)
{
    fa_clear_error();
    if (!nsa)
        return fa_fail(FA_INVALID, "nsa is NULL, expected where to store the new object");
    *nsa = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_nsa *s = fa_alloc_zeroed(device->context, sizeof(*s));
    if (!s)
        return FA_OUT_OF_MEMORY;
    s->device = device;
    const fa_status status = create(s, desc);
    if (status == FA_OK)
        *nsa = s;
    else
        fa_nsa_destroy(s);
    return fa_finish(status);
}

void fa_nsa_destroy(fa_nsa *s)
{
    if (!s)
        return;
    const fa_message kept = fa_message_keep();
    for (int branch = 0; branch < BRANCHES; branch++)
        fa_plan_destroy(s->plan[branch]);
    fa_mix_destroy(s->mix);
    fa_buffer_destroy(s->tables);
    if (s->has_problem)
        fa_problem_release(s->device->context, &s->problem);
    fa_release(s->device->context, s, sizeof(*s));
    fa_message_restore(&kept);
}

size_t fa_nsa_workspace(const fa_nsa *nsa)
{
    return nsa ? nsa->workspace : 0;
}

size_t fa_nsa_work(const fa_nsa *nsa)
{
    return nsa ? fa_plan_work(nsa->plan[SELECTED]) : 0;
}

fa_status fa_nsa_schedule(const fa_nsa *nsa, fa_queue *queue, const fa_block_lists *lists, fa_buffer *work,
                          size_t work_offset)
{
    fa_clear_error();
    FA_TRY(fa_call_check("nsa", nsa, nsa ? nsa->device : NULL, queue, "lists", lists));
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lists = lists};
    return fa_plan_schedule(nsa->plan[SELECTED], queue, &lengths, work, work_offset);
}

fa_status fa_nsa_schedule_device(const fa_nsa *nsa, fa_queue *queue, const fa_device_lists *lists,
                                 fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    FA_TRY(fa_call_check("nsa", nsa, nsa ? nsa->device : NULL, queue, "lists", lists));
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)};
    FA_TRY(fa_plan_schedule_device(nsa->plan[SELECTED], queue, &lengths, work, work_offset));
    return fa_plan_schedule_lists(nsa->plan[SELECTED], queue, lists, work, work_offset);
}

/* What a branch reads, and where in the workspace its output lies. */
static fa_attention_args args_of(const fa_nsa *s, const fa_nsa_args *a, int branch)
{
    fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = a->q,
        .k = a->k,
        .v = a->v,
        .o = a->workspace,
        .k_scale = a->k_scale,
        .v_scale = a->v_scale,
        .k_zero = a->k_zero,
        .v_zero = a->v_zero,
        .workspace = a->workspace,
        .q_offset = a->q_offset,
        .k_offset = a->k_offset,
        .v_offset = a->v_offset,
        .o_offset = a->workspace_offset + (size_t)branch * s->part_bytes,
        .k_scale_offset = a->k_scale_offset,
        .v_scale_offset = a->v_scale_offset,
        .k_zero_offset = a->k_zero_offset,
        .v_zero_offset = a->v_zero_offset,
        .workspace_offset = a->workspace_offset + s->scratch_at,
    };
    if (branch == COMPRESSED) {
        args.k = a->compressed_k;
        args.v = a->compressed_v;
        args.k_offset = a->compressed_k_offset;
        args.v_offset = a->compressed_v_offset;
        args.k_scale = args.v_scale = args.k_zero = args.v_zero = NULL;
    }
    if (branch == SELECTED) {
        args.work = a->work;
        args.work_offset = a->work_offset;
    }
    return args;
}

/* All operands before anything runs: what a branch writes may not be what another reads, nor what the sum does. */
static fa_status check_memory(const fa_nsa *s, const fa_nsa_args *a)
{
    static const char *const compressed[] = {"compressed_k", "compressed_v"};
    const fa_buffer *const buffer[] = {a->compressed_k, a->compressed_v};
    const size_t offset[] = {a->compressed_k_offset, a->compressed_v_offset},
                 gates = (size_t)(BRANCHES * s->heads * s->rows) * sizeof(float);
    fa_attention_args whole = args_of(s, a, SELECTED);
    whole.o = a->o;
    whole.o_offset = a->o_offset;
    whole.workspace_offset = a->workspace_offset;
    const fa_binding binding = fa_binding_of(&whole);
    FA_TRY(fa_binding_check(&binding, s->device, &s->problem, s->workspace, fa_nsa_work(s)));
    FA_TRY(fa_buffer_check(s->device, "args.", "gates", a->gates, a->gates_offset, sizeof(float), gates));
    fa_memory memory[5] = {
        {"o", fa_buffer_extent(&s->problem.tensor[FA_O], s->problem.span[FA_O], a->o, a->o_offset), true},
        {"workspace", fa_buffer_bytes(s->workspace, a->workspace, a->workspace_offset), true},
        {"gates", fa_buffer_bytes(gates, a->gates, a->gates_offset), false},
    };
    int count = 3;
    for (int n = 0; n < 2; n++) {
        const fa_tensor *t = &s->compressed[n];
        const size_t span = s->compressed_span[n];
        if (span == 0 && !buffer[n])
            continue;
        FA_TRY(fa_buffer_check(s->device, "args.", compressed[n], buffer[n], offset[n],
                               fa_dtype_align(t->dtype), span));
        memory[count++] = (fa_memory){compressed[n], fa_buffer_extent(t, span, buffer[n], offset[n]), false};
    }
    return fa_memory_check_overlap(memory, count);
}

fa_status fa_nsa_run(const fa_nsa *nsa, fa_queue *queue, const fa_nsa_args *args)
{
    fa_clear_error();
    fa_nsa_args a;
    FA_TRY(fa_call_check("nsa", nsa, nsa ? nsa->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_NSA_ARGS_0_1, args, "fa_nsa_args"));
    FA_TRY(check_memory(nsa, &a));
    for (int branch = 0; branch < BRANCHES; branch++) {
        const fa_attention_args of = args_of(nsa, &a, branch);
        FA_TRY(in_branch(fa_plan_run(nsa->plan[branch], queue, &of), branch));
    }
    const fa_mix_args sum = {
        .struct_size = sizeof(sum),
        .from = a.workspace,
        .to = a.o,
        .offsets = nsa->tables,
        .rows = nsa->tables,
        .weights = a.gates,
        .places = nsa->tables,
        .from_offset = a.workspace_offset,
        .to_offset = a.o_offset,
        .rows_offset = nsa->rows_at,
        .weights_offset = a.gates_offset,
        .places_offset = nsa->places_at,
    };
    return fa_mix_run(nsa->mix, queue, &sum);
}
