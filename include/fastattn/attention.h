/* SPDX-License-Identifier: Apache-2.0 */
/** What attention to compute: tensors and options, as plain data. */
#ifndef FASTATTN_ATTENTION_H
#define FASTATTN_ATTENTION_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits of the library. A device may have lower ones: ask fa_device_supports(). */
#define FA_MAX_HEAD_DIM 576     /* dim_qk and dim_v; latent attention (DeepSeek) needs 512 + 64     */
#define FA_MAX_LENGTH (1 << 28) /* rows or keys of one sequence                                     */

/** Element types. New ones are added at the end; no number ever changes. */
typedef enum fa_dtype {
    FA_F32 = 0,
    FA_F16 = 1,  /* IEEE 754 binary16                                        */
    FA_BF16 = 2, /* the upper half of an f32                                 */
    FA_BOOL = 3, /* one byte, 0 or not 0; only for `keep`                    */
    FA_I32 = 4,  /* 32 bits; for `page_table`, and `keep` in bits             */

    /* Formats of caches: only for k and v. fa_element() and fa_elements_store() of reference.h decode and encode. 8 bits, as the Open Compute Project has them: */
    FA_E4M3 = 5, /* fp8 e4m3fn: sign, 4 bits of exponent, 3 of mantissa; no infinity */
    FA_E5M2 = 6, /* fp8 e5m2: the upper half of an f16                       */
    /* Blocks of 32 elements, bit for bit as ggml has them (llama.cpp's --cache-type-k). d and m are f16: */
    FA_Q8_0 = 7,    /* 34 bytes: d, 32 codes of 8 bits; an element is d * code  */
    FA_Q4_0 = 8,    /* 18 bytes: d, 32 codes of 4 bits; d * (code - 8)          */
    FA_Q4_1 = 9,    /* 20 bytes: d, m, 32 codes of 4 bits; d * code + m         */
    FA_Q5_0 = 10,   /* 22 bytes: d, 32 fifth bits, 32 codes' lower 4 bits; d * (code - 16) */
    FA_Q5_1 = 11,   /* 24 bytes: d, m, then likewise; d * code + m              */
    FA_IQ4_NL = 12, /* 18 bytes: d, 32 codes of 4 bits; d * table[code]       */
    /* Codes alone, whose scales lie in k_scale or v_scale: of 8, 4 or 2 bits, the first of a byte in its lowest bits. */
    FA_I8 = 13,   /* whole numbers, two's complement: -128 to 127             */
    FA_I4 = 14,   /* -8 to 7                                                  */
    FA_I2 = 15,   /* -2 to 1                                                  */
    FA_U8 = 16,   /* whole numbers without a sign: 0 to 255                   */
    FA_U4 = 17,   /* 0 to 15                                                  */
    FA_U2 = 18,   /* 0 to 3                                                   */
    FA_E2M1 = 19, /* 4 bits: sign, 2 of exponent, 1 of mantissa; 0, 0.5, 1, 1.5, 2, 3, 4, 6 */
    FA_E8M0 = 20, /* 8 bits, only for scales: 2^(code - 127); 255 is NaN      */
    FA_U1 = 21,   /* codes alone of one bit: 0 or 1                           */
    FA_U2U1 = 22, /* codes alone in blocks of 32: 16 of 2 bits, then 16 of one  */
    /* DeepSeek's latent rows, as FlashMLA and vLLM (kv_cache_dtype "fp8_ds_mla") have them. A block of 576 elements is a row
     * of 656 bytes: 512 codes as FA_E4M3, 4 scales in f32, each of 128 of the codes, 64 elements as FA_BF16. An element of
     * the first 512 is scale * number, rounded to f32. k has 576 dims; v is its first 512 (v_in_k). */
    FA_FP8_DS_MLA = 23,
    /* Rows that keep some of their D elements (Mustafar, arXiv 2505.22913): a bitmap, then the elements that are kept, in f16 and
     * in the order of their dims. D is a multiple of 8. Bit d % 32 of 32-bit word d / 32, the lowest being bit 0, says whether
     * dim d is kept; there are ceil(D / 32) words, and bits behind D mean nothing. Words and f16 are little-endian. What is not
     * kept is 0. All rows of a tensor have as many bytes, whatever their bitmaps say: what is behind the last kept element
     * is padding. If more bits are set than the row has room for elements, those of the last ones count as 0. Mustafar's own
     * 64-bit words have dim 64 w + i in bit 63 - i: with their bits reversed, each is two of these words, the lower first.
     * Strides of this type count bytes, in multiples of 4, and stride[3] is the bytes of a row: see fa_tensor. */
    FA_BITMAP_F16 = 24
} fa_dtype;

