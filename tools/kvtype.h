/* SPDX-License-Identifier: Apache-2.0 */
/* The types of k and v where they are not q's, and the scales that lie in tensors of their own: --kv-type. */
#ifndef FASTATTN_TOOLS_KVTYPE_H
#define FASTATTN_TOOLS_KVTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include <fastattn/fastattn.h>

typedef enum kv_scaling {
    KV_UNSCALED,
    KV_TENSOR,  /* one scale                          */
    KV_HEAD,    /* one of each head                   */
    KV_TOKEN,   /* one of each key and head           */
    KV_GROUP,   /* one of each group of dims of these */
    KV_CHANNEL, /* one of each dim of a group of keys */
} kv_scaling;

/* What rows of bitmap_f16 keep: a part of their elements, or where that is 0 so many. */
typedef struct kv_rows {
    double part;
    int32_t count;
} kv_rows;

/* Of k or v. Scales are f16; those of e2m1 are e4m3 in groups of 16 (NVFP4), else e8m0 (MXFP4). Unsigned codes have zeros, f16. */
typedef struct kv_type {
    fa_dtype dtype;
    kv_scaling scaling;
    int32_t group; /* dims, or keys, that share a scale */
    kv_rows rows;
} kv_type;

typedef struct kv_types {
    bool given; /* else both are q's */
    kv_type k, v;
} kv_types;

/* Its help text, behind which more may be said. */
#define KV_TYPES_HELP                                                                              \
    "<type[,type]> that of k and v, or of each: f32 f16 bf16 e4m3 e5m2 q8_0 q4_0 q4_1 q5_0 q5_1\n" \
    "iq4_nl; with scales (i8:token) i8 i4 i2 u8 u4 u2 u1 u2u1 e2m1 e4m3 e5m2 with tensor, head,\n" \
    "token, groupN or channelN; bitmap_f16:0.5, whose rows keep half of their elements, or\n"      \
    "bitmap_f16:64, so many"

/*
 * The value of --kv-type: NULL, "q8_0", or "q8_0,i8:token" for k and v apart. Behind a colon: tensor, head, token, groupN or
 * channelN; of bitmap_f16 a number. False after an error.
 */
bool kv_types_option(const char *command, const char *text, kv_types *out);

/* Whether codes alone have scales, and no others that have their own. False after an error. */
bool kv_types_whole(const char *command, const kv_types *types);

/* Gives k and v of a description their types, where there are such. */
void kv_types_describe(const kv_types *types, fa_attention_desc *d);

/* Makes v of a description the first dims of k, with its strides spelled out. */
void kv_types_share(fa_attention_desc *d);

/* Once k and v have their shapes: gives the description tensors of scales and zeros, and rows of bitmap_f16 their bytes. False where
 * groups do not divide them, or rows have fewer elements; `why` says so. */
bool kv_types_scale(const kv_types *types, fa_attention_desc *d, char *why, size_t size);

/* Whether zeros go with scales of k or v. */
bool kv_has_zeros(const kv_type *type);

/* The elements that a row of so many dims keeps. */
int64_t kv_kept(kv_rows rows, int64_t dims);

/* The type of scales of k or v. */
fa_dtype kv_scale_type(const kv_type *type);

/* "q8_0", "i8:token" or "bitmap_f16:0.5". */
void kv_type_print(const kv_type *type, char *text, size_t size);

/* "f16", or "f16:q8_0,i8:token" where k and v have types of their own. */
void kv_types_print(const kv_types *types, fa_dtype dtype, char *text, size_t size);

#endif
