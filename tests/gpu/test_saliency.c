/* SPDX-License-Identifier: Apache-2.0 */
/* Saliencies on a backend, whose name is the argument: against their definition in double precision. */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "tests/gpu/on_backend.h"

enum {
    BATCH = 2,
    HEADS_Q = 4,
    HEADS_KV = 2,
    GROUP = 2,
    ROWS = 9,
    KEYS = 71,
    DIM = 20,
    PAGE = 8,
    PAGES = 9, /* of a sequence */
    POOL = BATCH * PAGES + 1,
    MOST_KEYS = PAGE * PAGES,
    CODED_DIM = 32,
    GROUPS = 4, /* most of the dims of a key */
    PROBES = 5,
    WORDS = 3
};

typedef struct scene {
    fa_attention_desc desc;
    fa_saliency_desc saliency;
    int64_t lens[BATCH], first[BATCH], rows[BATCH];
    int32_t probes[BATCH][PROBES];
    int keys, dim;
    float slopes[HEADS_Q], factors[HEADS_Q], sinks[HEADS_Q];
    unsigned char q[BATCH * HEADS_Q * ROWS * CODED_DIM * 4], k[POOL * HEADS_KV * PAGE * CODED_DIM * 4];
    unsigned char k_scale[POOL * HEADS_KV * PAGE * GROUPS * 4], k_zero[POOL * HEADS_KV * PAGE * GROUPS * 4];
    int32_t table[BATCH][PAGES];
    float v[POOL * HEADS_KV * PAGE * CODED_DIM], bias[HEADS_Q * ROWS * MOST_KEYS];
    uint8_t keep[BATCH * ROWS * MOST_KEYS];
    uint32_t bits[BATCH * ROWS * WORDS];
    float lse[BATCH * HEADS_Q * ROWS];
    float out[BATCH * HEADS_Q * MOST_KEYS];
} scene;

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

/* A cache: pages, and a type of k, with scales of the given groups where there are any. */
typedef struct cache {
    fa_dtype dtype, scale, zero; /* a scale of FA_BOOL: none; a zero likewise */
    int keys, dims;              /* of a group; 0: all                        */
    float factor;
} cache;

static void make_scene(scene *s, int kind, const cache *in, random_state *random)
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

/* Work of the scene's lengths, of a plan whose own are the longest. `dynamic` is the plan's dynamic_lengths. */
static fa_buffer *make_work(const scene *s, fa_attention_desc *longest, int dynamic, fa_plan **plan)
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

/* With the description's own lengths (dynamic 0), or with those of work. */
static void run_scene_with(scene *s, int lost, int dynamic)
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

static void run_scene(scene *s, int lost)
{
    run_scene_with(s, lost, 0);
}

START_TEST(saliencies)
{
    static scene s;
    random_state random = {17};
    for (int kind = slow ? 7 : 0; kind < (slow ? 8 : 60) && device; kind++) {
        make_scene(&s, kind, NULL, &random);
        run_scene(&s, -1);
    }
}
END_TEST

/* Each format of caches, in pages and without. */
START_TEST(saliencies_of_caches)
{
    static const cache caches[] = {
        {FA_F16, FA_BOOL, FA_BOOL, 0, 0, 0},    {FA_E4M3, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_E5M2, FA_F32, FA_BOOL, 0, 0, 0},    {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_Q4_0, FA_BOOL, FA_BOOL, 0, 0, 0},   {FA_Q4_1, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_Q5_0, FA_BOOL, FA_BOOL, 0, 0, 0},   {FA_Q5_1, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_IQ4_NL, FA_BOOL, FA_BOOL, 0, 0, 0}, {FA_I8, FA_F16, FA_BOOL, 1, 0, 0.5f},
        {FA_I4, FA_BF16, FA_F16, 1, 8, 0},      {FA_I2, FA_F16, FA_BF16, 1, 16, 0},
        {FA_U8, FA_F32, FA_F32, 0, 0, 0},       {FA_U4, FA_F16, FA_F16, 0, 8, 2},
        {FA_U2, FA_F16, FA_F16, 8, 1, 0},       {FA_E2M1, FA_E4M3, FA_BOOL, 1, 16, 0.25f},
        {FA_E2M1, FA_E8M0, FA_BOOL, 1, 32, 0},  {FA_U1, FA_F16, FA_F16, 1, 16, 0},
        {FA_U2U1, FA_F16, FA_F16, 1, 16, 0},
    };
    static scene s;
    random_state random = {29};
    for (int i = 0; i < COUNT(caches) && device; i++) {
        if (slow && i % 7 != 1 && i != 10 && i != 14)
            continue;
        for (int turn = 0; turn < (slow ? 1 : 6); turn++) {
            cache in = caches[i];
            const int kind = i + 7 * turn;
            if (kind % 2 == 1 && in.keys > 1)
                in.keys = KEYS; /* rows without pages are no multiple of a group */
            make_scene(&s, kind, &in, &random);
            run_scene(&s, -1);
        }
    }
}
END_TEST

