/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "test_io.h"

enum { NOBODY = 65534 };

static char folder[256];
io_tensor tensor;
io_error err;

static void setup(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(folder, sizeof(folder), "%s/test_io.XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    tensor = (io_tensor){0};
    err = (io_error){""};
}

const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

int count_files(void)
{
    DIR *dir = opendir(folder);
    int count = 0;

    ck_assert_ptr_nonnull(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        count++;
    }
    closedir(dir);
    return count;
}

static void teardown(void)
{
    char command[300];

    io_tensor_free(&tensor);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

const char *make_folder(const char *name)
{
    const char *path = in_folder(name);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    return path;
}

void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

void append(blob *b, const void *bytes, size_t size)
{
    ck_assert_uint_le(b->size + size, MAX_BYTES);
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
}

void append_data(blob *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        append(b, &(uint8_t){(uint8_t)(i + 1)}, 1);
}

blob make_npy(int major, const char *header, size_t data)
{
    const size_t length = strlen(header);
    const uint8_t prefix[12] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)major, 0, (uint8_t)length, (uint8_t)(length >> 8)};
    blob b = {.size = 0};

    append(&b, prefix, major == 1 ? 10 : 12);
    append(&b, header, length);
    append_data(&b, data);
    return b;
}

blob make_safetensors(const char *header, size_t data)
{
    const uint64_t length = strlen(header);
    blob b = {.size = 0};

    append(&b, &length, sizeof(length));
    append(&b, header, (size_t)length);
    append_data(&b, data);
    return b;
}

void write_blob(const char *path, const blob *b)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(b->bytes, 1, b->size, file), b->size);
    ck_assert_int_eq(fclose(file), 0);
}

blob read_blob(const char *path)
{
    blob b = {.size = 0};
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    b.size = fread(b.bytes, 1, MAX_BYTES, file);
    fclose(file);
    return b;
}

void assert_refused(bool result, const char *file, const char *field, const char *found)
{
    ck_assert_msg(!result, "accepted, expected '%s: ... %s'", field, found);
    ck_assert_msg(strstr(err.text, file) && strstr(err.text, field) && strstr(err.text, found),
                  "error is '%s', expected it to name '%s', '%s' and '%s'", err.text, file, field, found);
    ck_assert_msg(strstr(err.text, "expected"), "'%s' does not say what was expected", err.text);
    ck_assert_ptr_null(tensor.data);
    ck_assert_uint_eq(tensor.bytes, 0);
}

/* ---- what the writers refuse ---- */

static uint8_t some_data[128];

static const struct {
    io_tensor tensor;
    const char *found;
} bad_tensors[] = {
    {{.type = (io_type)99, .rank = 0, .data = some_data, .bytes = 4}, "type is 99"},
    {{.type = IO_F32, .rank = 9, .data = some_data, .bytes = 4}, "rank is 9"},
    {{.type = IO_F32, .rank = -1, .data = some_data, .bytes = 4}, "rank is -1"},
    {{.type = IO_F32, .rank = 1, .shape = {-2}, .data = some_data}, "negative"},
    {{.type = IO_F32, .rank = 2, .shape = {INT64_MAX, 2}, .data = some_data}, "overflows"},
    {{.type = IO_F32, .rank = 1, .shape = {2}, .data = some_data, .bytes = 4}, "bytes is 4"},
    {{.type = IO_F32, .rank = 1, .shape = {2}, .bytes = 8}, "data is NULL"},
};

START_TEST(writers_refuse_bad_tensors)
{
    const char *names[] = {"q"};
    const char *path = in_folder("t.out");

    assert_refused(io_npy_write(path, &bad_tensors[_i].tensor, &err), "t.out", "tensor",
                   bad_tensors[_i].found);
    assert_refused(io_safetensors_write(path, names, &bad_tensors[_i].tensor, 1, &err), "t.out", "tensor 'q'",
                   bad_tensors[_i].found);
    ck_assert_int_eq(count_files(), 0);
}
END_TEST

static const struct {
    const char *names[2], *shown, *found;
} bad_names[] = {
    {{"q", "q"}, "'q'", "twice"},
    {{"q", "__metadata__"}, "__metadata__", "reserved"},
    {{"q", "\xff"}, "'\\xff'", "UTF-8"},
};

