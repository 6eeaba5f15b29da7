/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_OPENMP_RUN_H
#define FA_OPENMP_RUN_H

#include "backends/backend.h"

fa_status fa_openmp_plan_prepare(fa_plan *plan);
void fa_openmp_plan_release(fa_plan *plan);
fa_status fa_openmp_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

#endif
