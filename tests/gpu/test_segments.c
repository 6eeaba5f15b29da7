/* SPDX-License-Identifier: Apache-2.0 */
/* Caches in segments on a backend, whose name is the argument: against the oracle of all their keys in one tensor. */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/segments_scene.h"

/* With the description's lengths, then with others, of all segments and of the last alone; from the device too. */
static void check_segments(scene *s, random_state *random)
{
    fa_segments *segments;
    memory_of m;
    const int count = (int)s->segments.segments;
    if (!create_segments(s, &segments))
        return;
    make_memory(s, segments, &m);
    run_scene(s, segments, &m);
    if (s->desc.dynamic_lengths > 0) {
        fa_lengths lengths[MOST];
        const fa_lengths *list[MOST];
        m.args.work_offset = 256;
        ck_assert_int_eq(fa_buffer_create(device, 256 + fa_segments_work(segments), &m.args.work), FA_OK);
        for (int all = 1; all >= 0; all--) {
            for (int n = 0; n < count; n++) {
                lengths[n] = (fa_lengths){.struct_size = sizeof(fa_lengths), .lens_kv = s->cache[n].lens};
                list[n] = all || n == count - 1 ? &lengths[n] : NULL;
                for (int b = 0; b < BATCH && list[n]; b++)
                    s->cache[n].lens[b] = random_between(random, n == count - 1 ? ROWS : 0, KEYS);
            }
            ck_assert_msg(fa_segments_schedule(segments, queue, list, m.args.work, 256) == FA_OK, "%s",
                          fa_last_error());
            run_scene(s, segments, &m);
        }
        fa_device_lengths from[MOST];
        const fa_device_lengths *device_list[MOST];
        fa_buffer *kept[MOST + 1] = {NULL};
        int32_t cu[BATCH + 1], lens[MOST][BATCH];
        for (int b = 0; b <= BATCH; b++)
            cu[b] = (int32_t)s->cu[b];
        kept[count] = upload(cu, sizeof(cu));
        for (int n = 0; n < count && s->desc.dynamic_lengths == 2; n++) {
            for (int b = 0; b < BATCH; b++)
                lens[n][b] = (int32_t)(s->cache[n].lens[b] = random_between(random, ROWS, KEYS));
            kept[n] = upload(lens[n], sizeof(lens[n]));
            from[n] = (fa_device_lengths){.struct_size = sizeof(from[n]), .lens_kv = kept[n]};
            from[n].cu_rows_q = s->desc.cu_rows_q ? kept[count] : NULL;
            device_list[n] = &from[n];
        }
        if (s->desc.dynamic_lengths == 2) {
            ck_assert_msg(fa_segments_schedule_device(segments, queue, device_list, m.args.work, 256) ==
                              FA_OK,
                          "%s", fa_last_error());
            run_scene(s, segments, &m);
        }
        for (int n = 0; n <= count; n++)
            fa_buffer_destroy(kept[n]);
        fa_buffer_destroy(m.args.work);
    }
    release_memory(&m);
    fa_segments_destroy(segments);
}

START_TEST(segments_of_all_formats)
{
    static scene s;
    random_state random = {21};
    for (int i = slow ? 1 : 0; i < (slow ? 2 : 60) && device; i++) {
        const int count = slow ? 2 : i % MOST + 1, rows = i % 3 == 0 ? ROWS : 1;
        for (int n = 0; n < count; n++)
            make_cache(&s.cache[n], slow ? (n ? F16 : Q8_0) : (int)random_between(&random, 0, FORMATS - 1),
                       !slow && random_bits(&random) % 3 == 0, &random);
        make_scene(&s, count, rows, i % 2 == 1, i % 4 == 1, &random);
        if (rows > 1)
            s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        if (i % 5 == 2) {
            s.desc.softcap = 4;
            s.desc.sinks = s.sinks;
            for (int h = 0; h < HEADS_Q; h++)
                s.sinks[h] = random_float(&random, -1, 3);
        }
        s.desc.dynamic_lengths = i % 4 == 0 || i % 6 == 3 ? 1 + (i % 6 == 0 || i % 6 == 3) : 0;
        check_segments(&s, &random);
    }
}
END_TEST

