/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "output.h"

enum { PATH_SIZE = 4096, MAX_LINKS = 40, MAX_OUTPUTS = 8 };

/* Where "-" goes. */
static int standard_output = STDOUT_FILENO;

static bool is_dash(const char *path)
{
    return strcmp(path, "-") == 0;
}

static bool same_inode(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* What a link in `now` leads to. False where there is none, or it is too long. */
static bool follow_once(char now[PATH_SIZE])
{
    char link[PATH_SIZE];
    const ssize_t length = readlink(now, link, sizeof(link) - 1);
    const size_t folder = length > 0 && link[0] != '/' ? folder_length(now) : 0;

    if (length <= 0 || folder + (size_t)length >= PATH_SIZE)
        return false;
    memcpy(now + folder, link, (size_t)length);
    now[folder + (size_t)length] = '\0';
    return true;
}

/* The path with all links at its end followed, to be freed; NULL when memory is short. */
static char *follow(const char *path)
{
    char now[PATH_SIZE];

    if (strlen(path) >= sizeof(now))
        return strdup(path);
    strcpy(now, path);
    for (int i = 0; i < MAX_LINKS && follow_once(now); i++)
        continue;
    return strdup(now);
}

void io_hold_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* the lowest that is free */
    }
}

/* One of the process's own streams, where the path is another name of it; else -1. What is written there through a
 * second description would start at the file's beginning, and a new file would take its place. */
static int own_stream(const struct stat *found)
{
    const int streams[] = {standard_output, STDERR_FILENO};
    struct stat st;

    for (int i = 0; i < 2; i++) {
        if (fstat(streams[i], &st) == 0 && same_inode(&st, found) &&
            (!S_ISCHR(st.st_mode) || isatty(streams[i])))
            return streams[i];
    }
    return -1;
}

/* What a path leads to. */
typedef struct place {
    bool exists;
    struct stat st; /* where it exists */
    int stream;     /* of the process: write there; else -1 */
    char *target;   /* the file to replace; NULL: the path itself is opened, which is no such file */
} place;

static bool find_target(place *p, const char *path, io_error *err)
{
    struct stat st;

    p->target = follow(path);
    if (!p->target)
        return io_fail(err, path, "memory", "found none, expected room for a file name");
    /* Links of /proc can lead to files that have no name any more. */
    if (p->exists && (lstat(p->target, &st) != 0 || !same_inode(&st, &p->st))) {
        free(p->target);
        p->target = NULL;
    }
    return true;
}

