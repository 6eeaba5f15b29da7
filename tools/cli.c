/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io/memory.h"

static void print_message(const char *command, const char *kind, const char *format, va_list arguments)
{
    char text[4096];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    /* What was printed so far comes first where both streams go to one place. */
    (void)fflush(stdout);
    (void)fprintf(stderr, "fastattn %s: %s", command, kind);
    io_put_plain(stderr, text);
    (void)fputc('\n', stderr);
}

void cli_error(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_message(command, "", format, arguments);
    va_end(arguments);
}

void cli_note(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_message(command, "note: ", format, arguments);
    va_end(arguments);
}

cli_text cli_plain(const char *text)
{
    cli_text plain;
    (void)io_plain(plain.text, sizeof(plain.text), text);
    return plain;
}

bool cli_memory_fits(double bytes, char *why, size_t size)
{
    io_memory memory;
    io_memory_available(&memory);
    if (bytes <= (double)memory.bytes)
        return true;
    (void)snprintf(why, size, "needs about %.1f MiB, and %.1f MiB are available (%s)", bytes / 1048576,
                   (double)memory.bytes / 1048576, memory.limit);
    return false;
}

static int usage_error(const char *command)
{
    (void)fprintf(stderr, "Try 'fastattn %s --help'.\n", command);
    return 2;
}

/* "--name <value>" as the table shows it, its help text behind it; returns the width. */
static int option_heading(const cli_option *option, char *text, size_t size, const char **help)
{
    static const struct {
        char kind;
        const char *value;
    } defaults[] = {{'s', " X"}, {'i', " N"}, {'d', " X"}};
    const char *close = option->help[0] == '<' ? strchr(option->help, '>') : NULL;
    *help = option->help;
    if (close) {
        *help = close + 1 + strspn(close + 1, " ");
        return snprintf(text, size, "--%s %.*s", option->name, (int)(close - option->help - 1),
                        option->help + 1);
    }
    const char *value = "";
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (defaults[i].kind == option->kind)
            value = defaults[i].value;
    }
    return snprintf(text, size, "--%s%s", option->name, value);
}

/* Lines after the first begin at a column. */
static void print_lines(const char *text, int column)
{
    for (const char *end; (end = strchr(text, '\n')); text = end + 1)
        printf("%.*s\n%*s", (int)(end - text), text, column, "");
    printf("%s\n", text);
}

static void print_help(const char *command, const char *usage, const cli_option *options, int count)
{
    const char *help;
    char heading[96];
    int width = (int)strlen("--help");

    printf("Usage: fastattn %s %s\n\nOptions:\n", command, usage);
    for (int i = 0; i < count; i++) {
        int used = option_heading(&options[i], heading, sizeof(heading), &help);
        width = used > width ? used : width;
    }
    for (int i = 0; i < count; i++) {
        (void)option_heading(&options[i], heading, sizeof(heading), &help);
        printf("  %-*s  ", width, heading);
        print_lines(help, width + 4);
    }
    printf("  %-*s  %s\n", width, "--help", "this text");
    printf("\nExit codes: 0 done, 1 failed, 2 the command line is wrong.\n");
}

static bool parse_integer(const char *text, int64_t *value)
{
    const char *digits = text + (text[0] == '-');
    if (!digits[0] || digits[strspn(digits, "0123456789")])
        return false;
    errno = 0;
    long long parsed = strtoll(text, NULL, 10);
    if (errno)
        return false;
    *value = parsed;
    return true;
}

static bool parse_real(const char *text, double *value)
{
    char *end;
    if (!text[0] || !strchr("+-.0123456789", text[0]))
        return false;
    errno = 0;
    double parsed = strtod(text, &end);
    /* ERANGE is also what a subnormal result sets, which is a number like any other. */
    if (end == text || *end || !isfinite(parsed) || (errno == ERANGE && parsed == 0))
        return false;
    *value = parsed;
    return true;
}

static bool store(const char *command, const cli_option *option, const char *value)
{
    const char *expected = "something after the =";
    bool ok = false;
    if (option->kind == 's') {
        ok = value[0] != '\0';
        if (ok)
            *(const char **)option->target = value;
    } else if (option->kind == 'i') {
        ok = parse_integer(value, option->target);
        expected = "a whole number of at most 63 bits";
    } else {
        ok = parse_real(value, option->target);
        expected = "a finite number";
    }
    if (!ok)
        cli_error(command, "--%s is '%s', expected %s", option->name, value, expected);
    return ok;
}

static int find_option(const cli_option *options, int count, const char *name, size_t length)
{
    for (int i = 0; i < count; i++) {
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return i;
    }
    return -1;
}

/* Reads the option at argv[at], whose index is returned in *found, and returns how many arguments it took;
 * 0 after an error. */
static int read_option(const char *command, const cli_option *options, int count, int argc, char **argv,
                       int at, int *found)
{
    const char *name = argv[at] + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] ? name + length + 1 : NULL;
    int i = find_option(options, count, name, length);

    *found = i;
    if (i < 0) {
        cli_error(command, "unknown option '--%.*s'", (int)length, name);
        return 0;
    }
    if (options[i].kind == 'f') {
        if (value) {
            cli_error(command, "--%s is a flag, it takes no value, found '%s'", options[i].name, value);
            return 0;
        }
        *(int *)options[i].target = 1;
        return 1;
    }
    int used = 1;
    if (!value) {
        if (at + 1 >= argc || strncmp(argv[at + 1], "--", 2) == 0) {
            cli_error(command, "--%s needs a value", options[i].name);
            return 0;
        }
        value = argv[at + 1];
        used = 2;
    }
    return store(command, &options[i], value) ? used : 0;
}

