/* SPDX-License-Identifier: Apache-2.0 */
/* What a description says of rotary embedding, in numbers. */
#ifndef FA_CORE_ROTARY_H
#define FA_CORE_ROTARY_H

#include <fastattn/append.h>

#include "core/portable/rotary.h"

/* Fills defaults. FA_INVALID names the field. Without a form all fields are 0. */
fa_status fa_rotary_check(fa_rotary *rotary, int64_t dim_qk);

/* The angle that a position adds to a pair's: in radians; in turns. There must be no tables. */
double fa_rotary_frequency(const fa_rotary *rotary, int pair);
fa_turn fa_rotary_turn(const fa_rotary *rotary, int pair);

#endif
