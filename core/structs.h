/* SPDX-License-Identifier: Apache-2.0 */
/* Public structs that begin with struct_size: callers built against another version have shorter or longer ones. */
#ifndef FA_CORE_STRUCTS_H
#define FA_CORE_STRUCTS_H

#include <fastattn/fastattn.h>
#include <fastattn/vulkan.h>
#include <stddef.h>

/* sizeof(type) of the version in which `last` was the last field. */
#define FA_SIZE_THROUGH(type, last)                                                             \
    ((offsetof(type, last) + sizeof(((type *)0)->last) + _Alignof(type) - 1) / _Alignof(type) * \
     _Alignof(type))

/*
 * The sizes of version 0.1, the shortest structs that are accepted, for ever. A later field begins at or behind
 * them, never in the padding at their end, which older callers leave undefined; tests/abi holds that.
 */
#define FA_CONTEXT_OPTIONS_0_1 FA_SIZE_THROUGH(fa_context_options, executor)
#define FA_DEVICE_INFO_0_1 FA_SIZE_THROUGH(fa_device_info, kernels)
#define FA_TUNING_0_1 FA_SIZE_THROUGH(fa_tuning, splits)
#define FA_ATTENTION_DESC_0_1 FA_SIZE_THROUGH(fa_attention_desc, neighbourhood)
#define FA_NEIGHBOURHOOD_0_1 FA_SIZE_THROUGH(fa_neighbourhood, tile)
#define FA_BLOCK_LISTS_0_1 FA_SIZE_THROUGH(fa_block_lists, index_count)
#define FA_ATTENTION_ARGS_0_1 FA_SIZE_THROUGH(fa_attention_args, status_offset)
#define FA_LENGTHS_0_1 FA_SIZE_THROUGH(fa_lengths, lists)
#define FA_DEVICE_LENGTHS_0_1 FA_SIZE_THROUGH(fa_device_lengths, first_kv_offset)
#define FA_DEVICE_LISTS_0_1 FA_SIZE_THROUGH(fa_device_lists, indices_offset)
#define FA_HOST_ARGS_0_1 FA_SIZE_THROUGH(fa_host_args, status)
#define FA_PLAN_INFO_0_1 FA_SIZE_THROUGH(fa_plan_info, workers)
#define FA_APPEND_DESC_0_1 FA_SIZE_THROUGH(fa_append_desc, v_factor)
#define FA_APPEND_ARGS_0_1 FA_SIZE_THROUGH(fa_append_args, v_zero_offset)
#define FA_MERGE_DESC_0_1 FA_SIZE_THROUGH(fa_merge_desc, factor_stride)
#define FA_MERGE_ARGS_0_1 FA_SIZE_THROUGH(fa_merge_args, factors_offset)
#define FA_MIX_DESC_0_1 FA_SIZE_THROUGH(fa_mix_desc, placed)
#define FA_MIX_ARGS_0_1 FA_SIZE_THROUGH(fa_mix_args, places_offset)
#define FA_CASCADE_INFO_0_1 FA_SIZE_THROUGH(fa_cascade_info, first_kv)
#define FA_CASCADE_LEVEL_0_1 FA_SIZE_THROUGH(fa_cascade_level, cu_sequences)
#define FA_CLUSTER_DESC_0_1 FA_SIZE_THROUGH(fa_cluster_desc, seed)
#define FA_CLUSTER_ARGS_0_1 FA_SIZE_THROUGH(fa_cluster_args, counts_offset)
#define FA_SALIENCY_DESC_0_1 FA_SIZE_THROUGH(fa_saliency_desc, plan)
#define FA_SALIENCY_ARGS_0_1 FA_SIZE_THROUGH(fa_saliency_args, work_offset)
#define FA_GATHER_DESC_0_1 FA_SIZE_THROUGH(fa_gather_desc, scatter)
#define FA_GATHER_ARGS_0_1 FA_SIZE_THROUGH(fa_gather_args, to_offset)
#define FA_HYPER_DESC_0_1 FA_SIZE_THROUGH(fa_hyper_desc, seed)
#define FA_HASH_DESC_0_1 FA_SIZE_THROUGH(fa_hash_desc, seed)
#define FA_HASH_ARGS_0_1 FA_SIZE_THROUGH(fa_hash_args, buckets_offset)
#define FA_SORT_DESC_0_1 FA_SIZE_THROUGH(fa_sort_desc, want_offsets)
#define FA_SORT_ARGS_0_1 FA_SIZE_THROUGH(fa_sort_args, workspace_offset)
#define FA_SEGMENT_0_1 FA_SIZE_THROUGH(fa_segment, first_kv32)
#define FA_SEGMENTS_DESC_0_1 FA_SIZE_THROUGH(fa_segments_desc, v_channels_stride)
#define FA_SEGMENT_ARGS_0_1 FA_SIZE_THROUGH(fa_segment_args, v_zero_offset)
#define FA_SEGMENTS_ARGS_0_1 FA_SIZE_THROUGH(fa_segments_args, segment)
#define FA_COOPERATE_MACHINE_0_1 FA_SIZE_THROUGH(fa_cooperate_machine, memory_bandwidth)
#define FA_COOPERATE_MODEL_0_1 FA_SIZE_THROUGH(fa_cooperate_model, activation_token_bytes)
#define FA_COOPERATE_PLACEMENT_0_1 FA_SIZE_THROUGH(fa_cooperate_placement, decode_stream)
#define FA_COOPERATE_DESC_0_1 FA_SIZE_THROUGH(fa_cooperate_desc, host_bandwidth)
#define FA_COOPERATE_KEYS_0_1 FA_SIZE_THROUGH(fa_cooperate_keys, home_from)
#define FA_COOPERATE_INFO_0_1 FA_SIZE_THROUGH(fa_cooperate_info, kernel_stream)
#define FA_TRANSPORT_0_1 FA_SIZE_THROUGH(fa_transport, finish)
#define FA_TRANSPORT_LOCAL_DESC_0_1 FA_SIZE_THROUGH(fa_transport_local_desc, bandwidth)
#define FA_RING_DESC_0_1 FA_SIZE_THROUGH(fa_ring_desc, tokens)
#define FA_SHARDED_LAYER_DESC_0_1 FA_SIZE_THROUGH(fa_sharded_layer_desc, project_enqueues)
#define FA_SHARDED_LAYER_ARGS_0_1 FA_SIZE_THROUGH(fa_sharded_layer_args, y)
#define FA_SHARDED_LAYER_INFO_0_1 FA_SIZE_THROUGH(fa_sharded_layer_info, seconds)
#define FA_SPARSE_WINDOW_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_window_desc, heads)
#define FA_SPARSE_STREAMING_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_streaming_desc, base_blockmask)
#define FA_SPARSE_TOPK_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_topk_desc, per_kv_head)
#define FA_SPARSE_DISTANCE_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_distance_desc, heads)
#define FA_SPARSE_NEIGHBOURHOOD_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_neighbourhood_desc, extra_keys)
#define FA_SPARSE_PERMUTED_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_permuted_desc, order)
#define FA_POLICY_LISTS_0_1 FA_SIZE_THROUGH(fa_policy_lists, weights)
#define FA_POLICY_RAZOR_DESC_0_1 FA_SIZE_THROUGH(fa_policy_razor_desc, bias_keys)
#define FA_POLICY_RAZOR_SCORES_DESC_0_1 FA_SIZE_THROUGH(fa_policy_razor_scores_desc, period)
#define FA_POLICY_PREFIX_DESC_0_1 FA_SIZE_THROUGH(fa_policy_prefix_desc, budget)
#define FA_POLICY_MERGE_DESC_0_1 FA_SIZE_THROUGH(fa_policy_merge_desc, heavy)
#define FA_POLICY_ZIP_DESC_0_1 FA_SIZE_THROUGH(fa_policy_zip_desc, each_head)
#define FA_POOLING_DESC_0_1 FA_SIZE_THROUGH(fa_pooling_desc, chunk)
#define FA_POOLING_ARGS_0_1 FA_SIZE_THROUGH(fa_pooling_args, means_offset)
#define FA_ROW_SCORES_DESC_0_1 FA_SIZE_THROUGH(fa_row_scores_desc, weighted)
#define FA_ROW_SCORES_ARGS_0_1 FA_SIZE_THROUGH(fa_row_scores_args, scores_offset)
#define FA_SELECT_DESC_0_1 FA_SIZE_THROUGH(fa_select_desc, want_counts)
#define FA_SELECT_ARGS_0_1 FA_SIZE_THROUGH(fa_select_args, visible_offset)
#define FA_SPARSE_INDEXER_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_indexer_desc, indices)
#define FA_KEY_LISTS_DESC_0_1 FA_SIZE_THROUGH(fa_key_lists_desc, unique)
#define FA_SPARSE_CLUSTERED_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_clustered_desc, chosen)
#define FA_SPARSE_SQUEEZED_DESC_0_1 FA_SIZE_THROUGH(fa_sparse_squeezed_desc, per_kv_head)
#define FA_GATE_DESC_0_1 FA_SIZE_THROUGH(fa_gate_desc, pool_q)
#define FA_GATE_ARGS_0_1 FA_SIZE_THROUGH(fa_gate_args, workspace_offset)
#define FA_NSA_COMPRESS_DESC_0_1 FA_SIZE_THROUGH(fa_nsa_compress_desc, compressed)
#define FA_NSA_SELECT_DESC_0_1 FA_SIZE_THROUGH(fa_nsa_select_desc, local)
#define FA_NSA_DESC_0_1 FA_SIZE_THROUGH(fa_nsa_desc, index_count)
#define FA_NSA_ARGS_0_1 FA_SIZE_THROUGH(fa_nsa_args, v_zero_offset)
#define FA_RETRIEVAL_DESC_0_1 FA_SIZE_THROUGH(fa_retrieval_desc, budget)
#define FA_VULKAN_DEVICE_DESC_0_1 FA_SIZE_THROUGH(fa_vulkan_device_desc, get_instance_proc_addr)

