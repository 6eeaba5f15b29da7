/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of single keys on a backend, whose name is the argument: as a mask of every row and key says, which is made of the lists
 * here and handed to the oracle with the same memory.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/key_lists_refused.h"

enum { MOST_BATCH = 3, MOST_HEADS = 8, MOST_ROWS = 7, MOST_KEYS = 300, MOST_DIM = 576, MOST_TOPK = 60 };
enum { OUT = MOST_BATCH * MOST_HEADS * MOST_ROWS, LISTS = MOST_BATCH * MOST_ROWS * 2 };

/* How numbers of lists are counted. */
enum { ENTRIES, LINES, SLOTS, COUNTED };

typedef struct scene {
    fa_attention_desc desc;
    fa_key_lists_desc lists;
    int counted;
    int64_t batch, heads_q, heads_kv, rows, keys; /* keys that numbers count                          */
    int64_t width;                                /* of the page table                                */
    int32_t table[MOST_BATCH * MOST_KEYS],
        lost[MOST_BATCH * MOST_KEYS]; /* the oracle's, and the one that lists are read by */
    int32_t indices[LISTS * MOST_TOPK];
    uint8_t keep[OUT * MOST_KEYS];
    float scale[2 * MOST_BATCH * MOST_KEYS], sinks[MOST_HEADS];
    _Alignas(64) char q[OUT * MOST_DIM * 4], k[2 * MOST_BATCH * MOST_KEYS * MOST_DIM * 4],
        v[2 * MOST_BATCH * MOST_KEYS * MOST_DIM * 4], o[OUT * MOST_DIM * 4];
    float lse[OUT];
    double exact[OUT * MOST_DIM], exact_lse[OUT], limit[OUT], limit_lse[OUT];
} scene;

static scene s;

static void draw(fa_dtype dtype, void *to, int64_t count, random_state *random)
{
    static float x[2 * MOST_BATCH * MOST_KEYS * MOST_DIM];
    for (int64_t i = 0; i < count; i++)
        x[i] = random_float(random, -2, 2);
    fa_elements_store(dtype, to, 0, x, count);
}

/* Strides of heads behind rows, or between rows and dims. */
static fa_tensor laid(fa_dtype dtype, int64_t a, int64_t heads, int64_t rows, int64_t dim, bool between)
{
    fa_tensor t = fa_tensor_make(dtype, a, heads, rows, dim);
    const int64_t stride[2][4] = {{heads * rows * dim, rows * dim, dim, 1},
                                  {rows * heads * dim, dim, heads * dim, 1}};
    memcpy(t.stride, stride[between], sizeof(t.stride));
    return t;
}

static int64_t draw_pages(random_state *random)
{
    const int64_t page = random_between(random, 1, 3) == 1 ? 1 : random_between(random, 2, 20);
    const int64_t pages = MOST_KEYS / page;
    s.width = random_between(random, 1, pages);
    for (int64_t i = 0; i < s.batch * s.width; i++)
        s.table[i] = (int32_t)random_between(random, 0, pages - 1);
    for (int64_t i = 0; s.counted == SLOTS && i < pages; i++)
        s.table[i] = (int32_t)i;
    s.width = s.counted == SLOTS ? pages : s.width;
    s.keys = s.width * page;
    memcpy(s.lost, s.table, sizeof(s.table));
    return page;
}

/* Shapes and layouts: of `dtype` are k and v, of `outer` q and o. */
static void draw_shapes(fa_dtype outer, fa_dtype dtype, int64_t dim, int64_t dim_v, random_state *random)
{
    const bool pooled = s.counted != ENTRIES;
    const bool q_between = random_between(random, 0, 1), k_between = random_between(random, 0, 1);
    s.keys = random_between(random, 1, MOST_KEYS);
    const int64_t page = pooled ? draw_pages(random) : s.keys;
    const int64_t entries = pooled ? MOST_KEYS / page : s.batch;
    s.desc = (fa_attention_desc){.struct_size = sizeof(s.desc), .want_lse = 1};
    s.desc.q = laid(outer, s.batch, s.heads_q, s.rows, dim, q_between);
    s.desc.o = laid(outer, s.batch, s.heads_q, s.rows, dim_v, q_between);
    s.desc.k = laid(dtype, entries, s.heads_kv, page, dim, k_between);
    s.desc.v = laid(dtype, entries, s.heads_kv, page, dim_v, k_between);
    if (dim != dim_v) {
        s.desc.v_in_k = 1;
        memset(s.desc.v.stride, 0, sizeof(s.desc.v.stride));
    }
    if (pooled)
        s.desc.page_table = fa_tensor_make(FA_I32, s.counted == SLOTS ? 1 : s.batch, 1, 1, s.width);
    draw(outer, s.q, s.batch * s.heads_q * s.rows * dim, random);
    draw(dtype, s.k, entries * s.heads_kv * page * dim, random);
    if (dim == dim_v)
        draw(dtype, s.v, entries * s.heads_kv * page * dim, random);
}

