/* SPDX-License-Identifier: Apache-2.0 */
/* The cache on disk: what it gives back is what was stored under that key, or nothing. */
#include "backends/gpu/cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/context.h"
#include "helpers.h"

enum { PATH = 512, WRITERS = 4, ROUNDS = 60, MEBIBYTE = 1 << 20 };

static char folder[64];

static void make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/fa-cache-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("FASTATTN_CACHE", folder, 1);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Files in a folder whose name ends in `suffix`; the last one's path goes to `path`. */
static int count_files(const char *where, const char *suffix, char path[PATH])
{
    int count = 0;
    DIR *listing = opendir(where);
    if (!listing)
        return -1;
    for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        size_t length = strlen(entry->d_name);
        if (length < strlen(suffix) || strcmp(entry->d_name + length - strlen(suffix), suffix) != 0 ||
            entry->d_name[0] == '.')
            continue;
        if (path)
            snprintf(path, PATH, "%s/%s", where, entry->d_name);
        count++;
    }
    closedir(listing);
    return count;
}

/* What the cache has under `key` is exactly `text`. */
static bool holds(const char *key, const char *text)
{
    void *blob = NULL;
    size_t size = 0;
    if (!fa_cache_load(context, key, &blob, &size))
        return false;
    ck_assert_uint_eq(size, strlen(text));
    ck_assert_mem_eq(blob, text, size);
    fa_release(context, blob, size);
    return true;
}

static bool misses(const char *key)
{
    void *blob = NULL;
    size_t size = 0;
    return !fa_cache_load(context, key, &blob, &size) && !blob;
}

static void store(const char *key, const char *text)
{
    fa_cache_store(context, key, text, strlen(text));
}

static size_t read_file(const char *path, unsigned char *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t size = fread(bytes, 1, room, file);
    fclose(file);
    return size;
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static int warnings;

static void count_warnings(void *user, fa_log_level level, const char *message)
{
    warnings += level == FA_LOG_WARN && strstr(message, user) != NULL;
}

START_TEST(failing_to_store_is_told_once)
{
    char blocked[96];
    snprintf(blocked, sizeof(blocked), "%s/file", folder);
    write_file(blocked, "x", 1);
    snprintf(blocked, sizeof(blocked), "%s/file/below", folder);
    setenv("FASTATTN_CACHE", blocked, 1);
    const fa_context_options options = {
        .struct_size = sizeof(options), .log = count_warnings, .log_user = blocked};
    fa_context *talking;
    ck_assert_int_eq(fa_context_create(&options, &talking), FA_OK);
    warnings = 0;
    fa_cache_store(talking, "key", "blob", 4);
    fa_cache_store(talking, "other", "blob", 4);
    ck_assert_int_eq(warnings, 1);
    ck_assert(misses("key"));
    fa_context_destroy(talking);
}
END_TEST

START_TEST(round_trip)
{
    ck_assert(misses("key"));
    store("key", "the blob");
    ck_assert(holds("key", "the blob"));
    store("another key", "");
    ck_assert(holds("another key", ""));
    store("key", "its successor, which is longer");
    ck_assert(holds("key", "its successor, which is longer"));
    ck_assert(misses("key "));
    ck_assert(misses(""));
    ck_assert_int_eq(count_files(folder, "", NULL), 2);

    /* Long keys and blobs, and every value of a byte. */
    static char long_key[5000];
    static unsigned char bytes[70000];
    memset(long_key, 'k', sizeof(long_key) - 1);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7);
    fa_cache_store(context, long_key, bytes, sizeof(bytes));
    void *blob;
    size_t size;
    ck_assert(fa_cache_load(context, long_key, &blob, &size));
    ck_assert_uint_eq(size, sizeof(bytes));
    ck_assert_mem_eq(blob, bytes, size);
    fa_release(context, blob, size);
}
END_TEST

