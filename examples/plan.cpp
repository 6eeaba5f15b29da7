/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C++17: a plan that is run twice, in buffers of any backend, with handles that own and errors as exceptions.
 *
 *   c++ -std=c++17 plan.cpp $(pkg-config --cflags --libs fastattn) -o plan && ./plan
 *
 * Exit status 77: no device that FASTATTN_BACKEND allows is here. The reason is printed.
 */
#include <fastattn/fastattn.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

using fastattn::check;

namespace
{
constexpr int HEADS = 4, ROWS = 96, DIM = 64, COUNT = HEADS * ROWS * DIM;

/* A buffer of the device with these numbers in it. */
fastattn::buffer upload(fa_device *device, fa_queue *queue, const std::vector<float> &from)
{
    fastattn::buffer buffer;
    check(fa_buffer_create(device, from.size() * sizeof(float), buffer.out()));
    check(fa_buffer_write(queue, buffer, 0, from.data(), from.size() * sizeof(float)));
    return buffer;
}

/* Handles are destroyed in the reverse order of their declarations, also when a call throws. */
int run()
{
    auto desc = fastattn::make<fa_attention_desc>();
    desc.q = desc.k = desc.v = desc.o = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM);
    desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;

    fastattn::context context;
    fastattn::device device;
    fastattn::queue queue;
    fastattn::plan plan;
    check(fa_context_create(nullptr, context.out()));
    check(fa_device_open(context, nullptr, &desc, device.out()));
    check(fa_queue_create(device, queue.out()));
    check(fa_plan_create(device, &desc, plan.out()));

    /* q is 0, so all scores are 0 and row i is the mean of the values 0 to i of its head. */
    std::vector<float> zeros(COUNT), values(COUNT), result(COUNT);
    for (int i = 0; i < COUNT; i++)
        values[static_cast<size_t>(i)] = static_cast<float>(2 * (i / DIM % ROWS) + i / DIM / ROWS);
    fastattn::buffer q = upload(device, queue, zeros), k = upload(device, queue, values),
                     v = upload(device, queue, values), o = upload(device, queue, zeros), workspace;
    check(fa_buffer_create(device, fa_plan_workspace(plan), workspace.out()));

    auto args = fastattn::make<fa_attention_args>();
    args.q = q;
    args.k = k;
    args.v = v;
    args.o = o;
    args.workspace = workspace;
    for (int step = 0; step < 2; step++)
        check(fa_plan_run(plan, queue, &args));
    check(fa_buffer_read(queue, o, 0, result.data(), result.size() * sizeof(float)));

    for (int i = 0; i < COUNT; i++) {
        float mean = static_cast<float>(i / DIM % ROWS + i / DIM / ROWS), got = result[static_cast<size_t>(i)];
        if (!(std::fabs(got - mean) <= 1e-5F * mean)) {
            std::fprintf(stderr, "o[%d] is %g, expected %g\n", i, static_cast<double>(got), static_cast<double>(mean));
            return 1;
        }
    }
    std::printf("fastattn %s from C++: the last element is %g\n", fa_version(), static_cast<double>(result.back()));
    return 0;
}
} // namespace

int main()
{
    try {
        return run();
    } catch (const fastattn::error &failed) {
        std::fprintf(stderr, "%s: %s\n", fa_status_name(failed.status()), failed.what());
        return failed.status() == FA_NO_DEVICE ? 77 : 1;
    }
}
