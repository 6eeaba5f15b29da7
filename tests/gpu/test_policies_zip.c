/* SPDX-License-Identifier: Apache-2.0 */
/* ZipVL: what is important against the definition key by key; the prompt's and the cache's attention in double precision. */
#include <fastattn/append.h>
#include <fastattn/reference.h>
#include <fastattn/segments.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/policies_scene.h"

static policy_scene s;
static float saliency[MOST], o[MOST_HEADS * MOST_KEYS * DIM];
static int32_t slots[MOST], other_slots[MOST];
static uint8_t important[MOST];

/* What a key has in the line that it is of: its own, or that of all heads. Sums of these numbers are exact. */
static double of_line(const fa_policy_zip_desc *d, const float *from, int64_t head, int64_t key)
{
    double sum = 0;
    for (int64_t h = 0; h < s.heads; h++)
        sum += d->each_head && h != head ? 0 : (double)from[h * s.keys + key];
    return sum;
}

static int64_t rank_of(const fa_policy_zip_desc *d, const float *from, int64_t head, int64_t key)
{
    const double x = of_line(d, from, head, key);
    int64_t before = 0;
    for (int64_t other = 0; other < s.keys; other++) {
        const double y = of_line(d, from, head, other);
        before += y > x || (y == x && other < key);
    }
    return before;
}

static int64_t count_of(const fa_policy_zip_desc *d, int64_t head)
{
    for (int64_t count = 0; count <= s.keys; count++) {
        double part = 0, all = 0;
        for (int64_t key = 0; key < s.keys; key++) {
            const double x = of_line(d, d->weights, head, key);
            all += x;
            part += rank_of(d, d->weights, head, key) < count ? x : 0;
        }
        if (part >= d->part * all)
            return count;
    }
    return s.keys;
}

static void expect_choice(const fa_policy_zip_desc *d)
{
    const float *by = d->saliency ? d->saliency : d->weights;
    int32_t next = 0, next_other = 0;
    int64_t n = 0;
    for (int64_t head = 0; head < s.heads; head++) {
        const int64_t count = count_of(d, head);
        for (int64_t key = 0; key < s.keys; key++) {
            const int64_t i = head * s.keys + key;
            important[i] = rank_of(d, by, head, key) < count;
            if (important[i])
                policy_expect_key(&s, n++, head, key);
            if (head > 0 && !d->each_head)
                continue;
            ck_assert_int_eq(slots[i], important[i] ? next++ : -1);
            ck_assert_int_eq(other_slots[i], important[i] ? -1 : next_other++);
        }
        ck_assert_int_eq(s.cu_keys[head + 1], n);
    }
}

static void draw(random_state *random, fa_policy_zip_desc *d)
{
    policy_scene_draw(&s, random);
    for (int i = 0; i < MOST; i++)
        saliency[i] = (float)random_between(random, 0, 40) / 8;
    *d = (fa_policy_zip_desc){.struct_size = sizeof(*d),
                              .heads = s.heads,
                              .keys = s.keys,
                              .weights = s.importance,
                              .saliency = random_between(random, 0, 1) ? saliency : NULL,
                              .part = (double)random_between(random, 0, 8) / 8,
                              .each_head = (int32_t)random_between(random, 0, 1)};
}

START_TEST(choices)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; n < 10; n++) {
        fa_policy_zip_desc d;
        draw(&random, &d);
        ck_assert_msg(fa_policy_zip(context, &d, &s.lists, slots, other_slots) == FA_OK, "%s",
                      fa_last_error());
        d.part = d.part == 0 ? 0.975 : d.part;
        expect_choice(&d);
    }
}
END_TEST