/**
 * How many elements lie in one block, which is all or nothing: 32 for ggml's formats, 8 for fp8 and for codes alone (whose
 * elements do not depend on each other, but are read so many at a time), 16 for FA_U1, 32 for FA_U2U1, 576 for FA_FP8_DS_MLA,
 * 1 for other types. Head dims and strides of k and v are multiples of it, but for v's 512 dims in FA_FP8_DS_MLA. 0 for a
 * value that is no fa_dtype. Thread-safe.
 */
FA_API int64_t fa_dtype_block(fa_dtype dtype);

/**
 * The bytes of one block: of one element, where blocks have one. 1 for FA_BITMAP_F16, whose strides count bytes. 0 for a value
 * that is no fa_dtype. Thread-safe.
 */
FA_API size_t fa_dtype_size(fa_dtype dtype);

/**
 * What a number in memory a multiple of must begin at: offsets and addresses of tensors. The element's size; 2 for formats
 * of caches and FA_E8M0, 4 for FA_FP8_DS_MLA and FA_BITMAP_F16. 0 for a value that is no fa_dtype. Thread-safe.
 */
FA_API size_t fa_dtype_align(fa_dtype dtype);

/**
 * The name of a type: "f32", "f16", "bf16", "bool", "i32", "e4m3", "q8_0" and so on. "unknown" for any other value. Never NULL.
 * Thread-safe.
 */
FA_API const char *fa_dtype_name(fa_dtype dtype);

/**
 * The type and layout of a tensor, without its memory. The axes are always (batch, head, row, dim). Strides count
 * elements and say how the axes lie in memory: BHSD, BSHD, packed QKV, a view into a cache.
 *
 * If all four strides are 0, the tensor is contiguous in the order of its axes. Otherwise:
 *  - stride[3] is 1. In bias and keep it may be 0: then one element serves all keys.
 *  - A stride of 0 on another axis of an input repeats the tensor along that axis.
 *  - Strides are not negative.
 *  - The stride of an axis of size 1 has no meaning and may be any number.
 * Of FA_BITMAP_F16, strides count bytes, and stride[3] is the bytes of a row, a multiple of 4: of its bitmap, 4 ceil(D / 32), and of 2
 * to D elements in f16. If all four strides are 0, rows have room for all D elements.
 * A tensor that is one element, repeated along every axis, has sizes of 1: four strides of 0 would mean contiguous.
 */
typedef struct fa_tensor {
    fa_dtype dtype;
    int64_t shape[4];
    int64_t stride[4]; /* in elements; of FA_BITMAP_F16 in bytes */
} fa_tensor;

/** A contiguous tensor of this shape, which is not checked here but where it is used. Thread-safe. */
FA_API fa_tensor fa_tensor_make(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim);

/**
 * A contiguous tensor of FA_BITMAP_F16 whose rows keep `kept` of `dim` elements: an even number, or one more is kept. Not checked here
 * but where it is used: there, stride[3] is refused that came of kept < 1 or kept > dim. Thread-safe.
 */
FA_API fa_tensor fa_tensor_make_bitmap(int64_t batch, int64_t heads, int64_t rows, int64_t dim, int64_t kept);

/**
 * The bytes from a tensor's first element to the end of its last. A buffer must have this many behind the tensor's
 * offset. 0 for an empty tensor. FA_INVALID: NULL, no fa_dtype, a negative size or stride, or a last stride that is
 * neither 0 nor 1 (of FA_BITMAP_F16: none of such rows). FA_OUT_OF_MEMORY: more than PTRDIFF_MAX bytes. Thread-safe.
 */
FA_API fa_status fa_tensor_span(const fa_tensor *tensor, size_t *bytes);

