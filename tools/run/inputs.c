/* SPDX-License-Identifier: Apache-2.0 */
/* From files to a description. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/run/run.h"

static bool to_dtype(io_type type, fa_dtype *dtype)
{
    switch (type) {
    case IO_F32: *dtype = FA_F32; return true;
    case IO_F16: *dtype = FA_F16; return true;
    case IO_BF16: *dtype = FA_BF16; return true;
    default: return false;
    }
}

/* One tensor in its own npy file or by name in the safetensors file, up to its data. */
static bool find(const run_options *o, run_problem *p, const char *what, const char *path, const char *name,
                 run_input *in)
{
    io_error error;
    in->what = what;
    in->source = path ? &in->own : &p->file;
    bool ok = path ? io_source_open(&in->own, path, &error) && io_npy_find(&in->own, &in->found, &error)
                   : (p->file.name || io_source_open(&p->file, o->file, &error)) &&
                         io_safetensors_find(&p->file, name, &in->found, &error);
    if (!ok)
        cli_error(RUN_COMMAND, "%s: %s", what, error.text);
    in->file = in->source->name;
    return ok;
}

/* The data of what was found. A file of its own is closed. */
static bool load(run_input *in, io_tensor *out)
{
    io_error error;
    bool ok = io_load(in->source, &in->found, out, &error);
    if (ok && in->source == &in->own)
        ok = io_source_close(&in->own, &error);
    if (!ok)
        cli_error(RUN_COMMAND, "%s: %s", in->what, error.text);
    else if (out->overflows)
        cli_note(RUN_COMMAND, "%s: %s holds f64, rounded to f32; %llu finite numbers became infinite",
                 in->what, in->file, (unsigned long long)out->overflows);
    else if (out->narrowed)
        cli_note(RUN_COMMAND, "%s: %s holds f64, rounded to f32", in->what, in->file);
    return ok;
}

static bool bad_type(const char *what, io_type type, const char *expected)
{
    cli_error(RUN_COMMAND, "%s has type %s, expected %s", what, io_type_name(type), expected);
    return false;
}

static bool bad_rank(const char *what, int rank, const char *expected)
{
    cli_error(RUN_COMMAND, "%s has %d dimensions, expected %s", what, rank, expected);
    return false;
}

/* Contiguous strides of a file whose axes are (batch, row, head, dim). */
static void stride_bshd(fa_tensor *t)
{
    t->stride[3] = 1;
    t->stride[1] = t->shape[3];
    t->stride[2] = t->stride[1] * t->shape[1];
    t->stride[0] = t->stride[2] * t->shape[2];
}

/* Axes that the file does not have are 1. */
static void describe_axes(const io_tensor *t, bool bshd, fa_dtype dtype, fa_tensor *out)
{
    int64_t shape[4] = {1, 1, 1, 1};
    for (int axis = 0; axis < t->rank; axis++)
        shape[4 - t->rank + axis] = t->shape[axis];
    if (!bshd || t->rank == 2) {
        *out = fa_tensor_make(dtype, shape[0], shape[1], shape[2], shape[3]);
        return;
    }
    *out = fa_tensor_make(dtype, shape[0], shape[2], shape[1], shape[3]);
    if (t->bytes > 0)
        stride_bshd(out);
}

/* q, k or v, which `format` may make of another type. */
static bool describe(const char *what, io_tensor *t, bool bshd, const fa_dtype *type, run_format *format,
                     fa_tensor *out)
{
    fa_dtype dtype;
    if (!to_dtype(t->type, &dtype) && !(type && t->type == IO_U8))
        return bad_type(what, t->type,
                        type ? "f32, f16, bf16, or u8: the bytes of --kv-type" : "f32, f16 or bf16");
    if (t->rank < 2 || t->rank > 4)
        return bad_rank(what, t->rank, "2 (row, dim), 3 (with heads) or 4 (with batch and heads)");
    if (type && !run_format_find(what, dtype = *type, t, format))
        return false;
    describe_axes(t, bshd, dtype, out);
    return true;
}

