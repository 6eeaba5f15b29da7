/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Barriers among some of a block's warps. Those in shared memory count arrivals, and are over once for each phase: its
 * parity, which begins with 0, is what is waited for. So the parity before the first is over from the beginning. Those
 * with a number are the multiprocessor's own. Instructions of 9.0.
 */
#pragma once

#include "memory.cuh"

/* In 8 bytes of shared memory. Others know of it behind the block's next barrier. */
__device__ __forceinline__ void make_barrier(uint at, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void arrive(uint at)
{
    asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}" ::"r"(at) : "memory");
}

__device__ __forceinline__ void wait_for(uint at, int parity)
{
    uint over;
    do {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(over)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (over == 0);
}

/* Of so many threads, of which those that arrive do not wait. Number 0 is __syncthreads()'s. */
template <int THREADS>
__device__ __forceinline__ void arrive_at(int number)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "n"(THREADS) : "memory");
}

template <int THREADS>
__device__ __forceinline__ void meet_at(int number)
{
    asm volatile("bar.sync %0, %1;" ::"r"(number), "n"(THREADS) : "memory");
}

/* Whether it is so for any of them. */
template <int THREADS>
__device__ __forceinline__ bool any_at(int number, bool is_so)
{
    uint any;
    asm volatile("{.reg .pred p, q; setp.ne.u32 p, %1, 0; bar.red.or.pred q, %2, %3, p; selp.u32 %0, 1, 0, q;}"
                 : "=r"(any)
                 : "r"((uint)is_so), "r"(number), "n"(THREADS)
                 : "memory");
    return any != 0;
}

/* From here on, the four warps that say so have so many registers a thread: more than before, or fewer. */
template <int REGISTERS>
__device__ __forceinline__ void take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void leave_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
