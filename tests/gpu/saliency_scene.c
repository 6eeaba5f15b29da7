/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/saliency_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

static void fill(fa_dtype dtype, void *to, int count, random_state *random)
{
    float x[32]; /* whole blocks of any format; as many as there are of floats */
    for (int i = 0; i < count; i += COUNT(x)) {
        for (int n = 0; n < COUNT(x); n++)
            x[n] = random_float(random, -2, 2);
        fa_elements_store(dtype, to, i, x, count - i < COUNT(x) ? count - i : COUNT(x));
    }
}

static void make_lse(scene *s)
{
    static double o[BATCH * HEADS_Q * ROWS * CODED_DIM], lse[BATCH * HEADS_Q * ROWS];
    const fa_inputs inputs = {
        .q = s->q,
        .k = s->k,
        .v = s->v,
        .k_scale = s->desc.k_scale.shape[0] ? s->k_scale : NULL,
        .k_zero = s->desc.k_zero.shape[0] ? s->k_zero : NULL,
        .page_table = s->desc.page_table.shape[0] ? &s->table[0][0] : NULL,
        .bias = s->desc.bias.shape[0] ? s->bias : NULL,
        .keep = s->desc.keep.shape[0] == 0      ? NULL
                : s->desc.keep.dtype == FA_BOOL ? (const void *)s->keep
                                                : s->bits,
    };
    ck_assert_msg(fa_reference_attention(context, &s->desc, &inputs, o, lse) == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < COUNT(s->lse); i++)
        s->lse[i] = (float)lse[i];
}

/* What lies in k, and in tensors of its scales: as the description says, which is without bias and `keep` yet. */
static void make_cache(scene *s, random_state *random)
{
    const fa_tensor *scale = &s->desc.k_scale, *zero = &s->desc.k_zero;
    fill(s->desc.k.dtype, s->k, POOL * HEADS_KV * PAGE * s->dim, random);
    for (int i = 0; i < POOL * HEADS_KV * PAGE * GROUPS; i++) {
        const float x = random_float(random, 0.1f, 0.4f), y = random_float(random, -0.5f, 0.5f);
        if (scale->shape[0] > 0)
            fa_elements_store(scale->dtype, s->k_scale, i, &x, 1);
        if (zero->shape[0] > 0)
            fa_elements_store(zero->dtype, s->k_zero, i, &y, 1);
    }
}

/* k and v as pools, whose pages are dealt from the last one on. The first is nobody's. */
static void make_pages(scene *s)
{
    s->keys = MOST_KEYS;
    s->desc.k.shape[0] = s->desc.v.shape[0] = POOL;
    s->desc.k.shape[2] = s->desc.v.shape[2] = PAGE;
    s->desc.page_table = fa_tensor_make(FA_I32, BATCH, 1, 1, PAGES);
    for (int i = 0; i < BATCH * PAGES; i++)
        s->table[i % BATCH][i / BATCH] = POOL - 1 - i;
}

