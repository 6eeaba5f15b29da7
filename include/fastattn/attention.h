/* SPDX-License-Identifier: Apache-2.0 */
/** What attention to compute: tensors and options, as plain data. */
#ifndef FASTATTN_ATTENTION_H
#define FASTATTN_ATTENTION_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits of every backend; a device may have lower ones, which fa_device_supports() tells. */
#define FA_MAX_HEAD_DIM 576     /* dim_qk and dim_v: 512, and DeepSeek's 512 + 64                   */
#define FA_MAX_LENGTH (1 << 28) /* rows or keys of one sequence                                     */

/** Element types. Appended to, never renumbered. */
typedef enum fa_dtype {
    FA_F32 = 0,
    FA_F16 = 1,  /* IEEE 754 binary16                                        */
    FA_BF16 = 2, /* the upper half of an f32                                 */
    FA_BOOL = 3  /* one byte, 0 or not 0; the keep mask only                 */
} fa_dtype;

/** Bytes of one element; 0 for a value that is no fa_dtype. */
FA_API size_t fa_dtype_size(fa_dtype dtype);

/** "f32", "f16", "bf16", "bool"; "unknown" otherwise. */
FA_API const char *fa_dtype_name(fa_dtype dtype);

/**
 * A tensor's type and layout, without its memory. Logical axes are always (batch, head, row, dim);
 * strides, in elements, carry the physical layout: BHSD, BSHD, packed QKV, a view into a cache.
 *
 * Four strides of 0 mean contiguous in logical order. Otherwise stride[3] is 1, or 0 in bias and keep, which then have
 * one element for all keys. A stride of 0 on another axis of an input repeats that axis too. Strides are not negative.
 * The stride of an axis of size 1 is not looked at, whatever it is. (A tensor that is one element repeated along every
 * axis has sizes of 1: four strides of 0 would mean contiguous.)
 */
typedef struct fa_tensor {
    fa_dtype dtype;
    int64_t shape[4];
    int64_t stride[4];
} fa_tensor;

/** A contiguous tensor of the given shape. */
FA_API fa_tensor fa_tensor_make(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim);

/**
 * Bytes from a tensor's first element to the end of its last, which is what a buffer must hold behind
 * its offset; 0 for an empty tensor. FA_INVALID (shape or stride negative, last stride neither 0 nor 1) or
 * FA_OUT_OF_MEMORY (beyond PTRDIFF_MAX).
 */
FA_API fa_status fa_tensor_span(const fa_tensor *tensor, size_t *bytes);

/**
 * Which keys a row sees. Row i of a sequence stands at key position
 *     p(i) = i + alignment + diagonal_offset,
 * where fa_alignment says what the alignment is. Causal: keys up to and with p(i). Windows and ALiBi count from p(i)
 * too.
 */
typedef enum fa_mask_kind {
    FA_MASK_NONE = 0,
    FA_MASK_CAUSAL_TOP_LEFT = 1,
    FA_MASK_CAUSAL_BOTTOM_RIGHT = 2
} fa_mask_kind;

/** Where row 0 of a sequence stands, before diagonal_offset. */
typedef enum fa_alignment {
    FA_ALIGN_DEFAULT = 0,     /* as the mask says; bottom right for FA_MASK_NONE                 */
    FA_ALIGN_TOP_LEFT = 1,    /* at key 0: the alignment is 0                                    */
    FA_ALIGN_BOTTOM_RIGHT = 2 /* so that the last row stands at the last key: len_kv - len_q     */
} fa_alignment;

/** Overrides of the planner's choices: for tests, tuning and benchmarks. Zero means: the planner decides. */
typedef struct fa_tuning {
    size_t struct_size; /* sizeof(fa_tuning)                                                          */
    const char *kernel; /* a kernel row's name, see fa_device_info.kernels; copied. FA_UNSUPPORTED if  */
                        /* this device has no such row or the row does not serve the problem           */
    int32_t block_q;    /* level-1 block: rows, rounded up to the row's level-2 tile                   */
    int32_t block_kv;   /* level-1 block: keys, likewise                                               */
    int32_t splits;     /* parts into which each row block's keys are split, merged afterwards; fewer  */
                        /* where they have fewer blocks (of block_kv keys): fa_plan_info.splits tells  */
} fa_tuning;

