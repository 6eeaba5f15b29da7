/* SPDX-License-Identifier: Apache-2.0 */
/* Cascades on a backend, whose name is the argument: against the oracle of the whole problem. */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum {
    SEQUENCES = 6,
    PAGES = 6,
    SIZE = 16,
    POOL = SEQUENCES * PAGES,
    HEADS_Q = 4,
    HEADS_KV = 2,
    DIM = 32,
    MORE = 2
};

/* Sequences that begin as others do, with rows and own keys of any number. */
typedef struct tree {
    fa_attention_desc desc;
    int64_t cu[SEQUENCES + 1], lens[SEQUENCES];
    int32_t table[SEQUENCES][PAGES];
    float sinks[HEADS_Q], slopes[SEQUENCES * HEADS_Q];
    int64_t first[SEQUENCES];
    float bias[SEQUENCES * HEADS_Q * PAGES * SIZE];
    uint8_t keep[SEQUENCES * 3 * PAGES * SIZE]; /* or bits */
    float q[HEADS_Q * SEQUENCES * 3 * DIM], k[POOL * HEADS_KV * SIZE * DIM], v[POOL * HEADS_KV * SIZE * DIM];
    float k_scale[POOL * HEADS_KV]; /* of scaled trees, whose k are codes of 8 bits */
    float o[HEADS_Q * SEQUENCES * 3 * DIM], lse[HEADS_Q * SEQUENCES * 3];
} tree;

static void make_tree(tree *t, bool causal, random_state *random)
{
    int32_t page = 0;
    float *const filled[] = {t->q, t->k, t->v};
    const int sizes[] = {COUNT(t->q), COUNT(t->k), COUNT(t->v)};
    for (int i = 0; i < COUNT(filled); i++) {
        for (int e = 0; e < sizes[i]; e++)
            filled[i][e] = random_float(random, -2, 2);
    }
    t->cu[0] = 0;
    for (int n = 0; n < SEQUENCES; n++) {
        const int64_t same = n == 0 ? 0 : random_between(random, 1, PAGES - 1);
        const int like = n > 1 && random_bits(random) % 2 ? n - 2 : n - 1;
        for (int i = 0; i < PAGES; i++)
            t->table[n][i] = i < same ? t->table[like][i] : page++;
        t->cu[n + 1] = t->cu[n] + random_between(random, n == 4 ? 0 : 1, causal && !slow ? 3 : 1);
        t->lens[n] = random_between(random, 3 * SIZE, PAGES * SIZE - MORE);
    }
    t->desc = make_desc(1, HEADS_Q, HEADS_KV, t->cu[SEQUENCES], SIZE, DIM);
    t->desc.k.shape[0] = t->desc.v.shape[0] = POOL;
    t->desc.page_table = fa_tensor_make(FA_I32, SEQUENCES, 1, 1, PAGES);
    t->desc.sequences = SEQUENCES;
    t->desc.cu_rows_q = t->cu;
    t->desc.lens_kv = t->lens;
    t->desc.want_lse = 1;
    if (!causal)
        return;
    t->desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    t->desc.dynamic_lengths = slow ? 1 : 2;
    t->desc.sinks = t->sinks;
    for (int h = 0; h < HEADS_Q; h++)
        t->sinks[h] = random_float(random, -1, 2);
}

typedef enum terms {
    NO_TERMS,
    WINDOW,
    FIRST,
    BIAS,
    BIAS_OF_KEYS,
    KEEP,
    KEEP_BITS,
    KEEP_LAST,
    SLOPES,
    SLOPES_OF_EACH,
    TERMS
} terms;