START_TEST(where_it_lies)
{
    char home[128], expected[192];
    struct stat info;
    snprintf(home, sizeof(home), "%s/home", folder);
    ck_assert_int_eq(mkdir(home, 0755), 0);
    setenv("HOME", home, 1);
    static const char *const none[] = {"off", ""};
    for (int i = 0; i < COUNT(none); i++) {
        setenv("FASTATTN_CACHE", none[i], 1);
        store("key", "blob");
        ck_assert(misses("key"));
        ck_assert_int_eq(count_files(home, "", NULL), 0);
    }
    unsetenv("FASTATTN_CACHE");
    unsetenv("XDG_CACHE_HOME");
    store("key", "blob");
    ck_assert(holds("key", "blob"));
    snprintf(expected, sizeof(expected), "%s/.cache/fastattn", home);
    ck_assert_int_eq(count_files(expected, ".fa-cache", NULL), 1);
    ck_assert_int_eq(stat(expected, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);

    setenv("XDG_CACHE_HOME", "relative", 1); /* not followed */
    ck_assert(holds("key", "blob"));
    snprintf(expected, sizeof(expected), "%s/xdg/deep", home);
    setenv("XDG_CACHE_HOME", expected, 1);
    ck_assert(misses("key"));
    store("key", "blob");
    snprintf(expected, sizeof(expected), "%s/xdg/deep/fastattn", home);
    ck_assert_int_eq(count_files(expected, ".fa-cache", NULL), 1);

    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    store("key", "blob");
    ck_assert(misses("key"));
    static char endless[5000];
    memset(endless, '/', sizeof(endless) - 1);
    setenv("FASTATTN_CACHE", endless, 1);
    store("key", "blob");
    ck_assert(misses("key"));
}
END_TEST

/* A changed byte, wherever it stands, is noticed; and the file is good again after the next store. */
START_TEST(damage_is_a_miss)
{
    char path[PATH];
    unsigned char good[256], bad[256];
    store("key", "a small blob");
    ck_assert_int_eq(count_files(folder, ".fa-cache", path), 1);
    size_t size = read_file(path, good, sizeof(good));
    ck_assert_uint_eq(size, 32 + 3 + 12);
    for (size_t i = 0; i < size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bad, good, size);
            bad[i] = (unsigned char)(bad[i] ^ (1 << bit));
            write_file(path, bad, size);
            ck_assert_msg(misses("key"), "byte %zu, bit %d", i, bit);
        }
    }
    for (size_t length = 0; length < size; length++) {
        write_file(path, good, length);
        ck_assert_msg(misses("key"), "cut to %zu bytes", length);
    }
    memcpy(bad, good, size);
    bad[size] = 0;
    write_file(path, bad, size + 1);
    ck_assert(misses("key"));
    store("key", "a small blob");
    ck_assert(holds("key", "a small blob"));
}
END_TEST

START_TEST(another_key_of_the_same_name_is_a_miss)
{
    char path[PATH];
    unsigned char bytes[256];
    store("other", "not its blob");
    ck_assert_int_eq(count_files(folder, ".fa-cache", path), 1);
    size_t size = read_file(path, bytes, sizeof(bytes));
    ck_assert_int_eq(unlink(path), 0);
    store("mine!", "mine");
    ck_assert_int_eq(count_files(folder, ".fa-cache", path), 1);
    write_file(path, bytes, size);
    ck_assert(misses("mine!"));
    store("mine!", "mine");
    ck_assert(holds("mine!", "mine"));
}
END_TEST

/* Things of that name that are no files neither hang a reader nor harm it. */
START_TEST(what_is_no_file_is_a_miss)
{
    char path[PATH];
    store("key", "blob");
    ck_assert_int_eq(count_files(folder, ".fa-cache", path), 1);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert(misses("key"));
    store("key", "blob");
    ck_assert(holds("key", "blob"));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert(misses("key"));
    store("key", "blob");
    ck_assert(misses("key"));
    ck_assert_int_eq(count_files(folder, "", NULL), 1); /* nothing temporary is left */
}
END_TEST

