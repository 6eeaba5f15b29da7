/* SPDX-License-Identifier: Apache-2.0 */
/* What a line of kernels.inc says, and what of it both the host and the device code derive. C11 and CUDA C++. */
#ifndef FA_CUDA_TRAITS_H
#define FA_CUDA_TRAITS_H

#include "core/portable/format.h"
#include "core/portable/table.h"

#ifdef __CUDACC__
#define FA_CUDA_FN __host__ __device__ constexpr
#else
#define FA_CUDA_FN static inline
#endif

enum { FA_CUDA_TENSOR, FA_CUDA_DECODE, FA_CUDA_LATENT, FA_CUDA_FMA, FA_CUDA_ROWS, FA_CUDA_MERGE };

/* What only kernels on tensor cores for many rows have. */
typedef struct fa_cuda_tensor {
    int tile_kv; /* keys of a tile of scores                             */
    int split;   /* warps that share a row                               */
    int held;    /* steps of 16 dims of q that stay in registers, of all */
} fa_cuda_tensor;

/* What only fma kernels have. */
typedef struct fa_cuda_fma {
    int lanes; /* threads across        */
    int rows;  /* of a thread           */
    int depth; /* dims or keys of a step */
} fa_cuda_fma;

typedef struct fa_cuda_traits {
    const char *name;
    int kind;
    int dim_qk, dim_v;   /* most dims; dim_qk 0: any                                               */
    int block_q, most_q; /* rows of a block: see fa_cuda_rows_of()                                 */
    int block_kv;
    int group;    /* threads of a block; 0: follows from its rows                           */
    int unit;     /* the compute capability whose tensor cores are used; 0: none            */
    int resident; /* blocks that a multiprocessor has registers for, or tensor: must have room for */
    fa_cuda_tensor tensor;
    fa_cuda_fma fma;
    int share; /* rows: threads that share a key */
} fa_cuda_traits;

/* At least FA_MAX_HEAD_DIM. */
enum { FA_CUDA_MOST_DIM = 576 };

/* In the place of an element type: the module of a kernel whose variants read any, aligned or not, and formats of caches. */
enum { FA_CUDA_ANY = 3 };

/* Likewise, where scales of k or v are tensors of their own. */
enum { FA_CUDA_SCALED = 5 };

/* Likewise, where k and v in it are rows that are blocks of a format. */
enum { FA_CUDA_WHOLE_ROWS = 6 };

/* Likewise, where k or v is rows that keep some of their elements, and what FA_CUDA_SCALED reads beside them. */
enum { FA_CUDA_PRUNED_ROWS = 7 };

/*
 * Likewise, of a kernel on tensor cores where k or v is in a format of caches: the operands' type, and theirs. Where
 * scales are tensors of their own, what they depend on is part of it.
 */
FA_CUDA_FN int fa_cuda_coded_type(int operands, int type_k, int type_v)
{
    return operands | (type_k & 15) << 4 | type_v << 8 | (type_k & 16) << 9;
}

FA_CUDA_FN int fa_cuda_coded_k(int type)
{
    return (type >> 4 & 15) | (type >> 9 & 16);
}

FA_CUDA_FN int fa_cuda_coded_v(int type)
{
    return type >> 8 & 31;
}

/* No scales; one for the whole item; those of keys and blocks of 32 dims, without zeros and with. */
enum { FA_CUDA_UNSCALED, FA_CUDA_SCALED_WHOLE, FA_CUDA_SCALED_KEYS, FA_CUDA_SCALED_ZEROS };

FA_CUDA_FN int fa_cuda_scaled_type(int coded_type, int scaling_k, int scaling_v)
{
    return coded_type | scaling_k << 14 | scaling_v << 16;
}

FA_CUDA_FN int fa_cuda_scaling_k(int type)
{
    return type >> 14 & 3;
}

FA_CUDA_FN int fa_cuda_scaling_v(int type)
{
    return type >> 16 & 3;
}

