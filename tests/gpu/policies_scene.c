/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/policies_scene.h"

#include <math.h>

void policy_scene_draw(policy_scene *s, random_state *random)
{
    s->heads = random_between(random, 1, MOST_HEADS);
    s->group = random_between(random, 1, MOST_GROUP);
    s->keys = random_between(random, 1, MOST_KEYS);
    for (int n = 0; n < COUNT(s->q); n++)
        s->q[n] = random_float(random, -2, 2);
    for (int n = 0; n < COUNT(s->k); n++) {
        s->k[n] = random_float(random, -2, 2);
        s->v[n] = random_float(random, -2, 2);
    }
    /* Some of them equal. */
    for (int n = 0; n < COUNT(s->importance); n++)
        s->importance[n] = (float)random_between(random, 0, 40) / 8;
    s->lists = (fa_policy_lists){sizeof(s->lists), s->cu_keys, s->offsets, s->rows, s->weights};
}

void policy_expect_list(const policy_scene *s, int64_t n, int64_t head, const int64_t *keys,
                        const double *weights, int64_t count)
{
    ck_assert_int_lt(n, s->cu_keys[head + 1]);
    ck_assert_int_ge(n, s->cu_keys[head]);
    ck_assert_int_eq(s->offsets[n + 1] - s->offsets[n], count);
    for (int64_t i = 0; i < count; i++) {
        ck_assert_int_eq(s->rows[s->offsets[n] + i], head * s->keys + keys[i]);
        ck_assert_msg(fabs((double)s->weights[s->offsets[n] + i] - weights[i]) <=
                          weights[i] * 0x1p-24 + 1e-12,
                      "weight of key %lld is %g, expected %g", (long long)keys[i],
                      (double)s->weights[s->offsets[n] + i], weights[i]);
    }
}

void policy_expect_key(const policy_scene *s, int64_t n, int64_t head, int64_t key)
{
    policy_expect_list(s, n, head, &key, (double[]){1}, 1);
}

/* The rows of k or v that the lists make. */
static fa_buffer *mixed(const policy_scene *s, const float *from)
{
    const int64_t lists = s->cu_keys[s->heads], all = s->heads * s->keys;
    const fa_mix_desc desc = {.struct_size = sizeof(desc),
                              .from = fa_tensor_make(FA_F32, 1, s->heads, s->keys, DIM),
                              .to = fa_tensor_make(FA_F32, 1, 1, lists, DIM),
                              .lists = lists,
                              .entries = s->offsets[lists],
                              .longest = s->keys,
                              .weighted = 1};
    fa_mix_args args = {.struct_size = sizeof(args),
                        .from = upload(from, (size_t)(all * DIM) * sizeof(float)),
                        .to = upload(from, (size_t)(all * DIM) * sizeof(float)),
                        .offsets = upload(s->offsets, sizeof(s->offsets)),
                        .rows = upload(s->rows, sizeof(s->rows)),
                        .weights = upload(s->weights, sizeof(s->weights))};
    fa_mix *mix;
    ck_assert_msg(fa_mix_create(device, &desc, &mix) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_mix_run(mix, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer *const used[] = {args.from, args.offsets, args.rows, args.weights};
    for (int n = 0; n < COUNT(used); n++)
        fa_buffer_destroy(used[n]);
    fa_mix_destroy(mix);
    return args.to;
}

void policy_attend(const policy_scene *s, const float *bias, float *o)
{
    fa_attention_desc d = make_desc(s->heads, s->group, 1, ROWS, s->cu_keys[s->heads], DIM);
    d.k.shape[0] = d.v.shape[0] = 1;
    d.sequences = s->heads;
    d.cu_rows_kv32 = s->cu_keys;
    if (bias)
        d.bias = fa_tensor_make(FA_F32, s->heads, 1, 1, s->keys);
    const size_t bytes = (size_t)(s->heads * s->group * ROWS * DIM) * sizeof(float);
    fa_plan *plan;
    ck_assert_msg(fa_plan_create(device, &d, &plan) == FA_OK, "%s", fa_last_error());
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = upload(s->q, bytes),
                              .k = mixed(s, s->k),
                              .v = mixed(s, s->v),
                              .o = upload(s->q, bytes)};
    args.bias = bias ? upload(bias, (size_t)(s->heads * s->keys) * sizeof(float)) : NULL;
    if (fa_plan_workspace(plan) > 0)
        ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &args.workspace), FA_OK);
    ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, o, bytes), FA_OK);
    fa_buffer *const used[] = {args.q, args.k, args.v, args.o, args.bias, args.workspace};
    for (int n = 0; n < COUNT(used); n++)
        fa_buffer_destroy(used[n]);
    fa_plan_destroy(plan);
}

void policy_exact(const float *q, int64_t count, const double *k, const double *v, const double *times,
                  double *o)
{
    double whole = 0;
    for (int64_t d = 0; d < DIM; d++)
        o[d] = 0;
    for (int64_t n = 0; n < count; n++) {
        double x = 0;
        for (int64_t d = 0; d < DIM; d++)
            x += (double)q[d] * k[n * DIM + d];
        const double weight = times[n] * exp(x / sqrt(DIM));
        whole += weight;
        for (int64_t d = 0; d < DIM; d++)
            o[d] += weight * v[n * DIM + d];
    }
    for (int64_t d = 0; d < DIM; d++)
        o[d] /= whole;
}