static bool find_place(place *p, const char *path, io_error *err)
{
    *p = (place){.stream = is_dash(path) ? standard_output : -1};
    if (p->stream >= 0)
        return true;
    if (path[folder_length(path)] == '\0')
        return io_fail(err, path, "create", "found no file name, expected one");
    p->exists = stat(path, &p->st) == 0;
    if (!p->exists && errno != ENOENT)
        return io_fail(err, path, "create", "%s, expected a file or a new name", strerror(errno));
    if (p->exists && (S_ISDIR(p->st.st_mode) || S_ISBLK(p->st.st_mode)))
        return io_fail(err, path, "create", "found a %s there, expected a file, a pipe or a new name",
                       S_ISDIR(p->st.st_mode) ? "folder" : "block device");
    if (p->exists)
        p->stream = own_stream(&p->st);
    if (p->stream >= 0)
        return true;
    /* Who may not write to it, but may write to its folder, is not to replace it either. */
    if (p->exists && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        return io_fail(err, path, "create", "%s, expected to be allowed to write to it", strerror(errno));
    return (p->exists && !S_ISREG(p->st.st_mode)) || find_target(p, path, err);
}

/* As the file that is replaced, as far as the system has owners and modes and lets them be set. */
static void keep_attributes(int fd, const struct stat *old)
{
    if (fchown(fd, old->st_uid, old->st_gid) != 0)
        (void)fchown(fd, (uid_t)-1, old->st_gid);
    (void)fchmod(fd, old->st_mode & 0777);
}

static bool open_file(io_output *o, const place *p, io_error *err)
{
    o->fd = io_temporary_open(&o->temporary, p->target, folder_length(p->target));
    if (o->fd < 0)
        return io_fail(err, o->path, "create",
                       "%s for a temporary file beside it, expected a folder "
                       "that can be written to",
                       strerror(errno));
    if (p->exists)
        keep_attributes(o->fd, &p->st);
    return true;
}

static bool open_stream(io_output *o, const place *p, io_error *err)
{
    if (p->stream >= 0)
        o->fd = dup(p->stream);
    else
        o->fd = open(o->path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY);
    return o->fd >= 0 || io_fail(err, o->path, "open", "%s, expected to write to it", strerror(errno));
}

bool io_output_begin(io_output *o, const char *path, io_error *err)
{
    place p;

    *o = (io_output){.path = path, .fd = -1};
    if (!find_place(&p, path, err))
        return false;
    o->target = p.target;
    return p.target ? open_file(o, &p, err) : open_stream(o, &p, err);
}

bool io_output_possible(const char *path, io_error *err)
{
    io_output o = {.fd = -1};
    place p;

    if (!find_place(&p, path, err))
        return false;
    bool ok = true;
    if (p.stream >= 0) {
        const int flags = fcntl(p.stream, F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
            ok = io_fail(err, path, "open",
                         "found it closed, or open only for reading, expected to write to it");
    } else if (p.target) {
        o.path = path;
        o.target = p.target;
        ok = open_file(&o, &p, err);
    }
    io_output_discard(&o);
    return ok;
}

bool io_output_is_stdout(const char *path)
{
    struct stat st;
    return is_dash(path) || (stat(path, &st) == 0 && own_stream(&st) == standard_output);
}

bool io_output_claim_stdout(io_error *err)
{
    if (standard_output != STDOUT_FILENO)
        return true;
    (void)fflush(stdout);
    const int kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (kept < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return io_fail(err, "-", "open", "%s, expected standard output and standard error to be open",
                       strerror(errno));
    standard_output = kept;
    return true;
}

/* What there is under a name; `stream`: what "-" means. */
static bool look(const char *path, int stream, struct stat *st)
{
    return (is_dash(path) ? fstat(stream, st) : stat(path, st)) == 0;
}

/* Of two names that nothing has yet: whether the same file would come into being. */
static bool same_new_name(const char *a, const char *b)
{
    char *names[] = {follow(a), follow(b)};
    struct stat st[2];
    bool same = names[0] && names[1];

    for (int i = 0; i < 2 && same; i++) {
        char *name = names[i] + folder_length(names[i]);
        char folder[PATH_SIZE];
        snprintf(folder, sizeof(folder), "%.*s", (int)(name - names[i]), names[i]);
        same = stat(folder[0] ? folder : ".", &st[i]) == 0;
    }
    same = same && same_inode(&st[0], &st[1]) &&
           !strcmp(names[0] + folder_length(names[0]), names[1] + folder_length(names[1]));
    free(names[0]);
    free(names[1]);
    return same;
}

bool io_output_same(const char *a, const char *b)
{
    struct stat st[2];
    const bool there[] = {look(a, standard_output, &st[0]), look(b, standard_output, &st[1])};

    if (is_dash(a) && is_dash(b))
        return true;
    if (there[0] && there[1])
        return same_inode(&st[0], &st[1]) && !S_ISCHR(st[0].st_mode);
    return !there[0] && !there[1] && same_new_name(a, b);
}

bool io_output_replaces(const char *path, const char *input)
{
    struct stat st[2];
    return look(path, standard_output, &st[0]) && look(input, STDIN_FILENO, &st[1]) &&
           same_inode(&st[0], &st[1]) && S_ISREG(st[0].st_mode);
}

bool io_output_write(io_output *o, const void *data, size_t size, io_error *err)
{
    const unsigned char *src = data;

    while (size > 0) {
        const ssize_t n = write(o->fd, src, size < IO_MAX_CHUNK ? size : IO_MAX_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_fail(err, o->path, "write", "%s, expected room for %zu bytes more",
                           n < 0 ? strerror(errno) : "nothing was taken", size);
        src += n;
        size -= (size_t)n;
    }
    return true;
}

bool io_output_finish(io_output *o, io_error *err)
{
    /* Pipes, devices and a few file systems have nothing to sync, and say so. */
    const bool synced =
        fsync(o->fd) == 0 || errno == EINVAL || errno == ENOTSUP || (!o->target && errno == EROFS);
    bool ok =
        synced || io_fail(err, o->path, "sync", "%s, expected the data to reach the disk", strerror(errno));
    /* Network file systems may report a full disk only here. */
    if (close(o->fd) != 0 && ok)
        ok = io_fail(err, o->path, "close", "%s, expected the data to reach the disk", strerror(errno));
    o->fd = -1;
    return ok;
}

/* Makes the new name last through a power cut. The data is safe and in place by now, and not
 * every folder can be opened or synced, so a failure is no reason to report one. */
static void sync_folder(const char *path)
{
    char folder[PATH_SIZE];
    const size_t length = folder_length(path);

    if (length >= sizeof(folder))
        return;
    memcpy(folder, path, length);
    folder[length] = '\0';

    const int fd = open(length ? folder : ".", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

bool io_output_commit(io_output *const *outputs, int count, io_error *err)
{
    io_temporary *files[MAX_OUTPUTS] = {NULL};
    const char *targets[MAX_OUTPUTS] = {NULL}, *paths[MAX_OUTPUTS] = {NULL};
    int named = 0;

    for (int i = 0; i < count && named < MAX_OUTPUTS; i++) {
        if (!outputs[i]->target)
            continue;
        files[named] = &outputs[i]->temporary;
        paths[named] = outputs[i]->path;
        targets[named++] = outputs[i]->target;
    }
    const int done = io_temporary_rename(files, targets, named);
    if (done < named)
        return io_fail(err, paths[done], "rename", "%s, expected to put the finished file in place",
                       strerror(errno));
    for (int i = 0; i < named; i++)
        sync_folder(targets[i]);
    return true;
}

void io_output_discard(io_output *o)
{
    if (o->fd >= 0)
        close(o->fd);
    io_temporary_remove(&o->temporary);
    free(o->target);
    *o = (io_output){.fd = -1};
}