/* Scales and zeros from files go with bytes of k or v, those of --kv-type are made of numbers. */
static bool describe_scales(const run_options *o, bool bshd, run_problem *p)
{
    static const char *const names[] = {"k-scale", "v-scale", "k-zero", "v-zero"};
    fa_attention_desc *d = &p->desc;
    fa_tensor *const out[] = {&d->k_scale, &d->v_scale, &d->k_zero, &d->v_zero};
    char why[160];
    for (int n = 0; n < RUN_SCALES; n++) {
        const bool of_k = n == RUN_K_SCALE || n == RUN_K_ZERO;
        const kv_type *kv = of_k ? &o->kv.k : &o->kv.v;
        const io_tensor *t = &p->scale[n];
        const fa_dtype bytes = kv_scale_type(kv);
        const bool raw = (of_k || o->v_in_k != 0 ? &p->k_format : &p->v_format)->raw,
                   given = o->scales[n] || o->scale_names[n];
        fa_dtype dtype;
        if (given && (!raw || kv->scaling != KV_UNSCALED)) {
            cli_error(RUN_COMMAND, "--%s is given, expected %s of bytes (u8) and --kv-type without a colon",
                      names[n], of_k ? "k" : "v");
            return false;
        }
        if (raw && kv->scaling != KV_UNSCALED) {
            cli_error(RUN_COMMAND, "--kv-type has a colon, expected %s of numbers, or --%s with its scales",
                      of_k ? "k" : "v", of_k ? names[RUN_K_SCALE] : names[RUN_V_SCALE]);
            return false;
        }
        if (!given)
            continue;
        if (t->rank < 2 || t->rank > 4)
            return bad_rank(names[n], t->rank, "2 to 4, as k and v");
        if (t->type == IO_U8 && n < RUN_K_ZERO && kv->dtype == FA_E2M1)
            dtype = t->shape[t->rank - 1] * 16 == (of_k ? d->k : d->v).shape[3] ? FA_E4M3 : bytes;
        else if (!to_dtype(t->type, &dtype))
            return bad_type(names[n], t->type, "f32, f16 or bf16; of scales of e2m1, u8 too");
        describe_axes(t, bshd, dtype, out[n]);
    }
    if (kv_types_scale(&o->kv, d, why, sizeof(why)))
        return true;
    cli_error(RUN_COMMAND, "%s", why);
    return false;
}

/* bias or keep: the trailing axes of (batch, head, row, key). */
static bool describe_scores(const char *what, const io_tensor *t, fa_tensor *out)
{
    int64_t shape[4] = {1, 1, 1, 1};
    fa_dtype dtype = FA_BOOL;
    bool keep = strcmp(what, "keep") == 0;
    if (keep ? t->type != IO_U8 : !to_dtype(t->type, &dtype))
        return bad_type(what, t->type, keep ? "u8 or bool" : "f32, f16 or bf16");
    if (t->rank < 1 || t->rank > 4)
        return bad_rank(what, t->rank, "1 to 4, the last of them the keys");
    for (int axis = 0; axis < t->rank; axis++)
        shape[4 - t->rank + axis] = t->shape[axis];
    *out = fa_tensor_make(dtype, shape[0], shape[1], shape[2], shape[3]);
    return true;
}

/* (sequence, page), or the same with two axes of 1 between them. */
static bool describe_pages(const run_problem *p, fa_tensor *out)
{
    const io_tensor *t = &p->page_table;
    const char *file = p->inputs[RUN_PAGE_TABLE].file;
    if (t->type != IO_I64)
        cli_error(RUN_COMMAND, "page-table: %s has type %s, expected whole numbers of 32 or 64 bits", file,
                  io_type_name(t->type));
    else if (t->rank != 2 && t->rank != 4)
        cli_error(RUN_COMMAND, "page-table: %s has %d dimensions, expected 2 (sequence, page) or 4", file,
                  t->rank);
    else if (t->rank == 4 && (t->shape[1] != 1 || t->shape[2] != 1))
        cli_error(RUN_COMMAND, "page-table: %s has %lld and %lld elements along axes 1 and 2, expected 1",
                  file, (long long)t->shape[1], (long long)t->shape[2]);
    else {
        *out = fa_tensor_make(FA_I32, t->shape[0], 1, 1, t->shape[t->rank - 1]);
        return true;
    }
    return false;
}