/* Until 0.1 is released, its last fields are the last there are. The first field added later ends these lines. */
_Static_assert(FA_CONTEXT_OPTIONS_0_1 == sizeof(fa_context_options), "name the last field above");
_Static_assert(FA_DEVICE_INFO_0_1 == sizeof(fa_device_info), "name the last field above");
_Static_assert(FA_TUNING_0_1 == sizeof(fa_tuning), "name the last field above");
_Static_assert(FA_ATTENTION_DESC_0_1 == sizeof(fa_attention_desc), "name the last field above");
_Static_assert(FA_NEIGHBOURHOOD_0_1 == sizeof(fa_neighbourhood), "name the last field above");
_Static_assert(FA_BLOCK_LISTS_0_1 == sizeof(fa_block_lists), "name the last field above");
_Static_assert(FA_ATTENTION_ARGS_0_1 == sizeof(fa_attention_args), "name the last field above");
_Static_assert(FA_LENGTHS_0_1 == sizeof(fa_lengths), "name the last field above");
_Static_assert(FA_DEVICE_LENGTHS_0_1 == sizeof(fa_device_lengths), "name the last field above");
_Static_assert(FA_DEVICE_LISTS_0_1 == sizeof(fa_device_lists), "name the last field above");
_Static_assert(FA_HOST_ARGS_0_1 == sizeof(fa_host_args), "name the last field above");
_Static_assert(FA_PLAN_INFO_0_1 == sizeof(fa_plan_info), "name the last field above");
_Static_assert(FA_APPEND_DESC_0_1 == sizeof(fa_append_desc), "name the last field above");
_Static_assert(FA_APPEND_ARGS_0_1 == sizeof(fa_append_args), "name the last field above");
_Static_assert(FA_MERGE_DESC_0_1 == sizeof(fa_merge_desc), "name the last field above");
_Static_assert(FA_MERGE_ARGS_0_1 == sizeof(fa_merge_args), "name the last field above");
_Static_assert(FA_MIX_DESC_0_1 == sizeof(fa_mix_desc), "name the last field above");
_Static_assert(FA_MIX_ARGS_0_1 == sizeof(fa_mix_args), "name the last field above");
_Static_assert(FA_CASCADE_INFO_0_1 == sizeof(fa_cascade_info), "name the last field above");
_Static_assert(FA_CASCADE_LEVEL_0_1 == sizeof(fa_cascade_level), "name the last field above");
_Static_assert(FA_CLUSTER_DESC_0_1 == sizeof(fa_cluster_desc), "name the last field above");
_Static_assert(FA_CLUSTER_ARGS_0_1 == sizeof(fa_cluster_args), "name the last field above");
_Static_assert(FA_SALIENCY_DESC_0_1 == sizeof(fa_saliency_desc), "name the last field above");
_Static_assert(FA_SALIENCY_ARGS_0_1 == sizeof(fa_saliency_args), "name the last field above");
_Static_assert(FA_GATHER_DESC_0_1 == sizeof(fa_gather_desc), "name the last field above");
_Static_assert(FA_GATHER_ARGS_0_1 == sizeof(fa_gather_args), "name the last field above");
_Static_assert(FA_HYPER_DESC_0_1 == sizeof(fa_hyper_desc), "name the last field above");
_Static_assert(FA_HASH_DESC_0_1 == sizeof(fa_hash_desc), "name the last field above");
_Static_assert(FA_HASH_ARGS_0_1 == sizeof(fa_hash_args), "name the last field above");
_Static_assert(FA_SORT_DESC_0_1 == sizeof(fa_sort_desc), "name the last field above");
_Static_assert(FA_SORT_ARGS_0_1 == sizeof(fa_sort_args), "name the last field above");
_Static_assert(FA_SEGMENT_0_1 == sizeof(fa_segment), "name the last field above");
_Static_assert(FA_SEGMENTS_DESC_0_1 == sizeof(fa_segments_desc), "name the last field above");
_Static_assert(FA_SEGMENT_ARGS_0_1 == sizeof(fa_segment_args), "name the last field above");
_Static_assert(FA_SEGMENTS_ARGS_0_1 == sizeof(fa_segments_args), "name the last field above");
_Static_assert(FA_COOPERATE_MACHINE_0_1 == sizeof(fa_cooperate_machine), "name the last field above");
_Static_assert(FA_COOPERATE_MODEL_0_1 == sizeof(fa_cooperate_model), "name the last field above");
_Static_assert(FA_COOPERATE_PLACEMENT_0_1 == sizeof(fa_cooperate_placement), "name the last field above");
_Static_assert(FA_COOPERATE_DESC_0_1 == sizeof(fa_cooperate_desc), "name the last field above");
_Static_assert(FA_COOPERATE_KEYS_0_1 == sizeof(fa_cooperate_keys), "name the last field above");
_Static_assert(FA_COOPERATE_INFO_0_1 == sizeof(fa_cooperate_info), "name the last field above");
_Static_assert(FA_TRANSPORT_0_1 == sizeof(fa_transport), "name the last field above");
_Static_assert(FA_TRANSPORT_LOCAL_DESC_0_1 == sizeof(fa_transport_local_desc), "name the last field above");
_Static_assert(FA_RING_DESC_0_1 == sizeof(fa_ring_desc), "name the last field above");
_Static_assert(FA_SHARDED_LAYER_DESC_0_1 == sizeof(fa_sharded_layer_desc), "name the last field above");
_Static_assert(FA_SHARDED_LAYER_ARGS_0_1 == sizeof(fa_sharded_layer_args), "name the last field above");
_Static_assert(FA_SHARDED_LAYER_INFO_0_1 == sizeof(fa_sharded_layer_info), "name the last field above");
_Static_assert(FA_SPARSE_WINDOW_DESC_0_1 == sizeof(fa_sparse_window_desc), "name the last field above");
_Static_assert(FA_SPARSE_STREAMING_DESC_0_1 == sizeof(fa_sparse_streaming_desc), "name the last field above");
_Static_assert(FA_SPARSE_TOPK_DESC_0_1 == sizeof(fa_sparse_topk_desc), "name the last field above");
_Static_assert(FA_SPARSE_PERMUTED_DESC_0_1 == sizeof(fa_sparse_permuted_desc), "name the last field above");
_Static_assert(FA_SPARSE_NEIGHBOURHOOD_DESC_0_1 == sizeof(fa_sparse_neighbourhood_desc),
               "name the last field above");