/* An entry that is a link to another's file, or that others could have written, is none. */
START_TEST(what_others_wrote_is_a_miss)
{
    char path[PATH], elsewhere[PATH];
    store("key", "blob");
    ck_assert_int_eq(count_files(folder, ".fa-cache", path), 1);
    static const mode_t bad[] = {0620, 0602};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(chmod(path, bad[i]), 0);
        ck_assert_msg(misses("key"), "mode %o", (unsigned)bad[i]);
    }
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert(holds("key", "blob"));
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", folder);
    ck_assert_int_eq(rename(path, elsewhere), 0);
    ck_assert_int_eq(symlink(elsewhere, path), 0);
    ck_assert(misses("key"));
    /* The next store takes the link's place, and leaves alone what it led to. */
    store("key", "its successor");
    ck_assert(holds("key", "its successor"));
    ck_assert_int_eq(access(elsewhere, F_OK), 0);
    if (geteuid() != 0)
        return;
    ck_assert_int_eq(chown(path, 65534, 65534), 0);
    ck_assert(misses("key"));
}
END_TEST

/* Whoever may write to the folder may put there what he likes. */
START_TEST(a_folder_that_others_may_write_to_is_not_used)
{
    const fa_context_options options = {
        .struct_size = sizeof(options), .log = count_warnings, .log_user = (void *)(uintptr_t) "nobody else"};
    fa_context *talking;
    store("key", "blob");
    ck_assert_int_eq(fa_context_create(&options, &talking), FA_OK);
    warnings = 0;
    static const mode_t bad[] = {0720, 0702};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(chmod(folder, bad[i]), 0);
        ck_assert_msg(misses("key"), "mode %o", (unsigned)bad[i]);
        fa_cache_store(talking, "other", "blob", 4);
        ck_assert_int_eq(count_files(folder, "", NULL), 1);
    }
    ck_assert_int_eq(warnings, 1);
    fa_context_destroy(talking);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    ck_assert(holds("key", "blob"));
    if (geteuid() != 0)
        return;
    ck_assert_int_eq(chown(folder, 65534, 65534), 0);
    ck_assert(misses("key"));
    store("other", "blob");
    ck_assert_int_eq(count_files(folder, "", NULL), 1);
}
END_TEST

static void set_age(const char *path, time_t seconds)
{
    struct timespec times[2];
    ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &times[0]), 0);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

START_TEST(the_oldest_go)
{
    static const size_t size = 12 * MEBIBYTE;
    static const char *const foreign[] = {"notes.txt",
                                          "tmp-stale",
                                          "tmp-000000",
                                          "0123456789abcdef.fa-cache.part",
                                          "notes.fa-cache",
                                          "0123456789abcdef.fa-cache.0123456789abcdeg",
                                          "0123456789ABCDEF.fa-cache.0123456789ABCDEF"};
    char key[16], path[COUNT(foreign)][PATH], stale[PATH], fresh[PATH], linked[PATH];
    char *bytes = calloc(1, size);
    ck_assert_ptr_nonnull(bytes);
    for (int i = 0; i < COUNT(foreign); i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%s", folder, foreign[i]);
        write_file(path[i], "x", 1);
        set_age(path[i], 1000000);
    }
    snprintf(stale, sizeof(stale), "%s/0123456789abcdef.fa-cache.0000000a00000000", folder);
    snprintf(fresh, sizeof(fresh), "%s/0123456789abcdef.fa-cache.0000000a00000001", folder);
    snprintf(linked, sizeof(linked), "%s/0123456789abcdef.fa-cache.0000000a00000002", folder);
    write_file(stale, "x", 1);
    write_file(fresh, "x", 1);
    set_age(stale, 100000);
    ck_assert_int_eq(symlink(path[0], linked), 0);
    for (int i = 0; i < 8; i++) {
        /* Their order in time is not that of their keys: 3 is the oldest, then 4 ... */
        snprintf(key, sizeof(key), "%d", (i + 3) % 8);
        fa_cache_store(context, key, bytes, size);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* longer than a clock's tick */
    }
    free(bytes);
    ck_assert_int_eq(count_files(folder, ".fa-cache", NULL), 5 + 1);
    for (int i = 0; i < 8; i++) {
        void *blob;
        size_t got;
        snprintf(key, sizeof(key), "%d", (i + 3) % 8);
        bool there = fa_cache_load(context, key, &blob, &got);
        ck_assert_msg(there == (i >= 3), "number %d", i);
        if (there)
            fa_release(context, blob, got);
    }
    for (int i = 0; i < COUNT(foreign); i++)
        ck_assert_msg(access(path[i], F_OK) == 0, "%s was removed", path[i]);
    ck_assert_int_eq(access(fresh, F_OK), 0);
    ck_assert_int_eq(access(linked, F_OK), 0);
    ck_assert_int_ne(access(stale, F_OK), 0);
    /* What is too large for all of it is not stored. */
    static char one[1];
    fa_cache_store(context, "huge", one, FA_CACHE_BYTES);
    ck_assert(misses("huge"));
}
END_TEST

