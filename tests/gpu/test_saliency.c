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
    PROBES = 5,
    WORDS = 3
};

typedef struct scene {
    fa_attention_desc desc;
    fa_saliency_desc saliency;
    int64_t lens[BATCH], first[BATCH];
    int32_t probes[BATCH][PROBES];
    float slopes[HEADS_Q], factors[HEADS_Q], sinks[HEADS_Q];
    unsigned char q[BATCH * HEADS_Q * ROWS * DIM * 4], k[BATCH * HEADS_KV * KEYS * DIM * 4];
    float v[BATCH * HEADS_KV * KEYS * DIM], bias[HEADS_Q * ROWS * KEYS];
    uint8_t keep[BATCH * ROWS * KEYS];
    uint32_t bits[BATCH * ROWS * WORDS];
    float lse[BATCH * HEADS_Q * ROWS];
    float out[BATCH * HEADS_Q * KEYS];
} scene;

static void fill(fa_dtype dtype, void *to, int count, random_state *random)
{
    for (int i = 0; i < count; i++) {
        const float x = random_float(random, -2, 2);
        fa_elements_store(dtype, to, i, &x, 1);
    }
}

static void make_lse(scene *s)
{
    static double o[BATCH * HEADS_Q * ROWS * DIM], lse[BATCH * HEADS_Q * ROWS];
    const fa_inputs inputs = {
        .q = s->q,
        .k = s->k,
        .v = s->v,
        .bias = s->desc.bias.shape[0] ? s->bias : NULL,
        .keep = s->desc.keep.shape[0] == 0      ? NULL
                : s->desc.keep.dtype == FA_BOOL ? (const void *)s->keep
                                                : s->bits,
    };
    ck_assert_msg(fa_reference_attention(context, &s->desc, &inputs, o, lse) == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < COUNT(s->lse); i++)
        s->lse[i] = (float)lse[i];
}

static void make_scene(scene *s, int kind, random_state *random)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    memset(s, 0, sizeof(*s));
    s->desc = make_desc(BATCH, HEADS_Q, HEADS_KV, ROWS, KEYS, DIM);
    s->desc.q.dtype = types[kind % 3];
    s->desc.k.dtype = types[kind / 3 % 3];
    s->desc.lens_kv = s->lens;
    s->desc.first_kv = s->first;
    s->desc.mask = kind % 4 == 3 ? FA_MASK_NONE : FA_MASK_CAUSAL_BOTTOM_RIGHT;
    s->desc.window_left = kind % 5 == 2 ? 30 : 0;
    s->lens[0] = KEYS;
    s->lens[1] = random_between(random, 4, KEYS); /* fewer than rows: some see nothing */
    s->first[0] = kind % 2 ? 3 : 0;
    fill(s->desc.q.dtype, s->q, BATCH * HEADS_Q * ROWS * DIM, random);
    fill(s->desc.k.dtype, s->k, BATCH * HEADS_KV * KEYS * DIM, random);
    for (int i = 0; i < COUNT(s->bias); i++)
        s->bias[i] = random_float(random, -2, 2);
    for (int h = 0; h < HEADS_Q; h++) {
        s->slopes[h] = random_float(random, 0, 0.2f);
        s->factors[h] = random_float(random, 0.5f, 1.5f);
        s->sinks[h] = random_float(random, -1, 1);
    }
    for (int i = 0; i < BATCH * ROWS * KEYS; i++)
        s->keep[i] = random_bits(random) % 4 != 0;
    for (int i = 0; i < COUNT(s->bits); i++)
        s->bits[i] = (uint32_t)(random_bits(random) | random_bits(random));
    if (kind % 2 == 1) {
        s->desc.bias = fa_tensor_make(FA_F32, 1, HEADS_Q, ROWS, KEYS);
        s->desc.bias_factors = kind % 4 == 1 ? s->factors : NULL;
    }
    if (kind % 3 == 1)
        s->desc.alibi_slopes = s->slopes;
    if (kind % 4 >= 2)
        s->desc.keep = kind % 4 == 2 ? fa_tensor_make(FA_BOOL, BATCH, 1, ROWS, KEYS)
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
    const int64_t p = i + s->lens[b] - ROWS;
    if (j < s->first[b] || j >= s->lens[b] || (s->desc.mask != FA_MASK_NONE && j > p))
        return false;
    if (s->desc.window_left > 0 && j <= p - s->desc.window_left)
        return false;
    if (s->desc.keep.shape[0] == 0)
        return true;
    return s->desc.keep.dtype == FA_BOOL ? s->keep[(b * ROWS + i) * KEYS + j] != 0
                                         : (s->bits[(b * ROWS + i) * WORDS + j / 32] >> (j % 32) & 1) != 0;
}