/**
 * One forward attention:  O = softmax(f(Q K^T)) V  over the visible keys, per query head, where
 *     f(s) = softcap(scale * s) - slope * |p(i) - j| + factor * bias(i, j),   softcap(x) = c * tanh(x / c).
 * Heads of q are divided evenly among the heads of k and v (MHA, GQA, MQA): head h uses KV head h / (heads_q / heads_kv).
 * A row that sees no key, or none with a score above -inf, gives 0, and an LSE of -inf (of the sink, where
 * there is one).
 * Keys that a row does not see never influence it, whatever their value; NaN and Inf in what it sees
 * follow IEEE rules into that row.
 *
 * Zero means default everywhere. Fields are only ever appended: common.h says what struct_size promises.
 * Accumulation is f32 whatever the types.
 *
 * What others call it. Shapes: with (batch, rows, heads, dim), as FlashAttention has, give the strides of that order.
 *
 *   FlashAttention         here
 *   softmax_scale          scale (None: 0)
 *   causal=True            mask = FA_MASK_CAUSAL_BOTTOM_RIGHT
 *   window_size=(l, r)     window_left = l + 1, window_right = r + 1; -1 is 0. It does not count p(i) itself, we do.
 *                          With causal=True, r is not looked at: leave window_right 0
 *   softcap                softcap
 *   alibi_slopes           alibi_slopes; of shape (batch, heads): also alibi_stride = heads
 *   cu_seqlens_q, _k       cu_rows_q32, cu_rows_kv32, sequences = batch; max_seqlen_q and _k are not needed
 *   seqused_k, cache_seqlens  lens_kv32
 *   seqused_q              lens_q32
 *   learnable_sink, s_aux  sinks
 *   softmax_lse            lse; a row without keys has -inf here and +inf there
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
 *   scale                  scale; the roots by which q and k are multiplied there make the same product
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
 *   mask                   bias, f16, with its padding of rows and keys cut off by shape; windows are in it
 *   max_bias               bias_factors: for n the largest power of 2 up to heads, m = max_bias, head h has
 *                          2^(-m (h + 1) / n) if h < n, else 2^(-m (2 (h - n) + 1) / (2 n))
 *   logit_softcap          softcap
 *   sinks                  sinks
 */
typedef struct fa_attention_desc {
    size_t struct_size; /* sizeof(fa_attention_desc) */

    /* q (batch, heads_q, rows, dim_qk); k (batch, heads_kv, keys, dim_qk); v (batch, heads_kv, keys,
     * dim_v); o (batch, heads_q, rows, dim_v). Types f32, f16, bf16, each tensor its own. No two
     * elements of o may share memory, nor one of o and one of an input: rows of o between those of q, k
     * and v in one packed buffer are fine. */
    fa_tensor q, k, v, o;

    float scale; /* of the scores, finite; 0: 1/sqrt(dim_qk)                                         */
    int32_t scale_is_set; /* 1: use `scale` even where it is 0, which makes all scores of q and k 0 */
    float softcap; /* 0: none                                                                          */
    fa_mask_kind mask;
    fa_alignment alignment; /* of p(i), also without a causal mask; must not contradict a causal mask's own */
    int64_t window_left;    /* keys visible up to and with p(i), so 1 is p(i) alone; 0: unlimited         */
    int64_t window_right;   /* the same on the other side; a causal mask is a right window of 1, and the   */
                            /* narrower of the two holds                                              */
    int64_t prefix;         /* the first `prefix` keys are visible to every row (prefix-LM)               */
    int64_t diagonal_offset; /* added to p(i): a chunk of rows or a part of the keys of a longer problem */

    /* Packed sequences: q and o (or k and v) have batch 1 and the sequences one behind the other on the
     * row axis; sequence n is rows cu_rows[n] to cu_rows[n + 1], `sequences` + 1 offsets, copied. Each of
     * the two may be NULL: that side is a dense batch of `sequences` entries. (cu_seqlens elsewhere.) */
    int64_t sequences; /* how many cu_rows_q or cu_rows_kv pack; without them 0, or q's batch */
    const int64_t *cu_rows_q;
    const int64_t *cu_rows_kv;

    /* Dense tensors that are padded: rows of q and o, and keys of k and v, in use of each batch entry, from the first
     * on; copied; NULL: all. p(i) is counted from these lengths. Rows of o and lse behind a length are not written.
     * (seqused, cache_seqlens, nonpad_kv_seqlen elsewhere.) */
    const int64_t *lens_q;
    const int64_t *lens_kv;

    /* The same four as 32-bit integers. Of each pair at most one is given. */
    const int32_t *cu_rows_q32;
    const int32_t *cu_rows_kv32;
    const int32_t *lens_q32;
    const int32_t *lens_kv32;

    /* Added to the scaled scores; f32, f16 or bf16, (batch, heads_q, rows, keys), each axis full or 1
     * (repeated). With sequences or lengths: indexed by sequence and by row and key within it, each axis 1 or at
     * least the longest. shape all 0: none. (attn_mask elsewhere.) */
    fa_tensor bias;

    /* heads_q finite factors of the bias, copied; NULL: 1. A factor of 0 makes NaN of an infinite bias. */
    const float *bias_factors;

    /* FA_BOOL, same shapes: a key is visible where not 0 (and where the mask above lets it be). */
    fa_tensor keep;

    /* heads_q finite slopes, copied; NULL: none. Press, Smith, Lewis, arXiv 2108.12409. Those of batch entry (or
     * sequence) n begin at alibi_slopes[n * alibi_stride]; 0: all have the same. */
    const float *alibi_slopes;
    int64_t alibi_stride;

    const float *sinks;      /* heads_q logits that take weight and give no value, copied; NULL: none       */
    int32_t want_lse;        /* 1: also the natural logarithm of each row's softmax denominator (with the   */
                             /* sink's part), f32, contiguous (o.batch, heads_q, o.rows)                    */
    const fa_tuning *tuning; /* NULL: the planner decides; copied */
} fa_attention_desc;

#ifdef __cplusplus
}
#endif
#endif