/* Lists of single rows on the device: list n makes row `to[n]` (NULL: n) of rows `from[n]`. */
static void move(fa_buffer *from, int64_t from_rows, fa_buffer *to, int64_t to_rows, const int32_t *rows,
                 const int32_t *places, int64_t lists)
{
    const fa_mix_desc desc = {.struct_size = sizeof(desc),
                              .from = fa_tensor_make(FA_F32, 1, 1, from_rows, DIM),
                              .to = fa_tensor_make(FA_F32, 1, 1, to_rows, DIM),
                              .lists = lists,
                              .entries = lists,
                              .longest = 1,
                              .placed = places != NULL};
    static int32_t each[MOST + 1];
    for (int32_t n = 0; n <= MOST; n++)
        each[n] = n;
    fa_mix *mix;
    fa_mix_args args = {
        .struct_size = sizeof(args), .from = from, .to = to, .offsets = upload(each, sizeof(each))};
    args.rows = rows ? upload(rows, (size_t)lists * sizeof(*rows)) : args.offsets;
    args.places = places ? upload(places, (size_t)lists * sizeof(*places)) : NULL;
    ck_assert_msg(fa_mix_create(device, &desc, &mix) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_mix_run(mix, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_mix_destroy(mix);
    fa_buffer_destroy(args.offsets);
    fa_buffer_destroy(rows ? args.rows : NULL);
    fa_buffer_destroy(args.places);
}

/* As the header has it: gather, attention with a causal mask, scatter. Each head has one query head. */
static void attend_prompt(const float *q)
{
    const int64_t all = s.heads * s.keys, packed = s.cu_keys[s.heads];
    const size_t bytes = (size_t)(all * DIM) * sizeof(float);
    fa_attention_desc d = make_desc(1, 1, 1, packed, packed, DIM);
    fa_buffer *source[] = {upload(q, bytes), upload(s.k, bytes), upload(s.v, bytes)};
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = upload(q, bytes),
                              .k = upload(q, bytes),
                              .v = upload(q, bytes),
                              .o = upload(q, bytes)};
    fa_buffer *to[] = {args.q, args.k, args.v};
    fa_plan *plan;
    d.sequences = s.heads;
    d.cu_rows_q32 = d.cu_rows_kv32 = s.cu_keys;
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    ck_assert_msg(fa_plan_create(device, &d, &plan) == FA_OK, "%s", fa_last_error());
    if (fa_plan_workspace(plan) > 0)
        ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &args.workspace), FA_OK);
    for (int n = 0; n < COUNT(source); n++)
        move(source[n], all, to[n], packed, s.rows, NULL, packed);
    ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_write(queue, source[0], 0, o, bytes), FA_OK);
    move(args.o, packed, source[0], all, NULL, s.rows, packed);
    ck_assert_int_eq(fa_buffer_read(queue, source[0], 0, o, bytes), FA_OK);
    fa_plan_destroy(plan);
    fa_buffer *const used[] = {args.q,         args.k,    args.v,    args.o,
                               args.workspace, source[0], source[1], source[2]};
    for (int n = 0; n < COUNT(used); n++)
        fa_buffer_destroy(used[n]);
}

START_TEST(prompts)
{
    static float q[MOST * DIM];
    static double k[MOST_KEYS * DIM], v[MOST_KEYS * DIM], times[MOST_KEYS];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 1 : 5); n++) {
        fa_policy_zip_desc d;
        draw(&random, &d);
        for (int i = 0; i < MOST * DIM; i++)
            q[i] = random_float(&random, -2, 2);
        memset(o, 0, sizeof(o));
        s.importance[0] = 1; /* something is important */
        ck_assert_int_eq(fa_policy_zip(context, &d, &s.lists, slots, other_slots), FA_OK);
        d.part = d.part == 0 ? 0.975 : d.part;
        expect_choice(&d);
        attend_prompt(q);
        for (int64_t head = 0; head < s.heads; head++) {
            int64_t count = 0;
            for (int64_t row = 0; row < s.keys; row++) {
                double exact[DIM] = {0};
                const int64_t at = head * s.keys + row;
                if (important[at]) {
                    for (int64_t i = 0; i < DIM; i++) {
                        k[count * DIM + i] = (double)s.k[at * DIM + i];
                        v[count * DIM + i] = (double)s.v[at * DIM + i];
                    }
                    times[count++] = 1;
                    policy_exact(q + at * DIM, count, k, v, times, exact);
                }
                for (int64_t i = 0; i < DIM; i++)
                    ck_assert_msg(fabs((double)o[at * DIM + i] - exact[i]) <= 4e-6,
                                  "o of row %lld is %g, expected %g", (long long)at, (double)o[at * DIM + i],
                                  exact[i]);
            }
        }
    }
}
END_TEST

/* One of the two caches of a layer: codes of k and v, with a scale and a zero for each key and head. */
typedef struct cache {
    fa_dtype dtype;
    int64_t count;
    fa_buffer *codes[2], *scale[2], *zero[2];
} cache;

