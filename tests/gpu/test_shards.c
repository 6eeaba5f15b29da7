/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shards of latent attention on a backend, whose name is the argument: against their definition.
 *
 * Tensor-parallel latent attention (TPLA, arXiv 2508.15881). The latent of a key is divided into shards. A shard has its part
 * of the latent, and all of what carries the position. Each head attends in each shard on its own:
 *     o_s = softmax(scale * (q_s . c_s + q_r . r)) c_s,
 * and what is summed over shards is o_s times the shard's rows of the next matrix. So the o_s lie side by side in the latent,
 * and a sum over ranks is over what they make of theirs.
 */
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum {
    SHARDS = 2,
    LATENT = 48,
    OWN = LATENT / SHARDS,
    POSITION = 16,
    ROW = OWN + POSITION,
    KEYS = 70,
    HEADS_L = 4,
    ROWS_L = 2,
    NEXT = 5
};

typedef struct shards {
    float q[SHARDS][HEADS_L][ROWS_L][ROW], k[SHARDS][KEYS][ROW], next[LATENT][NEXT];
    float o[HEADS_L][ROWS_L][LATENT];
} shards;

/* Shards as batch entries: v is the first dims of k, and rows of o are those of the latent. */
static fa_attention_desc shards_desc(int count)
{
    fa_attention_desc d = make_desc(count, HEADS_L, 1, ROWS_L, KEYS, ROW);
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    d.v.shape[3] = d.o.shape[3] = OWN;
    d.v.stride[3] = d.o.stride[3] = 1;
    d.v.stride[2] = ROW;
    d.v.stride[0] = d.v.stride[1] = (int64_t)KEYS * ROW;
    d.o.stride[0] = OWN;
    d.o.stride[1] = (int64_t)ROWS_L * LATENT;
    d.o.stride[2] = LATENT;
    return d;
}

/* As it is defined. */
static void attend_in_shard(const shards *s, int shard, int head, int row, double o[OWN])
{
    double weight[KEYS], sum = 0;
    const int seen = KEYS - ROWS_L + row + 1;
    for (int j = 0; j < seen; j++) {
        double score = 0;
        for (int d = 0; d < ROW; d++)
            score += (double)s->q[shard][head][row][d] * (double)s->k[shard][j][d];
        weight[j] = exp(score / sqrt(ROW));
        sum += weight[j];
    }
    for (int d = 0; d < OWN; d++) {
        o[d] = 0;
        for (int j = 0; j < seen; j++)
            o[d] += weight[j] / sum * (double)s->k[shard][j][d];
    }
}

static void check_shards(const shards *s)
{
    for (int i = 0; i < HEADS_L * ROWS_L; i++) {
        const int head = i / ROWS_L, row = i % ROWS_L;
        double reduced[NEXT] = {0}, found[NEXT] = {0};
        for (int shard = 0; shard < SHARDS; shard++) {
            double o[OWN];
            attend_in_shard(s, shard, head, row, o);
            for (int d = 0; d < OWN; d++) {
                const int at = shard * OWN + d;
                ck_assert_double_le(fabs((double)s->o[head][row][at] - o[d]), 2e-6);
                for (int n = 0; n < NEXT; n++) {
                    reduced[n] += o[d] * (double)s->next[at][n];
                    found[n] += (double)s->o[head][row][at] * (double)s->next[at][n];
                }
            }
        }
        for (int n = 0; n < NEXT; n++)
            ck_assert_double_le(fabs(found[n] - reduced[n]), 1e-4);
    }
}

START_TEST(latent_in_shards)
{
    static shards s;
    random_state random = {11};
    float *const all = (float *)&s;
    if (!device || slow)
        return;
    for (size_t i = 0; i < sizeof(s) / sizeof(float); i++)
        all[i] = random_float(&random, -1, 1);
    /* What carries the position is the same in each. */
    for (int j = 0; j < KEYS; j++)
        memcpy(&s.k[1][j][OWN], &s.k[0][j][OWN], POSITION * sizeof(float));
    const fa_attention_desc both = shards_desc(SHARDS), one = shards_desc(1);
    ck_assert_msg(fa_attention_host(device, &both, s.q, s.k, s.k, NULL, NULL, s.o, NULL) == FA_OK, "%s",
                  fa_last_error());
    check_shards(&s);
    /* A plan for each rank. */
    memset(s.o, 0, sizeof(s.o));
    for (int shard = 0; shard < SHARDS; shard++)
        ck_assert_int_eq(fa_attention_host(device, &one, s.q[shard], s.k[shard], s.k[shard], NULL, NULL,
                                           &s.o[0][0][(size_t)shard * OWN], NULL),
                         FA_OK);
    check_shards(&s);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("shards");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, latent_in_shards);
    return run_on_backend(suite);
}