void make_scene(scene *s, int kind, const cache *in, random_state *random)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    memset(s, 0, sizeof(*s));
    s->keys = KEYS;
    s->dim = in ? CODED_DIM : DIM;
    s->desc = make_desc(BATCH, HEADS_Q, HEADS_KV, ROWS, KEYS, s->dim);
    s->desc.q.dtype = types[kind % 3];
    s->desc.k.dtype = in ? in->dtype : types[kind / 3 % 3];
    if (in && kind % 2 == 0)
        make_pages(s);
    if (in && in->scale != FA_BOOL) {
        const int64_t *k = s->desc.k.shape;
        s->desc.k_scale = fa_tensor_make(in->scale, in->keys ? k[0] : 1, k[1], in->keys ? k[2] / in->keys : 1,
                                         in->dims ? k[3] / in->dims : 1);
        s->desc.k_factor = in->factor;
    }
    if (in && in->zero != FA_BOOL) {
        s->desc.k_zero = s->desc.k_scale;
        s->desc.k_zero.dtype = in->zero;
    }
    s->desc.lens_kv = s->lens;
    s->desc.first_kv = s->first;
    s->desc.lens_q = s->rows;
    s->desc.mask = kind % 4 == 3 ? FA_MASK_NONE : FA_MASK_CAUSAL_BOTTOM_RIGHT;
    s->desc.window_left = kind % 5 == 2 ? 30 : 0;
    s->lens[0] = s->keys - (s->keys > KEYS);
    s->lens[1] = random_between(random, 4, s->keys); /* fewer than rows: some see nothing */
    s->first[0] = kind % 2 ? 3 : 0;
    s->rows[0] = ROWS;
    s->rows[1] = kind % 5 == 3 ? 0 : random_between(random, 1, ROWS);
    fill(s->desc.q.dtype, s->q, BATCH * HEADS_Q * ROWS * s->dim, random);
    make_cache(s, random);
    for (int i = 0; i < COUNT(s->bias); i++)
        s->bias[i] = random_float(random, -2, 2);
    for (int h = 0; h < HEADS_Q; h++) {
        s->slopes[h] = random_float(random, 0, 0.2f);
        s->factors[h] = random_float(random, 0.5f, 1.5f);
        s->sinks[h] = random_float(random, -1, 1);
    }
    for (int i = 0; i < COUNT(s->keep); i++)
        s->keep[i] = random_bits(random) % 4 != 0;
    for (int i = 0; i < COUNT(s->bits); i++)
        s->bits[i] = (uint32_t)(random_bits(random) | random_bits(random));
    if (kind % 2 == 1) {
        s->desc.bias = fa_tensor_make(FA_F32, 1, HEADS_Q, ROWS, s->keys);
        s->desc.bias_factors = kind % 4 == 1 ? s->factors : NULL;
    }
    if (kind % 3 == 1)
        s->desc.alibi_slopes = s->slopes;
    if (kind % 4 >= 2)
        s->desc.keep = kind % 4 == 2 ? fa_tensor_make(FA_BOOL, BATCH, 1, ROWS, s->keys)
                                     : fa_tensor_make(FA_I32, BATCH, 1, ROWS, WORDS);
    if (kind % 3 == 2) {
        s->desc.softcap = 3;
        s->desc.sinks = s->sinks;
    }
    s->saliency = (fa_saliency_desc){
        .struct_size = sizeof(s->saliency),
        .attention = &s->desc,
        .probes = kind % 2 ? PROBES : 0,
        .heads = kind % 3 == 0 ? HEADS_Q : 0,
        .sums = kind % 5 == 4,
    };
    for (int i = 0; i < BATCH * PROBES; i++)
        s->probes[i / PROBES][i % PROBES] = (int32_t)random_between(random, -1, ROWS);
    make_lse(s);
}

/* Whether row i of entry b sees key j: as attention.h has it, without a prefix. */
static bool sees(const scene *s, int b, int i, int j)
{
    const int64_t p = i + s->lens[b] - s->rows[b];
    if (j < s->first[b] || j >= s->lens[b] || (s->desc.mask != FA_MASK_NONE && j > p))
        return false;
    if (s->desc.window_left > 0 && j <= p - s->desc.window_left)
        return false;
    if (s->desc.keep.shape[0] == 0)
        return true;
    return s->desc.keep.dtype == FA_BOOL ? s->keep[(b * ROWS + i) * s->keys + j] != 0
                                         : (s->bits[(b * ROWS + i) * WORDS + j / 32] >> (j % 32) & 1) != 0;
}

/* Element d of a key, and in *off what a decoder's products and sums are relative to. */
static double element_of(const scene *s, int b, int head, int j, int d, double *off)
{
    const bool paged = s->desc.page_table.shape[0] > 0;
    const fa_tensor *k = &s->desc.k, *scale = &s->desc.k_scale;
    const int64_t page = paged ? s->table[b][j / PAGE] : b, within = paged ? j % PAGE : j;
    const double x =
        (double)fa_element(k->dtype, s->k, ((page * HEADS_KV + head) * k->shape[2] + within) * s->dim + d);
    *off = 0;
    if (scale->shape[0] == 0)
        return x;
    const int64_t at = (((scale->shape[0] > 1 ? page * HEADS_KV : 0) + head) * scale->shape[2] +
                        within * scale->shape[2] / k->shape[2]) *
                           scale->shape[3] +
                       d * scale->shape[3] / s->dim;
    const float factor = s->desc.k_factor != 0 ? s->desc.k_factor : 1;
    const double product = x * (double)(fa_element(scale->dtype, s->k_scale, at) * factor);
    const double zero = s->desc.k_zero.shape[0] ? (double)fa_element(s->desc.k_zero.dtype, s->k_zero, at) : 0;
    *off = fabs(product) + fabs(zero);
    return product + zero;
}