static float element(const io_tensor *t, int64_t i)
{
    if (t->type == IO_F32)
        return ((const float *)t->data)[i];
    uint16_t bits = ((const uint16_t *)t->data)[i];
    return t->type == IO_F16 ? fa_f16_to_f32(bits) : fa_bf16_to_f32(bits);
}

/* The whole of a file of a few numbers. `t` is released in any case. */
static bool read_small(const run_options *o, run_problem *p, const char *what, const char *path, io_tensor *t)
{
    run_input in = {.own.fd = -1};
    bool ok = find(o, p, what, path, NULL, &in) && load(&in, t);
    (void)io_source_close(&in.own, NULL);
    return ok;
}

static bool has_elements(const char *what, const io_tensor *t, int axis, int64_t expected, const char *of)
{
    if (t->shape[axis] == expected)
        return true;
    const char *along = t->rank == 1 ? "" : axis == 0 ? " along axis 0" : " along axis 1";
    cli_error(RUN_COMMAND, "%s has %lld elements%s, expected %lld as the %s of q", what,
              (long long)t->shape[axis], along, (long long)expected, of);
    return false;
}

static void *numbers(const char *what, int64_t count, size_t size)
{
    void *memory = malloc((size_t)count * size + 1);
    if (!memory)
        cli_error(RUN_COMMAND, "%s: no memory for %lld numbers", what, (long long)count);
    return memory;
}

/* One number for each query head or, where `stride` is given, perhaps for each batch entry and head. */
static bool read_per_head(const run_options *o, run_problem *p, const char *what, const char *path,
                          float **out, int64_t *stride)
{
    int64_t batch = p->desc.q.shape[0], heads = p->desc.q.shape[1];
    io_tensor t = {0};
    fa_dtype dtype;
    if (!path)
        return true;
    bool ok = read_small(o, p, what, path, &t);
    if (ok && !to_dtype(t.type, &dtype))
        ok = bad_type(what, t.type, "f32 or f16");
    if (ok && t.rank != 1 && !(stride && t.rank == 2))
        ok = bad_rank(what, t.rank,
                      stride ? "1, the query heads, or 2, with the batch" : "1, the query heads");
    ok = ok && has_elements(what, &t, t.rank - 1, heads, "heads") &&
         (t.rank == 1 || has_elements(what, &t, 0, batch, "batch"));
    int64_t count = ok && t.rank == 2 ? batch * heads : heads;
    if (ok && t.rank == 2)
        *stride = heads;
    ok = ok && (*out = numbers(what, count, sizeof(float))) != NULL;
    for (int64_t i = 0; ok && i < count; i++)
        (*out)[i] = element(&t, i);
    io_tensor_free(&t);
    return ok;
}

/* One whole number for each batch entry. */
static bool read_lengths(const run_options *o, run_problem *p, const char *what, const char *path,
                         int64_t **out)
{
    int64_t batch = p->desc.q.shape[0];
    io_tensor t = {0};
    if (!path)
        return true;
    bool ok = read_small(o, p, what, path, &t);
    if (ok && t.type != IO_I64)
        ok = bad_type(what, t.type, "whole numbers of 32 or 64 bits");
    if (ok && t.rank != 1)
        ok = bad_rank(what, t.rank, "1, the batch");
    ok = ok && has_elements(what, &t, 0, batch, "batch") &&
         (*out = numbers(what, batch, sizeof(int64_t))) != NULL;
    if (ok && batch > 0)
        memcpy(*out, t.data, (size_t)batch * sizeof(int64_t));
    io_tensor_free(&t);
    return ok;
}