/**
 * Which keys a row sees. Row i of a sequence stands at key position
 *     p(i) = i + alignment + diagonal_offset,
 * where fa_alignment gives the alignment. A causal mask shows a row the keys up to and including p(i). Windows and
 * ALiBi count from p(i) too.
 */
typedef enum fa_mask_kind {
    FA_MASK_NONE = 0,
    FA_MASK_CAUSAL_TOP_LEFT = 1,
    FA_MASK_CAUSAL_BOTTOM_RIGHT = 2
} fa_mask_kind;

/** The position of row 0 of a sequence, before diagonal_offset. */
typedef enum fa_alignment {
    FA_ALIGN_DEFAULT = 0,     /* as the mask says; FA_MASK_NONE means bottom right              */
    FA_ALIGN_TOP_LEFT = 1,    /* row 0 stands at key 0: the alignment is 0                      */
    FA_ALIGN_BOTTOM_RIGHT = 2 /* the last row stands at the last key: it is len_kv - len_q      */
} fa_alignment;

/** Overrides what the planner chooses: for tests, tuning and benchmarks. Zero means that the planner decides. */
typedef struct fa_tuning {
    size_t struct_size; /* sizeof(fa_tuning)                                                          */
    const char *kernel; /* a kernel's name, as in fa_device_info.kernels; copied. FA_UNSUPPORTED if    */
                        /* this device has no such kernel, or the kernel does not serve the problem    */
    int32_t block_q;    /* rows of a level-1 block, rounded up to whole tiles of the kernel            */
    int32_t block_kv;   /* keys of a level-1 block, rounded up likewise                                */
    int32_t splits;     /* split-KV (num_splits): how many parts each row block's keys are split into. */
                        /* Parts are whole blocks of block_kv keys, so there may be fewer:             */
                        /* fa_plan_info.splits says how many. They are merged afterwards               */
} fa_tuning;

/**
 * Lists of key blocks: block-sparse attention (BSR and BlockMask elsewhere). The rows of a sequence are cut into blocks of
 * `block_rows` query rows, its keys into blocks of `block_keys`, both counted from row 0 and key 0. A row sees a key only if the
 * key's block is in the list of the row's block; the masks of the description hold besides. What no list has is neither read nor
 * computed.
 *
 * There is a list for each sequence (or one for all), each query head, each KV head, or one for all heads, and each block of
 * rows. Lists are given in compressed rows or as a block mask:
 *  - The list number L of row block r of head h of sequence n, L = (n * heads + h) * row_blocks + r, is
 *    indices[indptr[L]] to indices[indptr[L + 1] - 1], in any order. indptr has sequences * heads * row_blocks + 1 numbers that never
 *    decrease, the first of which is 0.
 *  - Block k of keys is in list L if mask[L * key_blocks + k] is not 0.
 *
 * With dynamic_lengths 2, lists may also lie on the device: fa_plan_schedule_lists(). Then both forms may be NULL, which is lists
 * of all blocks.
 *
 * FA_INVALID where they are used, by field and value: block_rows or block_keys not from 1 to FA_MAX_LENGTH; sequences or heads
 * that are neither 1 nor all; fewer row_blocks or key_blocks than the longest sequence has (with dynamic_lengths, the longest that
 * there may be), or more than FA_MAX_LENGTH; both forms or none; indices beside a mask; offsets that do not begin at 0, or decrease;
 * an index below 0 or from key_blocks on; one that a list has twice; an index_count without dynamic_lengths 2. FA_OUT_OF_MEMORY: more
 * than 2^34 blocks in all lists.
 *
 * Whole blocks cost nothing beyond their own keys where the kernel's blocks divide the lists': the planner chooses such if
 * it can. Lists of single query heads of a group (heads_q, with fewer KV heads), or blocks smaller than the kernel's, are as
 * exact and cost what the kernel's blocks around them do.
 */
typedef struct fa_block_lists {
    size_t struct_size; /* sizeof(fa_block_lists) */
    int32_t block_rows, block_keys;
    int64_t sequences;              /* 1, or as many as the problem has */
    int64_t heads;                  /* 1, heads_kv or heads_q           */
    int64_t row_blocks, key_blocks; /* of a list's axis, at least what the longest sequence needs */
    const int32_t *indptr, *indices;
    const uint8_t *mask; /* instead of these */
    /* With dynamic_lengths 2: how many numbers the indices have room for that come from the device; 0: a mask comes from there.
     * Else 0. */
    int64_t index_count;
} fa_block_lists;