START_TEST(safetensors_write_refuses_names)
{
    const io_tensor t = {.type = IO_F32, .data = some_data, .bytes = 4};
    const io_tensor two[] = {t, t};

    assert_refused(io_safetensors_write(in_folder("t.out"), bad_names[_i].names, two, 2, &err), "t.out",
                   bad_names[_i].shown, bad_names[_i].found);
    assert_refused(io_safetensors_write(in_folder("t.out"), bad_names[_i].names, two, -1, &err), "t.out",
                   "count", "-1");
    ck_assert_int_eq(count_files(), 0);
}
END_TEST

/* ---- files ---- */

START_TEST(read_refuses_what_is_no_file)
{
    const char *path = in_folder("t.npy");

    assert_refused(io_npy_read(path, &tensor, &err), "t.npy", "open", strerror(ENOENT));
    assert_refused(io_safetensors_read(path, "q", &tensor, &err), "t.npy", "open", strerror(ENOENT));
    assert_refused(io_npy_read(folder, &tensor, &err), folder, "open", "found a folder");
}
END_TEST

START_TEST(read_reports_bad_content)
{
    const blob npy = make_npy(1, NPY_SHAPE("(2,)"), 9);
    const blob st = make_safetensors("{}", 0);

    write_blob(in_folder("t.npy"), &npy);
    assert_refused(io_npy_read(in_folder("t.npy"), &tensor, &err), "t.npy", "data", "9 bytes");
    write_blob(in_folder("t.st"), &st);
    assert_refused(io_safetensors_read(in_folder("t.st"), "q", &tensor, &err), "t.st", "tensor 'q'",
                   "(none)");
}
END_TEST

START_TEST(source_notices_changed_size)
{
    const blob b = make_npy(1, NPY_SHAPE("(2,)"), 8);
    const char *path = in_folder("t.npy");
    uint8_t bytes[MAX_BYTES];
    io_source s;

    write_blob(path, &b);
    ck_assert(io_source_open(&s, path, &err));
    ck_assert_int_eq(truncate(path, 20), 0);
    assert_refused(io_source_read(&s, 0, bytes, b.size, &err), "t.npy", "read", "shrank");
    assert_refused(io_source_read(&s, 0, bytes, b.size + 1, &err), "t.npy", "size", "found");
    assert_refused(io_source_close(&s, &err), "t.npy", "size", "no longer");
}
END_TEST

/* ---- atomic writing ---- */

static const io_tensor big = {
    .type = IO_F32, .rank = 1, .shape = {32}, .data = some_data, .bytes = sizeof(some_data)};

typedef bool writer(const char *path);

static bool write_npy(const char *path)
{
    return io_npy_write(path, &big, &err);
}

static bool write_safetensors(const char *path)
{
    return io_safetensors_write(path, (const char *const[]){"q"}, &big, 1, &err);
}

static writer *const writers[] = {write_npy, write_safetensors};

static blob write_old(const char *path)
{
    const blob old = make_npy(1, NPY_SHAPE("(1,)"), 4);
    write_blob(path, &old);
    return old;
}

static void assert_old(const char *path, const blob *old, int files)
{
    const blob now = read_blob(path);

    ck_assert_uint_eq(now.size, old->size);
    ck_assert_mem_eq(now.bytes, old->bytes, old->size);
    ck_assert_int_eq(count_files(), files);
}

START_TEST(write_replaces)
{
    const char *path = in_folder("t");
    struct stat st;

    write_old(path);
    ck_assert_int_eq(chmod(path, 0640), 0);
    ck_assert_msg(writers[_i](path), "%s", err.text);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0640);
    ck_assert_uint_gt(read_blob(path).size, sizeof(some_data));
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

