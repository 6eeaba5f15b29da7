/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/pages.h"

#include <stdlib.h>

#include "tools/cli.h"
#include "tools/shape.h"

bool pages_options(const char *command, int64_t page, int64_t scatter, paging *out)
{
    out->seed = scatter;
    if (!cli_int32(command, "page", page, &out->keys))
        return false;
    if (scatter < PAGES_IN_ORDER)
        cli_error(command, "--scatter is %lld, expected a seed of at least 0, or -1", (long long)scatter);
    else if (scatter != PAGES_IN_ORDER && !out->keys)
        cli_error(command, "--scatter is %lld, expected --page beside it", (long long)scatter);
    else
        return true;
    return false;
}

bool pages_describe(const paging *p, const struct shape *s, fa_attention_desc *d, int64_t **lens)
{
    *lens = NULL;
    if (!p->keys)
        return true;
    const int64_t each = s->len_kv / p->keys + (s->len_kv % p->keys != 0);
    const bool fits = each <= INT32_MAX / s->batch;
    d->k.shape[0] = d->v.shape[0] = fits ? s->batch * each : INT64_MAX;
    d->k.shape[2] = d->v.shape[2] = p->keys;
    d->page_table = fa_tensor_make(FA_I32, s->batch, 1, 1, each);
    if (!fits)
        return true; /* the library refuses such a pool, whatever the lengths */
    char why[384];
    if (!cli_memory_fits((double)s->batch * sizeof(**lens), why, sizeof(why)))
        return false;
    *lens = malloc((size_t)s->batch * sizeof(**lens));
    for (int64_t n = 0; *lens && n < s->batch; n++)
        (*lens)[n] = s->len_kv;
    d->lens_kv = *lens;
    return *lens != NULL;
}
