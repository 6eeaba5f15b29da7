/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TOOLS_CMD_H
#define FASTATTN_TOOLS_CMD_H

/* The subcommands. argv[0] is the subcommand's name. Each returns an exit code and leaves flushing stdout,
 * and failing when that fails, to main. */
int cmd_devices(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_conform(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_cooperate(int argc, char **argv);

#endif
