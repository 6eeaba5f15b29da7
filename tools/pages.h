/* SPDX-License-Identifier: Apache-2.0 */
/* Paged caches for problems that are given as a shape: `plan` and `bench`. */
#ifndef FASTATTN_TOOLS_PAGES_H
#define FASTATTN_TOOLS_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include <fastattn/fastattn.h>

struct shape;

enum { PAGES_IN_ORDER = -1 };

typedef struct paging {
    int32_t keys; /* of a page; 0: k and v are no pools of pages                              */
    int64_t seed; /* of the order in which the pool's pages are dealt; or PAGES_IN_ORDER       */
} paging;

/* The values of --page and --scatter, 0 and PAGES_IN_ORDER where they are not given. False after an error. */
bool pages_options(const char *command, int64_t page, int64_t scatter, paging *out);

/* Makes k and v of a description of dense tensors pools of pages, as many as the sequences need. *lens is NULL or what
 * d->lens_kv points to, for the caller to free. False when memory is short. */
bool pages_describe(const paging *p, const struct shape *s, fa_attention_desc *d, int64_t **lens);

#endif