/* What depends on where rows and keys stand. */
static void add_terms(tree *t, terms of, random_state *random)
{
    const int64_t keys = PAGES * SIZE;
    if (of == WINDOW) { /* shared are a prefix, or keys that no window leaves out */
        t->desc.window_left = random_between(random, 30, 90);
        t->desc.prefix = random_between(random, 0, 4 * SIZE);
        t->desc.dynamic_lengths = 0;
    }
    if (of >= BIAS && of <= KEEP_BITS && of != BIAS_OF_KEYS) { /* a row of each sequence */
        for (int n = 0; n <= SEQUENCES; n++)
            t->cu[n] = n;
        t->desc.q.shape[2] = t->desc.o.shape[2] = SEQUENCES;
    }
    for (int n = 0; n < SEQUENCES; n++)
        t->first[n] = n < 4 ? 5 : 21;
    for (int i = 0; i < COUNT(t->bias); i++)
        t->bias[i] = random_float(random, -2, 2);
    for (int i = 0; i < COUNT(t->keep); i++)
        t->keep[i] =
            of == KEEP ? random_bits(random) % 5 > 0 : (uint8_t)(random_bits(random) | random_bits(random));
    t->desc.first_kv = of == FIRST ? t->first : NULL;
    if (of == BIAS)
        t->desc.bias = fa_tensor_make(FA_F32, SEQUENCES, HEADS_Q, 1, keys);
    if (of == BIAS_OF_KEYS)
        t->desc.bias = fa_tensor_make(FA_F32, 1, HEADS_Q, 1, keys);
    if (of == KEEP)
        t->desc.keep = fa_tensor_make(FA_BOOL, SEQUENCES, 1, 1, keys);
    if (of == KEEP_BITS)
        t->desc.keep = fa_tensor_make(FA_I32, SEQUENCES, 1, 1, keys / 32);
    if (of == KEEP_LAST)
        t->desc.keep = fa_tensor_make(FA_I32, SEQUENCES, 1, 3, 1);
    t->desc.keep_last = of == KEEP_LAST ? 3 : 0;
    const bool slopes = of == SLOPES || of == SLOPES_OF_EACH;
    for (int i = 0; i < COUNT(t->slopes); i++) /* three sequences have the same, and share */
        t->slopes[i] =
            i % (3 * HEADS_Q) < HEADS_Q ? random_float(random, -0.05f, 0.2f) : t->slopes[i - HEADS_Q];
    t->desc.alibi_slopes = slopes ? t->slopes : NULL;
    t->desc.alibi_stride = of == SLOPES_OF_EACH ? HEADS_Q : 0;
    if (slopes && random_bits(random) % 2)
        t->desc.first_kv = t->first;
    if (slopes && t->desc.mask == FA_MASK_NONE) /* rows see keys on both of their sides */
        t->desc.diagonal_offset = -random_between(random, 0, 4 * SIZE);
}

/* k becomes codes, with a scale for each page and head. */
static void scale_tree(tree *t, random_state *random)
{
    static float numbers[COUNT(t->k)];
    for (int e = 0; e < COUNT(t->k); e++)
        numbers[e] = t->k[e] * 60;
    fa_elements_store(FA_I8, t->k, 0, numbers, COUNT(numbers));
    for (int i = 0; i < COUNT(t->k_scale); i++)
        t->k_scale[i] = random_float(random, 0.01F, 0.02F);
    t->desc.k.dtype = FA_I8;
    t->desc.k_scale = fa_tensor_make(FA_F32, POOL, HEADS_KV, 1, 1);
}

static bool is_scaled(const tree *t)
{
    return t->desc.k.dtype == FA_I8;
}

static bool has_bias(const tree *t)
{
    return t->desc.bias.shape[0] > 0;
}

static bool has_keep(const tree *t)
{
    return t->desc.keep.shape[0] > 0;
}

/* Within what f32 arithmetic may be off. */
static void check_tree(const tree *t, int parts)
{
    static double o[COUNT(t->o)], lse[COUNT(t->lse)], bound[COUNT(t->lse)], bound_lse[COUNT(t->lse)];
    const fa_inputs inputs = {.q = t->q,
                              .k = t->k,
                              .v = t->v,
                              .page_table = t->table,
                              .bias = has_bias(t) ? t->bias : NULL,
                              .keep = has_keep(t) ? t->keep : NULL,
                              .k_scale = is_scaled(t) ? t->k_scale : NULL};
    const int rows = (int)t->cu[SEQUENCES] * HEADS_Q;
    ck_assert_int_eq(fa_reference_attention(context, &t->desc, &inputs, o, lse), FA_OK);
    ck_assert_int_eq(fa_reference_limit(context, &t->desc, &inputs, FA_F32, parts, bound, bound_lse), FA_OK);
    for (int i = 0; i < rows; i++) {
        ck_assert_double_lt(bound[i], 1e-3);
        ck_assert_msg(fabs((double)t->lse[i] - lse[i]) <= bound_lse[i], "LSE of row %d is %g, expected %g", i,
                      (double)t->lse[i], lse[i]);
        for (int e = i * DIM; e < (i + 1) * DIM; e++)
            ck_assert_msg(fabs((double)t->o[e] - o[e]) <= bound[i] + 1e-7,
                          "row %d, dim %d is %g, expected %g", i, e % DIM, (double)t->o[e], o[e]);
    }
}

