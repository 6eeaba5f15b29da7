/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum {
    MAX_NAME_SHOWN = 160,
    MAX_TEMP_TRIES = 1000,
    TEMP_NAME_SIZE = 64,
};

/* Linux moves at most this much less one page in one call, and other systems refuse more. */
#define MAX_CHUNK ((size_t) 1 << 30)

static const char ellipsis[] = "...";

bool io_fail(io_error *err, const char *file, const char *field, const char *format, ...)
{
    if (!err)
        return false;

    /* The end of a long path tells more than its start, and the message must still fit. */
    const size_t length = strlen(file);
    const bool cut = length > MAX_NAME_SHOWN;
    const int used = snprintf(err->text, sizeof(err->text), "%s%s: %s: ", cut ? ellipsis : "",
                              cut ? file + length - MAX_NAME_SHOWN : file, field);

    if (used > 0 && (size_t) used < sizeof(err->text)) {
        va_list args;
        va_start(args, format);
        const int rest = vsnprintf(err->text + used, sizeof(err->text) - (size_t) used, format,
                                   args);
        va_end(args);
        if (rest > 0 && (size_t) used + (size_t) rest >= sizeof(err->text))
            memcpy(err->text + sizeof(err->text) - sizeof(ellipsis), ellipsis, sizeof(ellipsis));
    }
    for (char *c = err->text; *c; c++) {
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            *c = '?';
    }
    return false;
}

static size_t chunk(size_t size)
{
    return size < MAX_CHUNK ? size : MAX_CHUNK;
}

io_source io_source_memory(const void *bytes, size_t size, const char *name)
{
    return (io_source) { .name = name, .bytes = bytes, .fd = -1, .size = size };
}

bool io_source_open(io_source *s, const char *path, io_error *err)
{
    struct stat st;

    /* O_NONBLOCK: a pipe without a writer would otherwise hang here instead of being refused. */
    *s = (io_source) { .name = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) };
    if (s->fd < 0)
        return io_fail(err, path, "open", "%s, expected a readable file", strerror(errno));

    bool ok = false;
    if (fstat(s->fd, &st) != 0) {
        io_fail(err, path, "stat", "%s, expected a readable file", strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        io_fail(err, path, "open", "found a folder, pipe or device, expected a regular file");
    } else {
        s->size = (uint64_t) st.st_size;
        ok = true;
    }
    if (!ok) {
        close(s->fd);
        s->fd = -1;
    }
    return ok;
}