START_TEST(without_memory_it_is_a_miss)
{
    store("key", "blob");
    memory.fail_at = atomic_load(&memory.calls);
    ck_assert(misses("key"));
    memory.fail_at = -1;
    ck_assert(holds("key", "blob"));
}
END_TEST

/* Blobs of one key that differ in length: a reader sees one of them, whole. */
static void write_and_read(int writer)
{
    char key[16], text[2][64];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof(key), "key %d", i % 3);
        snprintf(text[0], sizeof(text[0]), "%s: short", key);
        snprintf(text[1], sizeof(text[1]), "%s: one that is somewhat longer", key);
        store(key, text[(i + writer) % 2]);
        void *blob;
        size_t size;
        if (!fa_cache_load(context, key, &blob, &size))
            abort(); /* a rename leaves no gap */
        if ((size != strlen(text[0]) || memcmp(blob, text[0], size) != 0) &&
            (size != strlen(text[1]) || memcmp(blob, text[1], size) != 0))
            abort();
        fa_release(context, blob, size);
    }
}

static void *writer_thread(void *number)
{
    write_and_read((int)(intptr_t)number);
    return NULL;
}

START_TEST(threads_share_it)
{
    pthread_t thread[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, writer_thread, (void *)(intptr_t)i), 0);
    for (int i = 0; i < WRITERS; i++)
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
    ck_assert_int_eq(count_files(folder, "", NULL), 3);
}
END_TEST

START_TEST(processes_share_it)
{
    pid_t child[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        child[i] = fork();
        ck_assert_int_ge(child[i], 0);
        if (child[i] == 0) {
            write_and_read(i);
            _exit(0);
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        int state;
        ck_assert_int_eq(waitpid(child[i], &state, 0), child[i]);
        ck_assert(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    }
    ck_assert_int_eq(count_files(folder, "", NULL), 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache");
    TCase *tc = add_context_case(suite, "cache");
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_test(tc, failing_to_store_is_told_once); /* first: once is once in a process */
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, where_it_lies);
    tcase_add_test(tc, damage_is_a_miss);
    tcase_add_test(tc, another_key_of_the_same_name_is_a_miss);
    tcase_add_test(tc, what_is_no_file_is_a_miss);
    tcase_add_test(tc, what_others_wrote_is_a_miss);
    tcase_add_test(tc, a_folder_that_others_may_write_to_is_not_used);
    tcase_add_test(tc, the_oldest_go);
    tcase_add_test(tc, without_memory_it_is_a_miss);
    tcase_add_test(tc, threads_share_it);
    tcase_add_test(tc, processes_share_it);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
