/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two files that appear together or not at all: both are complete under names of their own, and their targets
 * known to be replaceable, before the first is renamed. Only a rename that fails even so can part them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "run.h"

/* An output on its way: written under a name of its own first. */
typedef struct output {
    const char *option, *target;
    const io_tensor *tensor;
    char *staged; /* NULL: not asked for, or already in place */
} output;

/* The folder that a target lies in, to be freed; NULL without memory. */
static char *folder_of(const char *target)
{
    const char *slash = strrchr(target, '/');
    size_t length = slash ? (size_t)(slash - target) + 1 : 1;
    char *folder = malloc(length + 1);
    if (folder)
        (void)snprintf(folder, length + 1, "%s", slash ? target : ".");
    return folder;
}

static bool possible(const char *option, const char *target)
{
    struct stat found;
    if (!target)
        return true;
    char *folder = folder_of(target);
    bool there = lstat(target, &found) == 0;
    bool writable = (there || errno == ENOENT) && folder && access(folder, W_OK | X_OK) == 0;
    if (!writable)
        cli_error(RUN_COMMAND, "--%s is '%s', which cannot be written: %s", option, target, strerror(errno));
    else if (there && !S_ISREG(found.st_mode))
        cli_error(RUN_COMMAND, "--%s is '%s', which is no regular file, expected one or a new name", option,
                  target);
    free(folder);
    return writable && (!there || S_ISREG(found.st_mode));
}

/* However the two are spelled. */
static bool same_target(const char *a, const char *b)
{
    const char *const names[] = {strrchr(a, '/') ? strrchr(a, '/') + 1 : a,
                                 strrchr(b, '/') ? strrchr(b, '/') + 1 : b};
    char *folders[] = {folder_of(a), folder_of(b)};
    struct stat found[2];
    bool same = strcmp(names[0], names[1]) == 0 && folders[0] && folders[1] &&
                stat(folders[0], &found[0]) == 0 && stat(folders[1], &found[1]) == 0 &&
                found[0].st_dev == found[1].st_dev && found[0].st_ino == found[1].st_ino;
    free(folders[0]);
    free(folders[1]);
    return same;
}

bool run_outputs_possible(const run_options *o)
{
    if (!possible("out", o->out) || !possible("lse", o->lse))
        return false;
    if (o->out && o->lse && same_target(o->out, o->lse)) {
        cli_error(RUN_COMMAND, "--out is '%s' and --lse is '%s', expected two files", o->out, o->lse);
        return false;
    }
    return true;
}

/* Beside the target, so that the last step is a rename within one folder. */
static bool stage(output *out)
{
    io_error error;
    size_t size = strlen(out->target) + 32;
    char *name = malloc(size);
    if (!name) {
        cli_error(RUN_COMMAND, "--%s: no memory for a file name", out->option);
        return false;
    }
    (void)snprintf(name, size, "%s.new-%ld", out->target, (long)getpid());
    if (!io_npy_write(name, out->tensor, &error)) {
        cli_error(RUN_COMMAND, "--%s: %s", out->option, error.text);
        free(name);
        return false;
    }
    out->staged = name;
    return true;
}

static bool commit(output *out)
{
    if (rename(out->staged, out->target) != 0) {
        cli_error(RUN_COMMAND, "--%s is '%s': the finished file could not be put there: %s", out->option,
                  out->target, strerror(errno));
        return false;
    }
    free(out->staged);
    out->staged = NULL;
    return true;
}

bool run_write(const run_options *o, const run_problem *p)
{
    output outputs[] = {{"out", o->out, &p->o, NULL}, {"lse", o->lse, &p->lse, NULL}};
    /* The targets are looked at again: computing may have taken hours. */
    bool ok = run_outputs_possible(o);
    for (int i = 0; i < 2 && ok; i++)
        ok = !outputs[i].target || stage(&outputs[i]);
    for (int i = 0; i < 2 && ok; i++)
        ok = !outputs[i].staged || commit(&outputs[i]);
    for (int i = 0; i < 2; i++) {
        if (outputs[i].staged)
            (void)unlink(outputs[i].staged);
        free(outputs[i].staged);
    }
    return ok;
}
