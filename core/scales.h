/* SPDX-License-Identifier: Apache-2.0 */
/* Scales and zeros that are tensors of their own, of any operation. */
#ifndef FA_CORE_SCALES_H
#define FA_CORE_SCALES_H

#include <fastattn/attention.h>

#include "core/portable/table.h"

/* For messages: the names of a tensor, of its scales and zeros, and of what multiplies its scales. */
typedef struct fa_scaled_names {
    const char *of, *scale, *zero, *factor;
} fa_scaled_names;

/*
 * Checks the scales and zeros that are given for a tensor, which is normalised, and normalises them. Of absent ones the type
 * in *scales is -1. It also has the bytes of the tensor's rows. FA_INVALID names field and value.
 */
fa_status fa_scales_check(const fa_scaled_names *names, const fa_tensor *of, fa_tensor *scale,
                          fa_tensor *zero, float factor, fa_scales *scales);

#endif
