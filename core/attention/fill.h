/* SPDX-License-Identifier: Apache-2.0 */
/* The task that writes the work of lengths on the device: core/portable/fill.h. */
#ifndef FA_CORE_ATTENTION_FILL_H
#define FA_CORE_ATTENTION_FILL_H

#include "core/plan.h"

/* Of a plan whose own work is written. FA_UNSUPPORTED where the kernel cannot write what the plan may come to. */
fa_status fa_fill_make(fa_plan *plan);
void fa_fill_release(fa_plan *plan);

/* Compiles what fa_fill_make() needs, and keeps it with the device. */
fa_status fa_fill_compile(fa_device *device);

#endif
