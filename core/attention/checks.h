/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of a description that are held to others, or to limits. */
#ifndef FA_CORE_ATTENTION_CHECKS_H
#define FA_CORE_ATTENTION_CHECKS_H

#include "core/attention/problem.h"

/* FA_INVALID, with the names, where an axis does not have the size that something else gives it. */
fa_status fa_check_axis(const fa_problem *p, int operand, int axis, int64_t expected, const char *of);

/* FA_INVALID, with the names, where a field is not within [low, high]. */
fa_status fa_check_limit(const char *field, int64_t value, int64_t low, int64_t high);

#endif