/* A scale for each key, of codes that have none. */
static void draw_scales(random_state *random)
{
    const int64_t *k = s.desc.k.shape;
    s.desc.k_scale = laid(FA_F32, k[0], k[1], k[2], 1, s.desc.k.stride[1] < s.desc.k.stride[2]);
    for (int64_t i = 0; i < k[0] * k[1] * k[2]; i++)
        s.scale[i] = random_float(random, 0.25f, 1);
    s.desc.v_scale = fa_tensor_make(FA_F32, 1, 1, 1, 1);
}

static void keep_list(int64_t list, int64_t key)
{
    const int64_t row = list / s.lists.heads, n = row / s.rows, group = s.heads_q / s.lists.heads,
                  first = list % s.lists.heads * group;
    for (int64_t head = first; head < first + group; head++)
        s.keep[((n * s.heads_q + head) * s.rows + row % s.rows) * s.keys + key] = 1;
}

static bool has(const int32_t *list, int64_t count, int64_t key)
{
    for (int64_t i = 0; i < count; i++) {
        if (list[i] == key)
            return true;
    }
    return false;
}

/* What lists on the device may have besides: numbers out of range, keys of pages that there are none of, keys twice. */
static int32_t litter(const int32_t *list, int64_t count, random_state *random)
{
    static const int32_t wild[] = {INT32_MIN, -2, INT32_MAX};
    const int64_t kind = random_between(random, 0, 3);
    if (kind == 0)
        return wild[random_between(random, 0, 2)];
    if (kind == 1 && count > 0 && !s.lists.unique)
        return list[random_between(random, 0, count - 1)];
    return (int32_t)(s.keys + random_between(random, 0, 9));
}

static void draw_lists(int density, bool on_device, random_state *random)
{
    const int64_t topk = random_between(random, 1, MOST_TOPK), lists = s.batch * s.rows * s.lists.heads;
    const int64_t page = s.desc.k.shape[2];
    s.lists.topk = topk;
    s.lists.slots = s.counted == SLOTS;
    memset(s.keep, 0, sizeof(s.keep));
    if (on_device && s.counted == LINES)
        s.lost[random_between(random, 0, s.batch * s.width - 1)] =
            random_between(random, 0, 1) ? -1 : MOST_KEYS;
    for (int64_t i = 0; i < lists * topk; i++) {
        int32_t *list = s.indices + i / topk * topk;
        const int64_t at = i % topk, key = random_between(random, 0, s.keys - 1);
        list[at] = -1;
        if (random_between(random, 0, 99) >= density || has(list, at, key)) {
            if (on_device && random_between(random, 0, 1))
                list[at] = litter(list, at, random);
            continue;
        }
        list[at] = (int32_t)key;
        if (s.lost[i / topk / s.lists.heads / s.rows * s.width + key / page] ==
                s.table[i / topk / s.lists.heads / s.rows * s.width + key / page] ||
            s.counted != LINES)
            keep_list(i / topk, key);
    }
}

static void compute_exact(fa_dtype weights)
{
    fa_attention_desc d = s.desc;
    d.tuning = NULL;
    d.keep = fa_tensor_make(FA_BOOL, s.batch, s.heads_q, s.rows, s.keys);
    const float one = 1;
    const fa_inputs in = {.q = s.q,
                          .k = s.k,
                          .v = d.v_in_k ? s.k : s.v,
                          .keep = s.keep,
                          .page_table = s.counted == ENTRIES ? NULL : s.table,
                          .k_scale = d.k_scale.shape[0] ? s.scale : NULL,
                          .v_scale = d.v_scale.shape[0] ? &one : NULL};
    ck_assert_msg(fa_reference_attention(context, &d, &in, s.exact, s.exact_lse) == FA_OK, "%s",
                  fa_last_error());
    ck_assert_int_eq(fa_reference_limit(context, &d, &in, weights, 64, s.limit, s.limit_lse), FA_OK);
}