/* Lengths of one run, from the host and from the device. Kinds are chosen so that every term of scores occurs. */
START_TEST(saliencies_of_lengths)
{
    static const cache in = {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0};
    static scene s;
    random_state random = {41};
    for (int kind = slow ? 13 : 0; kind < (slow ? 16 : 60) && device; kind++) {
        for (int dynamic = 1; dynamic <= 2; dynamic++) {
            make_scene(&s, kind, kind % 2 == 0 ? &in : NULL, &random);
            run_scene_with(&s, -1, dynamic);
        }
    }
}
END_TEST

/* A page that the pool does not have: refused where the host sees it, else its keys are NaN and no others. */
START_TEST(saliencies_of_lost_pages)
{
    static const cache in = {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0};
    static const int32_t lost[] = {POOL, -1, INT32_MAX, INT32_MIN};
    static scene s;
    random_state random = {31};
    for (int i = 0; i < (slow ? 1 : COUNT(lost)) && device; i++) {
        make_scene(&s, 2 * i, &in, &random);
        s.table[0][3] = lost[i];
        if (!device->backend->host_pointers) {
            run_scene(&s, lost[i]);
            continue;
        }
        fa_saliency *saliency;
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
        fa_saliency_args args = {
            .struct_size = sizeof(args),
            .q = upload(s.q, sizeof(s.q)),
            .k = upload(s.k, sizeof(s.k)),
            .lse = upload(s.lse, sizeof(s.lse)),
            .keep = s.desc.keep.shape[0] ? upload(s.keep, sizeof(s.keep)) : NULL,
            .saliency = upload(s.out, sizeof(s.out)),
            .page_table = upload(s.table, sizeof(s.table)),
        };
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
        assert_message("page_table[0][3] is");
        fa_buffer *buffer[] = {args.q, args.k, args.lse, args.keep, args.saliency, args.page_table};
        for (int n = 0; n < COUNT(buffer); n++)
            fa_buffer_destroy(buffer[n]);
        fa_saliency_destroy(saliency);
    }
}
END_TEST