/* Variants of kernels on tensor cores: odd ones do what a description can do to scores. */
FA_CUDA_FN int fa_cuda_rows_of(fa_cuda_traits t, int variant)
{
    return t.block_q << (t.unit > 0 ? variant / 2 : variant);
}

/* The first variant with blocks of so many rows or more. */
FA_CUDA_FN int fa_cuda_variant_of(fa_cuda_traits t, int rows)
{
    int variant = 0;
    while (fa_cuda_rows_of(t, variant) < rows)
        variant++;
    return variant;
}

/* Tensor: whether k and v are in formats of caches, both: Hopper's kernels serve no other types. */
FA_CUDA_FN bool fa_cuda_takes_formats(fa_cuda_traits t)
{
    return t.kind == FA_CUDA_TENSOR && t.unit == 90;
}

/* Threads of such a kernel that decode, beside those that have rows. */
enum { FA_CUDA_DECODERS = 128 };

/* What follows an architecture's number in a compiler's option: 9.0's own instructions are of 9.0 alone. */
FA_CUDA_FN const char *fa_cuda_arch_suffix(fa_cuda_traits t)
{
    return t.unit == 90 ? "a" : "";
}

/* Most variants of a kernel: see attention.cu. */
enum { FA_CUDA_VARIANTS = 4 };

/* clang-format off */
#define FA_NONE {0, 0, 0}
#define FA_TENSOR(name, unit, resident, dims, least_q, most_q, keys, tile_kv, warps, split, held) \
    {name, FA_CUDA_TENSOR, dims, dims, least_q, most_q, keys, 32 * warps, unit, resident, \
     {tile_kv, split, held}, FA_NONE, 0},
#define FA_DECODE(name, unit, dims, most_q, warps, resident) \
    {name, FA_CUDA_DECODE, dims, dims, 8, most_q, 16 * warps, 32 * warps, unit, resident, FA_NONE, FA_NONE, 0},
#define HOPPER_FORMATS(name, dims, rows, keys) \
    FA_TENSOR(name, 90, 1, dims, rows, rows, keys, keys, 8, 1, 0)
#define HOPPER_LATENT(name, dims_qk, dims_v, rows, keys) \
    {name, FA_CUDA_LATENT, dims_qk, dims_v, rows, rows, keys, 256, 90, 1, {keys, 2, 0}, FA_NONE, 0},
#define AMPERE(name, ...) FA_TENSOR(name, 80, 1, __VA_ARGS__)
#define AMPERE_WIDE(name, ...) FA_TENSOR(name, 80, 2, __VA_ARGS__)
#define AMPERE_DECODE(name, ...) FA_DECODE(name, 80, __VA_ARGS__)
#define TURING(name, ...) FA_TENSOR(name, 75, 1, __VA_ARGS__)
#define VOLTA(name, ...) FA_TENSOR(name, 70, 1, __VA_ARGS__)
#define TURING_DECODE(name, ...) FA_DECODE(name, 75, __VA_ARGS__)
#define FMA(name, dims, lanes, rows, least_q, most_q, keys, depth) \
    {name, FA_CUDA_FMA, 0, dims, least_q, most_q, keys, 0, 0, 0, FA_NONE, {lanes, rows, depth}, 0},
#define ROWS(name, dims, group, share) \
    {name, FA_CUDA_ROWS, dims, dims, 1, 8, 128, group, 0, 2, FA_NONE, FA_NONE, share},
#define MERGE(name, group) \
    {name, FA_CUDA_MERGE, 0, 0, 0, 0, 0, group, 0, 0, FA_NONE, FA_NONE, 0},
