/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels as SPIR-V, made at build time from shaders/vulkan. */
#ifndef FA_VULKAN_MODULE_H
#define FA_VULKAN_MODULE_H

#include <stddef.h>
#include <stdint.h>

/* `name` is a kernel's and, behind a dot, its variant: "a" by address, "s" with subgroups, in this order. */
typedef struct fa_vk_module {
    const char *name;
    const uint32_t *words;
    size_t bytes;
} fa_vk_module;

extern const fa_vk_module fa_vk_modules[];
extern const size_t fa_vk_modules_count;

#endif
