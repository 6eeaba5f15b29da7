/* SPDX-License-Identifier: Apache-2.0 */
/* The docstrings of functions and types that are written in C. */
#include "binding.h"

#define ARGUMENTS_TEXT                                                                                             \
    "out=None, mask=None, is_causal=False, attn_mask=None, scale=None, enable_gqa=True, layout='BHSD', "           \
    "softcap=0.0, window=None, window_size=None, prefix=0, diagonal_offset=0, alignment=None, alibi_slopes=None, " \
    "sinks=None, bias_factors=None, lens_q=None, lens_kv=None, first_kv=None, cu_seqlens_q=None, "                 \
    "cu_seqlens_k=None, lists=None, neighbourhood=None, page_table=None, k_format=None, v_format=None, "           \
    "k_scale=None, v_scale=None, k_zero=None, v_zero=None, k_factor=None, v_factor=None, keep_last=0, "            \
    "v_in_k=None, dynamic_lengths=False, return_lse=False, device=None, kernel=None, block_q=0, block_kv=0, "      \
    "splits=0"

const char fa_py_attention_doc[] =
    "attention(q, k, v=None, *, " ARGUMENTS_TEXT ")\n--\n\n"
    "softmax(scale * q k^T + terms) v over the keys that each row sees.\n"
    "\n"
    "Arrays are of NumPy, PyTorch (CPU, CUDA), JAX (CPU), CuPy, or of anything with __dlpack__ or a buffer. They are\n"
    "read where they lie. Their last axis is contiguous; others have any strides that are not negative. On CUDA the\n"
    "call enqueues on the current stream and returns; elsewhere it returns when the result is there. Other threads of\n"
    "Python run meanwhile. No gradients: a tensor that requires one is refused unless torch.no_grad() holds.\n"
    "\n"
    "q: (batch, heads, rows, dim), float32, float16 or bfloat16. k, v: (batch, heads_kv, keys, dim and dim_v), these\n"
    "    types, float8_e4m3fn, float8_e5m2, int8 or uint8, or bytes of a format. heads is a multiple of heads_kv.\n"
    "    Without a batch there are 3 axes, without heads 2. layout 'BSHD': (batch, rows, heads, dim), or without a\n"
    "    batch (rows, heads, dim).\n"
    "out: where the result goes, of q's axes with the last of v's size; its type may be another than q's. None: a\n"
    "    new array of q's kind and type.\n"
    "mask: None or 'none', 'causal' or 'causal_bottom_right' (the last row sees the last key, as FlashAttention has\n"
    "    it), 'causal_top_left' (row 0 sees key 0). is_causal=True: 'causal_top_left', as PyTorch has it.\n"
    "attn_mask: bool: True is seen; float: added to the scaled scores, times bias_factors (a number for each head).\n"
    "    int32: bits, 32 keys in each (keep_last: of the last keys alone). (batch, heads, rows, keys); axes of size 1\n"
    "    are repeated, missing ones are in front.\n"
    "scale: of q k^T; None: 1/sqrt(dim). softcap: c of c * tanh(score / c); 0: none. alibi_slopes: (heads,) or\n"
    "    (batch, heads). sinks: (heads,), logits that take weight and give no value.\n"
    "enable_gqa: False refuses fewer heads in k than in q.\n"
    "window: (left, right), how many keys a row sees up to and from its own on, itself included; None: all.\n"
    "window_size: the same as FlashAttention counts, its own not included, -1: all. prefix: every row sees so many\n"
    "    first keys. diagonal_offset: added to the rows' positions. alignment: 'top_left' or 'bottom_right', where\n"
    "    rows stand without a causal mask.\n"
    "lens_q, lens_kv: rows and keys in use of each batch entry. first_kv: the first key in use. cu_seqlens_q,\n"
    "    cu_seqlens_k: offsets of packed sequences, one more than there are. Lists, or int32 or int64 arrays in host\n"
    "    memory; one number stands for all entries. Rows beyond lens_q are 0 in a new result in host memory, and\n"
    "    undefined in one on CUDA; they are left alone in `out`.\n"
    "lists: a BlockLists, the blocks of keys that each block of rows meets (block-sparse attention); the masks hold\n"
    "    besides. They are copied. A row without a key is 0. Each other content of them makes a plan: where they change\n"
    "    from call to call, Plan.run() takes them.\n"
    "neighbourhood: a Neighbourhood: row i and key i are token i of a grid, in its order; a row sees a window of keys.\n"
    "    There is a row for each token; keys behind the grid's are seen by all rows. The masks hold besides.\n"
    "page_table: (sequences, pages) or (pages,), int32. k and v are then pools of pages, whose axis 0 counts pages.\n"
    "k_format, v_format: k or v is uint8, its last axis the bytes of a row in this format, such as 'q8_0'.\n"
    "k_scale, v_scale, k_zero, v_zero: of k and v in 8 bits or fewer; arrays of k's axes, each of size 1 or a divisor\n"
    "    as fa_attention_desc says, or a number. k_factor, v_factor: numbers that they are multiplied by.\n"
    "v_in_k: v is the first so many dims of k (latent attention); v is not given.\n"
    "dynamic_lengths: one plan serves lens_q, lens_kv and first_kv of all calls, as of a cache that grows.\n"
    "return_lse: True returns (o, lse), the logarithm of each row's denominator, float32 (batch, heads, rows).\n"
    "device: None: where the arrays lie (in host memory: the CPU, or what FASTATTN_BACKEND names). A name or Device,\n"
    "    as 'opencl' or 'vulkan:0': arrays in host memory are copied to it and back. Never another than was asked for.\n"
    "kernel, block_q, block_kv, splits: what the planner would choose.\n"
    "\n"
    "Errors: TypeError: an argument has a type of Python that it cannot have. InvalidError (a ValueError): a value is\n"
    "wrong; the message names the argument. UnsupportedError (a NotImplementedError): the device does not serve it.\n"
    "NoDeviceError, OutOfMemoryError, CompileError, DeviceLostError. Nothing is written then.\n"
    "\n"
    "Thread-safe. Plans are kept by description: plan_cache_info().";