/* clang-format on */
#if defined(__CUDACC__) || defined(FA_CUDA_DEFINE_TABLE)
#ifdef __CUDACC__
static constexpr
#else
const
#endif
    fa_cuda_traits fa_cuda_table[] = {
#include "backends/cuda/kernels.inc"
};
#else
extern const fa_cuda_traits fa_cuda_table[];
#endif
#undef FA_NONE
#undef FA_TENSOR
#undef FA_DECODE
#undef HOPPER_FORMATS
#undef HOPPER_LATENT
#undef AMPERE
#undef AMPERE_WIDE
#undef AMPERE_DECODE
#undef TURING
#undef VOLTA
#undef TURING_DECODE
#undef FMA
#undef ROWS
#undef MERGE

/* Latent: threads of a block that only copy keys, behind those that compute. */
enum { FA_CUDA_COPIERS = 128 };

/* Threads of a block; decode, of formats of caches: the fewest. */
FA_CUDA_FN int fa_cuda_group(fa_cuda_traits t, int variant)
{
    if (t.group == 0)
        return fa_cuda_rows_of(t, variant) / t.fma.rows * t.fma.lanes;
    return t.group + (fa_cuda_takes_formats(t)   ? FA_CUDA_DECODERS
                      : t.kind == FA_CUDA_LATENT ? FA_CUDA_COPIERS
                                                 : 0);
}

/* Shared memory of a block, in floats, as the kernels divide it. */

enum { FA_CUDA_BANKS = 32 };

/* Fma: where line d of a step begins, its columns `width` floats. A warp writes four lines apart all at once. */
FA_CUDA_FN int fa_cuda_fma_line(fa_cuda_traits t, int width, int d)
{
    return d * width + d / 4 * (4 * FA_CUDA_BANKS / t.fma.depth);
}

FA_CUDA_FN int fa_cuda_fma_stage(fa_cuda_traits t, int block_q)
{
    return t.fma.depth * (block_q + 4 + (t.block_kv > t.dim_v ? t.block_kv : t.dim_v)) + FA_CUDA_BANKS;
}

/* Tensor: what chunk numbers of a row are changed by. Volta's lanes read rows four apart from eight at once. */
FA_CUDA_FN int fa_cuda_swizzle(int unit, int row)
{
    return unit == 70 ? (row & 3) | (row >> 1 & 4) : row & 7;
}

/*
 * Tensor: where the chunk of 16 bytes of a row lies, lines of the rows `line` bytes long. Chunks of one number of eight
 * rows, which is what a matrix load reads at once, are in different groups of banks, and so are neighbours in a row.
 */
FA_CUDA_FN int fa_cuda_chunk_at(int unit, int line, int row, int chunk)
{
    return row * line + (chunk ^ fa_cuda_swizzle(unit, row)) * 16;
}

/*
 * Tensor: thread `id` of `threads` copies chunk id % chunks of rows id / chunks + i threads / chunks of a block. Of keys in
 * pages, each lane of a warp looks up one that its warp copies chunks of: the row that a thread looks up, and the lane
 * that has looked up a thread's row number i.
 */
FA_CUDA_FN int fa_cuda_row_looked_up(int threads, int chunks, int id)
{
    const int lane = id % 32, at_a_time = chunks < 32 ? 32 / chunks : 1;
    return (id - lane) / chunks + lane % at_a_time + lane / at_a_time * (threads / chunks);
}

FA_CUDA_FN int fa_cuda_lane_that_looks_up(int chunks, int id, int i)
{
    return i * (chunks < 32 ? 32 / chunks : 1) + id % 32 / chunks;
}

/*
 * Tensor: how far a finished row's groups of eight dims are moved in a line of floats, so that rows which lanes write at
 * once are in different banks.
 */
FA_CUDA_FN int fa_cuda_row_shift(int row)
{
    return ((row ^ row >> 3) & 3) * 8;
}

FA_CUDA_FN int fa_cuda_rows_sums(fa_cuda_traits t, int block_q)
{
    return t.share * block_q * t.block_kv > 8 * t.group ? t.share * block_q * t.block_kv : 8 * t.group;
}