static bool read_lists(const run_options *o, run_problem *p)
{
    fa_attention_desc *d = &p->desc;
    if (!read_per_head(o, p, "alibi", o->alibi, &p->alibi, &d->alibi_stride) ||
        !read_per_head(o, p, "bias-factors", o->bias_factors, &p->bias_factors, NULL) ||
        !read_per_head(o, p, "sinks", o->sinks, &p->sinks, NULL) ||
        !read_lengths(o, p, "lens-q", o->lens_q, &p->lens_q) ||
        !read_lengths(o, p, "lens-kv", o->lens_kv, &p->lens_kv) ||
        !read_lengths(o, p, "first-kv", o->first_kv, &p->first_kv))
        return false;
    d->alibi_slopes = p->alibi;
    d->bias_factors = p->bias_factors;
    d->sinks = p->sinks;
    d->lens_q = p->lens_q;
    d->lens_kv = p->lens_kv;
    d->first_kv = p->first_kv;
    return true;
}

/* The output file has q's axes, with v's dim. */
static bool describe_output(const run_options *o, run_problem *p)
{
    static const char *const dtypes[] = {"f32", "f16"};
    fa_attention_desc *d = &p->desc;
    int64_t dim = d->v.shape[3];
    fa_dtype dtype = d->q.dtype == FA_BF16 ? FA_F32 : d->q.dtype;
    if (o->out_dtype)
        dtype = cli_word(RUN_COMMAND, "out-dtype", o->out_dtype, dtypes, 2) == 1 ? FA_F16 : FA_F32;
    d->o = d->q;
    d->o.dtype = dtype;
    d->o.shape[3] = dim;
    /* q's own strides show its layout. A dim over the limit will be refused, and might overflow here. */
    if (d->o.stride[3] && dim <= FA_MAX_HEAD_DIM)
        stride_bshd(&d->o);
    p->o = (io_tensor){.type = dtype == FA_F16 ? IO_F16 : IO_F32, .rank = p->q.rank};
    memcpy(p->o.shape, p->q.shape, sizeof(p->o.shape));
    p->o.shape[p->q.rank - 1] = dim;
    p->lse = (io_tensor){.type = IO_F32, .rank = p->q.rank - 1};
    for (int axis = 0; axis < p->lse.rank; axis++)
        p->lse.shape[axis] = d->q.shape[4 - p->q.rank + axis];
    return true;
}

static void describe_options(const run_options *o, run_problem *p)
{
    fa_attention_desc *d = &p->desc;
    d->struct_size = sizeof(*d);
    d->scale = isnan(o->scale) ? 0 : (float)o->scale;
    d->scale_is_set = !isnan(o->scale);
    d->softcap = isnan(o->softcap) ? 0 : (float)o->softcap;
    (void)cli_mask(RUN_COMMAND, o->causal, &d->mask);
    (void)cli_alignment(RUN_COMMAND, o->align, &d->alignment);
    d->window_left = o->window_left;
    d->window_right = o->window_right;
    d->prefix = o->prefix;
    d->want_lse = o->outputs[1].path != NULL;
    p->tuning =
        (fa_tuning){.struct_size = sizeof(p->tuning), .kernel = o->kernel, .splits = (int32_t)o->splits};
    d->tuning = &p->tuning;
}

