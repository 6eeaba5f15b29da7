/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/gpu/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/context.h"
#include "core/environment.h"
#include "core/status.h"

#define SUFFIX ".fa-cache"

/* An entry is named by 16 hexadecimal digits and SUFFIX. While it is written, a dot and 16 more digits follow. */
enum { PATH_SIZE = 4096, NAME_SIZE = 48, DIGITS = 16, STALE_SECONDS = 3600 };

/* A file is this, the key without its terminator, the blob. Lengths and checksum leave no byte unchecked. */
typedef struct header {
    char magic[8];
    uint64_t key_bytes, blob_bytes;
    uint64_t checksum; /* of key and blob */
} header;

static const char magic[8] = {'F', 'A', 'C', 'A', 'C', 'H', 'E', '1'};

static uint64_t hash_on(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

uint64_t fa_cache_hash(const void *bytes, size_t size)
{
    return hash_on(0xcbf29ce484222325u, bytes, size);
}

/* False where there is no folder to use, or its name is too long to work with. */
static bool find_folder(char folder[PATH_SIZE])
{
    const char *chosen = fa_environment("FASTATTN_CACHE"), *xdg = fa_environment("XDG_CACHE_HOME");
    const char *home = fa_environment("HOME");
    int length;
    if (chosen)
        length = strcmp(chosen, "off") == 0 ? 0 : snprintf(folder, PATH_SIZE, "%s", chosen);
    else if (xdg && xdg[0] == '/') /* the XDG specification ignores relative ones */
        length = snprintf(folder, PATH_SIZE, "%s/fastattn", xdg);
    else if (home && home[0] == '/')
        length = snprintf(folder, PATH_SIZE, "%s/.cache/fastattn", home);
    else
        length = 0;
    return length > 0 && length < PATH_SIZE - 2 * NAME_SIZE;
}

static void name_entry(char name[NAME_SIZE], const char *key)
{
    (void)snprintf(name, NAME_SIZE, "%016llx" SUFFIX, (unsigned long long)fa_cache_hash(key, strlen(key)));
}

typedef enum name_kind { FOREIGN, ENTRY, TEMPORARY } name_kind;

/* What a name in the folder says: only names that nobody else gives are ours. */
static name_kind kind_of(const char *name)
{
    static const char digits[] = "0123456789abcdef";
    if (strspn(name, digits) != DIGITS || strncmp(name + DIGITS, SUFFIX, strlen(SUFFIX)) != 0)
        return FOREIGN;
    const char *rest = name + DIGITS + strlen(SUFFIX);
    if (rest[0] == '\0')
        return ENTRY;
    return rest[0] == '.' && strspn(rest + 1, digits) == DIGITS && rest[1 + DIGITS] == '\0' ? TEMPORARY
                                                                                            : FOREIGN;
}

/* Whether what stat() told is this user's alone to write. */
static bool is_private(const struct stat *info)
{
    return info->st_uid == geteuid() && (info->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool read_all(int file, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t got = read(file, at, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

static bool write_all(int file, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t put = write(file, at, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        size -= (size_t)put;
    }
    return true;
}

/* Whether the file goes on with these bytes. */
static bool read_same(int file, const char *bytes, size_t size)
{
    char part[256];
    for (size_t done = 0, count; done < size; done += count) {
        count = size - done < sizeof(part) ? size - done : sizeof(part);
        if (!read_all(file, part, count) || memcmp(part, bytes + done, count) != 0)
            return false;
    }
    return true;
}

static uint64_t checksum_of(const char *key, const void *blob, size_t size)
{
    return hash_on(fa_cache_hash(key, strlen(key)), blob, size);
}

static bool load_file(const fa_context *context, int file, const char *key, void **blob, size_t *size)
{
    struct stat info;
    header head;
    /* What another user wrote, or could have, is not run as ours. */
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode) || !is_private(&info) ||
        info.st_size < (off_t)sizeof(head) || (uint64_t)info.st_size > FA_CACHE_BYTES ||
        !read_all(file, &head, sizeof(head)))
        return false;
    uint64_t key_bytes = strlen(key), body = (uint64_t)info.st_size - sizeof(head);
    if (memcmp(head.magic, magic, sizeof(magic)) != 0 || head.key_bytes != key_bytes || key_bytes > body ||
        head.blob_bytes != body - key_bytes || !read_same(file, key, (size_t)key_bytes))
        return false;
    size_t bytes = (size_t)head.blob_bytes;
    void *loaded = fa_alloc(context, bytes);
    if (!loaded)
        return false;
    if (!read_all(file, loaded, bytes) || checksum_of(key, loaded, bytes) != head.checksum) {
        fa_release(context, loaded, bytes);
        return false;
    }
    *blob = loaded;
    *size = bytes;
    return true;
}

/* -1 with errno: there is none, or others may write there and so put a file of their choice in place of ours. */
static int open_folder(const char *folder)
{
    struct stat info;
    int opened = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened >= 0 && (fstat(opened, &info) != 0 || !is_private(&info))) {
        (void)close(opened);
        errno = EPERM;
        return -1;
    }
    return opened;
}

bool fa_cache_load(const fa_context *context, const char *key, void **blob, size_t *size)
{
    char path[PATH_SIZE], name[NAME_SIZE];
    int folder = find_folder(path) ? open_folder(path) : -1;
    if (folder < 0)
        return false;
    name_entry(name, key);
    /* O_NONBLOCK: not to hang on a pipe of that name. */
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    (void)close(folder);
    if (file < 0)
        return false;
    bool loaded = load_file(context, file, key, blob, size);
    (void)close(file);
    return loaded;
}

/* The folder and its parents, for this user alone. */
static bool make_folder(char *folder)
{
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdir(folder, 0700);
        int error = errno;
        *slash = '/';
        /* A parent that is there may be one that cannot be written, and says so in other ways than EEXIST. */
        if (made != 0 && error != EEXIST && error != EROFS && error != EACCES)
            return false;
    }
    return mkdir(folder, 0700) == 0 || errno == EEXIST;
}

static bool is_older(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

/*
 * One walk over our files: their bytes, and the name of the oldest but `kept`, "" where there is none.
 * Temporary files that no writer can still be at work on are removed on the way.
 */
static uint64_t measure(DIR *listing, const char *kept, char oldest[NAME_SIZE])
{
    const struct dirent *entry;
    struct timespec age = {0};
    uint64_t total = 0;
    oldest[0] = '\0';
    rewinddir(listing);
    while ((entry = readdir(listing)) != NULL) {
        name_kind kind = kind_of(entry->d_name);
        struct stat info;
        if (kind == FOREIGN || fstatat(dirfd(listing), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode) || info.st_uid != geteuid())
            continue;
        if (kind == TEMPORARY) {
            if (info.st_mtim.tv_sec < time(NULL) - STALE_SECONDS)
                (void)unlinkat(dirfd(listing), entry->d_name, 0);
            continue;
        }
        total += (uint64_t)info.st_size;
        if (strcmp(entry->d_name, kept) != 0 && (oldest[0] == '\0' || is_older(&info.st_mtim, &age))) {
            memcpy(oldest, entry->d_name, DIGITS + sizeof(SUFFIX));
            age = info.st_mtim;
        }
    }
    return total;
}

/* Removes the oldest files until the rest is no larger than it may be. Closes the folder. */
static void trim(int folder, const char *kept)
{
    DIR *listing = fdopendir(folder);
    if (!listing) {
        (void)close(folder);
        return;
    }
    char oldest[NAME_SIZE];
    /* Each turn removes one, or finds that it is not allowed to. */
    while (measure(listing, kept, oldest) > FA_CACHE_BYTES && oldest[0] != '\0') {
        if (unlinkat(dirfd(listing), oldest, 0) != 0 && errno != ENOENT)
            break;
    }
    (void)closedir(listing);
}

/* A new file beside the entry. Process and count tell writers apart; where processes share no numbers, O_EXCL does. */
static int open_temporary(int folder, const char *entry, char name[NAME_SIZE])
{
    static atomic_uint count;
    int file = -1;
    for (int tries = 0; file < 0 && tries < 1000; tries++) {
        (void)snprintf(name, NAME_SIZE, "%.*s.%08lx%08x", DIGITS + (int)strlen(SUFFIX), entry,
                       (unsigned long)getpid() & 0xffffffffu, atomic_fetch_add(&count, 1));
        file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file < 0 && errno != EEXIST)
            break;
    }
    return file;
}

/* Written aside and renamed, so that a reader sees the old file or the new one, whole. */
static bool store_file(int folder, const char *name, const char *key, const void *blob, size_t size)
{
    char temporary[NAME_SIZE];
    header head = {.key_bytes = strlen(key), .blob_bytes = size, .checksum = checksum_of(key, blob, size)};
    memcpy(head.magic, magic, sizeof(magic));
    int file = open_temporary(folder, name, temporary);
    if (file < 0)
        return false;
    bool good = write_all(file, &head, sizeof(head)) && write_all(file, key, strlen(key)) &&
                write_all(file, blob, size);
    good = close(file) == 0 && good;
    good = good && renameat(folder, temporary, folder, name) == 0;
    if (!good) {
        int error = errno;
        (void)unlinkat(folder, temporary, 0);
        errno = error;
    }
    return good;
}

void fa_cache_store(const fa_context *context, const char *key, const void *blob, size_t size)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    char path[PATH_SIZE], name[NAME_SIZE];
    if (!find_folder(path) || size > FA_CACHE_BYTES - sizeof(header) - strlen(key))
        return;
    name_entry(name, key);
    int folder = make_folder(path) ? open_folder(path) : -1;
    if (folder >= 0 && store_file(folder, name, key, blob, size)) {
        trim(folder, name);
        return;
    }
    int error = errno;
    if (folder >= 0)
        (void)close(folder);
    if (!atomic_flag_test_and_set(&told))
        fa_log(context, FA_LOG_WARN, "nothing can be cached in %.512s: %s", path,
               error == EPERM ? "expected a folder that is this user's and that nobody else may write to"
                              : strerror(error));
}
