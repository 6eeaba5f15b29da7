/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words in which C11, CUDA C++, OpenCL C and GLSL differ, for the headers beside this one.
 * FA_FN starts a function; FA_STRUCT(name) ... FA_STRUCT_END(name) declares a struct type `name`.
 * The headers use int, float and bool only, pass structs by value, and take no addresses.
 */
#ifndef FA_PORTABLE_LANG_H
#define FA_PORTABLE_LANG_H

#if defined(GL_core_profile) || defined(VULKAN) || defined(FA_LANG_GLSL)
#define FA_FN
#define FA_STRUCT(name) struct name {
#define FA_STRUCT_END(name) };
#define FA_MIN(a, b) min(a, b)
#define FA_MAX(a, b) max(a, b)
#define FA_EXP2(x) exp2(x)
#define FA_NEG_INF uintBitsToFloat(0xff800000u)

#elif defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
#define FA_FN static inline
#define FA_STRUCT(name) typedef struct name {
#define FA_STRUCT_END(name) } name;
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_EXP2(x) exp2(x)
#define FA_NEG_INF (-INFINITY)

#elif defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FA_FN static __host__ __device__ __forceinline__
#define FA_STRUCT(name) struct name {
#define FA_STRUCT_END(name) };
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_EXP2(x) exp2f(x)
#ifdef __CUDACC_RTC__
#define FA_NEG_INF __int_as_float((int)0xff800000u)
#else
#define FA_NEG_INF (-__builtin_huge_valf())
#endif

#else
#include <math.h>
#include <stdbool.h>
#define FA_FN static inline
#define FA_STRUCT(name) typedef struct name {
#define FA_STRUCT_END(name) } name;
#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_EXP2(x) exp2f(x)
#define FA_NEG_INF (-INFINITY)
#endif

#endif
