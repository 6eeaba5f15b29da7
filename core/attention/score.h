/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_ATTENTION_SCORE_H
#define FA_CORE_ATTENTION_SCORE_H

#include "core/attention/problem.h"
#include "core/portable/score.h"

/* How the scores of a problem are held and transformed: the data of core/portable/score.h. */
fa_score fa_problem_score(const fa_problem *problem);

#endif