_Static_assert(FA_SPARSE_DISTANCE_DESC_0_1 == sizeof(fa_sparse_distance_desc), "name the last field above");
_Static_assert(FA_POLICY_LISTS_0_1 == sizeof(fa_policy_lists), "name the last field above");
_Static_assert(FA_POLICY_RAZOR_DESC_0_1 == sizeof(fa_policy_razor_desc), "name the last field above");
_Static_assert(FA_POLICY_RAZOR_SCORES_DESC_0_1 == sizeof(fa_policy_razor_scores_desc),
               "name the last field above");
_Static_assert(FA_POLICY_PREFIX_DESC_0_1 == sizeof(fa_policy_prefix_desc), "name the last field above");
_Static_assert(FA_POLICY_MERGE_DESC_0_1 == sizeof(fa_policy_merge_desc), "name the last field above");
_Static_assert(FA_POLICY_ZIP_DESC_0_1 == sizeof(fa_policy_zip_desc), "name the last field above");
_Static_assert(FA_POOLING_DESC_0_1 == sizeof(fa_pooling_desc), "name the last field above");
_Static_assert(FA_POOLING_ARGS_0_1 == sizeof(fa_pooling_args), "name the last field above");
_Static_assert(FA_ROW_SCORES_DESC_0_1 == sizeof(fa_row_scores_desc), "name the last field above");
_Static_assert(FA_ROW_SCORES_ARGS_0_1 == sizeof(fa_row_scores_args), "name the last field above");
_Static_assert(FA_SELECT_DESC_0_1 == sizeof(fa_select_desc), "name the last field above");
_Static_assert(FA_SELECT_ARGS_0_1 == sizeof(fa_select_args), "name the last field above");
_Static_assert(FA_SPARSE_INDEXER_DESC_0_1 == sizeof(fa_sparse_indexer_desc), "name the last field above");
_Static_assert(FA_KEY_LISTS_DESC_0_1 == sizeof(fa_key_lists_desc), "name the last field above");
_Static_assert(FA_SPARSE_CLUSTERED_DESC_0_1 == sizeof(fa_sparse_clustered_desc), "name the last field above");
_Static_assert(FA_SPARSE_SQUEEZED_DESC_0_1 == sizeof(fa_sparse_squeezed_desc), "name the last field above");
_Static_assert(FA_GATE_DESC_0_1 == sizeof(fa_gate_desc), "name the last field above");
_Static_assert(FA_GATE_ARGS_0_1 == sizeof(fa_gate_args), "name the last field above");
_Static_assert(FA_NSA_COMPRESS_DESC_0_1 == sizeof(fa_nsa_compress_desc), "name the last field above");
_Static_assert(FA_NSA_SELECT_DESC_0_1 == sizeof(fa_nsa_select_desc), "name the last field above");
_Static_assert(FA_NSA_DESC_0_1 == sizeof(fa_nsa_desc), "name the last field above");
_Static_assert(FA_NSA_ARGS_0_1 == sizeof(fa_nsa_args), "name the last field above");
_Static_assert(FA_RETRIEVAL_DESC_0_1 == sizeof(fa_retrieval_desc), "name the last field above");
_Static_assert(FA_VULKAN_DEVICE_DESC_0_1 == sizeof(fa_vulkan_device_desc), "name the last field above");

/*
 * Copies a caller's input struct of `oldest_size` bytes or more into ours: the fields it has, zero for the rest.
 * What it has beyond our_size must be zero. Reads nothing behind the caller's struct_size. `name` is the type's.
 */
fa_status fa_copy_struct(void *ours, size_t our_size, size_t oldest_size, const void *theirs,
                         const char *name);

/*
 * Fills a caller's output struct of `oldest_size` bytes or more from ours: the fields it has, zero for those that we
 * do not know. Its struct_size stays, and nothing behind that is written.
 */
fa_status fa_fill_struct(const void *ours, size_t our_size, size_t oldest_size, void *theirs,
                         const char *name);

#endif