/* Element of o, which lies in memory as q does. */
static double output(int64_t row, int64_t dim)
{
    const fa_tensor *o = &s.desc.o;
    const int64_t at = row / s.rows / s.heads_q * o->stride[0] + row / s.rows % s.heads_q * o->stride[1] +
                       row % s.rows * o->stride[2] + dim;
    return (double)fa_element(o->dtype, s.o, at);
}

static void check_scene(void)
{
    const int64_t dims = s.desc.o.shape[3];
    const double ulp = s.desc.o.dtype == FA_F32 ? 0 : ldexp(1, -8); /* bf16: half a unit of its last place */
    for (int64_t i = 0; i < s.batch * s.heads_q * s.rows; i++) {
        for (int64_t d = 0; d < dims; d++) {
            const double exact = s.exact[i * dims + d], got = output(i, d);
            ck_assert_msg(fabs(got - exact) <= s.limit[i] + ulp * (fabs(exact) + s.limit[i]),
                          "row %lld, dim %lld: %g, expected %g", (long long)i, (long long)d, got, exact);
        }
        ck_assert_msg((double)s.lse[i] == s.exact_lse[i] ||
                          fabs((double)s.lse[i] - s.exact_lse[i]) <= s.limit_lse[i],
                      "lse[%lld] is %g, expected %g", (long long)i, (double)s.lse[i], s.exact_lse[i]);
    }
}

static void run_scene(bool on_device)
{
    fa_key_lists *lists;
    fa_attention_desc d = s.desc;
    const float one = 1;
    if (s.counted == SLOTS)
        d.page_table = (fa_tensor){.dtype = FA_F32};
    s.lists.struct_size = sizeof(s.lists);
    s.lists.attention = &d;
    succeed(fa_key_lists_create(device, &s.lists, &lists));
    fa_buffer *indices = upload(s.indices, sizeof(s.indices)), *table = upload(s.lost, sizeof(s.lost));
    fa_buffer *own = s.counted == LINES ? table : NULL;
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = upload(s.q, sizeof(s.q)),
        .k = upload(s.k, sizeof(s.k)),
        .v = d.v_in_k ? NULL : upload(s.v, sizeof(s.v)),
        .o = upload(s.o, sizeof(s.o)),
        .k_scale = d.k_scale.shape[0] ? upload(s.scale, sizeof(s.scale)) : NULL,
        .v_scale = d.v_scale.shape[0] ? upload(&one, sizeof(one)) : NULL,
        .lse = make_buffer(sizeof(s.lse)),
        .workspace = make_buffer(fa_key_lists_workspace(lists) + 1),
        .work = make_buffer(fa_key_lists_work(lists) + 256),
        .work_offset = 256,
    };
    if (on_device)
        succeed(fa_key_lists_schedule_device(lists, queue, indices, 0, own, 0, args.work, 256));
    else
        succeed(fa_key_lists_schedule(lists, queue, s.indices, own, 0, args.work, 256));
    succeed(fa_key_lists_run(lists, queue, &args));
    succeed(fa_buffer_read(queue, args.o, 0, s.o, sizeof(s.o)));
    succeed(fa_buffer_read(queue, args.lse, 0, s.lse, sizeof(s.lse)));
    fa_buffer *const all[] = {args.q,   args.k,         args.v,    args.o,  args.k_scale, args.v_scale,
                              args.lse, args.workspace, args.work, indices, table};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_key_lists_destroy(lists);
}

static void draw_sizes(random_state *random)
{
    memset(&s, 0, sizeof(s));
    s.counted = (int)random_between(random, 0, COUNTED - 1);
    s.batch = random_between(random, 1, MOST_BATCH);
    s.rows = random_between(random, 1, MOST_ROWS);
    s.heads_kv = random_between(random, 1, 2);
    s.heads_q = s.heads_kv * random_between(random, 1, 3);
    s.lists.heads = random_between(random, 0, 1) ? s.heads_kv : 1;
    s.lists.unique = (int32_t)random_between(random, 0, 1);
}

