/* SPDX-License-Identifier: Apache-2.0 */
/* The types of k and v where they are not q's, for `plan` and `bench`. */
#ifndef FASTATTN_TOOLS_KVTYPE_H
#define FASTATTN_TOOLS_KVTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include <fastattn/fastattn.h>

typedef struct kv_types {
    bool given; /* else both are q's */
    fa_dtype k, v;
} kv_types;

/* The value of --kv-type: NULL, "q8_0", or "q8_0,q4_0" for k and v apart. False after an error. */
bool kv_types_option(const char *command, const char *text, kv_types *out);

/* Gives k and v of a description their types, where there are such. */
void kv_types_describe(const kv_types *types, fa_attention_desc *d);

/* "f16", or "f16:q8_0,q4_0" where k and v have types of their own. */
void kv_types_print(const kv_types *types, fa_dtype dtype, char *text, size_t size);

#endif