START_TEST(new_file_honours_umask)
{
    struct stat st;
    const mode_t old = umask(027);

    ck_assert_msg(writers[_i](in_folder("t")), "%s", err.text);
    umask(old);
    ck_assert_int_eq(stat(in_folder("t"), &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0640);
}
END_TEST

START_TEST(write_takes_a_bare_name)
{
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_msg(writers[_i]("t"), "%s", err.text);
    ck_assert_int_eq(count_files(), 1);
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

/* A limit on file size stands in for a full disk: the header still fits, the data does not. */
START_TEST(full_disk_keeps_target)
{
    const char *path = in_folder("t");
    const blob old = write_old(path);
    struct rlimit limit, before;

    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    limit = (struct rlimit){136, before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const bool ok = writers[_i](path);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);

    assert_refused(ok, "/t: ", "write", strerror(EFBIG));
    assert_old(path, &old, 1);
}
END_TEST

START_TEST(unwritable_folder_keeps_target)
{
    const char *path = in_folder("t");
    const blob old = write_old(path);
    /* Permissions do not bind root, who therefore steps down for the attempt. */
    const bool root = geteuid() == 0;

    if (root)
        ck_assert_int_eq(chown(path, NOBODY, (gid_t)-1), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    if (root)
        ck_assert_int_eq(seteuid(NOBODY), 0);
    const bool ok = writers[_i](path);
    if (root)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);

    assert_refused(ok, "/t: ", "create", strerror(EACCES));
    assert_old(path, &old, 1);
}
END_TEST

START_TEST(write_refuses_what_is_no_file)
{
    const char *path = in_folder("t");
    char missing[600];

    ck_assert_int_eq(mkdir(path, 0700), 0);
    assert_refused(writers[_i](path), "/t: ", "create", "found a folder");
    snprintf(missing, sizeof(missing), "%s/none/t", folder);
    assert_refused(writers[_i](missing), "none/t: ", "create", strerror(ENOENT));
    snprintf(missing, sizeof(missing), "%s/", folder);
    assert_refused(writers[_i](missing), "/: ", "create", "no file name");
    assert_refused(writers[_i](""), "", "create", "no file name");
    ck_assert_int_eq(symlink("loop", in_folder("loop")), 0);
    assert_refused(writers[_i](in_folder("loop")), "/loop: ", "create", strerror(ELOOP));
    ck_assert_int_eq(unlink(in_folder("loop")), 0);
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

/* A file that is protected from its user is not replaced through its folder. */
START_TEST(protected_file_is_kept)
{
    const char *path = in_folder("t");
    const blob old = write_old(path);
    const bool root = geteuid() == 0;

    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_assert_int_eq(chmod(folder, 0777), 0);
    if (root)
        ck_assert_int_eq(seteuid(NOBODY), 0);
    const bool ok = writers[_i](path);
    if (root)
        ck_assert_int_eq(seteuid(0), 0);

    assert_refused(ok, "/t: ", "create", strerror(EACCES));
    assert_old(path, &old, 1);
}
END_TEST

START_TEST(failed_rename_leaves_no_temporary)
{
    char path[512];
    io_output o;

    strcpy(path, in_folder("t"));
    ck_assert_msg(io_output_begin(&o, path, &err), "%s", err.text);
    ck_assert(io_output_write(&o, some_data, sizeof(some_data), &err));
    ck_assert_int_eq(mkdir(path, 0700), 0);
    assert_refused(io_output_end(&o, true, &err), "/t: ", "rename", strerror(EISDIR));
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

START_TEST(stale_temporary_is_stepped_over)
{
    char name[64];

    snprintf(name, sizeof(name), ".fastattn-%ld-0.tmp", (long)getpid());
    const blob old = write_old(in_folder(name));
    ck_assert_msg(writers[_i](in_folder("t")), "%s", err.text);
    assert_old(in_folder(name), &old, 2);
}
END_TEST

START_TEST(error_may_be_left_out)
{
    ck_assert(!io_npy_parse("", 0, "in.npy", &tensor, NULL));
    ck_assert(!io_safetensors_parse("", 0, "in", "q", &tensor, NULL));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io");
    TCase *tc = tcase_create("io");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    add_format_tests(tc);
    add_output_tests(tc);
    add_stream_tests(tc);
    add_system_tests(tc);
    tcase_add_loop_test(tc, writers_refuse_bad_tensors, 0, COUNT(bad_tensors));
    tcase_add_loop_test(tc, safetensors_write_refuses_names, 0, COUNT(bad_names));
    tcase_add_test(tc, read_refuses_what_is_no_file);
    tcase_add_test(tc, read_reports_bad_content);
    tcase_add_test(tc, source_notices_changed_size);
    tcase_add_loop_test(tc, write_replaces, 0, COUNT(writers));
    tcase_add_loop_test(tc, new_file_honours_umask, 0, COUNT(writers));
    tcase_add_loop_test(tc, write_takes_a_bare_name, 0, COUNT(writers));
    tcase_add_loop_test(tc, full_disk_keeps_target, 0, COUNT(writers));
    tcase_add_loop_test(tc, unwritable_folder_keeps_target, 0, COUNT(writers));
    tcase_add_loop_test(tc, write_refuses_what_is_no_file, 0, COUNT(writers));
    tcase_add_loop_test(tc, protected_file_is_kept, 0, COUNT(writers));
    tcase_add_test(tc, failed_rename_leaves_no_temporary);
    tcase_add_loop_test(tc, stale_temporary_is_stepped_over, 0, COUNT(writers));
    tcase_add_test(tc, error_may_be_left_out);
    suite_add_tcase(suite, tc);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed;
}
