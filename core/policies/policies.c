/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policies/policies.h"

#include "core/attention/checks.h"
#include "core/structs.h"

fa_status fa_policy_check_keys(int64_t heads, int64_t keys)
{
    FA_TRY(fa_check_limit("heads", heads, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("keys", keys, 1, FA_MAX_LENGTH));
    if (keys > INT32_MAX / heads)
        return fa_fail(FA_INVALID, "keys is %lld of %lld heads, expected at most %d in all", (long long)keys,
                       (long long)heads, INT32_MAX);
    return FA_OK;
}

fa_status fa_policy_lists_copy(fa_policy_lists *to, const fa_policy_lists *lists, bool weighted)
{
    if (!lists)
        return fa_fail(FA_INVALID, "lists is NULL");
    FA_TRY(fa_copy_struct(to, sizeof(*to), FA_POLICY_LISTS_0_1, lists, "fa_policy_lists"));
    const char *missing = !to->cu_keys               ? "cu_keys"
                          : !to->offsets             ? "offsets"
                          : !to->rows                ? "rows"
                          : weighted && !to->weights ? "weights"
                                                     : NULL;
    return missing ? fa_fail(FA_INVALID, "lists.%s is NULL", missing) : FA_OK;
}

fa_policy_writer fa_policy_begin(const fa_policy_lists *to, int64_t keys)
{
    to->cu_keys[0] = to->offsets[0] = 0;
    return (fa_policy_writer){.to = *to, .keys = keys};
}

void fa_policy_add(fa_policy_writer *w, int64_t head, int64_t key, double weight)
{
    w->to.rows[w->entries] = (int32_t)(head * w->keys + key);
    if (w->to.weights)
        w->to.weights[w->entries] = (float)weight;
    w->entries++;
}

void fa_policy_next(fa_policy_writer *w)
{
    w->to.offsets[++w->lists] = (int32_t)w->entries;
}

void fa_policy_end_head(fa_policy_writer *w, int64_t head)
{
    w->to.cu_keys[head + 1] = (int32_t)w->lists;
}

void fa_policy_keep(fa_policy_writer *w, int64_t head, int64_t key)
{
    fa_policy_add(w, head, key, 1);
    fa_policy_next(w);
}