/* Of each input that is given, the file and what it says of the tensor. */
static bool find_inputs(const run_options *o, run_problem *p)
{
    const struct {
        const char *what, *path, *name;
        io_tensor *tensor;
    } wanted[RUN_INPUTS] = {
        {"q", o->q, o->q_name, &p->q},
        {"k", o->k, o->k_name, &p->k},
        {"v", o->v, o->v_name, &p->v},
        {"bias", o->bias, o->bias_name, &p->bias},
        {"keep", o->keep, o->keep_name, &p->keep},
        [RUN_PAGE_TABLE] = {"page-table", o->page_table, o->page_table_name, &p->page_table},
        [RUN_EXPECT] = {"expect", o->expect, o->expect_name, &p->expect},
        {"k-scale", o->scales[RUN_K_SCALE], o->scale_names[RUN_K_SCALE], &p->scale[RUN_K_SCALE]},
        {"v-scale", o->scales[RUN_V_SCALE], o->scale_names[RUN_V_SCALE], &p->scale[RUN_V_SCALE]},
        {"k-zero", o->scales[RUN_K_ZERO], o->scale_names[RUN_K_ZERO], &p->scale[RUN_K_ZERO]},
        {"v-zero", o->scales[RUN_V_ZERO], o->scale_names[RUN_V_ZERO], &p->scale[RUN_V_ZERO]},
    };
    for (int i = 0; i < RUN_INPUTS; i++) {
        run_input *in = &p->inputs[i];
        if (!wanted[i].path && !wanted[i].name)
            continue;
        if (!find(o, p, wanted[i].what, wanted[i].path, wanted[i].name, in))
            return false;
        in->tensor = wanted[i].tensor;
        *in->tensor = in->found.tensor;
    }
    p->has_expect = o->expect || o->expect_name;
    return true;
}

bool run_describe(const run_options *o, run_problem *p)
{
    bool bshd = o->layout && strcmp(o->layout, "bshd") == 0;
    fa_attention_desc *d = &p->desc;

    const fa_dtype *of_k = o->kv.given ? &o->kv.k.dtype : NULL, *of_v = o->kv.given ? &o->kv.v.dtype : NULL;
    if (!find_inputs(o, p) || !describe("q", &p->q, bshd, NULL, NULL, &d->q) ||
        !describe("k", &p->k, bshd, of_k, &p->k_format, &d->k) ||
        (o->v_in_k == 0 && !describe("v", &p->v, bshd, of_v, &p->v_format, &d->v)))
        return false;
    if (o->v_in_k != 0) {
        d->v = d->k;
        d->v.shape[3] = o->v_in_k;
        kv_types_share(d);
    }
    if (!describe_scales(o, bshd, p))
        return false;
    if ((o->bias || o->bias_name) && !describe_scores("bias", &p->bias, &d->bias))
        return false;
    if ((o->keep || o->keep_name) && !describe_scores("keep", &p->keep, &d->keep))
        return false;
    if ((o->page_table || o->page_table_name) && !describe_pages(p, &d->page_table))
        return false;
    if (!read_lists(o, p))
        return false;
    describe_options(o, p);
    return describe_output(o, p);
}

static bool bad_page(const run_problem *p, int64_t index, int64_t page, int64_t least, int64_t most,
                     const char *because)
{
    const int64_t pages = p->desc.page_table.shape[3];
    cli_error(RUN_COMMAND,
              "page-table: %s: element (sequence %lld, page %lld) is %lld, expected %lld to %lld%s",
              p->inputs[RUN_PAGE_TABLE].file, (long long)(index / pages), (long long)(index % pages),
              (long long)page, (long long)least, (long long)most, because);
    return false;
}

/* To 32 bits, in place: no number is overwritten before it is read. */
static bool narrow_pages(run_problem *p)
{
    io_tensor *t = &p->page_table;
    char *data = t->data;
    const int64_t count = (int64_t)(t->bytes / sizeof(int64_t));
    for (int64_t i = 0; i < count; i++) {
        int64_t wide;
        memcpy(&wide, data + i * (int64_t)sizeof(wide), sizeof(wide));
        const int32_t narrow = (int32_t)wide;
        if (narrow != wide)
            return bad_page(p, i, wide, INT32_MIN, INT32_MAX, "");
        memcpy(data + i * (int64_t)sizeof(narrow), &narrow, sizeof(narrow));
    }
    t->bytes = (size_t)count * sizeof(int32_t);
    if (p->inputs[RUN_PAGE_TABLE].found.stored == sizeof(int64_t))
        cli_note(RUN_COMMAND, "page-table: %s holds whole numbers of 64 bits, taken as 32 bits",
                 p->inputs[RUN_PAGE_TABLE].file);
    return true;
}