/* A key's weight in a row, and how far f32 may be off: a score by its products and terms, a weight by that. */
static double weight_of(const scene *s, int b, int h, int i, int j, double *off)
{
    const double u = 0x1p-24, scale = 1 / sqrt(DIM), lse = (double)s->lse[(b * HEADS_Q + h) * ROWS + i];
    double x = 0, size = 0;
    for (int d = 0; d < DIM; d++) {
        const double product =
            (double)fa_element(s->desc.q.dtype, s->q, ((b * HEADS_Q + h) * ROWS + i) * DIM + d) *
            (double)fa_element(s->desc.k.dtype, s->k, ((b * HEADS_KV + h / GROUP) * KEYS + j) * DIM + d);
        x += product;
        size += fabs(product);
    }
    x *= scale;
    double wrong = 2 * (DIM + 4) * u * size * scale;
    if (s->desc.softcap > 0) {
        x = (double)s->desc.softcap * tanh(x / (double)s->desc.softcap);
        wrong += 8 * u * (double)s->desc.softcap;
    }
    if (s->desc.alibi_slopes) {
        const double slope = (double)s->slopes[h] * fabs((double)(i + s->lens[b] - ROWS - j));
        x -= slope;
        wrong += 4 * u * (slope + fabs(x));
    }
    if (s->desc.bias.shape[0] > 0) {
        const double bias =
            (double)s->bias[(h * ROWS + i) * KEYS + j] * (s->desc.bias_factors ? (double)s->factors[h] : 1);
        x += bias;
        wrong += 4 * u * (fabs(bias) + fabs(x));
    }
    const double weight = exp(x - lse);
    *off = weight * (2 * wrong + u * (8 + 4 * fabs(x - lse)));
    return weight;
}

static void check_scene(const scene *s)
{
    const int heads = s->saliency.heads ? HEADS_Q : HEADS_KV, each = HEADS_Q / heads;
    const int count = s->saliency.probes ? PROBES : ROWS;
    for (int line = 0; line < BATCH * heads; line++) {
        const int b = line / heads, head = line % heads;
        for (int j = 0; j < KEYS; j++) {
            double sum = 0, off = 0;
            int seen = 0;
            for (int n = 0; n < count * each; n++) {
                const int i = s->saliency.probes ? s->probes[b][n / each] : n / each,
                          h = head * each + n % each;
                double wrong;
                if (i < 0 || i >= ROWS || !sees(s, b, i, j))
                    continue;
                seen++;
                sum += weight_of(s, b, h, i, j, &wrong);
                off += wrong;
            }
            const double among = s->saliency.sums || seen == 0 ? 1 : seen;
            const float found = s->out[line * KEYS + j];
            if (j < s->first[b] || j >= s->lens[b])
                ck_assert_msg(found == -7, "entry %d, key %d beyond the keys is %g", b, j, (double)found);
            else
                ck_assert_msg(fabs((double)found - sum / among) <=
                                  off / among + (count * each + 2) * 0x1p-24 * sum / among,
                              "entry %d, head %d, key %d is %.9g, expected %.9g", b, head, j, (double)found,
                              sum / among);
        }
    }
}

static void run_scene(scene *s)
{
    fa_saliency *saliency;
    ck_assert_msg(fa_saliency_create(device, &s->saliency, &saliency) == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < COUNT(s->out); i++)
        s->out[i] = -7;
    const bool keep = s->desc.keep.shape[0] > 0, bytes = s->desc.keep.dtype == FA_BOOL;
    fa_saliency_args args = {
        .struct_size = sizeof(args),
        .q = upload(s->q, sizeof(s->q)),
        .k = upload(s->k, sizeof(s->k)),
        .lse = upload(s->lse, sizeof(s->lse)),
        .saliency = upload(s->out, sizeof(s->out)),
    };
    if (keep)
        args.keep = bytes ? upload(s->keep, sizeof(s->keep)) : upload(s->bits, sizeof(s->bits));
    if (s->desc.bias.shape[0] > 0)
        args.bias = upload(s->bias, sizeof(s->bias));
    if (s->saliency.probes > 0)
        args.probes = upload(s->probes, sizeof(s->probes));
    ck_assert_msg(fa_saliency_run(saliency, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.saliency, 0, s->out, sizeof(s->out)), FA_OK);
    check_scene(s);
    fa_buffer *buffer[] = {args.q, args.k, args.lse, args.saliency, args.keep, args.bias, args.probes};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_saliency_destroy(saliency);
}

START_TEST(saliencies)
{
    static scene s;
    random_state random = {17};
    for (int kind = slow ? 7 : 0; kind < (slow ? 8 : 60) && device; kind++) {
        make_scene(&s, kind, &random);
        run_scene(&s);
    }
}
END_TEST

START_TEST(saliencies_refused)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device)
        return;
    make_scene(&s, 0, &random);
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
    s.desc.k.shape[3] = s.desc.q.shape[3] = 24;
    s.desc.k.dtype = FA_E4M3;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_UNSUPPORTED);
    assert_message("attention->k.dtype is e4m3");
    ck_assert_ptr_null(saliency);
    s.desc.k.dtype = FA_F32;
    s.desc.q = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, 24);
    s.desc.o = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, s.desc.o.shape[3]);
    s.desc.bias.shape[0] = s.desc.keep.shape[0] = 0;
    if (device->limits.loop_turns > 0) {
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_UNSUPPORTED);
        assert_message("1048576 rows of 2 heads and 24 dims, but");
    }
    make_scene(&s, 0, &random);
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

/* Each request for memory fails once. */
START_TEST(saliencies_out_of_memory)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_scene(&s, 7, &random);
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
    tcase_add_test(tc, saliencies_refused);
    tcase_add_test(tc, saliencies_out_of_memory);
    return run_on_backend(suite);
}
