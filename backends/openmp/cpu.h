/* SPDX-License-Identifier: Apache-2.0 */
/* What the processor we run on can do. */
#ifndef FA_OPENMP_CPU_H
#define FA_OPENMP_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ordered: each set includes the ones before it on its architecture. */
typedef enum fa_isa {
    FA_ISA_SCALAR,
    FA_ISA_AVX2,
    FA_ISA_AVX512,
    FA_ISA_AVX512BF16,
    FA_ISA_AMX,
    FA_ISA_NEON,
    FA_ISAS
} fa_isa;

extern const char *const fa_isa_names[FA_ISAS];

/*
 * Whether the processor, and the system's saved state, have it; FASTATTN_ISA may set a lower limit. For AMX this
 * asks the system, once for the whole process, to save its registers.
 */
bool fa_cpu_has(fa_isa isa);

/*
 * Whether vdpbf16ps does less work a cycle than f32 multiply-adds do: so it is on processors that have AMX beside it
 * (half of it on a Sapphire Rapids), where on Zen 4 it does twice as much.
 */
bool fa_cpu_slow_pairs(void);

/*
 * The value of FASTATTN_ISA where it is no instruction set of this architecture, else NULL. It is the highest to use:
 * one that this processor lacks limits nothing.
 */
const char *fa_cpu_bad_limit(void);

/* What it may be: "scalar, neon". */
void fa_cpu_list_isas(char *text, size_t size);

/* CPUs that this process may run on, at least 1. */
int32_t fa_cpu_count(void);

/* Level-1 data cache of one core in bytes, 32 KiB where the system does not say. */
size_t fa_cpu_l1_bytes(void);

/* Level-2 data cache of one core in bytes, 512 KiB where the system does not say. */
size_t fa_cpu_l2_bytes(void);

/* "AMD EPYC 9R14", or the architecture's name. */
void fa_cpu_name(char *name, size_t size);

#endif
