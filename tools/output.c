/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/output.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/io/output.h"

static bool is_no_input(const char *command, const cli_file *output, const cli_file *inputs, int count)
{
    for (int i = 0; i < count; i++) {
        if (inputs[i].path && io_output_replaces(output->path, inputs[i].path)) {
            cli_error(command, "--%s is '%s', the file that --%s '%s' reads, expected another",
                      output->option, output->path, inputs[i].option, inputs[i].path);
            return false;
        }
    }
    return true;
}

static bool is_no_other(const char *command, const cli_file *outputs, int count)
{
    for (int i = 0; i < count - 1; i++) {
        if (outputs[i].path && io_output_same(outputs[i].path, outputs[count - 1].path)) {
            cli_error(command, "--%s is '%s' and --%s is '%s', expected two files", outputs[i].option,
                      outputs[i].path, outputs[count - 1].option, outputs[count - 1].path);
            return false;
        }
    }
    return true;
}

bool output_check(const char *command, cli_file *outputs, int count, const cli_file *inputs, int input_count)
{
    io_error error = {""};
    bool claim = false;
    for (int i = 0; i < count; i++) {
        if (!outputs[i].path)
            continue;
        if (io_output_is_stdout(outputs[i].path)) {
            outputs[i].path = "-";
            claim = true;
        }
        if (!is_no_other(command, outputs, i + 1) || !is_no_input(command, &outputs[i], inputs, input_count))
            return false;
        if (!io_output_possible(outputs[i].path, &error)) {
            cli_error(command, "--%s: %s", outputs[i].option, error.text);
            return false;
        }
    }
    if (!claim || io_output_claim_stdout(&error))
        return true;
    cli_error(command, "%s", error.text);
    return false;
}

/* Into an output that is open. */
static bool put_text(io_output *o, output_writer *write, const void *what, io_error *error)
{
    int copy = dup(o->fd);
    FILE *file = copy >= 0 ? fdopen(copy, "wb") : NULL;
    bool ok = file != NULL;
    errno = 0;
    if (ok)
        write(file, what);
    ok = ok && !ferror(file);
    if (file ? fclose(file) != 0 : copy >= 0 && close(copy) != 0)
        ok = false;
    if (!ok)
        (void)snprintf(error->text, sizeof(error->text), "%.300s: write: %.120s, expected room for all of it",
                       cli_plain(o->path).text, errno ? strerror(errno) : "it failed");
    return ok;
}

bool output_save(const char *command, const cli_file *output, output_writer *write, const void *what)
{
    io_error error = {""};
    io_output file;
    if (!output->path)
        return true;
    bool ok = io_output_begin(&file, output->path, &error) && put_text(&file, write, what, &error);
    ok = io_output_end(&file, ok, &error);
    if (!ok)
        cli_error(command, "--%s: %s", output->option, error.text);
    return ok;
}
