/* SPDX-License-Identifier: Apache-2.0 */
/* Names of operands and of features. */
#include "core/attention/problem.h"

#define FA_OPERAND(constant, field, written, feature) [FA_##constant] = {#field, written, feature},
const fa_operand fa_operands[FA_OPERANDS] = {
#include "core/attention/operands.inc"
};
#undef FA_OPERAND

const char *fa_feature_name(unsigned feature)
{
#define FA_FEATURE(constant, name, term) name,
    static const char *const names[FA_FEATURES] = {
#include "core/attention/features.inc"
    };
#undef FA_FEATURE
    for (unsigned i = 0; i < FA_FEATURES; i++) {
        if (feature == 1u << i)
            return names[i];
    }
    return "unknown";
}
