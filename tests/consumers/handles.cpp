/* SPDX-License-Identifier: Apache-2.0 */
/* What fastattn.hpp promises: ownership that moves, errors with their status and message, memory that is checked. */
#include <fastattn/fastattn.hpp>
#include <fastattn/reference.h>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

static_assert(!std::is_copy_constructible_v<fastattn::plan> && !std::is_copy_assignable_v<fastattn::plan>);
static_assert(std::is_nothrow_move_constructible_v<fastattn::plan>);
static_assert(std::is_nothrow_move_assignable_v<fastattn::plan>);
static_assert(sizeof(fastattn::device) == sizeof(fa_device *));

namespace
{
int allocations = 0; /* of the context's allocator that were not released */

void expect(bool holds, const char *what)
{
    if (!holds) {
        std::fprintf(stderr, "not so: %s\n", what);
        std::exit(1);
    }
}

void *allocate(void *, size_t size, size_t alignment)
{
    allocations++;
    return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void release(void *, void *memory, size_t)
{
    allocations--;
    std::free(memory);
}

fastattn::context make_context()
{
    auto options = fastattn::make<fa_context_options>();
    options.allocator = {allocate, release, nullptr};
    fastattn::context context;
    fastattn::check(fa_context_create(&options, context.out()));
    return context;
}

/* The status with which a call fails whose message has `part` in it. */
template <class Call> fa_status fails(Call call, const char *part)
{
    try {
        call();
    } catch (const fastattn::error &failed) {
        expect(std::strstr(failed.what(), part) != nullptr, failed.what());
        return failed.status();
    }
    return FA_OK;
}

void check_handles()
{
    fastattn::context first = make_context(), second;
    expect(first && !second, "a handle is true where it owns");
    fa_context *raw = first;
    second = std::move(first);
    expect(second == raw && !first, "a move takes the object along"); // NOLINT: looked at after the move
    fastattn::context third(std::move(second));
    raw = third.release();
    expect(raw && !third, "release() gives the object up");
    second.reset(raw);
    fastattn::context &same = second;
    second = std::move(same);
    expect(second == raw, "a move to itself keeps the object");
    fastattn::check(fa_context_create(nullptr, second.out()));
    expect(second && allocations == 0, "out() destroys what the handle owned");
}

void check_memory(fa_device *device, fa_context *context)
{
    auto desc = fastattn::make<fa_attention_desc>();
    desc.q = desc.k = desc.v = desc.o = fa_tensor_make(FA_F32, 1, 2, 3, 8);
    std::vector<float> q(48), o(48, 7.0F), lse(6);
    std::array<float, 48> k{};
    float v[2][3][8];
    for (size_t i = 0; i < 48; i++) {
        q[i] = static_cast<float>(i % 5) - 2;
        k[i] = static_cast<float>(i % 7) - 3;
        v[i / 24][i / 8 % 3][i % 8] = static_cast<float>(i % 11);
    }
    const std::vector<float> &constant = q, small(47);
    std::vector<float> small_o(47);
    auto call = [&](const std::vector<float> &given, std::vector<float> &into) {
        fastattn::attention(device, desc, given, k, v, into, lse);
    };
    expect(fails([&] { call(small, o); }, "q: 188 bytes of memory, expected at least the 192") == FA_INVALID, "q");
    expect(fails([&] { call(constant, small_o); }, "o: 188 bytes") == FA_INVALID, "o");
    expect(fails([&] { call(constant, o); }, "lse") == FA_INVALID, "lse is not asked for");
    desc.want_lse = 1;
    auto without = [&] { fastattn::attention(device, desc, constant, k, v, o); };
    expect(fails(without, "lse: 0 bytes of memory, expected at least the 24") == FA_INVALID, "lse");
    desc.scale = HUGE_VALF;
    expect(fails([&] { call(constant, o); }, "scale") == FA_INVALID, "the library's message");
    desc.scale = 0;
    expect(o[0] == 7 && small_o[0] == 0, "a call that throws writes nothing");
    call(constant, o);

    std::vector<double> exact(48), exact_lse(6), limit(6), limit_lse(6);
    fa_inputs inputs{};
    inputs.q = q.data();
    inputs.k = k.data();
    inputs.v = v;
    fastattn::check(fa_reference_attention(context, &desc, &inputs, exact.data(), exact_lse.data()));
    fastattn::check(fa_reference_limit(context, &desc, &inputs, FA_F32, 0, limit.data(), limit_lse.data()));
    for (size_t i = 0; i < 48; i++) {
        double rounding = std::fabs(exact[i]) / (1 << 24);
        expect(std::fabs(static_cast<double>(o[i]) - exact[i]) <= limit[i / 8] + rounding, "o is as the oracle has it");
    }
    for (size_t i = 0; i < 6; i++) {
        double rounding = std::fabs(exact_lse[i]) / (1 << 24);
        expect(std::fabs(static_cast<double>(lse[i]) - exact_lse[i]) <= limit_lse[i] + rounding, "lse");
    }
}
} // namespace

int main()
{
    check_handles();
    {
        fastattn::context context = make_context();
        fastattn::device device;
        auto open = [&](const char *name) { fastattn::check(fa_device_open(context, name, nullptr, device.out())); };
        expect(fails([&] { open("no-such-backend"); }, "no-such-backend") == FA_NO_DEVICE, "a device that is not there");
        open("openmp");
        check_memory(device, context);
        expect(allocations > 0, "the objects are of the context's allocator");
    }
    expect(allocations == 0, "all is released");
    std::printf("handles and memory as promised\n");
    return 0;
}
