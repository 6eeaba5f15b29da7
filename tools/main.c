/* SPDX-License-Identifier: Apache-2.0 */
/* The `fastattn` command: finds the subcommand, and fails where stdout could not be written. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/cmd.h"
#include "tools/io/output.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"devices", cmd_devices, "list the devices, usable or not, and their kernels"},
    {"run", cmd_run, "compute the attention of tensors in files"},
    {"plan", cmd_plan, "show how a problem would be tiled, scheduled and what it would cost"},
    {"conform", cmd_conform, "test every kernel of a device against the oracle"},
    {"bench", cmd_bench, "measure the kernels of a device"},
    {"cooperate", cmd_cooperate,
     "show what of a cache lies on a device and what on the host, and how fast that is"},
};
enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_usage(FILE *file)
{
    (void)fprintf(file, "Usage: fastattn <command> [options]\n\nCommands:\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(file, "  %-9s  %s\n", commands[i].name, commands[i].help);
    (void)fprintf(file,
                  "\n'fastattn <command> --help' explains one; 'fastattn --version' prints the version.\n"
                  "Exit codes: 0 done, 1 failed, 2 the command line is wrong.\n");
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("fastattn %s\n", fa_version());
        return EXIT_OK;
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    (void)fprintf(stderr, "fastattn: unknown command '%s', expected", cli_plain(argv[1]).text);
    for (int i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(stderr, "%s %s", i == 0 ? "" : i + 1 < COMMAND_COUNT ? "," : " or", commands[i].name);
    (void)fprintf(stderr, "\nTry 'fastattn --help'.\n");
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    io_hold_streams();
    int code = dispatch(argc, argv);
    errno = 0;
    int failed = ferror(stdout);
    if (fflush(stdout) != 0 || failed) {
        (void)fprintf(stderr, "fastattn: standard output could not be written%s%s\n", errno ? ": " : "",
                      errno ? strerror(errno) : "");
        return code == EXIT_OK ? EXIT_FAILED : code;
    }
    return code;
}