/* FlashMLA's rows, whose end is of another type than their codes, and which are v too; and rows that keep some elements. */
static void check_rows(fa_dtype type)
{
    enum { DIMS = 576, LATENT = 512, FEW = 6, HEADS = 2, KEPT = 200, BYTES = DIMS / 8 + 2 * KEPT };
    static float q[HEADS * DIMS], x[DIMS], rows[FEW][DIMS];
    static unsigned char k[FEW * 656];
    random_state random = {37};
    fa_attention_desc d = make_desc(1, HEADS, 1, 1, FEW, DIMS);
    fa_saliency_desc desc = {.struct_size = sizeof(desc), .attention = &d, .heads = HEADS};
    fa_saliency *saliency;
    double score[HEADS][FEW], size[HEADS][FEW];
    float lse[HEADS], out[HEADS * FEW];
    d.k.dtype = type;
    d.v_in_k = type == FA_FP8_DS_MLA;
    if (d.v_in_k) {
        d.v.dtype = type;
        d.v.shape[3] = d.o.shape[3] = LATENT;
    } else {
        d.k = fa_tensor_make_bitmap(1, 1, FEW, DIMS, KEPT);
    }
    for (int i = 0; i < HEADS * DIMS; i++)
        q[i] = random_float(&random, -1, 1);
    for (int j = 0; j < FEW; j++) {
        for (int e = 0; e < DIMS; e++) /* scales of groups differ */
            x[e] = random_float(&random, -1, 1) * (float)(1 + e / 128);
        fa_elements_store(type, k, j * DIMS, x, DIMS);
        for (int e = 0; e < DIMS && d.v_in_k; e++)
            rows[j][e] = fa_element(type, k, j * DIMS + e);
        if (!d.v_in_k) {
            ck_assert_int_eq(fa_bitmap_store(k + j * BYTES, BYTES, x, DIMS), FA_OK);
            ck_assert_int_eq(fa_bitmap_load(k + j * BYTES, BYTES, rows[j], DIMS), FA_OK);
        }
    }
    for (int h = 0; h < HEADS; h++) {
        double sum = 0;
        for (int j = 0; j < FEW; j++) {
            score[h][j] = size[h][j] = 0;
            for (int e = 0; e < DIMS; e++) {
                const double product = (double)q[h * DIMS + e] * (double)rows[j][e] / sqrt(DIMS);
                score[h][j] += product;
                size[h][j] += fabs(product);
            }
            sum += exp(score[h][j]);
        }
        lse[h] = (float)log(sum);
    }
    ck_assert_msg(fa_saliency_create(device, &desc, &saliency) == FA_OK, "%s", fa_last_error());
    const fa_saliency_args args = {.struct_size = sizeof(args),
                                   .q = upload(q, sizeof(q)),
                                   .k = upload(k, sizeof(k)),
                                   .lse = upload(lse, sizeof(lse)),
                                   .saliency = upload(out, sizeof(out))};
    ck_assert_msg(fa_saliency_run(saliency, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.saliency, 0, out, sizeof(out)), FA_OK);
    for (int h = 0; h < HEADS; h++) {
        for (int j = 0; j < FEW; j++) {
            const double off = score[h][j] - (double)lse[h], weight = exp(off),
                         wrong = 2 * (DIMS + 4) * size[h][j];
            ck_assert_msg(fabs((double)out[h * FEW + j] - weight) <=
                              weight * (2 * wrong + 8 + 4 * fabs(off)) * 0x1p-24,
                          "head %d, key %d is %.9g, expected %.9g", h, j, (double)out[h * FEW + j], weight);
        }
    }
    fa_buffer *const buffer[] = {args.q, args.k, args.lse, args.saliency};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_saliency_destroy(saliency);
}

START_TEST(saliencies_of_rows)
{
    if (!device)
        return;
    check_rows(FA_FP8_DS_MLA);
    check_rows(FA_BITMAP_F16);
}
END_TEST

START_TEST(saliencies_refused)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device)
        return;
    make_scene(&s, 0, NULL, &random);
    ck_assert_int_eq(fa_saliency_create(device, NULL, &saliency), FA_INVALID);
    ck_assert_int_eq(fa_saliency_create(NULL, &s.saliency, &saliency), FA_INVALID);
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, NULL), FA_INVALID);
    s.saliency.heads = 3;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("heads is 3, expected 0, 2 or 4");
    s.saliency.heads = 0;
    s.saliency.probes = -1;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("probes is -1");
    s.saliency.probes = 0;
    s.saliency.sums = 2;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("sums is 2");
    s.saliency.sums = 0;
    s.saliency.attention = NULL;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("attention is NULL");
    s.saliency.attention = &s.desc;
    s.desc.k = fa_tensor_make(FA_F32, BATCH, HEADS_KV, KEYS, 24);
    s.desc.q = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, 24);
    s.desc.o = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, s.desc.o.shape[3]);
    s.desc.bias.shape[0] = s.desc.keep.shape[0] = 0;
    s.desc.lens_q = NULL;
    if (device->limits.loop_turns > 0) {
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_UNSUPPORTED);
        assert_message("1048576 rows of 2 heads and 24 dims, but");
    }
    make_scene(&s, 0, NULL, &random);
    const fa_tensor of_q = s.desc.q, of_o = s.desc.o;
    s.desc.q.shape[1] = s.desc.o.shape[1] = 0; /* nothing to do, and nothing wrong */
    s.saliency.heads = 0;
    ck_assert_msg(fa_saliency_create(device, &s.saliency, &saliency) == FA_OK, "%s", fa_last_error());
    fa_saliency_destroy(saliency);
    s.desc.q = of_q;
    s.desc.o = of_o;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
    fa_buffer *q = upload(s.q, sizeof(s.q)), *k = upload(s.k, sizeof(s.k)),
              *lse = upload(s.lse, sizeof(s.lse));
    const fa_saliency_args good = {.struct_size = sizeof(good), .q = q, .k = k, .lse = lse, .saliency = q};
    fa_saliency_args bad[4] = {good, good, good, good};
    bad[1].bias = lse;
    bad[2].lse = NULL;
    bad[3].saliency_offset = sizeof(s.q) - 4;
    static const char *const message[] = {"args.saliency overlaps args.q",
                                          "args.bias is given, expected NULL", "args.lse is NULL",
                                          "args.saliency has 4 bytes"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_saliency_run(saliency, NULL, &good), FA_INVALID);
    ck_assert_int_eq(fa_saliency_run(NULL, queue, &good), FA_INVALID);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(q);
    fa_buffer_destroy(k);
    fa_buffer_destroy(lse);
    fa_saliency_destroy(saliency);
    fa_saliency_destroy(NULL);
}
END_TEST