/* Latent: words of a message, which half of the threads have at a time, and of barriers in shared memory. */
enum { FA_CUDA_MESSAGE = 20, FA_CUDA_BARRIERS = 24 };

/* Two stages of K and V; rows of q that are not held; and the scores that warps of a row exchange. */
FA_CUDA_FN int fa_cuda_tensor_words(fa_cuda_traits t, int rows)
{
    if (t.kind == FA_CUDA_LATENT) /* rows of q, two stages of K, messages, and barriers */
        return (rows + 2 * t.block_kv) * t.dim_qk / 2 + FA_CUDA_MESSAGE * t.group / 2 + FA_CUDA_BARRIERS;
    return 2 * t.block_kv * t.dim_v +
           (16 * t.tensor.held * t.tensor.split < t.dim_qk ? rows * t.dim_qk / 2 : 0) +
           (t.tensor.split > 1 ? rows * t.tensor.split * t.block_kv : 0);
}

/*
 * Tensor: words behind those for an item of the table and its sequence, and whether a kernel has them: not where they would
 * save no register, and not where 64 KiB, all that 7.5 has, are full.
 */
enum { FA_CUDA_NOTES = 28 };

FA_CUDA_FN bool fa_cuda_tensor_notes(fa_cuda_traits t)
{
    return t.kind == FA_CUDA_LATENT || t.dim_v <= (t.unit == 75 ? 64 : 128);
}

/*
 * Decode, of formats of caches: the chunks of 16 bytes of memory that a row of a format is in, where it lies at a multiple of
 * 8, or of 16 if so many bytes long; and bytes from a key's row to the next in shared memory. Of codes they are an odd
 * multiple of 16, which puts the same place of eight rows into different banks. Of plain numbers a lane reads 8 bytes at
 * once: of k in rows that follow one another, of v in every second.
 */
FA_CUDA_FN int fa_cuda_coded_chunks(fa_cuda_traits t, int format)
{
    return (FA_TYPE_SPAN(format, t.dim_v) + (FA_TYPE_SPAN(format, t.dim_v) % 16 != 0 ? 8 : 0) + 15) / 16;
}

FA_CUDA_FN int fa_cuda_coded_pitch(fa_cuda_traits t, int format, bool of_v)
{
    return !FA_TYPE_IS_CODED(format) && !of_v ? 2 * t.dim_v + 32 : (fa_cuda_coded_chunks(t, format) | 1) * 16;
}

/* Of each warp, 32 keys and their values, and what is noted of their scales. `type` is the module's. */
FA_CUDA_FN int fa_cuda_coded_rows(fa_cuda_traits t, int type)
{
    return 32 * (fa_cuda_coded_pitch(t, fa_cuda_coded_k(type), false) +
                 fa_cuda_coded_pitch(t, fa_cuda_coded_v(type), true));
}

FA_CUDA_FN int fa_cuda_coded_notes(fa_cuda_traits t)
{
    return t.dim_v / 32 * 32 * 5 * (int)sizeof(float);
}

/*
 * Decode, of formats of caches: the most warps of a block, for which a multiprocessor has registers. A block may have any
 * half of them, down to the warps of t.group.
 */
FA_CUDA_FN int fa_cuda_coded_warps(fa_cuda_traits t, int variant)
{
    return t.dim_v <= 128 && variant < 2 ? 16 : 8;
}

/* Results take the rows' place. `type` is the module's. */
FA_CUDA_FN int fa_cuda_decode_bytes(fa_cuda_traits t, int type, int variant, int warps)
{
    const int results = (int)sizeof(float) * warps * fa_cuda_rows_of(t, variant) * (t.dim_v + 2),
              rows = warps * (fa_cuda_coded_rows(t, type) + fa_cuda_coded_notes(t));
    return type > FA_CUDA_PRUNED_ROWS && rows > results ? rows : results;
}

