/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way to write a file.
 *
 * A regular file is replaced in one step: whoever opens it sees the old one or the whole new one, and a failure leaves
 * the old one as it was. Its permissions stay, its owner where the system allows it. A symbolic link stays, and
 * what it leads to is replaced. What is no file is written to: a pipe, a terminal, a device such as /dev/null, and
 * standard output, which "-" and any other name of it stand for. Folders and block devices are refused.
 */
#ifndef FASTATTN_TOOLS_IO_OUTPUT_H
#define FASTATTN_TOOLS_IO_OUTPUT_H

#include "temporary.h"
#include "tensor_file.h"

typedef struct io_output {
    const char *path;
    char *target; /* the path with its links followed; NULL: a stream */
    io_temporary temporary;
    int fd;
} io_output;

/* Where one of the three standard streams is closed, the next file that is opened would be it, and get what is printed.
 * To be called first: what then stands in for it fails as it would, the input on reading, the others on writing. */
void io_hold_streams(void);

/* Whether it could be written now. Opens no pipe: that waits for a reader, and its end tells him something. */
bool io_output_possible(const char *path, io_error *err);

/* Whether the path names standard output, by "-" or otherwise. */
bool io_output_is_stdout(const char *path);

/* From now on, standard output is only what is written through io_output: what else is printed there goes to standard
 * error instead. False: the process has no descriptor left. */
bool io_output_claim_stdout(io_error *err);

/* Whether writing one would replace what the other names, however the two are spelled; "-" is standard output.
 * Terminals and devices can take two outputs. */
bool io_output_same(const char *a, const char *b);

/* Whether writing `path` would replace the file that `input` names; "-" is standard input there. */
bool io_output_replaces(const char *path, const char *input);

/* The steps of writing. After a begin, also one that failed, comes an end. */
bool io_output_begin(io_output *o, const char *path, io_error *err);
bool io_output_write(io_output *o, const void *data, size_t size, io_error *err);
/* Everything was written: brings it to the disk. Only naming it is left, which hardly fails. */
bool io_output_finish(io_output *o, io_error *err);
/* Puts finished outputs in place, all of them, without a signal in between. Only where a rename fails can some of them
 * be in place and others not. */
bool io_output_commit(io_output *const *outputs, int count, io_error *err);
/* Frees it; removes what was not put in place. */
void io_output_discard(io_output *o);
/* When ok: finish, commit. Always: discard. */
static inline bool io_output_end(io_output *o, bool ok, io_error *err)
{
    io_output *const one[] = {o};

    ok = ok && io_output_finish(o, err) && io_output_commit(one, 1, err);
    io_output_discard(o);
    return ok;
}

#endif
