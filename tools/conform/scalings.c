/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of scales in tensors of their own that cases have, and the types that have them. */
#include "tools/conform/conform.h"

const conform_scales conform_scalings[CONFORM_SCALINGS] = {
    {.name = "tensor", .type = FA_F32},
    {.name = "head", .type = FA_F16, .head = true, .factor = -0.7f},
    {.name = "token", .type = FA_F16, .batch = true, .head = true, .keys = 1, .zero = true},
    {.name = "g32", .type = FA_BF16, .batch = true, .head = true, .keys = 1, .dims = 32, .zero = true},
    {.name = "channel32", .type = FA_F32, .batch = true, .head = true, .keys = 32, .dims = 1, .zero = true},
    {.name = "nvfp4", .type = FA_E4M3, .batch = true, .head = true, .keys = 1, .dims = 16, .factor = 0.37f},
    {.name = "mxfp4", .type = FA_E8M0, .batch = true, .head = true, .keys = 1, .dims = 32},
};

const fa_dtype conform_scaled_types[CONFORM_SCALED_TYPES] = {FA_E4M3, FA_E5M2, FA_I8, FA_I4,  FA_I2,
                                                             FA_U8,   FA_U4,   FA_U2, FA_E2M1};