/* What an element's code may be off by: half a step, and what rounding the scale and the zero moved the range by. */
static double off_by(const side *s, int64_t at, int keys, int dims)
{
    const int64_t row = at / DIM, j = row % s->t.shape[2];
    if (keys == 0)
        return s->t.dtype == FA_F16 ? 0x1p-11 * fabs((double)s->x[at]) : 0;
    const int64_t scale_at = at_of(&s->scale, 0, row / s->t.shape[2], j / keys, at % DIM / dims);
    const double scale = (double)fa_f16_to_f32(s->scales[scale_at]),
                 zero = (double)fa_f16_to_f32(s->zeros[scale_at]),
                 range = scale * (double)((1 << fa_dtype_size(s->t.dtype)) - 1);
    return scale / 2 + 0x1p-11 * range + 0x1p-11 * fabs(zero) + 1e-6;
}

/*
 * KIVI in decoding: a body in 4 or 2 bits and a window in f16, against what was never quantised. Scores move by at most
 * e_j = scale sum_d |q_d| (how far k_jd is off), so weights by a factor within exp(+-2 e), which moves o by at most
 * (exp(2 e) - 1) sum_j p_j |v_j - o|, and values by what v is off.
 */
START_TEST(kivi_within_its_bound)
{
    static scene s;
    static float k[MOST * CACHE], v[MOST * CACHE];
    static double o[STATES * DIM], lse[STATES];
    random_state random = {5};
    for (int kind = 2; kind <= 3 && device && !slow; kind++) {
        fa_segments *segments;
        memory_of m;
        int64_t lens[BATCH];
        make_cache(&s.cache[0], kind, false, &random);
        make_cache(&s.cache[1], 1, false, &random);
        make_scene(&s, 2, 1, false, false, &random);
        if (!create_segments(&s, &segments))
            continue;
        make_memory(&s, segments, &m);
        run_scene(&s, segments, &m);
        const fa_attention_desc d = whole_scene(&s, true, k, v, lens);
        const fa_inputs inputs = {.q = s.q, .k = k, .v = v};
        ck_assert_int_eq(fa_reference_attention(context, &d, &inputs, o, lse), FA_OK);
        for (int64_t row = 0; row < BATCH * HEADS_Q; row++) {
            const int64_t b = row / HEADS_Q, h = row % HEADS_Q / (HEADS_Q / HEADS_KV);
            double worst_score = 0, worst_value = 0, spread[DIM] = {0};
            for (int n = 0, all = 0; n < 2; n++) {
                const cache *c = &s.cache[n];
                const format *f = &formats[n == 0 ? kind : 1];
                for (int64_t j = 0; j < c->lens[b]; j++, all++) {
                    const int64_t at = at_of(&c->k.t, b, h, j, 0);
                    const float *key = k + ((b * HEADS_KV + h) * MOST * KEYS + all) * DIM,
                                *value = v + ((b * HEADS_KV + h) * MOST * KEYS + all) * DIM;
                    double score = 0, moved = 0;
                    for (int64_t e = 0; e < DIM; e++) {
                        const double off_k = off_by(&c->k, at + e, f->k_keys, f->k_dims),
                                     off_v = off_by(&c->v, at + e, f->v_keys, f->v_dims);
                        ck_assert_double_le(fabs((double)c->k.x[at + e] - (double)c->k.decoded[at + e]),
                                            off_k);
                        ck_assert_double_le(fabs((double)c->v.x[at + e] - (double)c->v.decoded[at + e]),
                                            off_v);
                        score += (double)s.q[row * DIM + e] * (double)key[e] / sqrt(DIM);
                        moved += fabs((double)s.q[row * DIM + e]) * off_k / sqrt(DIM);
                        worst_value = fmax(worst_value, off_v);
                    }
                    worst_score = fmax(worst_score, moved);
                    for (int64_t e = 0; e < DIM; e++)
                        spread[e] += exp(score - lse[row]) * fabs((double)value[e] - o[row * DIM + e]);
                }
            }
            for (int64_t e = 0; e < DIM; e++) {
                const double bound = (exp(2 * worst_score) - 1) * spread[e] + worst_value + 1e-5;
                ck_assert_double_le(fabs((double)s.o[row * DIM + e] - o[row * DIM + e]), bound);
            }
        }
        release_memory(&m);
        fa_segments_destroy(segments);
    }
}
END_TEST

/* Each request for memory fails once. */
START_TEST(segments_out_of_memory)
{
    static scene s;
    random_state random = {7};
    fa_segments *segments;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_cache(&s.cache[0], 3, false, &random);
    make_cache(&s.cache[1], 1, false, &random);
    make_scene(&s, 2, 1, true, true, &random);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OK);
    fa_segments_destroy(segments);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(segments);
    }
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("segments");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, segments_of_all_formats);
    tcase_add_test(tc, kivi_within_its_bound);
    add_refusals(tc);
    tcase_add_test(tc, segments_out_of_memory);
    return run_on_backend(suite);
}
