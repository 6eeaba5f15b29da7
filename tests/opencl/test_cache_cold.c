/* SPDX-License-Identifier: Apache-2.0 */
/* Processes one after the other with one cache: what is compiled once is not compiled again. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life.h"
#include "suites.h"

enum { MAX_FILES = 16, MAX_BYTES = 1 << 20 };

static char folder[64];

static void setup(void)
{
    make_cache_folder(folder);
}

static void teardown(void)
{
    remove_cache_folder(folder);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The folder's files, by name, in the order of their names. */
static int list_files(char names[MAX_FILES][400])
{
    int count = 0;
    DIR *listing = opendir(folder);
    ck_assert_ptr_nonnull(listing);
    for (const struct dirent *e; (e = readdir(listing)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        ck_assert_int_lt(count, MAX_FILES);
        (void)snprintf(names[count++], 400, "%s/%s", folder, e->d_name);
    }
    (void)closedir(listing);
    qsort(names, (size_t)count, sizeof(names[0]), by_name);
    return count;
}

static size_t read_file(const char *path, unsigned char *bytes)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t size = fread(bytes, 1, MAX_BYTES, file);
    ck_assert_uint_lt(size, MAX_BYTES);
    (void)fclose(file);
    return size;
}

static void write_file(const char *path, const unsigned char *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static outcome run_process(void)
{
    outcome r;
    const life l = {.fail_at = -1};
    live(&l, &r);
    ck_assert_msg(r.status == FA_OK, "%s: %s", r.step, r.message);
    assert_clean(&r, "a process with a cache");
    return r;
}

START_TEST(second_process_compiles_nothing)
{
    char names[MAX_FILES][400];
    ck_assert_int_eq(list_files(names), 0);
    const outcome first = run_process();
    ck_assert_int_gt(first.compiled, 0);
    ck_assert_int_eq(calls_of(&first, "clCreateProgramWithBinary"), 0);
    ck_assert_int_eq(list_files(names), first.compiled);
    for (int i = 0; i < first.compiled; i++) {
        struct stat info;
        ck_assert_int_eq(stat(names[i], &info), 0);
        ck_assert_int_eq(info.st_mode & 077, 0); /* this user's alone */
    }
    const outcome second = run_process();
    ck_assert_int_eq(second.compiled, 0);
    ck_assert_int_eq(calls_of(&second, "clCreateProgramWithSource"), 0);
    ck_assert_int_eq(calls_of(&second, "clCreateProgramWithBinary"), first.compiled);
    ck_assert_int_eq(list_files(names), first.compiled);
}
END_TEST

START_TEST(second_device_of_a_process_compiles_nothing)
{
    outcome r;
    const life l = {.fail_at = -1, .rounds = 2};
    live(&l, &r);
    ck_assert_msg(r.status == FA_OK, "%s: %s", r.step, r.message);
    assert_clean(&r, "two devices");
    ck_assert_int_gt(r.compiled, 0);
    ck_assert_int_eq(calls_of(&r, "clCreateProgramWithBinary"), r.compiled);
}
END_TEST

/* The first file is spoilt: its program is compiled once more, and the file is as it was. */
static void assert_repaired(const unsigned char *spoilt, size_t size, const char *how)
{
    char names[MAX_FILES][400];
    static unsigned char before[MAX_BYTES], after[MAX_BYTES];
    int count = list_files(names);
    ck_assert_int_gt(count, 0);
    size_t whole = read_file(names[0], before);
    write_file(names[0], spoilt, size);
    const outcome r = run_process();
    ck_assert_msg(r.compiled == 1, "%s: %d programs compiled, expected 1", how, r.compiled);
    ck_assert_int_eq(list_files(names), count);
    ck_assert_msg(read_file(names[0], after) == whole && memcmp(before, after, whole) == 0,
                  "%s: the file is not as it was", how);
    ck_assert_int_eq(run_process().compiled, 0);
}

START_TEST(damaged_files_are_replaced)
{
    char names[MAX_FILES][400];
    static unsigned char bytes[MAX_BYTES];
    (void)run_process();
    ck_assert_int_gt(list_files(names), 0);
    size_t size = read_file(names[0], bytes);
    ck_assert_uint_gt(size, 64);
    assert_repaired(bytes, 0, "empty");
    assert_repaired(bytes, 1, "one byte");
    assert_repaired(bytes, size / 2, "half");
    assert_repaired(bytes, size - 1, "one byte short");
    bytes[size] = 0;
    assert_repaired(bytes, size + 1, "one byte more");
    const size_t at[] = {0, 9, 17, 25, 40, size / 2, size - 1};
    for (int i = 0; i < COUNT(at); i++) {
        char how[64];
        (void)snprintf(how, sizeof(how), "byte %zu of %zu flipped", at[i], size);
        bytes[at[i]] ^= 0x20;
        assert_repaired(bytes, size, how);
        bytes[at[i]] ^= 0x20;
    }
}
END_TEST

START_TEST(another_programs_file_is_replaced)
{
    char names[MAX_FILES][400];
    static unsigned char bytes[MAX_BYTES];
    (void)run_process();
    ck_assert_int_gt(list_files(names), 1);
    size_t size = read_file(names[1], bytes);
    assert_repaired(bytes, size, "whole, but of another key");
}
END_TEST

/* The driver was updated and still calls itself the same. */
START_TEST(refused_binaries_are_compiled)
{
    const int programs = run_process().compiled;
    static const struct {
        const char *function;
        cl_int error;
    } refusal[] = {{"clCreateProgramWithBinary", CL_INVALID_BINARY},
                   {"clBuildProgram", CL_BUILD_PROGRAM_FAILURE}};
    for (int i = 0; i < COUNT(refusal); i++) {
        for (int n = 0; n < programs; n++) {
            outcome r;
            const life l = {
                .function = refusal[i].function, .after = n, .error = refusal[i].error, .fail_at = -1};
            live(&l, &r);
            ck_assert_msg(r.status == FA_OK, "%s: %s", r.step, r.message);
            assert_clean(&r, refusal[i].function);
            ck_assert_int_eq(r.compiled, 1);
        }
    }
}
END_TEST

START_TEST(another_driver_has_files_of_its_own)
{
    char names[MAX_FILES][400];
    const int programs = run_process().compiled;
    setenv("STUB_DEVICES", "cpu", 1);
    const outcome r = run_process();
    ck_assert_int_gt(r.compiled, 0);
    ck_assert_int_eq(list_files(names), programs + r.compiled);
}
END_TEST

START_TEST(folders_that_cannot_be_written)
{
    char names[MAX_FILES][400], path[128];
    if (geteuid() != 0) { /* root writes everywhere */
        ck_assert_int_eq(chmod(folder, 0500), 0);
        ck_assert_int_gt(run_process().compiled, 0);
        ck_assert_int_eq(list_files(names), 0);
        ck_assert_int_eq(chmod(folder, 0700), 0);
    }
    (void)snprintf(path, sizeof(path), "%s/file", folder);
    write_file(path, (const unsigned char *)"x", 1);
    (void)snprintf(path, sizeof(path), "%s/file/folder", folder);
    setenv("FASTATTN_CACHE", path, 1);
    ck_assert_int_gt(run_process().compiled, 0);
    ck_assert_int_gt(run_process().compiled, 0);
    ck_assert_int_eq(list_files(names), 1);
}
END_TEST

START_TEST(folders_are_made)
{
    char path[128], inner[160];
    (void)snprintf(path, sizeof(path), "%s/a/b", folder);
    setenv("FASTATTN_CACHE", path, 1);
    ck_assert_int_gt(run_process().compiled, 0);
    ck_assert_int_eq(run_process().compiled, 0);
    remove_cache_folder(path);
    (void)snprintf(inner, sizeof(inner), "%s/a", folder);
    remove_cache_folder(inner);
    unsetenv("FASTATTN_CACHE");
    setenv("XDG_CACHE_HOME", folder, 1);
    ck_assert_int_gt(run_process().compiled, 0);
    ck_assert_int_eq(run_process().compiled, 0);
    (void)snprintf(path, sizeof(path), "%s/fastattn", folder);
    remove_cache_folder(path);
}
END_TEST

START_TEST(off_writes_nothing)
{
    char names[MAX_FILES][400];
    static const char *const values[] = {"off", ""};
    setenv("XDG_CACHE_HOME", folder, 1);
    setenv("HOME", folder, 1);
    for (int i = 0; i < COUNT(values); i++) {
        setenv("FASTATTN_CACHE", values[i], 1);
        ck_assert_int_gt(run_process().compiled, 0);
        ck_assert_int_gt(run_process().compiled, 0);
        ck_assert_int_eq(list_files(names), 0);
    }
}
END_TEST

void add_cache_tests(Suite *suite)
{
    TCase *tc = add_context_case(suite, "cache");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, second_process_compiles_nothing);
    tcase_add_test(tc, second_device_of_a_process_compiles_nothing);
    tcase_add_test(tc, damaged_files_are_replaced);
    tcase_add_test(tc, another_programs_file_is_replaced);
    tcase_add_test(tc, refused_binaries_are_compiled);
    tcase_add_test(tc, another_driver_has_files_of_its_own);
    tcase_add_test(tc, folders_that_cannot_be_written);
    tcase_add_test(tc, folders_are_made);
    tcase_add_test(tc, off_writes_nothing);
}