/* A plan of another description, or whose lengths are its own; work where there is no plan, or of another plan. */
START_TEST(lengths_refused)
{
    static scene s;
    random_state random = {43};
    fa_attention_desc longest, other;
    fa_saliency *saliency = NULL;
    fa_plan *plan, *second, *fixed;
    if (!device || slow)
        return;
    make_scene(&s, 0, NULL, &random);
    fa_buffer *work = make_work(&s, &longest, 1, &plan), *wrong = make_work(&s, &other, 1, &second);
    fa_saliency_desc d = s.saliency;
    d.attention = &longest;
    ck_assert_int_eq(fa_plan_create(device, &s.desc, &fixed), FA_OK);
    d.plan = fixed;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of a description with dynamic_lengths 0, expected 1 or 2");
    d.plan = plan;
    longest.mask = longest.mask == FA_MASK_NONE ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of another description than attention");
    longest.mask = s.desc.mask;
    longest.scale =
        0.5f; /* of scores, as are softcap and the values of slopes, of which the work says nothing */
    longest.q.stride[0] = (HEADS_Q * ROWS + 4) * DIM;
    longest.q.stride[1] = ROWS * DIM;
    longest.q.stride[2] = DIM;
    longest.q.stride[3] = 1;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of another description than attention");
    d.attention = &other;
    ck_assert_msg(fa_saliency_create(device, &d, &saliency) == FA_OK, "%s", fa_last_error());
    fa_buffer *q = upload(s.q, sizeof(s.q)), *k = upload(s.k, sizeof(s.k)),
              *lse = upload(s.lse, sizeof(s.lse)), *out = upload(s.out, sizeof(s.out));
    fa_saliency_args args = {.struct_size = sizeof(args),
                             .q = q,
                             .k = k,
                             .lse = lse,
                             .saliency = out,
                             .work = wrong,
                             .work_offset = 256};
    if (device->backend->host_pointers) {
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
        assert_message("args.work holds no work that fa_plan_schedule() made for the description's plan");
    }
    args.work = work;
    args.work_offset = 128;
    ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
    assert_message("args.work_offset is 128, expected a multiple of 256");
    fa_saliency_destroy(saliency);
    d.plan = NULL;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_OK);
    args.work_offset = 256;
    ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
    assert_message("args.work is given, expected NULL: the description has no plan");
    fa_saliency_destroy(saliency);
    fa_plan_destroy(plan);
    fa_plan_destroy(second);
    fa_plan_destroy(fixed);
    fa_buffer *const buffer[] = {work, wrong, q, k, lse, out};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
}
END_TEST

/* Each request for memory fails once. */
START_TEST(saliencies_out_of_memory)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_scene(&s, 7, NULL, &random);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
    fa_saliency_destroy(saliency);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(saliency);
    }
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("saliency");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, saliencies);
    tcase_add_test(tc, saliencies_of_caches);
    tcase_add_test(tc, saliencies_of_lengths);
    tcase_add_test(tc, saliencies_of_lost_pages);
    tcase_add_test(tc, saliencies_of_rows);
    tcase_add_test(tc, saliencies_refused);
    tcase_add_test(tc, lengths_refused);
    tcase_add_test(tc, saliencies_out_of_memory);
    return run_on_backend(suite);
}