/* Where keys lie of which a sequence uses one, there must be a page of the pool: not every device tells. */
static bool check_pages(const run_problem *p)
{
    const fa_attention_desc *d = &p->desc;
    const int64_t size = d->k.shape[2], pool = d->k.shape[0], pages = d->page_table.shape[3];
    const int32_t *table = p->page_table.data;
    for (int64_t n = 0; n < d->q.shape[0]; n++) {
        const int64_t first = p->first_kv ? p->first_kv[n] : 0,
                      keys = p->lens_kv ? p->lens_kv[n] : pages * size;
        const int64_t line = d->page_table.shape[0] > 1 ? n * pages : 0;
        for (int64_t i = first / size; first < keys && i <= (keys - 1) / size; i++) {
            if (table[line + i] < 0 || table[line + i] >= pool)
                return bad_page(p, line + i, table[line + i], 0, pool - 1, ", a page of k and v");
        }
    }
    return true;
}

bool run_load(run_problem *p)
{
    io_error error;
    for (int i = 0; i < RUN_INPUTS; i++) {
        if (p->inputs[i].source && !load(&p->inputs[i], p->inputs[i].tensor))
            return false;
    }
    const fa_attention_desc *d = &p->desc;
    if (!run_format_scale(&p->k_format, &d->k, &d->k_scale, &d->k_zero, &p->k, &p->scale[RUN_K_SCALE],
                          &p->scale[RUN_K_ZERO]) ||
        !run_format_scale(&p->v_format, &d->v, &d->v_scale, &d->v_zero, &p->v, &p->scale[RUN_V_SCALE],
                          &p->scale[RUN_V_ZERO]))
        return false;
    if (!run_format_apply(&p->k_format, &p->desc.k, &p->k) ||
        !run_format_apply(&p->v_format, &p->desc.v, &p->v))
        return false;
    if (p->inputs[RUN_PAGE_TABLE].source && !(narrow_pages(p) && check_pages(p)))
        return false;
    if (io_source_close(&p->file, &error))
        return true;
    cli_error(RUN_COMMAND, "file: %s", error.text);
    return false;
}

bool run_allocate(run_problem *p)
{
    const int64_t *shape = p->desc.o.shape;
    size_t rows = (size_t)(shape[0] * shape[1] * shape[2]);
    p->o.bytes = rows * (size_t)shape[3] * fa_dtype_size(p->desc.o.dtype);
    p->lse.bytes = p->desc.want_lse ? rows * sizeof(float) : 0;
    p->o.data = p->o.memory = calloc(1, p->o.bytes + 1);
    p->lse.data = p->lse.memory = calloc(1, p->lse.bytes + 1);
    if (p->o.data && p->lse.data)
        return true;
    cli_error(RUN_COMMAND, "no memory for the output, %zu bytes", p->o.bytes + p->lse.bytes);
    return false;
}

void run_free(run_problem *p)
{
    for (int i = 0; i < RUN_INPUTS; i++)
        (void)io_source_close(&p->inputs[i].own, NULL);
    (void)io_source_close(&p->file, NULL);
    io_tensor *const tensors[] = {&p->q,          &p->k,      &p->v, &p->bias, &p->keep,
                                  &p->page_table, &p->expect, &p->o, &p->lse};
    for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++)
        io_tensor_free(tensors[i]);
    for (int n = 0; n < RUN_SCALES; n++)
        io_tensor_free(&p->scale[n]);
    free(p->alibi);
    free(p->bias_factors);
    free(p->sinks);
    free(p->lens_q);
    free(p->lens_kv);
    free(p->first_kv);
}

fa_inputs run_inputs(const run_problem *p)
{
    return (fa_inputs){.q = p->q.data,
                       .k = p->k.data,
                       .v = p->desc.v_in_k ? p->k.data : p->v.data,
                       .bias = p->bias.data,
                       .keep = p->keep.data,
                       .page_table = p->page_table.data,
                       .k_scale = p->scale[RUN_K_SCALE].data,
                       .v_scale = p->scale[RUN_V_SCALE].data,
                       .k_zero = p->scale[RUN_K_ZERO].data,
                       .v_zero = p->scale[RUN_V_ZERO].data};
}
