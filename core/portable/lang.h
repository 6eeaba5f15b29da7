/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words in which C11, CUDA C++, OpenCL C and GLSL differ, for the headers beside this one.
 * FA_FN starts a function, FA_KERNEL_FN one that kernels alone call. FA_STRUCT(name) ... FA_STRUCT_END(name) declares
 * a struct type `name`.
 * The headers use int, fa_uint, float and bool only, pass structs by value, and take no addresses. An fa_long is what
 * 64 bits of memory are read as; FA_LONG_OF(low, high) makes one of its halves. An fa_vec4, on GPUs, is four floats side by
 * side. FA_FMAX is the greater of floats; in OpenCL C and GLSL of vectors too.
 * FA_SUBNORMALS is defined where arithmetic is known to keep subnormal numbers, FA_DIVISION where a / b is rounded to
 * nearest. FA_FMA may round twice in GLSL. A product in a variable that is FA_PRECISE is not fused with a sum there;
 * compilers of the other languages are told so as a whole.
 * FA_COUNT_BITS(x) is how many bits of an fa_uint are set, an int.
 * GLSL has no tanh with a bounded error, so FA_TANH is in score.h there.
 */
#ifndef FA_PORTABLE_LANG_H
#define FA_PORTABLE_LANG_H

/* A line for each word: */
/* clang-format off */
#if defined(GL_core_profile) || defined(VULKAN) || defined(FA_LANG_GLSL)
#define FA_FN
#define FA_KERNEL_FN
#define FA_PRECISE precise
#define FA_STRUCT(name) struct name {
#define FA_STRUCT_END(name) };
#define FA_MIN(a, b) min(a, b)
#define FA_MAX(a, b) max(a, b)
#define FA_FMAX(a, b) max(a, b)
#define FA_ABS(x) abs(x)
#define FA_EXP2(x) exp2(x)
#define FA_LOG(x) log(x)
#define FA_SQRT(x) sqrt(x)
#define FA_FMA(a, b, c) fma(a, b, c)
#define FA_FLOAT(x) float(x)
#define FA_INT(x) int(x)
#define FA_UINT(x) uint(x)
#define fa_uint uint
#define fa_long uvec2
#define FA_LONG_OF(low, high) uvec2(low, high)
#define FA_AS_UINT(x) floatBitsToUint(x)
#define FA_AS_FLOAT(x) uintBitsToFloat(x)
#define FA_NEG_INF uintBitsToFloat(0xff800000u)
#define FA_COUNT_BITS(x) bitCount(x)
#define fa_vec4 vec4
#define FA_VEC4(a, b, c, d) vec4(a, b, c, d)

#elif defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
#define FA_FN static inline
#define FA_KERNEL_FN static inline
#define FA_PRECISE
#define FA_STRUCT(name) typedef struct name {
#define FA_STRUCT_END(name) } name;
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_FMAX(a, b) fmax(a, b)
#define FA_ABS(x) fabs(x)
#define FA_EXP2(x) exp2(x)
#define FA_LOG(x) log(x)
#define FA_SQRT(x) sqrt(x)
#define FA_FMA(a, b, c) fma(a, b, c)
#define FA_TANH(x) tanh(x)
#define FA_FLOAT(x) ((float)(x))
#define FA_INT(x) ((int)(x))
#define FA_UINT(x) ((fa_uint)(x))
#define fa_uint uint
#define fa_long long
#define FA_LONG_OF(low, high) ((long)((ulong)(high) << 32 | (low)))
#define FA_AS_UINT(x) as_uint(x)
#define FA_AS_FLOAT(x) as_float(x)
#define FA_NEG_INF (-INFINITY)
#define FA_COUNT_BITS(x) FA_INT(popcount(x))
#define fa_vec4 float4
#define FA_VEC4(a, b, c, d) ((float4)(a, b, c, d))

#elif defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FA_FN static __host__ __device__ __forceinline__
#define FA_KERNEL_FN static __device__ __forceinline__
#define FA_PRECISE
#define FA_STRUCT(name) struct name {
#define FA_STRUCT_END(name) };
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_FMAX(a, b) fmaxf(a, b)
#define FA_ABS(x) fabsf(x)
#define FA_EXP2(x) exp2f(x)
#define FA_LOG(x) logf(x)
#define FA_SQRT(x) sqrtf(x)
#define FA_FMA(a, b, c) fmaf(a, b, c)
#define FA_TANH(x) tanhf(x)
#define FA_FLOAT(x) ((float)(x))
#define FA_INT(x) ((int)(x))
#define FA_UINT(x) ((fa_uint)(x))
#define FA_SUBNORMALS
#define FA_DIVISION
typedef unsigned int fa_uint;
typedef long long fa_long;
#define FA_LONG_OF(low, high) ((fa_long)((unsigned long long)(high) << 32 | (low)))
#define fa_vec4 float4
#define FA_VEC4(a, b, c, d) make_float4(a, b, c, d)
#define FA_AS_UINT(x) __float_as_uint(x)
#define FA_AS_FLOAT(x) __uint_as_float(x)
#define FA_COUNT_BITS(x) __popc(x) /* on the device */
#ifdef __CUDACC_RTC__
#define FA_NEG_INF __int_as_float((int)0xff800000u)
#else
#define FA_NEG_INF (-__builtin_huge_valf())
#endif

#else
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#define FA_FN static inline
#define FA_KERNEL_FN static inline
#define FA_PRECISE
#define FA_STRUCT(name) typedef struct name {
#define FA_STRUCT_END(name) } name;
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_FMAX(a, b) fmaxf(a, b)
#define FA_ABS(x) fabsf(x)
#define FA_EXP2(x) exp2f(x)
#define FA_LOG(x) logf(x)
#define FA_SQRT(x) sqrtf(x)
#define FA_FMA(a, b, c) fmaf(a, b, c)
#define FA_TANH(x) tanhf(x)
#define FA_FLOAT(x) ((float)(x))
#define FA_INT(x) ((int)(x))
#define FA_UINT(x) ((fa_uint)(x))
#define FA_AS_UINT(x) fa_as_uint(x)
#define FA_AS_FLOAT(x) fa_as_float(x)
#define FA_COUNT_BITS(x) fa_count_bits(x)
#define FA_NEG_INF (-INFINITY)
#define FA_DIVISION
typedef uint32_t fa_uint;
typedef int64_t fa_long;
#define FA_LONG_OF(low, high) ((fa_long)((uint64_t)(high) << 32 | (low)))

static inline fa_uint fa_as_uint(float x)
{
    fa_uint bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline float fa_as_float(fa_uint bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline int fa_count_bits(fa_uint x)
{
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return (int)(((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}
#endif

/* Compilers may take x * 0 for 0, so values that are not finite are told by their bits. */
FA_FN bool fa_is_finite(float x)
{
    return (FA_AS_UINT(x) & 0x7f800000u) != 0x7f800000u;
}

FA_FN bool fa_is_nan(float x)
{
    return (FA_AS_UINT(x) & 0x7fffffffu) > 0x7f800000u;
}

#endif
