/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a subgroup holds fragments of cooperative matrices is a driver's secret. But a matrix of numbers tells it: each
 * work-item reports the places of its elements, and where these have what the kernel needs, scores can become weights
 * in registers: (1) an element is of the same of its work-item's few rows in all work-items, and (2) those with
 * the same rows are told by some bits of their number, and (3) first operands hold what accumulators do, in an order
 * that is the same in all work-items.
 */
#include <string.h>

#include "backends/vulkan/plan.h"
#include "core/context.h"
#include "core/status.h"

enum { MOST_ELEMENTS = 16, MOST_LANES = 64, PLACES = 256 };

/* What work-item `lane` reports of its element i. */
typedef struct report {
    uint32_t count, lanes; /* elements, work-items */
    const uint32_t *place;
} report;

static uint32_t place_of(const report *r, uint32_t lane, uint32_t i, bool operand)
{
    return r->place[(lane * 2 + operand) * r->count + i];
}

static bool is_complete(const report *r)
{
    for (uint32_t lane = 0; lane < r->lanes; lane++) {
        for (uint32_t i = 0; i < 2 * r->count; i++) {
            if (r->place[lane * 2 * r->count + i] >= PLACES)
                return false;
        }
    }
    return true;
}

/* Which of its rows each element is of, in the order of their first elements. */
static void find_slots(const report *r, uint32_t lane, uint32_t slot[MOST_ELEMENTS], uint32_t *rows)
{
    uint32_t row[MOST_ELEMENTS];
    *rows = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t at = 0, of = place_of(r, lane, i, false) / 16;
        while (at < *rows && row[at] != of)
            at++;
        if (at == *rows)
            row[(*rows)++] = of;
        slot[i] = at;
    }
}

static bool same_slots(const report *r, const uint32_t slot[MOST_ELEMENTS], uint32_t rows)
{
    for (uint32_t lane = 1; lane < r->lanes; lane++) {
        uint32_t other[MOST_ELEMENTS], count;
        find_slots(r, lane, other, &count);
        if (count != rows || memcmp(other, slot, r->count * sizeof(slot[0])) != 0)
            return false;
    }
    return true;
}

/* The bits that work-items with the same rows differ in: exactly those that differ in no other may share rows. */
static bool find_lanes(const report *r, uint32_t *bits)
{
    *bits = 0;
    for (uint32_t bit = 1; bit < r->lanes; bit *= 2) {
        if (place_of(r, bit, 0, false) / 16 == place_of(r, 0, 0, false) / 16)
            *bits |= bit;
    }
    for (uint32_t a = 0; a < r->lanes; a++) {
        for (uint32_t b = 0; b < r->lanes; b++) {
            for (uint32_t i = 0; i < r->count; i++) {
                bool same = place_of(r, a, i, false) / 16 == place_of(r, b, i, false) / 16;
                if (same != (((a ^ b) & ~*bits) == 0))
                    return false;
            }
        }
    }
    return true;
}

/* For each element of a first operand, the accumulator's in its place. */
static bool find_elements(const report *r, uint32_t element[MOST_ELEMENTS])
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t at = 0;
        while (at < r->count && place_of(r, 0, at, false) != place_of(r, 0, i, true))
            at++;
        if (at == r->count)
            return false;
        for (uint32_t lane = 1; lane < r->lanes; lane++) {
            if (place_of(r, lane, at, false) != place_of(r, lane, i, true))
                return false;
        }
        element[i] = at;
    }
    return true;
}

/* The first element that is of the same column as element i in all work-items. */
static uint32_t find_column(const report *r, uint32_t i)
{
    for (uint32_t at = 0; at < i; at++) {
        uint32_t lane = 0;
        while (lane < r->lanes && place_of(r, lane, at, false) % 16 == place_of(r, lane, i, false) % 16)
            lane++;
        if (lane == r->lanes)
            return at;
    }
    return i;
}

static fa_vk_layout read_report(const report *r)
{
    uint32_t slot[MOST_ELEMENTS] = {0}, element[MOST_ELEMENTS] = {0};
    fa_vk_layout layout = {0, 0, 0, 0, 0};
    find_slots(r, 0, slot, &layout.rows);
    /* Eight elements or fewer have three bits each. */
    if (r->count > 8 || !same_slots(r, slot, layout.rows) || !find_lanes(r, &layout.lanes) ||
        !find_elements(r, element))
        return (fa_vk_layout){0, 0, 0, 0, 0};
    for (uint32_t i = 0; i < r->count; i++) {
        layout.slots |= slot[i] << 3 * i;
        layout.elements |= element[i] << 3 * i;
        layout.columns |= find_column(r, i) << 3 * i;
    }
    return layout;
}

static fa_status run(fa_device *device, fa_queue *queue, const fa_buffer *buffer)
{
    const fa_vk_device *d = fa_vk_device_of(device);
    fa_vk_constants constants = {{0}};
    constants.value[FA_VK_GROUP] = constants.value[FA_VK_SUBGROUP] = d->caps.subgroup_size;
    VkPipeline pipeline;
    fa_vk_slot *slot;
    fa_status status = fa_vk_pipeline_get(device, "probe", false, &constants, &pipeline);
    if (status == FA_OK)
        status = fa_vk_queue_begin(queue, false, &slot);
    if (status != FA_OK)
        return status;
    const fa_vk_place where[FA_VK_SLOTS] = {[FA_VK_SLOT_TABLE] = {buffer->impl, 0, buffer->size}};
    fa_vk_push push = {{0}};
    fa_vk_place_operands(d, slot->set, where, &push);
    if (slot->set)
        d->vk.vkCmdBindDescriptorSets(slot->commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->layout, 0, 1,
                                      &slot->set, 0, NULL);
    status = fa_vk_dispatch(d, slot->commands, pipeline, &push, 1, 1);
    fa_vk_barrier(d, slot->commands);
    return status == FA_OK ? fa_vk_queue_submit(queue, slot) : status;
}

void fa_vk_probe(fa_device *device)
{
    fa_vk_device *d = fa_vk_device_of(device);
    uint32_t place[MOST_LANES * 2 * MOST_ELEMENTS];
    const report r = {PLACES / d->caps.subgroup_size, d->caps.subgroup_size, place};
    const size_t bytes = (size_t)r.count * r.lanes * 2 * sizeof(place[0]);
    fa_buffer *buffer = NULL;
    fa_queue queue = {.device = device};
    fa_status status = fa_vk_buffer_make(device, bytes, fa_vk_buffer_create, &buffer);
    if (status == FA_OK)
        status = fa_vk_queue_create(&queue);
    if (status == FA_OK) {
        status = run(device, &queue, buffer);
        if (status == FA_OK)
            status = fa_vk_buffer_read(&queue, buffer, 0, place, bytes);
        fa_vk_queue_destroy(&queue);
    }
    fa_vk_buffer_drop(buffer);
    if (status == FA_OK && is_complete(&r))
        d->fragments = read_report(&r);
    if (status != FA_OK)
        fa_log(device->context, FA_LOG_WARN, "vulkan: how matrices are held is not known: %s",
               fa_last_error());
    fa_clear_error();
}
