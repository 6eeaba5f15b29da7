/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"

#include "core/status.h"

fa_status fa_check_axis(const fa_problem *p, int operand, int axis, int64_t expected, const char *of)
{
    int64_t found = p->tensor[operand].shape[axis];
    if (found == expected)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld as %s", fa_operands[operand].name, axis,
                   (long long)found, (long long)expected, of);
}

fa_status fa_check_limit(const char *field, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %lld, expected %lld to %lld", field, (long long)value, (long long)low,
                   (long long)high);
}