static bool read_file(const io_source *s, uint64_t offset, uint8_t *dst, size_t size,
                      io_error *err)
{
    while (size > 0) {
        const ssize_t n = pread(s->fd, dst, chunk(size), (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_fail(err, s->name, "read", "%s at byte %llu, expected %zu bytes more",
                           strerror(errno), (unsigned long long) offset, size);
        if (n == 0)
            return io_fail(err, s->name, "read", "found the end of the file at byte %llu, expected "
                           "%zu bytes more: it shrank while being read",
                           (unsigned long long) offset, size);
        dst += n;
        offset += (uint64_t) n;
        size -= (size_t) n;
    }
    return true;
}

bool io_source_read(const io_source *s, uint64_t offset, void *dst, size_t size, io_error *err)
{
    if (offset > s->size || size > s->size - offset)
        return io_fail(err, s->name, "size", "found %llu bytes, expected %zu at byte %llu",
                       (unsigned long long) s->size, size, (unsigned long long) offset);
    if (s->fd >= 0)
        return read_file(s, offset, dst, size, err);
    if (size > 0)
        memcpy(dst, s->bytes + offset, size);
    return true;
}

bool io_source_close(io_source *s, io_error *err)
{
    struct stat st;
    bool ok = true;

    if (s->fd < 0)
        return true;
    if (fstat(s->fd, &st) != 0 || (uint64_t) st.st_size != s->size)
        ok = io_fail(err, s->name, "size", "no longer the %llu bytes found at first, expected a "
                     "file that nobody writes to", (unsigned long long) s->size);
    close(s->fd);
    s->fd = -1;
    return ok;
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t) (slash - path) + 1 : 0;
}

/* Not mkstemp: its files are 0600 whatever the umask says, and the result would stay so. */
static bool open_temp(io_atomic *a, io_error *err)
{
    const size_t folder = folder_length(a->path);

    a->temp = malloc(folder + TEMP_NAME_SIZE);
    if (!a->temp)
        return io_fail(err, a->path, "memory", "found none, expected room for a temporary "
                       "name");
    memcpy(a->temp, a->path, folder);

    /* The target's own name is left out: it may already be as long as the system allows. */
    for (int i = 0; i < MAX_TEMP_TRIES && a->fd < 0; i++) {
        snprintf(a->temp + folder, TEMP_NAME_SIZE, ".tensor-%ld-%d.tmp", (long) getpid(), i);
        a->fd = open(a->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (a->fd < 0 && errno != EEXIST)
            break;
    }
    if (a->fd >= 0)
        return true;

    io_fail(err, a->path, "create", "%s for a temporary file beside it, expected a folder that "
            "can be written to", strerror(errno));
    free(a->temp);
    a->temp = NULL;
    return false;
}

bool io_atomic_begin(io_atomic *a, const char *path, io_error *err)
{
    struct stat st;

    *a = (io_atomic) { .path = path, .fd = -1 };
    if (path[folder_length(path)] == '\0')
        return io_fail(err, path, "create", "found no file name, expected one");

    const bool exists = lstat(path, &st) == 0;
    if (exists && !S_ISREG(st.st_mode))
        return io_fail(err, path, "create", "found a folder, device or symbolic link there, "
                       "expected a regular file or a new name");
    if (!open_temp(a, err))
        return false;
    /* Some file systems have no modes to set, and then there are none to keep either. */
    if (exists)
        (void) fchmod(a->fd, st.st_mode & 0777);
    return true;
}

bool io_atomic_write(io_atomic *a, const void *data, size_t size, io_error *err)
{
    const unsigned char *src = data;

    while (size > 0) {
        const ssize_t n = write(a->fd, src, chunk(size));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_fail(err, a->path, "write", "%s, expected room for %zu bytes more",
                           n < 0 ? strerror(errno) : "nothing was taken", size);
        src += n;
        size -= (size_t) n;
    }
    return true;
}

/* Makes the new name last through a power cut. The data is safe and in place by now, and not
 * every folder can be opened or synced, so a failure is no reason to report one. */
static void sync_folder(const char *path)
{
    char folder[4096];
    const size_t length = folder_length(path);

    if (length >= sizeof(folder))
        return;
    memcpy(folder, path, length);
    folder[length] = '\0';

    const int fd = open(length ? folder : ".", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void) fsync(fd);
        close(fd);
    }
}

static bool commit(io_atomic *a, io_error *err)
{
    if (fsync(a->fd) != 0)
        return io_fail(err, a->path, "sync", "%s, expected the data to reach the disk",
                       strerror(errno));
    const int fd = a->fd;
    a->fd = -1;
    /* Network file systems may report a full disk only here. */
    if (close(fd) != 0)
        return io_fail(err, a->path, "close", "%s, expected the data to reach the disk",
                       strerror(errno));
    if (rename(a->temp, a->path) != 0)
        return io_fail(err, a->path, "rename", "%s, expected to put the finished file in place",
                       strerror(errno));
    sync_folder(a->path);
    return true;
}

bool io_atomic_end(io_atomic *a, bool ok, io_error *err)
{
    if (!a->temp)
        return false;

    ok = ok && commit(a, err);
    if (a->fd >= 0)
        close(a->fd);
    if (!ok)
        unlink(a->temp);
    free(a->temp);
    *a = (io_atomic) { .fd = -1 };
    return ok;
}
