/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the processor rounds is a setting of each thread: its caller's may round towards zero, flush subnormals or trap.
 * Between fa_float_enter() and fa_float_leave() a thread rounds to nearest, keeps subnormals and traps nothing, so that
 * results depend on no caller. The compiler does not know of this: what computes in between is a function that it cannot
 * inline (of another file, behind a pointer, or FA_FLOAT_APART).
 */
#ifndef FA_CORE_FLOATING_H
#define FA_CORE_FLOATING_H

#include <stdint.h>

#define FA_FLOAT_APART __attribute__((noinline))

#if defined(__x86_64__) || defined(__SSE2_MATH__)
#include <xmmintrin.h>

typedef unsigned fa_float_state;

enum { FA_MXCSR_DEFAULT = 0x1f80, FA_MXCSR_FLAGS = 0x3f };

/* What is in place already costs no more than a look. */
static inline fa_float_state fa_float_enter(void)
{
    unsigned state = _mm_getcsr();
    if ((state & ~(unsigned)FA_MXCSR_FLAGS) != FA_MXCSR_DEFAULT)
        _mm_setcsr(FA_MXCSR_DEFAULT);
    return state;
}

static inline void fa_float_leave(fa_float_state state)
{
    if ((state & ~(unsigned)FA_MXCSR_FLAGS) != FA_MXCSR_DEFAULT)
        _mm_setcsr(state);
}

#elif defined(__aarch64__)

typedef uint64_t fa_float_state;

static inline fa_float_state fa_float_enter(void)
{
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    if (state != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return state;
}

static inline void fa_float_leave(fa_float_state state)
{
    if (state != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"(state));
}

#else
#include <fenv.h>

typedef fenv_t fa_float_state;

static inline fa_float_state fa_float_enter(void)
{
    fenv_t state;
    (void)fegetenv(&state);
    (void)fesetenv(FE_DFL_ENV);
    return state;
}

static inline void fa_float_leave(fa_float_state state)
{
    (void)fesetenv(&state);
}
#endif

#endif