typedef struct memory_of {
    fa_attention_args args;
    fa_buffer *buffer[10];
} memory_of;

static memory_of make_memory(const tree *t, const fa_cascade *cascade)
{
    memory_of m = {.buffer = {upload(t->q, sizeof(t->q)), upload(t->k, sizeof(t->k)),
                              upload(t->v, sizeof(t->v)), upload(t->table, sizeof(t->table)),
                              upload(t->o, sizeof(t->o)), upload(t->lse, sizeof(t->lse))}};
    ck_assert_int_eq(fa_buffer_create(device, 64 + fa_cascade_workspace(cascade), &m.buffer[6]), FA_OK);
    m.buffer[7] = is_scaled(t) ? upload(t->k_scale, sizeof(t->k_scale)) : NULL;
    size_t bias = 0, keep = 0; /* not a byte more than they are */
    ck_assert_int_eq(fa_tensor_span(&t->desc.bias, &bias), FA_OK);
    ck_assert_int_eq(fa_tensor_span(&t->desc.keep, &keep), FA_OK);
    m.buffer[8] = has_bias(t) ? upload(t->bias, bias) : NULL;
    m.buffer[9] = has_keep(t) ? upload(t->keep, keep) : NULL;
    m.args = (fa_attention_args){
        .struct_size = sizeof(m.args),
        .q = m.buffer[0],
        .k = m.buffer[1],
        .v = m.buffer[2],
        .page_table = m.buffer[3],
        .k_scale = m.buffer[7],
        .bias = m.buffer[8],
        .keep = m.buffer[9],
        .o = m.buffer[4],
        .lse = m.buffer[5],
        .workspace = m.buffer[6],
        .workspace_offset = 64,
    };
    return m;
}

