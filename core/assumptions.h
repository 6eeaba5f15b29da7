/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the code takes for granted of its compiler. A build that breaks one of these would give wrong results without a
 * word, so it stops here. meson.build undoes fast math for our own objects; this is for builds of another kind.
 */
#ifndef FA_CORE_ASSUMPTIONS_H
#define FA_CORE_ASSUMPTIONS_H

#include <float.h>
#include <limits.h>

#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "fastattn needs infinities and NaN: build it without -ffast-math, -Ofast and -ffinite-math-only"
#endif

/* Of gcc alone; clang has no macros for these. */
#if defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error \
    "fastattn bounds its rounding errors: build it without -funsafe-math-optimizations and what that implies"
#endif

_Static_assert(sizeof(0.1) == 8, "constants are double: build without -fsingle-precision-constant");
_Static_assert(FLT_RADIX == 2 && FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128, "float is IEEE 754's binary32");
_Static_assert(DBL_MANT_DIG == 53 && DBL_MAX_EXP == 1024, "double is IEEE 754's binary64");
_Static_assert(CHAR_BIT == 8 && (-1 & 3) == 3, "bytes of 8 bits, two's complement");
enum fa_assumed_enum { FA_ASSUMED_ENUM_VALUE };
_Static_assert(sizeof(enum fa_assumed_enum) == sizeof(int), "enums are int: build without -fshort-enums");

#endif
