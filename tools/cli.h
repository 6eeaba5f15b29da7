/* SPDX-License-Identifier: Apache-2.0 */
/* What every subcommand shares: its options, its messages, its context. */
#ifndef FASTATTN_TOOLS_CLI_H
#define FASTATTN_TOOLS_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include <fastattn/fastattn.h>

#include "tools/io/text.h"

/* Exit codes of the command. A command line that cannot be understood is EXIT_USAGE; one that can be,
 * but asks for what cannot be done, is EXIT_FAILED. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct cli_option {
    const char *name; /* without the dashes                                                       */
    char kind;        /* 'f' flag int*, 's' string const char**, 'i' int64_t*, 'd' finite double* */
    void *target;     /* left as it is where the option is not given                              */
    const char *help; /* one line; a leading word in <> names the value                           */
} cli_option;

enum { CLI_MAX_OPTIONS = 64 };

/*
 * Reads `--name value` and `--name=value`, each option once, no positional arguments. argv[0] is the
 * subcommand's own name and is skipped. A value that starts with "--" must be written with "=".
 * `usage`: the synopsis after "fastattn <command> " up to the first newline, then free text: what it
 * does, examples. `--help` prints it with a table of the options and the exit codes.
 * Returns 0 to go on, 1 when help was printed (exit EXIT_OK), 2 when an error was (exit EXIT_USAGE).
 */
int cli_parse(const char *command, const char *usage, const cli_option *options, int count, int argc,
              char **argv);

#if defined(__MINGW_PRINTF_FORMAT) /* by stdio.h: that of its printf */
#define CLI_PRINTF(text, first) __attribute__((format(__MINGW_PRINTF_FORMAT, text, first)))
#elif defined(__GNUC__)
#define CLI_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CLI_PRINTF(text, first)
#endif

/* Prints "fastattn <command>: ..." and a newline on stderr, all of it plain: see io/text.h. */
CLI_PRINTF(2, 3) void cli_error(const char *command, const char *format, ...);
/* The same of what is no error: "fastattn <command>: note: ...". */
CLI_PRINTF(2, 3) void cli_note(const char *command, const char *format, ...);

/* A text from outside the program in its plain form, for a line that is printed. */
typedef struct cli_text {
    char text[1024];
} cli_text;

cli_text cli_plain(const char *text);

/* What an option that takes one of a few words was given: the index of `text` in `words`, or -1 after an
 * error that lists them. NULL stands for words[0]. */
int cli_word(const char *command, const char *option, const char *text, const char *const *words, int count);

/* --causal's value, NULL for none. False after an error. */
bool cli_mask(const char *command, const char *text, fa_mask_kind *mask);
/* Reads --align likewise; a NULL `text` is the default. */
bool cli_alignment(const char *command, const char *text, fa_alignment *alignment);

/* A value of an 'i' option that must fit the library's 32 bits. False after an error. */
bool cli_int32(const char *command, const char *option, int64_t value, int32_t *out);

/* A context whose log goes to stderr when `verbose`; NULL after an error message. */
fa_context *cli_context(const char *command, bool verbose);

/* Whether the process can take so many bytes more. False: `why` says how many it needs and what there are. */
bool cli_memory_fits(double bytes, char *why, size_t size);

/* `text` as a JSON string with its quotes. What is not UTF-8 becomes '?', so that the file stays JSON; what is not
 * plain is escaped, so that a terminal can show the file. */
void cli_json_string(FILE *file, const char *text);

/* `text` as it may stand between tags or quotes of XML. What XML cannot hold becomes '?' or a space. */
void cli_xml_text(FILE *file, const char *text);

#endif
