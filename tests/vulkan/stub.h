/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Vulkan driver that computes nothing: it hands out objects, counts them, checks what it is handed back, copies, and
 * fails when told to. One device with separate memory; FASTATTN_VULKAN_LIMITS makes it a lesser one.
 */
#ifndef FASTATTN_TESTS_VULKAN_STUB_H
#define FASTATTN_TESTS_VULKAN_STUB_H

#include "backends/vulkan/compat.h"

/* From now on the nth call of the function, from 1, returns `result`. NULL: none does. */
void stub_fail(const char *function, int nth, VkResult result);
/* Whether that call was made. */
int stub_has_failed(void);
/* The function is not there; before the driver is first used. NULL: all are. */
void stub_hide(const char *function);
/* What the device is, before the driver is first used. */
void stub_set_device(VkPhysicalDeviceType type, uint32_t api_version);
void stub_set_devices(uint32_t count);
/* Objects that exist, but for the instance. */
long stub_live(void);
/* Calls that no driver has to bear: handles that are none, or of something destroyed, commands outside a recording. */
long stub_misuses(void);
/* Commands recorded so far: dispatches, and copies. */
long stub_dispatches(void);
/* Pipelines made so far. */
long stub_compiles(void);

#endif
