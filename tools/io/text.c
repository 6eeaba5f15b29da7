/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <string.h>

#include "internal.h"
#include "text.h"

enum { ESCAPE_SIZE = 16, MAX_NAME_SHOWN = 160 };

static const char ellipsis[] = "...";

size_t io_utf8(const char *text, uint32_t *code)
{
    /* What follows a lead byte, and the least that may be coded so: shorter forms hide characters. */
    static const struct {
        unsigned char mask, lead, more;
        uint32_t least;
    } forms[] = {{0x80, 0, 0, 0}, {0xe0, 0xc0, 1, 0x80}, {0xf0, 0xe0, 2, 0x800}, {0xf8, 0xf0, 3, 0x10000}};
    const unsigned char *byte = (const unsigned char *)text;

    *code = IO_NO_CHARACTER;
    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        if ((byte[0] & forms[f].mask) != forms[f].lead)
            continue;
        uint32_t value = byte[0] & (unsigned char)~forms[f].mask;
        for (size_t i = 1; i <= forms[f].more; i++) {
            if ((byte[i] & 0xc0) != 0x80)
                return 1;
            value = value << 6 | (byte[i] & 0x3f);
        }
        if (value < forms[f].least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
            return 1;
        *code = value;
        return 1 + (size_t)forms[f].more;
    }
    return 1;
}

bool io_is_plain(uint32_t code)
{
    static const uint32_t others[][2] = {
        {0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},       {0x61c, 0x61c},
        {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},
        {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe0fff}, {0x110000, IO_NO_CHARACTER},
    };

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (code >= others[i][0] && code <= others[i][1])
            return false;
    }
    return true;
}

/* The next character in its plain form. Returns how many bytes of the text it stands for. */
static size_t escape(const char *text, char form[ESCAPE_SIZE])
{
    uint32_t code;
    const size_t length = io_utf8(text, &code);

    if (io_is_plain(code)) {
        memcpy(form, text, length);
        form[length] = '\0';
        return length;
    }
    if (code == IO_NO_CHARACTER)
        code = (unsigned char)text[0];
    snprintf(form, ESCAPE_SIZE,
             code < 0x100     ? "\\x%02x"
             : code < 0x10000 ? "\\u%04x"
                              : "\\U%08x",
             (unsigned)code);
    return length;
}

char *io_plain(char *out, size_t size, const char *text)
{
    char form[ESCAPE_SIZE];
    size_t used = 0, room = 0; /* room: the last place where an ellipsis still fits */

    while (*text) {
        text += escape(text, form);
        const size_t length = strlen(form);
        if (used + length >= size) {
            memcpy(out + room, ellipsis, sizeof(ellipsis));
            return out;
        }
        memcpy(out + used, form, length);
        used += length;
        if (used + sizeof(ellipsis) <= size)
            room = used;
    }
    out[used] = '\0';
    return out;
}

void io_put_plain(FILE *file, const char *text)
{
    char form[ESCAPE_SIZE];

    while (*text) {
        text += escape(text, form);
        (void)fputs(form, file);
    }
}

bool io_fail(io_error *err, const char *file, const char *field, const char *format, ...)
{
    char text[2 * sizeof(err->text)];

    if (!err)
        return false;

    /* The end of a long path tells more than its start, and the message must still fit. */
    const size_t length = strlen(file);
    const bool cut = length > MAX_NAME_SHOWN;
    const int used = snprintf(text, sizeof(text), "%s%s: %s: ", cut ? ellipsis : "",
                              cut ? file + length - MAX_NAME_SHOWN : file, field);

    if (used > 0 && (size_t)used < sizeof(text)) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
        va_end(args);
    }
    io_plain(err->text, sizeof(err->text), text);
    return false;
}
