/* SPDX-License-Identifier: Apache-2.0 */
/* What output.h and memory.h promise, by what Windows has for it. Takes the place of output.c, temporary.c, memory.c. */
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "memory.h"

enum { NAME_SIZE = 64, MAX_TRIES = 1000, REASON_SIZE = 160, STDIN = 0, STDOUT = 1, STDERR = 2 };

static int standard_output = STDOUT;

static bool is_dash(const char *path)
{
    return strcmp(path, "-") == 0;
}

/* Why the last call of the system failed. */
static const char *reason(char text[REASON_SIZE])
{
    const DWORD code = GetLastError();
    DWORD length = FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code, 0,
                                  text, REASON_SIZE, NULL);
    while (length > 0 && strchr("\r\n. ", text[length - 1]))
        length--;
    text[length] = '\0';
    if (length == 0)
        snprintf(text, REASON_SIZE, "error %lu", code);
    return text;
}

/* What a name leads to. */
typedef struct place {
    bool exists, folder, file; /* file: on a disk, so that it can be replaced */
    BY_HANDLE_FILE_INFORMATION info;
    char *target; /* its full name, links followed, to be freed */
} place;

static void look_handle(HANDLE handle, place *p)
{
    p->exists = true;
    p->file = GetFileType(handle) == FILE_TYPE_DISK && GetFileInformationByHandle(handle, &p->info);
    p->folder = p->file && (p->info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY);
}

/* False when memory is short. */
static bool look(const char *path, int dash, place *p)
{
    char text[MAX_PATH] = "";

    *p = (place){.exists = false};
    if (is_dash(path)) {
        look_handle((HANDLE)_get_osfhandle(dash), p);
        return true;
    }
    const HANDLE handle = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                                      OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (handle != INVALID_HANDLE_VALUE) {
        look_handle(handle, p);
        if (p->file && GetFinalPathNameByHandleA(handle, text, sizeof(text), 0) >= sizeof(text))
            text[0] = '\0';
        CloseHandle(handle);
    }
    if (!text[0] && GetFullPathNameA(path, sizeof(text), text, NULL) >= sizeof(text))
        text[0] = '\0';
    p->target = strdup(text[0] ? text : path);
    return p->target != NULL;
}

static bool same_file(const place *a, const place *b)
{
    return a->file && b->file && a->info.dwVolumeSerialNumber == b->info.dwVolumeSerialNumber &&
           a->info.nFileIndexHigh == b->info.nFileIndexHigh && a->info.nFileIndexLow == b->info.nFileIndexLow;
}

/* One of the process's own streams, where the path is another name of the file that it goes to; else -1. */
static int own_stream(const place *p)
{
    const int streams[] = {standard_output, STDERR};
    place own;

    for (int i = 0; i < 2; i++) {
        if (look("-", streams[i], &own) && same_file(p, &own))
            return streams[i];
    }
    return -1;
}

void io_hold_streams(void)
{
    for (int fd = STDIN; fd <= STDERR; fd++) {
        if (_get_osfhandle(fd) == -1)
            (void)_open("NUL", fd == STDIN ? _O_WRONLY : _O_RDONLY);
    }
}

bool io_output_is_stdout(const char *path)
{
    place p;
    const bool found = is_dash(path) || (look(path, STDOUT, &p) && own_stream(&p) == standard_output);

    if (!is_dash(path))
        free(p.target);
    return found;
}

bool io_output_claim_stdout(io_error *err)
{
    if (standard_output != STDOUT)
        return true;
    (void)fflush(stdout);
    const int kept = _dup(STDOUT);
    if (kept < 0 || _dup2(STDERR, STDOUT) < 0)
        return io_fail(err, "-", "open", "%s, expected standard output and standard error to be open",
                       strerror(errno));
    standard_output = kept;
    return true;
}

static bool compare(const char *a, const char *b, int dash_of_b, bool also_new)
{
    place p, q = {.exists = false};
    bool same = look(a, standard_output, &p) && look(b, dash_of_b, &q) &&
                (same_file(&p, &q) || (also_new && !p.exists && !q.exists && !_stricmp(p.target, q.target)));

    free(p.target);
    free(q.target);
    return same;
}

bool io_output_same(const char *a, const char *b)
{
    return (is_dash(a) && is_dash(b)) || compare(a, b, standard_output, true);
}

bool io_output_replaces(const char *path, const char *input)
{
    return compare(path, input, STDIN, false);
}

static bool open_stream(io_output *o, int stream, io_error *err)
{
    o->fd = stream >= 0 ? _dup(stream) : _open(o->path, _O_WRONLY | _O_BINARY);
    if (o->fd < 0)
        return io_fail(err, o->path, "open", "%s, expected to write to it", strerror(errno));
    (void)_setmode(o->fd, _O_BINARY);
    return true;
}

static size_t folder_length(const char *path)
{
    size_t length = strlen(path);

    while (length > 0 && !strchr("/\\:", path[length - 1]))
        length--;
    return length;
}

