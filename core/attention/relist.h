/* SPDX-License-Identifier: Apache-2.0 */
/* The task that writes lists of key blocks on the device: core/portable/relist.h. */
#ifndef FA_CORE_ATTENTION_RELIST_H
#define FA_CORE_ATTENTION_RELIST_H

#include "core/plan.h"

/* Of a plan with lists whose work is laid out. */
fa_status fa_relist_make(fa_plan *plan);
void fa_relist_release(fa_plan *plan);

/* Compiles what fa_relist_make() needs, and keeps it with the device. */
fa_status fa_relist_compile(fa_device *device);

#endif
