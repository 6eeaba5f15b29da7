/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "memory.h"

#define FIRST_ROOM ((uint64_t)64 << 10)
/* From here on, a stream's buffer grows only while there is memory for it. */
#define CAREFUL_ROOM ((uint64_t)64 << 20)

io_source io_source_memory(const void *bytes, size_t size, const char *name)
{
    return (io_source){.name = name, .bytes = bytes, .fd = -1, .size = size};
}

bool io_source_open(io_source *s, const char *path, io_error *err)
{
    struct stat st;
    const bool dash = strcmp(path, "-") == 0;

    *s = (io_source){.name = dash ? "standard input" : path};
    s->fd = dash ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_BINARY);
    if (s->fd < 0)
        return io_fail(err, s->name, "open", "%s, expected a readable file", strerror(errno));

    bool ok = false;
    if (fstat(s->fd, &st) != 0) {
        io_fail(err, s->name, "stat", "%s, expected a readable file", strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        io_fail(err, s->name, "open", "found a folder, expected a file or a pipe");
    } else {
#if defined(_WIN32)
        (void)_setmode(s->fd, O_BINARY);
#endif
        /* Somebody may have read a part of standard input already. */
        s->stream = !S_ISREG(st.st_mode) || (dash && lseek(s->fd, 0, SEEK_CUR) != 0);
        s->size = s->stream ? 0 : (uint64_t)st.st_size;
        ok = true;
    }
    if (!ok) {
        close(s->fd);
        s->fd = -1;
    }
    return ok;
}

/* Reads once. Returns how many bytes came, 0 at the end; -1 after an error. */
static ssize_t read_some(io_source *s, uint64_t offset, uint8_t *dst, uint64_t size, io_error *err)
{
    for (;;) {
        const ssize_t n = read(s->fd, dst, (unsigned)(size < IO_MAX_CHUNK ? size : IO_MAX_CHUNK));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            io_fail(err, s->name, "read", "%s at byte %llu, expected %llu bytes more", strerror(errno),
                    (unsigned long long)offset, (unsigned long long)size);
        return n;
    }
}

static bool grow(io_source *s, uint64_t end, io_error *err)
{
    uint64_t room = s->room ? 2 * s->room : FIRST_ROOM;
    io_memory memory = {.bytes = UINT64_MAX};

    if (room > end)
        room = end > FIRST_ROOM ? end : FIRST_ROOM;
    if (room >= CAREFUL_ROOM)
        io_memory_available(&memory);
    uint8_t *bytes = room > SIZE_MAX || room - s->room > memory.bytes
                         ? NULL
                         : realloc((void *)(uintptr_t)s->bytes, (size_t)room);
    if (!bytes)
        return io_fail(err, s->name, "read",
                       "found more than the %llu bytes that memory can hold, expected fewer",
                       (unsigned long long)s->size);
    s->bytes = bytes;
    s->room = room;
    return true;
}

bool io_source_reach(io_source *s, uint64_t end, io_error *err)
{
    while (s->stream && s->fd >= 0 && s->size < end) {
        if (s->size == s->room && !grow(s, end, err))
            return false;
        uint8_t *to = (uint8_t *)(uintptr_t)s->bytes + s->size;
        const ssize_t n = read_some(s, s->size, to, (s->room < end ? s->room : end) - s->size, err);
        if (n < 0)
            return false;
        if (n == 0) {
            close(s->fd);
            s->fd = -1;
        }
        s->size += (uint64_t)n;
    }
    return true;
}

static bool read_file(io_source *s, uint64_t offset, uint8_t *dst, size_t size, io_error *err)
{
    if (lseek(s->fd, (off_t)offset, SEEK_SET) < 0)
        return io_fail(err, s->name, "read", "%s, expected to go to byte %llu", strerror(errno),
                       (unsigned long long)offset);
    while (size > 0) {
        const ssize_t n = read_some(s, offset, dst, size, err);
        if (n < 0)
            return false;
        if (n == 0)
            return io_fail(err, s->name, "read",
                           "found the end of the file at byte %llu, expected "
                           "%zu bytes more: it shrank while being read",
                           (unsigned long long)offset, size);
        dst += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

bool io_source_read(io_source *s, uint64_t offset, void *dst, size_t size, io_error *err)
{
    if (!io_source_reach(s, offset + size, err))
        return false;
    if (offset > s->size || size > s->size - offset)
        return io_fail(err, s->name, "size", "found %llu bytes, expected %zu at byte %llu",
                       (unsigned long long)s->size, size, (unsigned long long)offset);
    if (!s->stream && s->fd >= 0)
        return read_file(s, offset, dst, size, err);
    if (size > 0)
        memcpy(dst, s->bytes + offset, size);
    return true;
}

bool io_source_close(io_source *s, io_error *err)
{
    struct stat st;
    bool ok = true;

    if (s->name && s->fd >= 0) {
        if (!s->stream && (fstat(s->fd, &st) != 0 || (uint64_t)st.st_size != s->size))
            ok = io_fail(err, s->name, "size",
                         "no longer the %llu bytes found at first, expected a "
                         "file that nobody writes to",
                         (unsigned long long)s->size);
        close(s->fd);
    }
    if (s->stream)
        free((void *)(uintptr_t)s->bytes);
    *s = (io_source){.fd = -1};
    return ok;
}
