/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/pages.h"

#include "core/status.h"

#include "core/portable/scales.h"

fa_status fa_pages_check(const fa_problem *p, const int32_t *table, int64_t n, int64_t first, int64_t keys)
{
    if (!(p->features & FA_FEATURE_PAGES) || keys <= 0)
        return FA_OK;
    const int64_t size = p->tensor[FA_K].shape[2], pages = p->tensor[FA_K].shape[0];
    for (int64_t i = first / size; i <= (first + keys - 1) / size; i++) {
        const int64_t page = table[n * p->tensor[FA_PAGES].stride[0] + i];
        if (!fa_page_exists((int)page, (int)pages))
            return fa_fail(
                FA_INVALID, "page_table[%lld][%lld] is %lld, expected 0 to %lld: k and v have %lld pages",
                (long long)n, (long long)i, (long long)page, (long long)pages - 1, (long long)pages);
    }
    return FA_OK;
}

fa_status fa_pages_check_sequences(const fa_problem *p, const int32_t *table, const fa_table_sequence *s)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        if (s[n].row < 0)
            return fa_fail(
                FA_INVALID,
                "args.work: sequence %lld has more keys than the %d that page_table, bias and keep hold",
                (long long)n, fa_problem_most_keys(p));
        FA_TRY(fa_pages_check(p, table, s[n].number, s[n].first, s[n].mask.len_kv));
    }
    return FA_OK;
}