static void run_tree(tree *t, const fa_cascade *cascade, const memory_of *m)
{
    ck_assert_msg(fa_cascade_run(cascade, queue, &m->args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, m->buffer[4], 0, t->o, sizeof(t->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m->buffer[5], 0, t->lse, sizeof(t->lse)), FA_OK);
}

/* Refused, and nothing is written. */
static void check_refusals(tree *t, const fa_cascade *cascade, const memory_of *m, fa_buffer *work)
{
    const fa_cascade_info unset = {.struct_size = sizeof(unset)};
    fa_cascade_info info = unset;
    fa_attention_args bad = m->args;
    int64_t shared[SEQUENCES], cu[SEQUENCES + 1];
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    bad.workspace_offset = 128;
    ck_assert_int_eq(fa_cascade_run(cascade, queue, &bad), FA_INVALID);
    assert_message("args.workspace has");
    bad = m->args;
    bad.o = m->buffer[6];
    bad.o_offset = 64;
    ck_assert_int_eq(fa_cascade_run(cascade, queue, &bad), FA_INVALID);
    assert_message("args.o");
    fa_lengths l = {.struct_size = sizeof(l), .cu_rows_q = t->cu, .lens_kv = shared};
    memcpy(shared, t->lens, sizeof(shared));
    for (int n = 0; n < SEQUENCES; n++) {
        if (info.first_kv[n] == 0)
            continue;
        shared[n] = info.first_kv[n] - 1;
        ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
        assert_message("so many keys that each row sees the");
        break;
    }
    l.lens_kv = t->lens;
    l.first_kv = info.first_kv;
    ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
    assert_message("first_kv is given, expected NULL");
    l.first_kv = NULL;
    l.cu_rows_q = cu;
    memcpy(cu, t->cu, sizeof(cu));
    cu[1]--;
    ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
    assert_message("cu_rows_q[1] is ");
    int32_t cu32[SEQUENCES + 1], lens32[SEQUENCES] = {0};
    for (int n = 0; n <= SEQUENCES; n++)
        cu32[n] = (int32_t)cu[n];
    l.cu_rows_q = NULL;
    l.cu_rows_q32 = cu32;
    ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
    assert_message("cu_rows_q32[1] is ");
    l.cu_rows_q32 = NULL;
    l.cu_rows_q = t->cu;
    l.first_kv32 = lens32;
    ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
    assert_message("first_kv32 is given, expected NULL");
}

/* With fewer keys again, which the device alone is told. */
static void run_from_device(tree *t, const fa_cascade *cascade, const memory_of *m, int parts)
{
    int32_t cu[SEQUENCES + 1] = {0}, lens[SEQUENCES];
    for (int n = 0; n < SEQUENCES; n++) {
        t->lens[n] -= n % (MORE + 1);
        lens[n] = (int32_t)t->lens[n];
        cu[n + 1] = (int32_t)t->cu[n + 1];
    }
    fa_device_lengths l = {
        .struct_size = sizeof(l), .cu_rows_q = upload(cu, sizeof(cu)), .lens_kv = upload(lens, sizeof(lens))};
    ck_assert_msg(fa_cascade_schedule_device(cascade, queue, &l, m->args.work, 0) == FA_OK, "%s",
                  fa_last_error());
    run_tree(t, cascade, m);
    check_tree(t, parts);
    l.first_kv = l.lens_kv;
    ck_assert_int_eq(fa_cascade_schedule_device(cascade, queue, &l, m->args.work, 0), FA_INVALID);
    fa_buffer_destroy(l.cu_rows_q);
    fa_buffer_destroy(l.lens_kv);
}

/* As the problem's own lengths have it, then with more keys, for which nothing is prepared anew. */
static void check_cascade(tree *t, int *shared)
{
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    ck_assert_msg(fa_cascade_create(device, &t->desc, &t->table[0][0], &cascade) == FA_OK, "%s",
                  fa_last_error());
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    *shared += info.levels > 0;
    memory_of m = make_memory(t, cascade);
    run_tree(t, cascade, &m);
    check_tree(t, (int)info.levels + 2);
    if (t->desc.dynamic_lengths) {
        fa_buffer *work;
        ck_assert_int_eq(fa_buffer_create(device, fa_cascade_work(cascade), &work), FA_OK);
        if (info.levels > 0 && !t->desc.first_kv)
            check_refusals(t, cascade, &m, work);
        for (int n = 0; n < SEQUENCES; n++)
            t->lens[n] += n % (MORE + 1);
        const fa_lengths lengths = {.struct_size = sizeof(lengths), .cu_rows_q = t->cu, .lens_kv = t->lens};
        ck_assert_msg(fa_cascade_schedule(cascade, queue, &lengths, work, 0) == FA_OK, "%s", fa_last_error());
        m.args.work = work;
        run_tree(t, cascade, &m);
        check_tree(t, (int)info.levels + 2);
        if (t->desc.dynamic_lengths == 2)
            run_from_device(t, cascade, &m, (int)info.levels + 2);
        fa_buffer_destroy(work);
    }
    for (int i = 0; i < COUNT(m.buffer); i++)
        fa_buffer_destroy(m.buffer[i]);
    fa_cascade_destroy(cascade);
}

START_TEST(cascades)
{
    static tree t;
    random_state random = {7};
    const int trees = slow ? 1 : 60;
    int shared = 0;
    for (int i = 0; i < trees && device; i++) {
        make_tree(&t, i % 2 == 0, &random);
        add_terms(&t, NO_TERMS, &random);
        if (i % 5 == 3 && strcmp(backend, "openmp") == 0) /* cuda serves no such scales, others are slow */
            scale_tree(&t, &random);
        check_cascade(&t, &shared);
    }
    if (device)
        ck_assert_int_ge(2 * shared, trees);
}
END_TEST

/* With what levels have beyond keys; some trees of each kind share. */
START_TEST(cascades_with_terms)
{
    static tree t;
    random_state random = {19};
    for (int of = WINDOW; of < TERMS && device; of++) {
        int shared = 0;
        if (slow && of != SLOPES_OF_EACH)
            continue;
        for (int i = 0; i < (slow ? 1 : 16); i++) {
            make_tree(&t, i % 2 == 0, &random);
            add_terms(&t, (terms)of, &random);
            check_cascade(&t, &shared);
        }
        ck_assert_msg(shared > 0, "no tree of kind %d shares", of);
    }
}
END_TEST

/* Without a mask a row sees all keys, but with ALiBi none that others share lies behind it. */
START_TEST(shared_keys_lie_before_rows)
{
    enum { COUNT_OF = 8, OWN = 40, ROWS_OF = 4, SHARED = 10, SIZE_OF = 4 };
    int64_t cu[COUNT_OF + 1], lens[COUNT_OF], shorter[COUNT_OF];
    int32_t table[COUNT_OF][OWN];
    const float slopes[HEADS_Q] = {0.1f};
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    if (!device || slow)
        return;
    for (int n = 0; n <= COUNT_OF; n++)
        cu[n] = ROWS_OF * n;
    for (int n = 0; n < COUNT_OF; n++) {
        lens[n] = 60;
        shorter[n] = SHARED * SIZE_OF + 1;
        for (int i = 0; i < OWN; i++)
            table[n][i] = i < SHARED ? i : SHARED + n * (OWN - SHARED) + i - SHARED;
    }
    fa_attention_desc d = make_desc(1, HEADS_Q, HEADS_Q, ROWS_OF * COUNT_OF, SIZE_OF, 16);
    d.k.shape[0] = d.v.shape[0] = SHARED + COUNT_OF * (OWN - SHARED);
    d.mask = FA_MASK_NONE;
    d.sequences = COUNT_OF;
    d.cu_rows_q = cu;
    d.lens_kv = lens;
    d.page_table = fa_tensor_make(FA_I32, COUNT_OF, 1, 1, OWN);
    d.alibi_slopes = slopes;
    d.dynamic_lengths = 1;
    ck_assert_msg(fa_cascade_create(device, &d, &table[0][0], &cascade) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_eq(info.first_kv[0], SHARED * SIZE_OF);
    fa_buffer *work;
    ck_assert_int_eq(fa_buffer_create(device, fa_cascade_work(cascade), &work), FA_OK);
    fa_lengths l = {.struct_size = sizeof(l), .cu_rows_q = cu, .lens_kv = shorter};
    ck_assert_int_eq(fa_cascade_schedule(cascade, queue, &l, work, 0), FA_INVALID);
    assert_message("sees the 40 that are shared and, with ALiBi, stands behind them");
    for (int n = 0; n < COUNT_OF; n++)
        shorter[n] = SHARED * SIZE_OF + ROWS_OF;
    ck_assert_msg(fa_cascade_schedule(cascade, queue, &l, work, 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(work);
    fa_cascade_destroy(cascade);
}
END_TEST

START_TEST(cascades_found_only)
{
    static tree t;
    random_state random = {7};
    fa_cascade *cascade;
    if (!device)
        return;
    make_tree(&t, true, &random);
    ck_assert_int_eq(fa_cascade_find(context, &t.desc, &t.table[0][0], &cascade), FA_OK);
    ck_assert_uint_eq(fa_cascade_workspace(cascade), 0);
    ck_assert_uint_eq(fa_cascade_work(cascade), 0);
    const fa_attention_args args = {.struct_size = sizeof(args)};
    ck_assert_int_eq(fa_cascade_run(cascade, queue, &args), FA_INVALID);
    assert_message("cascade is one of fa_cascade_find()");
    fa_cascade_destroy(cascade);
    ck_assert_int_eq(fa_cascade_create(device, NULL, &t.table[0][0], &cascade), FA_INVALID);
    ck_assert_int_eq(fa_cascade_create(NULL, &t.desc, &t.table[0][0], &cascade), FA_INVALID);
}
END_TEST

/* Each request for memory fails once. */
START_TEST(cascades_out_of_memory)
{
    static tree t;
    random_state random = {7};
    fa_cascade *cascade;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_tree(&t, true, &random);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_cascade_create(device, &t.desc, &t.table[0][0], &cascade), FA_OK);
    ck_assert_uint_gt(fa_cascade_workspace(cascade), 0);
    fa_cascade_destroy(cascade);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_cascade_create(device, &t.desc, &t.table[0][0], &cascade), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(cascade);
    }
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("cascades");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, cascades);
    tcase_add_test(tc, cascades_with_terms);
    tcase_add_test(tc, shared_keys_lie_before_rows);
    tcase_add_test(tc, cascades_found_only);
    tcase_add_test(tc, cascades_out_of_memory);
    return run_on_backend(suite);
}
