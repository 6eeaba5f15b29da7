/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that list cases have in common. */
#ifndef FASTATTN_TOOLS_CONFORM_CASES_H
#define FASTATTN_TOOLS_CONFORM_CASES_H

#include "tools/cli.h"
#include "tools/conform/conform.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const conform_case basic = {
    .batch = 1,
    .heads_q = 2,
    .heads_kv = 1,
    .dim_qk = 32,
    .dim_v = 32,
    .len_q = {CONFORM_FIXED, 33},
    .len_kv = {CONFORM_FIXED, 47},
    .bias_axes = CONFORM_NO_AXES,
    .keep_axes = CONFORM_NO_AXES,
};

static const fa_dtype float_types[] = {FA_F32, FA_F16, FA_BF16};

static inline void set_types(conform_case *c, fa_dtype dtype)
{
    c->q = c->k = c->v = c->o = dtype;
}

static inline void set_lengths(conform_case *c, int32_t len_q, int32_t len_kv)
{
    c->len_q = (conform_length){CONFORM_FIXED, len_q};
    c->len_kv = (conform_length){CONFORM_FIXED, len_kv};
}

static inline void set_heads(conform_case *c, int32_t batch, int32_t heads_q, int32_t heads_kv)
{
    c->batch = batch;
    c->heads_q = heads_q;
    c->heads_kv = heads_kv;
}

static inline void set_dims(conform_case *c, int32_t dim_qk, int32_t dim_v)
{
    c->dim_qk = dim_qk;
    c->dim_v = dim_v;
}

/* Appends a copy. False without memory. */
bool conform_append(conform_list *list, const conform_case *c);

/* Appends a copy under a name made of the label and of what every case has. */
CLI_PRINTF(3, 4)
bool conform_add(conform_list *list, const conform_case *c, const char *label, ...);

/* Masks, packed sequences, lengths, the diagonal. */
bool conform_add_masks(conform_list *list);

/* Lists of key blocks, drawn and as planners make them. */
bool conform_add_lists(conform_list *list);
bool conform_add_planners(conform_list *list);

/* Neighbourhoods of a grid. */
bool conform_add_near(conform_list *list);

/* Keys in pages, first keys, latent attention; formats of caches. */
bool conform_add_caches(conform_list *list);
bool conform_add_formats(conform_list *list);

/* What happens to a score. */
bool conform_add_scores(conform_list *list);

/* Numbers that are not finite or at the ends of f32's range, hidden or seen. */
bool conform_add_hazards(conform_list *list);

#endif
