/* SPDX-License-Identifier: Apache-2.0 */
/**
 * For C++17 and later, beside the C functions, which stay as they are: handles that own objects, errors as exceptions,
 * memory of containers checked against its tensor. It is header-only and adds no symbol.
 *
 *     fastattn::context context;
 *     fastattn::device device;
 *     fastattn::check(fa_context_create(nullptr, context.out()));
 *     fastattn::check(fa_device_open(context, nullptr, &desc, device.out()));
 *     fastattn::attention(device, desc, q, k, v, o); // std::vector, std::array, std::span
 *
 * Without exceptions (-fno-exceptions) there are the handles and make(); check(), error and attention() are left out.
 */
#ifndef FASTATTN_FASTATTN_HPP
#define FASTATTN_FASTATTN_HPP

#include "fastattn.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#ifdef __cpp_exceptions
#include <stdexcept>
#include <string>
#endif

namespace fastattn
{

inline void destroy(fa_append *object) noexcept { fa_append_destroy(object); }
inline void destroy(fa_block_mask *object) noexcept { fa_block_mask_destroy(object); }
inline void destroy(fa_buffer *object) noexcept { fa_buffer_destroy(object); }
inline void destroy(fa_cascade *object) noexcept { fa_cascade_destroy(object); }
inline void destroy(fa_cluster *object) noexcept { fa_cluster_destroy(object); }
inline void destroy(fa_context *object) noexcept { fa_context_destroy(object); }
inline void destroy(fa_cooperate *object) noexcept { fa_cooperate_destroy(object); }
inline void destroy(fa_device *object) noexcept { fa_device_close(object); }
inline void destroy(fa_gate *object) noexcept { fa_gate_destroy(object); }
inline void destroy(fa_gather *object) noexcept { fa_gather_destroy(object); }
inline void destroy(fa_hash *object) noexcept { fa_hash_destroy(object); }
inline void destroy(fa_hyper *object) noexcept { fa_hyper_destroy(object); }
inline void destroy(fa_key_lists *object) noexcept { fa_key_lists_destroy(object); }
inline void destroy(fa_merge *object) noexcept { fa_merge_destroy(object); }
inline void destroy(fa_mix *object) noexcept { fa_mix_destroy(object); }
inline void destroy(fa_nsa *object) noexcept { fa_nsa_destroy(object); }
inline void destroy(fa_plan *object) noexcept { fa_plan_destroy(object); }
inline void destroy(fa_pooling *object) noexcept { fa_pooling_destroy(object); }
inline void destroy(fa_queue *object) noexcept { fa_queue_destroy(object); }
inline void destroy(fa_retrieval *object) noexcept { fa_retrieval_destroy(object); }
inline void destroy(fa_ring *object) noexcept { fa_ring_destroy(object); }
inline void destroy(fa_row_scores *object) noexcept { fa_row_scores_destroy(object); }
inline void destroy(fa_saliency *object) noexcept { fa_saliency_destroy(object); }
inline void destroy(fa_segments *object) noexcept { fa_segments_destroy(object); }
inline void destroy(fa_select *object) noexcept { fa_select_destroy(object); }
inline void destroy(fa_sharded_context *object) noexcept { fa_sharded_context_destroy(object); }
inline void destroy(fa_sharded_layer *object) noexcept { fa_sharded_layer_destroy(object); }
inline void destroy(fa_sort *object) noexcept { fa_sort_destroy(object); }
inline void destroy(fa_transport *object) noexcept { fa_transport_destroy(object); }

/**
 * Owns one object, or none. It moves and does not copy. It is what C functions take, a pointer, by itself. Declare handles
 * in the order of the objects' lives, context before device before plan: they are destroyed in the reverse order.
 */
template <class T> class handle
{
  public:
    handle() noexcept = default;
    explicit handle(T *object) noexcept : object_(object) {}
    handle(handle &&other) noexcept : object_(other.release()) {}
    handle &operator=(handle &&other) noexcept
    {
        reset(other.release());
        return *this;
    }
    ~handle() { destroy(object_); }

    T *get() const noexcept { return object_; }
    operator T *() const noexcept { return object_; }

    /** Where a function that makes an object puts it. What the handle owned is destroyed before. */
    T **out() noexcept
    {
        reset();
        return &object_;
    }
    /** Gives the object up. */
    T *release() noexcept { return std::exchange(object_, nullptr); }
    /** Destroys the object and takes another. */
    void reset(T *object = nullptr) noexcept { destroy(std::exchange(object_, object)); }

  private:
    T *object_ = nullptr;
};

using append = handle<fa_append>;
using block_mask = handle<fa_block_mask>;
using buffer = handle<fa_buffer>;
using cascade = handle<fa_cascade>;
using cluster = handle<fa_cluster>;
using context = handle<fa_context>;
using cooperate = handle<fa_cooperate>;
using device = handle<fa_device>;
using gate = handle<fa_gate>;
using gather = handle<fa_gather>;
using hash = handle<fa_hash>;
using hyper = handle<fa_hyper>;
using key_lists = handle<fa_key_lists>;
using merge = handle<fa_merge>;
using mix = handle<fa_mix>;
using nsa = handle<fa_nsa>;
using plan = handle<fa_plan>;
using pooling = handle<fa_pooling>;
using queue = handle<fa_queue>;
using retrieval = handle<fa_retrieval>;
using ring = handle<fa_ring>;
using row_scores = handle<fa_row_scores>;
using saliency = handle<fa_saliency>;
using segments = handle<fa_segments>;
using select = handle<fa_select>;
using sharded_context = handle<fa_sharded_context>;
using sharded_layer = handle<fa_sharded_layer>;
using sort = handle<fa_sort>;
using transport = handle<fa_transport>;

/** A struct of the library, such as fa_attention_desc: struct_size is set, all other fields are zero, their default. */
template <class T> T make() noexcept
{
    T made{};
    made.struct_size = sizeof(T);
    return made;
}

#ifdef __cpp_exceptions
/** A call that failed: its status, and its message as what(). */
class error : public std::runtime_error
{
  public:
    error(fa_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
    fa_status status() const noexcept { return status_; }

  private:
    fa_status status_;
};

/** Throws an error with fa_last_error() unless the status of this thread's last call is FA_OK. */
inline void check(fa_status status)
{
    if (status != FA_OK)
        throw error(status, fa_last_error());
}

/** Contiguous memory of the caller: a container, an array, or a pointer and a number of elements. Nothing by default. */
template <class Void> struct memory {
    Void *data = nullptr;
    std::size_t bytes = 0;

    memory() noexcept = default;
    template <class T> memory(T *first, std::size_t count) noexcept : data(first), bytes(count * sizeof(T)) {}
    template <class Container, class = decltype(std::data(std::declval<Container &>()))>
    memory(Container &&from) noexcept : memory(std::data(from), std::size(from)) // NOLINT: implicit on purpose
    {
    }
};

/** Throws FA_INVALID, which names the tensor, unless `given` holds it; a tensor that is not asked for takes nothing. */
template <class Void> Void *fit(const char *name, const fa_tensor &tensor, const memory<Void> &given)
{
    std::size_t bytes = 0;
    check(fa_tensor_span(&tensor, &bytes));
    if (given.bytes < bytes)
        throw error(FA_INVALID, std::string(name) + ": " + std::to_string(given.bytes) +
                                    " bytes of memory, expected at least the " + std::to_string(bytes) +
                                    " that the tensor spans");
    return given.data;
}

/**
 * fa_attention_host() on memory whose size is known. Throws an error where a call fails, and FA_INVALID where memory is
 * smaller than its tensor.
 */
inline void attention(fa_device *on, const fa_attention_desc &desc, memory<const void> q,
                      memory<const void> k, memory<const void> v, memory<void> o, memory<void> lse = {},
                      memory<const void> bias = {}, memory<const void> keep = {})
{
    const std::int64_t *shape = desc.o.shape;
    fa_tensor lse_tensor{};
    if (desc.want_lse)
        lse_tensor = fa_tensor_make(FA_F32, shape[0], shape[1], shape[2], 1);
    check(fa_attention_host(on, &desc, fit("q", desc.q, q), fit("k", desc.k, k),
                            desc.v_in_k ? v.data : fit("v", desc.v, v), fit("bias", desc.bias, bias),
                            fit("keep", desc.keep, keep), fit("o", desc.o, o),
                            static_cast<float *>(fit("lse", lse_tensor, lse))));
}
#endif

} // namespace fastattn
#endif