/* Whether the system removes the file once nobody has it open, as after the end of the process. */
static bool set_doomed(HANDLE handle, bool doomed)
{
    FILE_DISPOSITION_INFO info = {.DeleteFile = doomed};
    return SetFileInformationByHandle(handle, FileDispositionInfo, &info, sizeof(info));
}

static bool open_file(io_output *o, io_error *err)
{
    char text[REASON_SIZE];
    const size_t folder = folder_length(o->target);
    HANDLE handle = INVALID_HANDLE_VALUE;
    char *name = malloc(folder + NAME_SIZE);

    if (!name)
        return io_fail(err, o->path, "memory", "found none, expected room for a temporary name");
    memcpy(name, o->target, folder);
    for (int i = 0; i < MAX_TRIES && handle == INVALID_HANDLE_VALUE; i++) {
        snprintf(name + folder, NAME_SIZE, ".fastattn-%lu-%d.tmp", GetCurrentProcessId(), i);
        handle = CreateFileA(name, GENERIC_WRITE | DELETE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
        if (handle == INVALID_HANDLE_VALUE && GetLastError() != ERROR_FILE_EXISTS)
            break;
    }
    if (handle == INVALID_HANDLE_VALUE) {
        free(name);
        return io_fail(err, o->path, "create",
                       "%s for a temporary file beside it, expected a folder that can be "
                       "written to",
                       reason(text));
    }
    (void)set_doomed(handle, true);
    o->temporary.name = name;
    o->fd = _open_osfhandle((intptr_t)handle, _O_WRONLY | _O_BINARY);
    if (o->fd >= 0)
        return true;
    CloseHandle(handle);
    return io_fail(err, o->path, "create", "%s, expected a descriptor", strerror(errno));
}

bool io_output_begin(io_output *o, const char *path, io_error *err)
{
    place p;

    *o = (io_output){.path = path, .fd = -1};
    if (is_dash(path))
        return open_stream(o, standard_output, err);
    if (path[folder_length(path)] == '\0')
        return io_fail(err, path, "create", "found no file name, expected one");
    if (!look(path, standard_output, &p))
        return io_fail(err, path, "memory", "found none, expected room for a file name");
    const int stream = p.exists ? own_stream(&p) : -1;
    bool ok;
    if (p.folder)
        ok = io_fail(err, path, "create", "found a folder there, expected a file, a pipe or a new name");
    else if (stream >= 0 || (p.exists && !p.file))
        ok = open_stream(o, stream, err);
    else if (p.exists && (p.info.dwFileAttributes & FILE_ATTRIBUTE_READONLY))
        ok = io_fail(err, path, "create", "%s, expected to be allowed to write to it", strerror(EACCES));
    else {
        o->target = p.target;
        return open_file(o, err);
    }
    free(p.target);
    return ok;
}

bool io_output_possible(const char *path, io_error *err)
{
    io_output o;
    const bool ok = io_output_begin(&o, path, err);

    io_output_discard(&o);
    return ok;
}

bool io_output_write(io_output *o, const void *data, size_t size, io_error *err)
{
    const unsigned char *src = data;

    while (size > 0) {
        const int n = _write(o->fd, src, (unsigned)(size < IO_MAX_CHUNK ? size : IO_MAX_CHUNK));
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
    bool ok = !o->target || (_commit(o->fd) == 0 && set_doomed((HANDLE)_get_osfhandle(o->fd), false)) ||
              io_fail(err, o->path, "sync", "%s, expected the data to reach the disk", strerror(errno));
    if (_close(o->fd) != 0 && ok)
        ok = io_fail(err, o->path, "close", "%s, expected the data to reach the disk", strerror(errno));
    o->fd = -1;
    return ok;
}

bool io_output_commit(io_output *const *outputs, int count, io_error *err)
{
    char text[REASON_SIZE];

    for (int i = 0; i < count; i++) {
        if (!outputs[i]->target)
            continue;
        if (!MoveFileExA(outputs[i]->temporary.name, outputs[i]->target,
                         MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
            return io_fail(err, outputs[i]->path, "rename", "%s, expected to put the finished file in place",
                           reason(text));
        free(outputs[i]->temporary.name);
        outputs[i]->temporary.name = NULL;
    }
    return true;
}

void io_output_discard(io_output *o)
{
    if (o->fd >= 0)
        (void)_close(o->fd);
    if (o->temporary.name)
        (void)DeleteFileA(o->temporary.name);
    free(o->temporary.name);
    free(o->target);
    *o = (io_output){.fd = -1};
}

void io_memory_available(io_memory *m)
{
    MEMORYSTATUSEX status = {.dwLength = sizeof(status)};

    *m = (io_memory){.bytes = UINT64_MAX};
    if (!GlobalMemoryStatusEx(&status))
        return;
    const struct {
        uint64_t bytes;
        const char *limit;
    } limits[] = {{status.ullAvailPhys, "the machine's memory"},
                  {status.ullAvailPageFile, "what the system can commit"},
                  {status.ullAvailVirtual, "the address space"}};
    for (int i = 0; i < 3; i++) {
        if (limits[i].bytes < m->bytes) {
            m->bytes = limits[i].bytes;
            snprintf(m->limit, sizeof(m->limit), "%s", limits[i].limit);
        }
    }
}