/* A key's weight in a row, and how far f32 may be off: a score by its products and terms, a weight by that. */
static double weight_of(const scene *s, int b, int h, int i, int j, double *off)
{
    const double u = 0x1p-24, scale = 1 / sqrt(s->dim), lse = (double)s->lse[(b * HEADS_Q + h) * ROWS + i];
    double x = 0, size = 0, decoded = 0;
    for (int d = 0; d < s->dim; d++) {
        double rounded;
        const double q =
            (double)fa_element(s->desc.q.dtype, s->q, ((b * HEADS_Q + h) * ROWS + i) * s->dim + d);
        const double product = q * element_of(s, b, h / GROUP, j, d, &rounded);
        x += product;
        size += fabs(product);
        decoded += fabs(q) * rounded;
    }
    x *= scale;
    double wrong = (2 * (s->dim + 4) * size + 2 * decoded) * u * scale;
    if (s->desc.softcap > 0) {
        x = (double)s->desc.softcap * tanh(x / (double)s->desc.softcap);
        wrong += 8 * u * (double)s->desc.softcap;
    }
    if (s->desc.alibi_slopes) {
        const double slope = (double)s->slopes[h] * fabs((double)(i + s->lens[b] - s->rows[b] - j));
        x -= slope;
        wrong += 4 * u * (slope + fabs(x));
    }
    if (s->desc.bias.shape[0] > 0) {
        const double bias = (double)s->bias[(h * ROWS + i) * s->keys + j] *
                            (s->desc.bias_factors ? (double)s->factors[h] : 1);
        x += bias;
        wrong += 4 * u * (fabs(bias) + fabs(x));
    }
    const double weight = exp(x - lse);
    *off = weight * (2 * wrong + u * (8 + 4 * fabs(x - lse)));
    return weight;
}

/* Keys of page `lost` are NaN. */
static void check_scene(const scene *s, int lost)
{
    const int heads = s->saliency.heads ? HEADS_Q : HEADS_KV, each = HEADS_Q / heads;
    const int count = s->saliency.probes ? PROBES : ROWS;
    for (int line = 0; line < BATCH * heads; line++) {
        const int b = line / heads, head = line % heads;
        for (int j = 0; j < s->keys; j++) {
            double sum = 0, off = 0;
            int seen = 0;
            for (int n = 0; n < count * each; n++) {
                const int i = s->saliency.probes ? s->probes[b][n / each] : n / each,
                          h = head * each + n % each;
                double wrong;
                if (i < 0 || i >= s->rows[b] || !sees(s, b, i, j))
                    continue;
                seen++;
                if (s->table[b][j / PAGE] == lost)
                    continue; /* there is no key to read */
                sum += weight_of(s, b, h, i, j, &wrong);
                off += wrong;
            }
            const double among = s->saliency.sums || seen == 0 ? 1 : seen;
            const float found = s->out[line * s->keys + j];
            if (j < s->first[b] || j >= s->lens[b])
                ck_assert_msg(found == -7, "entry %d, key %d beyond the keys is %g", b, j, (double)found);
            else if (s->table[b][j / PAGE] == lost && seen > 0)
                ck_assert_msg(isnan(found), "entry %d, head %d, key %d is %g, expected NaN", b, head, j,
                              (double)found);
            else
                ck_assert_msg(fabs((double)found - sum / among) <=
                                  off / among + (count * each + 2) * 0x1p-24 * sum / among,
                              "entry %d, head %d, key %d is %.9g, expected %.9g", b, head, j, (double)found,
                              sum / among);
        }
    }
}

static fa_buffer *upload_scales(const fa_tensor *t, const void *from, size_t bytes)
{
    return t->shape[0] > 0 ? upload(from, bytes) : NULL;
}

