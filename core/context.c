/* SPDX-License-Identifier: Apache-2.0 */
#include "core/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/platform.h"
#include "core/status.h"
#include "core/structs.h"

#define FA_ALIGNMENT 64

static void *system_allocate(void *user, size_t size, size_t alignment)
{
    (void)user;
    return fa_system_allocate(size, alignment);
}

static void system_release(void *user, void *memory, size_t size)
{
    (void)user;
    (void)size;
    fa_system_release(memory);
}

fa_status fa_context_create(const fa_context_options *options, fa_context **context)
{
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL, expected where to store the new context");
    *context = NULL;
    fa_context_options copy = {0};
    if (options) {
        fa_status status =
            fa_copy_struct(&copy, sizeof(copy), FA_CONTEXT_OPTIONS_0_1, options, "fa_context_options");
        if (status != FA_OK)
            return status;
    }
    if (!copy.allocator.allocate != !copy.allocator.release)
        return fa_fail(FA_INVALID, "allocator.%s is NULL, expected both functions or neither",
                       copy.allocator.allocate ? "release" : "allocate");
    if ((int)copy.log_level < FA_LOG_NONE || copy.log_level > FA_LOG_DEBUG)
        return fa_fail(FA_INVALID, "log_level is %d, expected 0 to %d", (int)copy.log_level, FA_LOG_DEBUG);
    if (copy.threads < 0 || copy.threads > FA_MAX_THREADS)
        return fa_fail(FA_INVALID, "threads is %d, expected 0 to %d", (int)copy.threads, FA_MAX_THREADS);
    if (copy.log_level == FA_LOG_NONE)
        copy.log_level = FA_LOG_INFO;
    if (!copy.allocator.allocate)
        copy.allocator = (fa_allocator){system_allocate, system_release, NULL};

    fa_context *made = copy.allocator.allocate(copy.allocator.user, sizeof(*made), FA_ALIGNMENT);
    if (!made)
        return fa_fail(FA_OUT_OF_MEMORY, "no memory for a context (%zu bytes)", sizeof(*made));
    made->options = copy;
    *context = made;
    return FA_OK;
}

void fa_context_destroy(fa_context *context)
{
    if (context)
        context->options.allocator.release(context->options.allocator.user, context, sizeof(*context));
}

void *fa_alloc(const fa_context *context, size_t size)
{
    const fa_allocator *allocator = &context->options.allocator;
    void *memory = NULL;
    if (size <= PTRDIFF_MAX - FA_ALIGNMENT)
        memory = allocator->allocate(allocator->user, size ? size : 1, FA_ALIGNMENT);
    if (!memory)
        (void)fa_fail(FA_OUT_OF_MEMORY, "no host memory for %zu bytes", size);
    return memory;
}

void *fa_alloc_zeroed(const fa_context *context, size_t size)
{
    void *memory = fa_alloc(context, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

void fa_release(const fa_context *context, void *memory, size_t size)
{
    if (memory)
        context->options.allocator.release(context->options.allocator.user, memory, size ? size : 1);
}

void fa_log(const fa_context *context, fa_log_level level, const char *format, ...)
{
    if (!context->options.log || level > context->options.log_level)
        return;
    char text[FA_MESSAGE_SIZE];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    context->options.log(context->options.log_user, level, text);
}