/**
 * Neighbourhood attention: NATTEN (arXiv 2204.07143, 2209.15001, 2403.04690, 2504.16922). Tokens are those of a grid of 1, 2 or 3 axes,
 * and a token sees another if it does so on each axis. On an axis of length L, with kernel w and stride s, token i sees w tokens around
 * a leader, shifted inwards at the borders:
 *     leader = min(i / s * s + s / 2, L - 1),   begin = min(max(leader - w / 2, 0), L - w),   end = begin + w,
 * or with `causal`
 *     leader = min(i / s * s + s - 1, L - 1),   begin = max(leader - w + 1, 0),               end = i + 1.
 * With dilation d, tokens of the same i % d are an axis of their own, in which they are numbered i / d.
 *
 * Row-major order has the last axis next to each other. Blocks of a neighbourhood are few if a block of tokens is a patch of the grid.
 * So rows and keys come in another order: first by i % d of all axes, then by patch of `tile` tokens, then within the patch, each time
 * the last axis first; patches at the end of an axis are smaller. Where tile is 1 on all axes but the last, and no axis has a dilation,
 * that is row-major order. q, k and v are brought into this order, and o comes in it; fa_sparse_neighbourhood_order() tells it. Patches
 * that divide the lengths cost least.
 *
 * FA_INVALID where it is used, by field and value: what the fields below do not allow. FA_OUT_OF_MEMORY: a grid that is larger than
 * kernels count, 2^26 tokens.
 */
typedef struct fa_neighbourhood {
    size_t struct_size;  /* sizeof(fa_neighbourhood)                                            */
    int32_t axes;        /* 1 to 3; further entries below are not looked at                     */
    int32_t size[3];     /* of the grid; together at most FA_MAX_LENGTH                         */
    int32_t kernel[3];   /* 1 to size / dilation                                                */
    int32_t stride[3];   /* 1 to kernel; 0: 1                                                   */
    int32_t dilation[3]; /* 1 to size; 0: 1                                                     */
    int32_t causal[3];   /* 0 or 1                                                              */
    int32_t tile[3];     /* 1 to FA_MAX_LENGTH, of which an axis takes its length at most;      */
                         /* 0: 64, or 8 of 2 axes, or 4 of 3                                    */
} fa_neighbourhood;

