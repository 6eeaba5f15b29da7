/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vector vocabulary, four instruction sets. A file that includes this is compiled once for each, with
 * FA_ISA naming it; everything here is static, so the copies do not meet.
 *
 *   VL            lanes of a vector of f32 (vf) or int (vi)
 *   PANEL_VECS    vectors of query rows that a micro-kernel works on side by side
 *   SCORE_KEYS    keys of a score micro-kernel: SCORE_KEYS * PANEL_VECS accumulators
 *   VALUE_DIMS    likewise, output dims of a value micro-kernel
 *   v_max(a, b)   b where either is NaN
 *   v_exponent    the lowest 9 bits of each lane as sign and exponent of a power of two
 *   v_sum, v_top  sum and maximum of the lanes; NaN may be lost from the maximum
 *   v_sum4        the sums of four vectors, stored one behind the other
 *   vi_count(a)   a, a + 1, a + 2, ...
 *   v_distance    |a - b| as f32
 *   v_hide_outside  a where begin <= key < end, -inf elsewhere
 *   v_transpose   VL vectors as a VL x VL matrix, in place
 *   vb            16 bytes: codes of elements, or numbers with a sign. Scalar C has none
 *   vb_low, vb_high  the lower and the upper half of each byte
 *   vb_bits       the 16 bits at p, each as a byte that is all ones or 0
 *   vb_look_up    entry `a` of a table of 16
 *   v_of_bytes    VL of the bytes from number part * VL on, as numbers with a sign over V_BYTES_UNIT, a power of two;
 *                 `part` is a constant
 *   v_splat_f16   the number at p in each lane
 *   v_gather_f16  the numbers that lie `at` bytes behind each of VL addresses
 *   v_store_nearest32  32 bytes: the whole number nearest to the half of each of 32, of two the one further from 0; it fits
 *   v_peak32      the bits of the greatest magnitude of 32 f32 at p; those of NaN are greater than infinity's
 *   v_peak32_half  likewise of 16 bits each, f16 or bf16
 *   vh            16 f16
 *   vh_store      to memory, in order
 *   vh_load_e4m3, vh_load_e5m2  16 elements of fp8; those of e4m3 become 256 times smaller
 *   v_of_halves   VL of them from number part * VL on; `part` is a constant
 */
#ifndef FA_OPENMP_VEC_H
#define FA_OPENMP_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define FA_ISA_scalar 0
#define FA_ISA_avx2 1
#define FA_ISA_avx512 2
#define FA_ISA_neon 3
#define FA_ISA_avx512bf16 4
#define FA_ISA_amx 5
#define FA_GLUE_(a, b) a##b
#define FA_GLUE(a, b) FA_GLUE_(a, b)
#define FA_ISA_IS FA_GLUE(FA_ISA_, FA_ISA)

/* fa_<isa>_<name>: what a file compiled per ISA exports. */
#define FA_ISA_NAME(name) FA_GLUE(FA_GLUE(fa_, FA_ISA), FA_GLUE(_, name))

/* Multiplies pairs of bf16: its tiled kernel is another one, on the same f32 vocabulary. */
#define FA_ISA_PAIRS (FA_ISA_IS == FA_ISA_avx512bf16 || FA_ISA_IS == FA_ISA_amx)

#if FA_ISA_IS == FA_ISA_avx512 || FA_ISA_PAIRS
#include "vec_avx512.h"
#elif FA_ISA_IS == FA_ISA_avx2
#include "vec_avx2.h"
#elif FA_ISA_IS == FA_ISA_neon
#include "vec_neon.h"
#else
#include "vec_scalar.h"
#endif

#include "vec_math.h"

#endif