/*
 * Tensor, of formats of caches: bytes from a row of codes to the next. Of blocks with scales they are an odd multiple of 8, which
 * puts words of 16 rows into different banks, where a warp has as many; of fp8, whose codes are read by 16 bytes, an odd multiple of 16.
 */
FA_CUDA_FN int fa_cuda_tile_pitch(fa_cuda_traits t, int type)
{
    const int bytes = (FA_TYPE_SPAN(type, t.dim_v) + 7) / 8 * 8;
    if (!FA_TYPE_IS_CODED(type))
        return 0;
    return FA_TYPE_IS_FP8(type) ? bytes + 16 : bytes / 8 % 2 == 0 ? bytes + 8 : bytes;
}

/* Warps that decode a block. */
FA_CUDA_FN int fa_cuda_tile_warps(fa_cuda_traits t)
{
    return (fa_cuda_takes_formats(t) ? FA_CUDA_DECODERS : t.group) / 32;
}

/*
 * The rows of a block that a warp decodes, of K and then of V in the same place; where warps do nothing else, behind them. One of
 * the two may be plain, which has none.
 */
FA_CUDA_FN int fa_cuda_tile_share(fa_cuda_traits t, int type_k, int type_v)
{
    const int of_k = fa_cuda_tile_pitch(t, type_k), of_v = fa_cuda_tile_pitch(t, type_v);
    return t.block_kv / fa_cuda_tile_warps(t) *
           (fa_cuda_takes_formats(t) ? of_k + of_v
            : of_k > of_v            ? of_k
                                     : of_v);
}

/* Where a chunk of 16 bytes is in lines of 64 dims of so many rows, as wgmma takes and swizzles them. */
FA_CUDA_FN int fa_cuda_line_at(int rows, int row, int chunk)
{
    return (chunk / 8 * rows + row) * 128 + (chunk % 8 ^ row % 8) * 16;
}

/*
 * Tensor, of formats of caches: where the first chunk of 16 bytes of a row's block of 32 dims lies in a stage. The block's chunk
 * number i is there, but for i in the place of the chunk's number. Wgmma takes keys in lines of 64 dims, and values in lines of
 * 32, so that a block of values is a product of its own; both are swizzled as it has them.
 */
FA_CUDA_FN int fa_cuda_tile_block_at(fa_cuda_traits t, bool of_v, int row, int block)
{
    if (t.unit != 90)
        return fa_cuda_chunk_at(t.unit, t.dim_v * 2, row, 4 * block);
    return of_v ? (block * t.block_kv + row) * 64 + (row / 2 % 4) * 16
                : fa_cuda_line_at(t.block_kv, row, 4 * block);
}

/* What is noted of the scales of a stage: of K, of V, then V's offsets, each two numbers of 16 bits and eight keys more. */
FA_CUDA_FN int fa_cuda_tile_notes(fa_cuda_traits t, int type_k, int type_v)
{
    const int of_k = type_k < FA_TYPE_Q8_0        ? 0
                     : FA_TYPE_HAS_OFFSET(type_k) ? 2
                                                  : 1,
              of_v = type_v < FA_TYPE_Q8_0 ? 0 : 1;
    return t.dim_v / 32 * 4 *
           (t.block_kv * (of_k + of_v) + (FA_TYPE_HAS_OFFSET(type_v) ? t.block_kv + 8 : 0));
}

/* Sums of q's dims, one for each block of a row. */
FA_CUDA_FN int fa_cuda_tile_sums(fa_cuda_traits t, int type_k, int rows)
{
    return FA_TYPE_HAS_OFFSET(type_k) ? t.dim_v / 32 * 4 * rows : 0;
}

/* For each stage, and each warp that does nothing but decode, whether it has left out a block of V. */
FA_CUDA_FN int fa_cuda_tile_flags(fa_cuda_traits t)
{
    return fa_cuda_takes_formats(t) ? 2 * fa_cuda_tile_warps(t) * 4 : 0;
}