/**
 * The description of one forward attention:  O = softmax(f(Q K^T)) V  over the visible keys, for each query head, where
 *     f(s) = softcap(scale * s) - slope * |p(i) - j| + factor * bias(i, j),   softcap(x) = c * tanh(x / c).
 *
 *  - Query heads are divided evenly among the heads of k and v (MHA, GQA, MQA): query head h uses KV head
 *    h / (heads_q / heads_kv).
 *  - A row that sees no key, or only scores of -inf, gives 0. Its LSE is -inf; with a sink it is the sink.
 *  - A key that a row does not see never changes that row, whatever its value. NaN and Inf that a row does see pass
 *    into that row by IEEE rules.
 *  - Sums are f32, whatever the types.
 *
 * Zero means default everywhere. Fields are only ever added at the end: common.h says what struct_size promises. What
 * the pointers point to is copied when a plan is made.
 *
 * The same things elsewhere. A tensor of axes (batch, rows, heads, dim), as in FlashAttention, keeps its memory: give
 * the strides of that order.
 *
 *   FlashAttention         here
 *   softmax_scale          scale (None: 0)
 *   causal=True            mask = FA_MASK_CAUSAL_BOTTOM_RIGHT
 *   window_size=(l, r)     window_left = l + 1, window_right = r + 1; -1 is 0. Here p(i) itself counts, there not.
 *                          With causal=True, r has no effect there: leave window_right 0
 *   softcap                softcap
 *   alibi_slopes           alibi_slopes; of shape (batch, heads): also alibi_stride = heads
 *   cu_seqlens_q, _k       cu_rows_q32, cu_rows_kv32, sequences = batch; max_seqlen_q and _k are not needed
 *   seqused_k, cache_seqlens  lens_kv32
 *   seqused_q              lens_q32
 *   leftpad_k              first_kv32
 *   page_table, block_table  page_table; k_cache and v_cache are k and v, of axes (page, key, head, dim)
 *   cache_batch_idx        page_table of one page per sequence: a cache entry is a page
 *   learnable_sink, s_aux  sinks
 *   softmax_lse            lse; a row without keys has -inf here and +inf there
 *   kernel_size, stride, dilation, is_causal of NATTEN's na1d(), na2d(), na3d()  neighbourhood
 *   BlockMask of FlexAttention, indptr and indices of FlashInfer's block-sparse wrapper, base_blockmask  lists
 *   num_splits             tuning->splits; its combine step is fa_merge_run(), or part of the run
 *   head_dim_v of FlashMLA v_in_k = 1, v.shape[3] = head_dim_v; its k_cache is k, of one head
 *   is_fp8_kvcache         k.dtype = v.dtype = FA_FP8_DS_MLA, the rows of 656 bytes
 *
 *   PyTorch, scaled_dot_product_attention
 *   scale                  scale (None: 0; 0.0: scale_is_set)
 *   is_causal=True         mask = FA_MASK_CAUSAL_TOP_LEFT; causal_lower_right() is FA_MASK_CAUSAL_BOTTOM_RIGHT
 *   attn_mask, bool        keep: in both, true is visible. Expanded axes have size 1 or stride 0
 *   attn_mask, float       bias
 *   enable_gqa             nothing: the numbers of heads say it
 *   a row without keys     0 here, NaN there from some kernels
 *
 *   ONNX, Attention (opset 23 and 24)
 *   scale                  scale; there q and k are each multiplied by its root, which makes the same product
 *   is_causal=1            mask = FA_MASK_CAUSAL_TOP_LEFT; with past_key of P keys also diagonal_offset = P;
 *                          with nonpad_kv_seqlen: FA_MASK_CAUSAL_BOTTOM_RIGHT
 *   attn_mask, bool        keep; float: bias. Added after softcap in both (opset 24's erratum)
 *   past_key, past_value   k and v hold past and present keys together
 *   nonpad_kv_seqlen       lens_kv
 *   q_num_heads, kv_num_heads  the sizes of axis 1
 *
 *   ggml, ggml_flash_attn_ext
 *   ne[3], ne[2], ne[1], ne[0]  batch, head, row, dim; strides are nb / element size. Its result is (dim, heads, rows)
 *   scale                  scale
 *   mask                   bias, f16; its shape leaves out the padding of rows and keys. It contains windows
 *   max_bias               bias_factors: for n the largest power of 2 up to heads, m = max_bias, head h has
 *                          2^(-m (h + 1) / n) if h < n, else 2^(-m (2 (h - n) + 1) / (2 n))
 *   logit_softcap          softcap
 *   sinks                  sinks
 */