START_TEST(as_masks_say)
{
    static const int densities[] = {0, 10, 50, 90, 100};
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 40); n++) {
        const bool on_device = random_between(&random, 0, 1), coded = random_between(&random, 0, 2) == 0;
        draw_sizes(&random);
        draw_shapes(FA_F32, coded ? FA_E4M3 : FA_F32, 16, 16, &random);
        if (coded)
            draw_scales(&random);
        draw_lists(densities[(n + _i) % COUNT(densities)], on_device, &random);
        compute_exact(FA_F32);
        run_scene(on_device);
        check_scene();
    }
}
END_TEST

/* FlashMLA's: one latent KV head, of which v is a part; slots of a pool; sinks. */
START_TEST(latent_rows)
{
    static const fa_dtype types[] = {FA_BF16, FA_FP8_DS_MLA};
    random_state random = {(uint64_t)_i + 50};
    for (int n = 0; device && n < (slow ? 1 : 6); n++) {
        draw_sizes(&random);
        s.heads_kv = s.lists.heads = 1;
        s.heads_q = random_between(&random, 1, MOST_HEADS);
        draw_shapes(FA_BF16, types[_i], 576, 512, &random);
        for (int h = 0; h < MOST_HEADS; h++)
            s.sinks[h] = random_float(&random, -3, 3);
        s.desc.sinks = s.sinks;
        draw_lists(80, true, &random);
        compute_exact(FA_BF16);
        run_scene(true);
        check_scene();
    }
}
END_TEST

/* DSA's sizes: 2048 keys of a long cache, from one sequence of few rows. */
START_TEST(many_keys)
{
    enum { KEYS = 20000, TOPK = 2048, ROWS = 2, D = 8 };
    static float q[ROWS * D], k[KEYS * D], o[ROWS * D];
    static int32_t indices[ROWS * TOPK];
    static uint8_t keep[ROWS * KEYS];
    static double exact[ROWS * D], limit[ROWS];
    random_state random = {9};
    fa_attention_desc d = make_desc(1, 1, 1, ROWS, KEYS, D);
    fa_key_lists *lists;
    if (!device)
        return;
    memset(keep, 0, sizeof(keep));
    draw(FA_F32, q, ROWS * D, &random);
    draw(FA_F32, k, KEYS * D, &random);
    for (int i = 0; i < ROWS * TOPK; i++) {
        int64_t key = random_between(&random, 0, KEYS - 1);
        while (keep[i / TOPK * KEYS + key])
            key = random_between(&random, 0, KEYS - 1);
        indices[i] = (int32_t)key;
        keep[i / TOPK * KEYS + key] = 1;
    }
    const fa_key_lists_desc of = {.struct_size = sizeof(of), .attention = &d, .topk = TOPK, .unique = 1};
    succeed(fa_key_lists_create(device, &of, &lists));
    fa_attention_desc masked = d;
    masked.keep = fa_tensor_make(FA_BOOL, 1, 1, ROWS, KEYS);
    const fa_inputs in = {.q = q, .k = k, .v = k, .keep = keep};
    succeed(fa_reference_attention(context, &masked, &in, exact, NULL));
    double lse[ROWS];
    succeed(fa_reference_limit(context, &masked, &in, FA_F32, 64, limit, lse));
    fa_buffer *given = upload(indices, sizeof(indices));
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = upload(q, sizeof(q)),
                                    .k = upload(k, sizeof(k)),
                                    .v = upload(k, sizeof(k)),
                                    .o = make_buffer(sizeof(o)),
                                    .workspace = make_buffer(fa_key_lists_workspace(lists) + 1),
                                    .work = make_buffer(fa_key_lists_work(lists))};
    succeed(fa_key_lists_schedule_device(lists, queue, given, 0, NULL, 0, args.work, 0));
    succeed(fa_key_lists_run(lists, queue, &args));
    succeed(fa_buffer_read(queue, args.o, 0, o, sizeof(o)));
    for (int i = 0; i < ROWS * D; i++)
        ck_assert_msg(fabs((double)o[i] - exact[i]) <= limit[i / D], "o[%d] is %g, expected %g", i,
                      (double)o[i], exact[i]);
    fa_buffer *const all[] = {args.q, args.k, args.v, args.o, args.workspace, args.work, given};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_key_lists_destroy(lists);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("key_lists");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, as_masks_say, 0, slow ? 3 : 6);
    tcase_add_loop_test(tc, latent_rows, 0, 2);
    tcase_add_test(tc, many_keys);
    add_refusals(tc);
    return run_on_backend(suite);
}