fa_buffer *make_work(const scene *s, fa_attention_desc *longest, int dynamic, fa_plan **plan)
{
    static const int64_t none[BATCH], rows[BATCH] = {ROWS, ROWS};
    static int64_t keys[BATCH];
    int32_t rows32[BATCH], keys32[BATCH], first32[BATCH];
    fa_buffer *work;
    for (int b = 0; b < BATCH; b++) {
        keys[b] = s->keys;
        rows32[b] = (int32_t)s->rows[b];
        keys32[b] = (int32_t)s->lens[b];
        first32[b] = (int32_t)s->first[b];
    }
    *longest = s->desc;
    longest->lens_q = rows;
    longest->lens_kv = keys;
    longest->first_kv = none;
    longest->dynamic_lengths = dynamic;
    ck_assert_msg(fa_plan_create(device, longest, plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(*plan) + 256, &work), FA_OK);
    if (dynamic == 1) {
        const fa_lengths lengths = {
            .struct_size = sizeof(lengths), .lens_q32 = rows32, .lens_kv32 = keys32, .first_kv32 = first32};
        ck_assert_msg(fa_plan_schedule(*plan, queue, &lengths, work, 256) == FA_OK, "%s", fa_last_error());
        return work;
    }
    fa_buffer *const lists[] = {upload(rows32, sizeof(rows32)), upload(keys32, sizeof(keys32)),
                                upload(first32, sizeof(first32))};
    const fa_device_lengths lengths = {
        .struct_size = sizeof(lengths), .lens_q = lists[0], .lens_kv = lists[1], .first_kv = lists[2]};
    ck_assert_msg(fa_plan_schedule_device(*plan, queue, &lengths, work, 256) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    for (int i = 0; i < COUNT(lists); i++)
        fa_buffer_destroy(lists[i]);
    return work;
}

void run_scene_with(scene *s, int lost, int dynamic)
{
    fa_saliency *saliency;
    fa_attention_desc longest;
    fa_saliency_desc desc = s->saliency;
    fa_plan *plan = NULL;
    fa_buffer *work = dynamic ? make_work(s, &longest, dynamic, &plan) : NULL;
    if (work) {
        desc.attention = &longest;
        desc.plan = plan;
    }
    ck_assert_msg(fa_saliency_create(device, &desc, &saliency) == FA_OK, "%s", fa_last_error());
    fa_plan_destroy(plan);
    for (int i = 0; i < COUNT(s->out); i++)
        s->out[i] = -7;
    const bool keep = s->desc.keep.shape[0] > 0, bytes = s->desc.keep.dtype == FA_BOOL;
    fa_saliency_args args = {
        .struct_size = sizeof(args),
        .q = upload(s->q, sizeof(s->q)),
        .k = upload(s->k, sizeof(s->k)),
        .lse = upload(s->lse, sizeof(s->lse)),
        .saliency = upload(s->out, sizeof(s->out)),
        .k_scale = upload_scales(&s->desc.k_scale, s->k_scale, sizeof(s->k_scale)),
        .k_zero = upload_scales(&s->desc.k_zero, s->k_zero, sizeof(s->k_zero)),
        .work = work,
        .work_offset = work ? 256 : 0,
    };
    if (s->desc.page_table.shape[0] > 0)
        args.page_table = upload(s->table, sizeof(s->table));
    if (keep)
        args.keep = bytes ? upload(s->keep, sizeof(s->keep)) : upload(s->bits, sizeof(s->bits));
    if (s->desc.bias.shape[0] > 0)
        args.bias = upload(s->bias, sizeof(s->bias));
    if (s->saliency.probes > 0)
        args.probes = upload(s->probes, sizeof(s->probes));
    ck_assert_msg(fa_saliency_run(saliency, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.saliency, 0, s->out, sizeof(s->out)), FA_OK);
    check_scene(s, lost);
    fa_buffer *buffer[] = {args.q,      args.k,          args.lse,     args.saliency, args.keep, args.bias,
                           args.probes, args.page_table, args.k_scale, args.k_zero,   work};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_saliency_destroy(saliency);
}

void run_scene(scene *s, int lost)
{
    run_scene_with(s, lost, 0);
}