typedef struct fa_attention_desc {
    size_t struct_size; /* sizeof(fa_attention_desc) */

    /* q (batch, heads_q, rows, dim_qk); k (batch, heads_kv, keys, dim_qk); v (batch, heads_kv, keys, dim_v);
     * o (batch, heads_q, rows, dim_v). Each is f32, f16 or bf16, independent of the others. k and v may each have a
     * format of caches instead: its elements count as the f32 numbers that they stand for, scaled where there is k_scale.
     * No two elements of o share memory, and none shares memory with an input. Rows of o may lie between rows of q, k
     * and v. */
    fa_tensor q, k, v, o;

    float scale;          /* of the scores, finite; 0: 1/sqrt(dim_qk)                              */
    int32_t scale_is_set; /* 1: `scale` is used even if it is 0, which makes all products of q and k 0 */
    float softcap;        /* at least 0; 0: none                                                   */
    fa_mask_kind mask;
    fa_alignment alignment; /* with or without a causal mask; must not contradict the mask's own */

    /* Sliding window: how many keys are visible up to and including p(i), so 1 is p(i) alone. 0: unlimited. */
    int64_t window_left;
    /* The same from p(i) on. A causal mask is a right window of 1; of the two, the narrower holds. 0: unlimited. */
    int64_t window_right;
    int64_t prefix; /* every row sees the first `prefix` keys (prefix-LM) */
    /* Added to p(i), if rows or keys are a part of a longer problem. -FA_MAX_LENGTH to FA_MAX_LENGTH. */
    int64_t diagonal_offset;

    /* Packed sequences (varlen; cu_seqlens_q and cu_seqlens_k in FlashAttention). Tensors of a packed side have
     * batch 1, and the sequences follow each other on the row axis. Sequence n is rows cu_rows[n] to
     * cu_rows[n + 1] - 1. There are `sequences` + 1 offsets, which never decrease; they are copied. cu_rows_q
     * packs q and o, cu_rows_kv packs k and v. NULL: that side is a dense batch of `sequences` entries. */
    int64_t sequences; /* the number of packed sequences; 0 or q's batch if nothing is packed */
    const int64_t *cu_rows_q;
    const int64_t *cu_rows_kv;

    /* Lengths of padded, dense tensors (seqused_q and seqused_k, cache_seqlens, nonpad_kv_seqlen elsewhere). Batch
     * entry n uses its first lens_q[n] rows of q and o, and its first lens_kv[n] keys of k and v. A list has one
     * length for each entry; it is copied. NULL: all. p(i) counts from these lengths. Rows of o and lse beyond a
     * length are not written. A side has lengths or offsets, not both. */
    const int64_t *lens_q;
    const int64_t *lens_kv;

    /* The same four lists as 32-bit integers. Of each pair at most one is given. */
    const int32_t *cu_rows_q32;
    const int32_t *cu_rows_kv32;
    const int32_t *lens_q32;
    const int32_t *lens_kv32;

    /* Caches that are padded on the left (leftpad_k elsewhere), and ring buffers. Sequence n does not use its keys before
     * first_kv[n], which is at most its length. The keys keep their numbers: p(i), `prefix`, and the columns of bias
     * and keep count from key 0. A list has one number for each sequence; it is copied. NULL: all 0. The second is the
     * same list as 32-bit integers; at most one is given. */
    const int64_t *first_kv;
    const int32_t *first_kv32;

    /* Paged caches (vLLM, FlashInfer). FA_I32, of shape (sequences, 1, 1, pages). Then k is a pool of pages, of shape
     * (number of pages, heads_kv, keys of a page, dim_qk), and v is one of the same sizes; their strides say how a page
     * lies in memory, so that they may share one pool. Key j of sequence n is key j % S of page T[n][j / S], where T is
     * the table and S = k.shape[2], any number. T is an operand of a run. Its axis 0 may be repeated (size 1, or stride
     * 0): then all sequences have the same keys. Sequences have lens_kv[n] keys, or as many as their pages hold;
     * cu_rows_kv is NULL. Only entries of pages that hold such keys are read. One that is not from 0 to k.shape[0] - 1
     * is FA_INVALID where the host reads the table (host_memory of fa_device_info); elsewhere no memory outside of k and
     * v is read, and the sequence's rows that see such a key become NaN, in o and lse; its other rows may. The same
     * happens where a length on the device (dynamic_lengths 2) goes beyond what its pages hold. want_status tells
     * which sequences they are. shape all 0: none. */
    fa_tensor page_table;

    /* Scales of a cache whose codes have none beside them: k is fp8, I8, I4, I2, U8, U4, U2, U1, U2U1 or E2M1. An
     * element of k is
     *     k_scale * k_factor * number(code) + k_zero,
     * in f32, the product of the first two rounded, the rest rounded once or twice. Sizes 0 and 1 of k_scale are k's or
     * 1. Sizes 2 and 3 divide k's: key j (of a page, with page_table) and dim d have the scale at
     * (j / (k.shape[2] / k_scale.shape[2]), d / (k.shape[3] / k_scale.shape[3])). So (1, 1, 1, 1) is one scale,
     * (1, H, 1, 1) one for each head, (B, H, S, 1) for each token and head, (B, H, S, D / g) for each group of g dims,
     * (B, H, S / g, D) for each channel in a group of g tokens. With pages, axis 0 is the page. With cu_rows_kv, keys count
     * from the tensor's first, and k.shape[2] is below 2^31. f32, f16, bf16, e4m3 or e8m0; k of codes alone must have one.
     * What a scale of e8m0 below 2^-126 stands for, a GPU may take for 0. v_scale likewise, of v. shape all 0: none. */
    fa_tensor k_scale, v_scale;
    /* f32, f16 or bf16, of the shape of k_scale, with any strides; only with k_scale. shape all 0: the zero is 0. */
    fa_tensor k_zero, v_zero;
    /* Finite; 0: 1. Only with k_scale. NVFP4's number for the whole tensor. */
    float k_factor, v_factor;

    /* 1: a run may have other lengths than those above, as a cache that grows: fa_plan_schedule(). Lengths are then at most
     * what the tensors hold; those above, the largest there can be if none are given, are what the plan is made for. The
     * workspace suffices for all. 2: likewise, and lengths may also lie on the device: fa_plan_schedule_device(), which
     * takes the same lists as are given above. */
    int32_t dynamic_lengths;

    /* Added to the scaled scores (a float attn_mask elsewhere). f32, f16 or bf16, of shape (batch, heads_q, rows,
     * keys). Each axis has its full size, or 1, which repeats it. With packed sequences or lengths, the batch axis
     * counts sequences, rows and keys count within a sequence, and these two axes may be longer than the longest
     * sequence. shape all 0: none. */
    fa_tensor bias;

    /* heads_q finite factors of the bias; copied. NULL: all 1. A factor of 0 and an infinite bias make NaN. */
    const float *bias_factors;

    /* FA_BOOL, with shapes as for bias (a boolean attn_mask elsewhere). A row sees a key only if the element is
     * not 0 and the mask above shows the key. shape all 0: none.
     * Or FA_I32, each element of which holds 32 keys (a packed custom_mask, as FlashInfer has it, whose rows each begin with
     * a new element; tree masks of speculative decoding): bit j % 32 of element j / 32, the lowest being bit 0, is key j.
     * Axis 3 then counts elements, as many as the keys need or more; one element is not repeated. */
    fa_tensor keep;

    /* With bits in keep: 0, or n: they are of the last n keys of each sequence alone, bit 0 of key len_kv - n, and hide no key
     * before. So a draft tree of n tokens behind a long cache needs n bits a row. Without bits: 0. */
    int64_t keep_last;

    /* ALiBi (Press, Smith, Lewis, arXiv 2108.12409): heads_q finite slopes; copied. NULL: none. The slopes of batch
     * entry (or sequence) n begin at alibi_slopes[n * alibi_stride]. alibi_stride 0: all entries share them. */
    const float *alibi_slopes;
    int64_t alibi_stride;

    /* Attention sinks: heads_q logits that take weight and give no value, each finite or -inf; copied. NULL: none. */
    const float *sinks;

    /* 1: also write the LSE, the natural logarithm of each row's softmax denominator, the sink's part included.
     * f32, contiguous, of shape (batch of o, heads_q, rows of o). */
    int32_t want_lse;

    const fa_tuning *tuning; /* NULL: the planner decides; copied */

    /* 1: each run also writes its status, which says of each sequence whether the page table was in order
     * (fa_attention_args.status). Only with page_table. */
    int32_t want_status;

    /* 1: v is the first v.shape[3] elements of each row of k, in k's memory (multi-head latent attention, where one row
     * of the cache is the latent and behind it what carries the position). A row is then read once for both products,
     * where the kernel can. v has k's type, sizes and strides, and at most k's dims; v.stride all 0: k's strides. A run
     * is given k alone: v is NULL, or lies where k does. v_scale and v_zero are operands of their own. 0: v is a tensor
     * of its own, wherever it lies. */
    int32_t v_in_k;

    /* Lists of key blocks; all is copied. NULL: none. */
    const fa_block_lists *lists;

    /* Row i of each sequence is token i of this grid, in the grid's order, and so is key i. Keys behind the grid's are seen by every
     * row (additional KV). Masks, lists and `keep` hold besides. There is a row for each token, and a key for each or more; sequences with
     * lengths of their own may have fewer. Without `lists` the library makes them: keys far from a block of rows are neither read nor computed, and with
     * dynamic_lengths these lists stay as they are. It takes 12 bytes for each token in the work of each run. Copied. NULL: none. */
    const fa_neighbourhood *neighbourhood;
} fa_attention_desc;

#ifdef __cplusplus
}
#endif
#endif
