/* SPDX-License-Identifier: Apache-2.0 */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FA_STRING_(x) #x
#define FA_STRING(x) FA_STRING_(x)

static _Thread_local char last_error[FA_MESSAGE_SIZE];

fa_status fa_fail(fa_status status, const char *format, ...)
{
    /* Formatted aside first: a caller may quote the current message in the new one. */
    char text[FA_MESSAGE_SIZE];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    (void)snprintf(last_error, sizeof(last_error), "%s", text);
    return status;
}

void fa_clear_error(void)
{
    last_error[0] = '\0';
}

fa_status fa_finish(fa_status status)
{
    if (status == FA_OK)
        fa_clear_error();
    return status;
}

fa_message fa_message_keep(void)
{
    fa_message kept;
    memcpy(kept.text, last_error, sizeof(kept.text));
    return kept;
}

void fa_message_restore(const fa_message *kept)
{
    memcpy(last_error, kept->text, sizeof(last_error));
}

const char *fa_last_error(void)
{
    return last_error;
}

const char *fa_version(void)
{
    return FA_STRING(FA_VERSION_MAJOR) "." FA_STRING(FA_VERSION_MINOR) "." FA_STRING(FA_VERSION_PATCH);
}

const char *fa_status_name(fa_status status)
{
    switch (status) {
    case FA_OK: return "FA_OK";
    case FA_INVALID: return "FA_INVALID";
    case FA_UNSUPPORTED: return "FA_UNSUPPORTED";
    case FA_NO_DEVICE: return "FA_NO_DEVICE";
    case FA_OUT_OF_MEMORY: return "FA_OUT_OF_MEMORY";
    case FA_DEVICE_LOST: return "FA_DEVICE_LOST";
    case FA_COMPILE: return "FA_COMPILE";
    case FA_IO: return "FA_IO";
    case FA_RANK_LOST: return "FA_RANK_LOST";
    }
    return "FA_UNKNOWN";
}