const char fa_py_supports_doc[] =
    "supports(q, k, v=None, *, " ARGUMENTS_TEXT ")\n--\n\n"
    "Whether attention() of these arguments can be computed: (True, ''), or (False, the reason).\n"
    "\n"
    "q, k, v and other arrays may be Spec, which have no memory. The plan is made and kept. TypeError as attention().";

const char fa_py_cache_info_doc[] =
    "plan_cache_info()\n--\n\nHow often attention() found its plan and made one, and how many are kept: a dict of hits, "
    "misses, maxsize\nand currsize.";

const char fa_py_cache_resize_doc[] =
    "plan_cache_resize(maxsize, /)\n--\n\nKeeps at most so many plans from now on; those that were used the longest time "
    "ago go. 0 keeps none.\nInvalidError: a negative number.";

const char fa_py_plan_doc[] =
    "Plan(q, k, v=None, *, " ARGUMENTS_TEXT ")\n--\n\n"
    "An attention that is described once and run many times.\n"
    "\n"
    "Arguments are those of attention(). Arrays may be Spec; only their layout counts. dynamic_lengths=True: lens_q,\n"
    "lens_kv, first_kv and cu_seqlens may differ from run to run, at most what the arrays hold; those that are given\n"
    "here are what the plan is made for. So may lists, where the plan has some. The plan copies lists and the\n"
    "neighbourhood. Errors as attention(). Any number of threads may run one.";

const char fa_py_run_doc[] =
    "run(q, k, v=None, *, out=None, attn_mask=None, page_table=None, k_scale=None, v_scale=None, k_zero=None, "
    "v_zero=None, lens_q=None, lens_kv=None, first_kv=None, cu_seqlens_q=None, cu_seqlens_k=None, lists=None)\n--\n\n"
    "Runs the plan on arrays of the types, sizes and strides that it was made for; lengths and lists only with\n"
    "dynamic_lengths=True. lists have the sizes of the plan's lists, which hold where none are given. Returns what\n"
    "attention() returns. InvalidError names what differs from the plan.";
