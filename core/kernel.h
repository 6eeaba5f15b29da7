/* SPDX-License-Identifier: Apache-2.0 */
/* What one kernel of a backend serves, and how it works. Backends list theirs, best first. */
#ifndef FA_CORE_KERNEL_H
#define FA_CORE_KERNEL_H

#include "core/attention/problem.h"
#include "core/tiling.h"

#define FA_TYPE(dtype) (1u << (dtype))
#define FA_TYPES_FLOAT (FA_TYPE(FA_F32) | FA_TYPE(FA_F16) | FA_TYPE(FA_BF16))
#define FA_TYPES_BITS (FA_TYPE(FA_U1) | FA_TYPE(FA_U2U1))              /* with codes of one bit */
#define FA_TYPES_ROW (FA_TYPE(FA_FP8_DS_MLA) | FA_TYPE(FA_BITMAP_F16)) /* whose rows are no blocks */
/* FA_TYPES_FLOAT and the formats of caches, of which FA_E4M3 is the first and FA_E2M1 the last. */
#define FA_TYPES_CACHE (FA_TYPES_FLOAT | ((FA_TYPE(FA_E2M1 + 1) - 1) & ~(FA_TYPE(FA_E4M3) - 1)))

typedef struct fa_kernel {
    const char *name;
    unsigned features;                           /* FA_FEATURE_* that it serves                          */
    unsigned needs;                              /* those without which it does not serve a problem      */
    unsigned types_q, types_k, types_v, types_o; /* FA_TYPE() masks                                      */
    bool same_types;  /* q, k and v must have one type, or k and v both be in formats of caches        */
    bool mixes_coded; /* then also one of the two, beside the other of q's type                       */
    int32_t max_dim_qk, max_dim_v;
    int32_t
        scale_dims;  /* groups of dims that share a scale are multiples of so many, or whole rows; 0: any */
    bool baseline;   /* to compare with in benchmarks: runs when named, never chosen                       */
    fa_dtype p_type; /* precision of the softmax weights in the second product; sets the tolerance        */
    bool p_as_q;     /* it is the type of q instead                                                  */
    fa_tile_traits traits;
    int32_t
        resident_coded; /* traits.resident where k or v is in a format of caches; 0: it is the same there too */
    int32_t coded_bytes;  /* staged beside what traits say where resident_coded holds                  */
    const char *declines; /* why it does not serve formats of caches that it does not list; NULL: not told */
    const char *declines_lists; /* why it does not serve lists of key blocks; NULL: not told */
    const void *impl;           /* the backend's own */
} fa_kernel;

/* FA_OK when the kernel serves the problem; FA_UNSUPPORTED with the reason. */
fa_status fa_kernel_supports(const fa_kernel *kernel, const fa_problem *problem);

/* Whether some problem like this one, but with these features and any lengths, may be given to the kernel. */
bool fa_kernel_may_run(const fa_kernel *kernel, const fa_problem *problem, unsigned features);

/* The device as one of the kernel's resident blocks sees it. */
fa_limits fa_kernel_limits(const fa_kernel *kernel, const fa_problem *problem, const fa_limits *device);

#endif