static void append(cache *c, const int32_t *to, fa_buffer *k, fa_buffer *v)
{
    const fa_tensor rows = fa_tensor_make(FA_F32, 1, s.heads, s.keys, DIM),
                    codes = fa_tensor_make(c->dtype, 1, s.heads, MOST_KEYS, DIM),
                    scales = fa_tensor_make(FA_F32, 1, s.heads, MOST_KEYS, 1);
    const fa_append_desc desc = {.struct_size = sizeof(desc),
                                 .k = rows,
                                 .v = rows,
                                 .cache_k = codes,
                                 .cache_v = codes,
                                 .k_scale = scales,
                                 .v_scale = scales,
                                 .k_zero = scales,
                                 .v_zero = scales};
    static const float room[MOST * DIM];
    for (int n = 0; n < 2; n++) {
        c->codes[n] = upload(room, sizeof(room));
        c->scale[n] = upload(room, sizeof(room));
        c->zero[n] = upload(room, sizeof(room));
    }
    fa_append_args args = {.struct_size = sizeof(args),
                           .k = k,
                           .v = v,
                           .slots = upload(to, (size_t)s.keys * sizeof(*to)),
                           .cache_k = c->codes[0],
                           .cache_v = c->codes[1],
                           .k_scale = c->scale[0],
                           .v_scale = c->scale[1],
                           .k_zero = c->zero[0],
                           .v_zero = c->zero[1]};
    fa_append *made;
    ck_assert_msg(fa_append_create(device, &desc, &made) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(made, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_append_destroy(made);
    fa_buffer_destroy(args.slots);
    c->count = 0;
    for (int64_t key = 0; key < s.keys; key++)
        c->count += to[key] >= 0;
}

/* The numbers that a cache holds of a token, of k or v. */
static void decode(const cache *c, int n, int64_t head, int64_t slot, double *x)
{
    static unsigned char codes[MOST * DIM];
    static float scale[MOST], zero[MOST];
    ck_assert_int_eq(fa_buffer_read(queue, c->codes[n], 0, codes, sizeof(codes)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, c->scale[n], 0, scale, sizeof(scale)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, c->zero[n], 0, zero, sizeof(zero)), FA_OK);
    const int64_t row = head * MOST_KEYS + slot;
    for (int64_t i = 0; i < DIM; i++)
        x[i] = (double)(scale[row] * fa_element(c->dtype, codes, row * DIM + i) + zero[row]);
}

static void attend_caches(const cache *c)
{
    const fa_tensor scales = fa_tensor_make(FA_F32, 1, s.heads, MOST_KEYS, 1);
    fa_segment segment[2];
    fa_segment_args memory_of[2];
    const fa_segment *const segments[] = {&segment[0], &segment[1]};
    const fa_segment_args *const memories[] = {&memory_of[0], &memory_of[1]};
    fa_attention_desc d = make_desc(1, s.heads * s.group, s.heads, ROWS, 1, DIM);
    d.k = d.v = (fa_tensor){FA_F32, {0}, {0}};
    for (int n = 0; n < 2; n++) {
        const fa_tensor codes = fa_tensor_make(c[n].dtype, 1, s.heads, MOST_KEYS, DIM);
        segment[n] = (fa_segment){.struct_size = sizeof(fa_segment),
                                  .k = codes,
                                  .v = codes,
                                  .k_scale = scales,
                                  .v_scale = scales,
                                  .k_zero = scales,
                                  .v_zero = scales,
                                  .lens_kv = &c[n].count};
        memory_of[n] = (fa_segment_args){.struct_size = sizeof(fa_segment_args),
                                         .k = c[n].codes[0],
                                         .v = c[n].codes[1],
                                         .k_scale = c[n].scale[0],
                                         .v_scale = c[n].scale[1],
                                         .k_zero = c[n].zero[0],
                                         .v_zero = c[n].zero[1]};
    }
    const fa_segments_desc desc = {
        .struct_size = sizeof(desc), .attention = &d, .segments = 2, .segment = segments};
    const size_t bytes = (size_t)(s.heads * s.group * ROWS * DIM) * sizeof(float);
    fa_segments *made;
    ck_assert_msg(fa_segments_create(device, &desc, &made) == FA_OK, "%s", fa_last_error());
    fa_segments_args args = {
        .struct_size = sizeof(args), .q = upload(s.q, bytes), .o = upload(s.q, bytes), .segment = memories};
    ck_assert_int_eq(fa_buffer_create(device, fa_segments_workspace(made), &args.workspace), FA_OK);
    ck_assert_msg(fa_segments_run(made, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, o, bytes), FA_OK);
    fa_segments_destroy(made);
    fa_buffer_destroy(args.q);
    fa_buffer_destroy(args.o);
    fa_buffer_destroy(args.workspace);
}

START_TEST(caches)
{
    static double k[MOST_HEADS][MOST_KEYS * DIM], v[MOST_HEADS][MOST_KEYS * DIM], times[MOST_KEYS];
    random_state random = {(uint64_t)_i + 1};
    cache c[2] = {{.dtype = FA_U4}, {.dtype = FA_U2}};
    fa_policy_zip_desc d;
    if (!device || (slow && _i > 0))
        return;
    draw(&random, &d);
    d.each_head = 0;
    ck_assert_int_eq(fa_policy_zip(context, &d, &s.lists, slots, other_slots), FA_OK);
    fa_buffer *all_k = upload(s.k, sizeof(s.k)), *all_v = upload(s.v, sizeof(s.v));
    append(&c[0], slots, all_k, all_v);
    append(&c[1], other_slots, all_k, all_v);
    ck_assert_int_eq(c[0].count + c[1].count, s.keys);
    for (int64_t i = 0; i < s.heads * s.keys; i++) {
        const int64_t head = i / s.keys, key = i % s.keys;
        const bool is_important = slots[key] >= 0;
        const int32_t slot = is_important ? slots[key] : other_slots[key];
        const double step = 4.0 / (is_important ? 15 : 3); /* of numbers from -2 to 2 */
        decode(&c[!is_important], 0, head, slot, k[head] + key * DIM);
        decode(&c[!is_important], 1, head, slot, v[head] + key * DIM);
        for (int64_t e = 0; e < DIM; e++)
            ck_assert(fabs(k[head][key * DIM + e] - (double)s.k[i * DIM + e]) <= step / 2 * 1.001);
        times[key] = 1;
    }
    attend_caches(c);
    for (int64_t row = 0; row < s.heads * s.group * ROWS; row++) {
        const int64_t head = row / ROWS / s.group;
        double exact[DIM];
        policy_exact(s.q + row * DIM, s.keys, k[head], v[head], times, exact);
        for (int64_t i = 0; i < DIM; i++)
            ck_assert_msg(fabs((double)o[row * DIM + i] - exact[i]) <= 4e-6,
                          "o of row %lld is %g, expected %g", (long long)row, (double)o[row * DIM + i],
                          exact[i]);
    }
    for (int n = 0; n < 4; n++) {
        fa_buffer_destroy(c[n / 2].codes[n % 2]);
        fa_buffer_destroy(c[n / 2].scale[n % 2]);
        fa_buffer_destroy(c[n / 2].zero[n % 2]);
    }
    fa_buffer_destroy(all_k);
    fa_buffer_destroy(all_v);
}
END_TEST

#define REFUSED(part)                                                                   \
    do {                                                                                \
        ck_assert_int_eq(fa_policy_zip(context, &d, &s.lists, NULL, NULL), FA_INVALID); \
        assert_message(part);                                                           \
        d = good;                                                                       \
    } while (0)

START_TEST(refused)
{
    random_state random = {3};
    policy_scene_draw(&s, &random);
    const fa_policy_zip_desc good = {
        .struct_size = sizeof(good), .heads = 2, .keys = 3, .weights = s.importance, .saliency = saliency};
    fa_policy_zip_desc d = good;
    ck_assert_int_eq(fa_policy_zip(NULL, &d, &s.lists, NULL, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_zip(context, NULL, &s.lists, NULL, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_zip(context, &d, NULL, NULL, NULL), FA_INVALID);
    d.heads = 0;
    REFUSED("heads is 0");
    d.keys = 0;
    REFUSED("keys is 0");
    d.weights = NULL;
    REFUSED("weights is NULL");
    d.part = 1.5;
    REFUSED("part is 1.5");
    d.part = -1;
    REFUSED("part is -1");
    d.each_head = 2;
    REFUSED("each_head is 2");
    s.importance[4] = -1;
    REFUSED("weights[1] of head 1 is -1");
    s.importance[4] = 0;
    saliency[4] = (float)NAN;
    REFUSED("saliency[1] of head 1 is NaN");
    saliency[4] = 0;
    for (int n = 0; n < 2; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_policy_zip(context, &d, &s.lists, NULL, NULL), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("policies_zip");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, choices, 0, 4);
    tcase_add_loop_test(tc, prompts, 0, 3);
    tcase_add_loop_test(tc, caches, 0, 3);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