int cli_parse(const char *command, const char *usage, const cli_option *options, int count, int argc,
              char **argv)
{
    bool seen[CLI_MAX_OPTIONS] = {false};

    /* Help is wanted most where the rest of the line is wrong. */
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
            print_help(command, usage, options, count);
            return 1;
        }
    }
    for (int at = 1; at < argc;) {
        int found, used;
        if (strncmp(argv[at], "--", 2) != 0 || !argv[at][2]) {
            cli_error(command, "unexpected argument '%s', expected an option that starts with --", argv[at]);
            return usage_error(command);
        }
        used = read_option(command, options, count, argc, argv, at, &found);
        if (used == 0)
            return usage_error(command);
        if (seen[found]) {
            cli_error(command, "--%s is given twice", options[found].name);
            return usage_error(command);
        }
        seen[found] = true;
        at += used;
    }
    return 0;
}

int cli_word(const char *command, const char *option, const char *text, const char *const *words, int count)
{
    if (!text)
        return 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], text) == 0)
            return i;
    }
    char list[256] = "";
    size_t used = 0;
    for (int i = 0; i < count && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
                                 i == 0          ? ""
                                 : i + 1 < count ? ", "
                                                 : " or ",
                                 words[i]);
    cli_error(command, "--%s is '%s', expected %s", option, text, list);
    return -1;
}

bool cli_mask(const char *command, const char *text, fa_mask_kind *mask)
{
    static const char *const words[] = {"top-left", "bottom-right"};
    *mask = FA_MASK_NONE;
    if (!text)
        return true;
    int word = cli_word(command, "causal", text, words, 2);
    *mask = word == 0 ? FA_MASK_CAUSAL_TOP_LEFT : FA_MASK_CAUSAL_BOTTOM_RIGHT;
    return word >= 0;
}

bool cli_alignment(const char *command, const char *text, fa_alignment *alignment)
{
    static const char *const words[] = {"top-left", "bottom-right"};
    *alignment = FA_ALIGN_DEFAULT;
    if (!text)
        return true;
    int word = cli_word(command, "align", text, words, 2);
    *alignment = word == 0 ? FA_ALIGN_TOP_LEFT : FA_ALIGN_BOTTOM_RIGHT;
    return word >= 0;
}

bool cli_int32(const char *command, const char *option, int64_t value, int32_t *out)
{
    if (value < 0 || value > INT32_MAX) {
        cli_error(command, "--%s is %lld, expected 0 to %d", option, (long long)value, INT32_MAX);
        return false;
    }
    *out = (int32_t)value;
    return true;
}

static void print_log(void *user, fa_log_level level, const char *message)
{
    static const char *const names[] = {"", "warning", "info", "debug"};
    (void)user;
    (void)fprintf(stderr, "fastattn: %s: ", names[level & 3]);
    io_put_plain(stderr, message);
    (void)fputc('\n', stderr);
}

fa_context *cli_context(const char *command, bool verbose)
{
    fa_context_options options = {
        .struct_size = sizeof(options),
        .log = print_log,
        .log_level = verbose ? FA_LOG_DEBUG : FA_LOG_WARN,
    };
    fa_context *context;
    if (fa_context_create(&options, &context) != FA_OK)
        cli_error(command, "%s", fa_last_error());
    return context;
}

/* JSON numbers characters as UTF-16 does. */
static void put_json_escape(FILE *file, uint32_t code)
{
    if (code < 0x10000)
        (void)fprintf(file, "\\u%04x", (unsigned)code);
    else
        (void)fprintf(file, "\\u%04x\\u%04x", 0xd800 + (unsigned)((code - 0x10000) >> 10),
                      0xdc00 + (unsigned)((code - 0x10000) & 0x3ff));
}

void cli_json_string(FILE *file, const char *text)
{
    (void)fputc('"', file);
    while (*text) {
        uint32_t code;
        size_t length = io_utf8(text, &code);
        if (code == IO_NO_CHARACTER)
            (void)fputc('?', file);
        else if (code == '"' || code == '\\')
            (void)fprintf(file, "\\%c", (char)code);
        else if (!io_is_plain(code))
            put_json_escape(file, code);
        else
            (void)fwrite(text, 1, length, file);
        text += length;
    }
    (void)fputc('"', file);
}

void cli_xml_text(FILE *file, const char *text)
{
    while (*text) {
        uint32_t code;
        size_t length = io_utf8(text, &code);
        switch (code) {
        case '&': (void)fputs("&amp;", file); break;
        case '<': (void)fputs("&lt;", file); break;
        case '>': (void)fputs("&gt;", file); break;
        case '"': (void)fputs("&quot;", file); break;
        case 0xfffe:
        case 0xffff:
        case IO_NO_CHARACTER: (void)fputc('?', file); break;
        default:
            if (code < 0x20)
                (void)fputc(' ', file);
            else if (!io_is_plain(code))
                (void)fprintf(file, "&#x%x;", (unsigned)code);
            else
                (void)fwrite(text, 1, length, file);
        }
        text += length;
    }
}
