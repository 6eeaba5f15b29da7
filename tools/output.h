/* SPDX-License-Identifier: Apache-2.0 */
/* Files that options name: looked at before anything is computed, written as io/output.h says. */
#ifndef FASTATTN_TOOLS_OUTPUT_H
#define FASTATTN_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

/* An option and the path that it was given; NULL: it was not. */
typedef struct cli_file {
    const char *option, *path;
} cli_file;

/*
 * Whether the outputs can be written, are different files, and are none of the inputs. False after an error.
 * A path that is another name of standard output becomes "-". Where an output goes there, everything else that is
 * printed goes to standard error from now on.
 */
bool output_check(const char *command, cli_file *outputs, int count, const cli_file *inputs, int input_count);

typedef void output_writer(FILE *file, const void *what);

/* Writes a text: all of it, or nothing. A path that is NULL is no error; false after one. */
bool output_save(const char *command, const cli_file *output, output_writer *write, const void *what);

#endif