/* Behind what any type takes: two stages' notes, the sums, codes of all warps, and flags. */
FA_CUDA_FN int fa_cuda_tile_notes_at(fa_cuda_traits t, int rows)
{
    return (fa_cuda_tensor_words(t, rows) + (fa_cuda_tensor_notes(t) ? FA_CUDA_NOTES : 0) + 3) / 4 * 16;
}

FA_CUDA_FN int fa_cuda_tile_bytes(fa_cuda_traits t, int type, int rows)
{
    const int type_k = fa_cuda_coded_k(type), type_v = fa_cuda_coded_v(type);
    return fa_cuda_tile_notes_at(t, rows) + 2 * fa_cuda_tile_notes(t, type_k, type_v) +
           fa_cuda_tile_sums(t, type_k, rows) +
           fa_cuda_tile_warps(t) * fa_cuda_tile_share(t, type_k, type_v) + fa_cuda_tile_flags(t);
}

/* Decode, of formats of caches: of a block of the fewest threads. */
FA_CUDA_FN int fa_cuda_shared_bytes(fa_cuda_traits t, int type, int variant)
{
    if (t.kind == FA_CUDA_DECODE)
        return fa_cuda_decode_bytes(t, type, variant, t.group / 32);
    if (t.kind == FA_CUDA_TENSOR && type > FA_CUDA_PRUNED_ROWS)
        return fa_cuda_tile_bytes(t, type, fa_cuda_rows_of(t, variant));
    return (int)sizeof(float) *
           (t.kind == FA_CUDA_TENSOR || t.kind == FA_CUDA_LATENT
                ? fa_cuda_tensor_words(t, fa_cuda_rows_of(t, variant)) +
                      (fa_cuda_tensor_notes(t) ? FA_CUDA_NOTES : 0)
            : t.kind == FA_CUDA_FMA  ? 4 + 2 * fa_cuda_fma_stage(t, fa_cuda_rows_of(t, variant))
            : t.kind == FA_CUDA_ROWS ? fa_cuda_rows_of(t, variant) * (t.dim_qk + t.block_kv) +
                                           fa_cuda_rows_sums(t, fa_cuda_rows_of(t, variant)) + t.group + 8
                                     : 5 * t.group);
}

/* How elements of k or v lie in a block, as core/portable/codes.h says; one of f32, f16 or bf16 is a block of its own. */
typedef struct fa_cuda_format {
    int shift, size;     /* the logarithm of a block's elements; its bytes                              */
    int codes, fifth;    /* bytes that precede codes and their fifth bits; fifth is 0: there are none   */
    int bytes, upper;    /* of the codes; bits that precede those of elements past as many in a byte    */
    unsigned mask, flip; /* what of a byte is a code; bits that are changed in it                       */
    float zero;          /* the code of 0, and 2^23                                                     */
    int offset;          /* whether there is one                                                        */
} fa_cuda_format;

/* What every kernel is given: addresses of first elements; NULL where an operand is absent. */
typedef struct fa_cuda_args {
    fa_table_params p;
    const unsigned char *table; /* see core/portable/table.h; p is its beginning */
    const unsigned char *q, *k, *v;
    unsigned char *o;
    const unsigned char *bias, *keep;
    const int *page_table;
    unsigned char *lse;
    unsigned char *partial, *partial_state; /* of rows that are split         */
    int type_q, type_k, type_v, type_o;     /* fa_dtype                       */
    int aligned;               /* rows of q, k, v and o lie at multiples of 16 bytes, but for coded ones */
    int straight;              /* likewise, and keys are not in pages                                    */
    fa_cuda_format in_k, in_v; /* for modules that read any type                                         */
    int aligned_k, aligned_v;  /* what rows of k and v lie at multiples of, in bytes: 2, 4, 8 or 16      */
    const unsigned char *k_scale, *v_scale, *k_zero, *v_zero;
} fa_cuda_args;

#endif
