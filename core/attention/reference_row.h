/* SPDX-License-Identifier: Apache-2.0 */
/* One row of the oracle: its operands and what it sees, its exact weights, and how far f32 may lead away from these. */
#ifndef FA_CORE_ATTENTION_REFERENCE_ROW_H
#define FA_CORE_ATTENTION_REFERENCE_ROW_H

#include <fastattn/reference.h>
#include <math.h>

#include "core/attention/problem.h"

/* Of one dim of an output: see limit_output(). */
typedef struct fa_oracle_column {
    double o, moved, least, most;
} fa_oracle_column;

/*
 * One query row of one head, with its operands as f32, which every type of elements is exactly. The keys and values of a
 * KV head are widened once for all of its rows.
 */
typedef struct fa_oracle_row {
    const fa_problem *p;
    const fa_sequence *s;
    const fa_inputs *in;
    int64_t sequence;
    int32_t row, head;
    float *q, *k, *v;          /* dim_qk; len_kv rows of dim_qk, and of dim_v */
    bool *seen;                /* of each key                                 */
    void *numbers;             /* room for FA_ORACLE_NUMBERS doubles of each key, and of the sink */
    fa_oracle_column *columns; /* dim_v */
} fa_oracle_row;

enum { FA_ORACLE_NUMBERS = 4 };

/* Of all keys of the KV head, and of the row's query. */
void fa_oracle_widen_keys(const fa_oracle_row *r);
void fa_oracle_widen_query(const fa_oracle_row *r);

/* Where v lies, which may be in k. */
const void *fa_oracle_values_of(const fa_problem *p, const fa_inputs *in);

bool fa_oracle_sees(const fa_oracle_row *r, int32_t key);

/* Weights of a row's keys under its largest score, their sum with the sink's, and the LSE. */
double fa_oracle_weigh(const fa_oracle_row *r, double *weight, double *lse);

/* Of one row: see fa_reference_limit(). */
void fa_oracle_limit(const fa_oracle_row *r, fa_dtype weights, int merges, double *o, double *lse);

/* 0 without a bias. */
float fa_oracle_bias(const fa_oracle_row *r, int32_t key);

static inline const float *fa_oracle_key(const fa_oracle_row *r, int32_t key)
{
    return r->k + (size_t)key * (size_t)r->p->dim_qk;
}

static inline const float *fa_oracle_value(const fa_oracle_row *r, int32_t key)
{
    return r->v + (size_t)key * (size_t)r->p->dim_v;
}

static inline float fa_oracle_factor(const fa_oracle_row *r)
{
    return r->p->bias_factors ? r->p->bias_factors[r->head] : 1;
}

static inline float fa_oracle_slope(const fa_oracle_row *r)
{
    return fa_problem_slope(r->p, r->sequence, r->head);
}

/* Distance of a key from the row's position, for ALiBi. */
static inline double fa_oracle_distance(const fa_oracle_row *r, int32_t key)
{
    return fabs((double)r->s->mask.diagonal + r->row - key);
}

#endif
