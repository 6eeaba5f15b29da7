/* SPDX-License-Identifier: Apache-2.0 */
/* Memory as made-up systems tell of it, and text as terminals may get it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"
#include "test_io.h"
#include "text.h"

#define MIB ((uint64_t)1 << 20)

/* A file of a made-up system, its folders too. */
static void put(const char *name, const char *text)
{
    char command[700];
    snprintf(command, sizeof(command), "mkdir -p \"$(dirname '%s')\"", in_folder(name));
    ck_assert_int_eq(system(command), 0);
    write_text(in_folder(name), text);
}

static void put_system(const char *groups, const char *mounts)
{
    put("proc/meminfo", "MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
    put("proc/self/statm", "25600 100 10 1 0 50 0\n"); /* 100 MiB in pages of 4 KiB */
    put("proc/self/cgroup", groups);
    put("proc/self/mountinfo", mounts);
}

static void put_group(const char *folder, const char *limit_name, const char *limit, const char *usage_name,
                      const char *usage)
{
    char name[256];
    snprintf(name, sizeof(name), "%s/%s", folder, limit_name);
    put(name, limit);
    snprintf(name, sizeof(name), "%s/%s", folder, usage_name);
    put(name, usage);
}

static void assert_available(uint64_t bytes, const char *limit)
{
    io_memory m;
    io_memory_available_in(in_folder(""), UINT64_MAX, &m);
    ck_assert_uint_eq(m.bytes, bytes);
    ck_assert_str_eq(m.limit, limit);
}

static const char v2_mount[] =
    "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "30 21 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

START_TEST(memory_without_groups)
{
    put_system("", "");
    assert_available(8192 * MIB, "the machine's memory");
    put_system("0::/\n", v2_mount); /* the root has no limit files */
    assert_available(8192 * MIB, "the machine's memory");
}
END_TEST

START_TEST(memory_of_the_own_group)
{
    put_system("0::/user.slice/job\n", v2_mount);
    put_group("sys/fs/cgroup/user.slice/job", "memory.max", "1073741824\n", "memory.current", "104857600\n");
    assert_available(924 * MIB, "memory.max of the control group /user.slice/job");
    /* A limit that only slows the process down is one as well. */
    put("sys/fs/cgroup/user.slice/job/memory.high", "314572800\n");
    assert_available(200 * MIB, "memory.high of the control group /user.slice/job");
    /* What is only cached goes when memory is needed. */
    put("sys/fs/cgroup/user.slice/job/memory.stat", "anon 1\nfile 60000000\ninactive_file 52428800\n");
    assert_available(250 * MIB, "memory.high of the control group /user.slice/job");
    put("sys/fs/cgroup/user.slice/job/memory.high", "max\n");
    put("sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    assert_available(8192 * MIB, "the machine's memory");
    put("sys/fs/cgroup/user.slice/job/memory.max", "52428800\n"); /* all of it in use */
    put("sys/fs/cgroup/user.slice/job/memory.stat", "");
    assert_available(0, "memory.max of the control group /user.slice/job");
}
END_TEST

/* The limit of a group holds for all below it. */
START_TEST(memory_of_nested_groups)
{
    put_system("0::/a/b/c\n", v2_mount);
    put_group("sys/fs/cgroup/a/b/c", "memory.max", "max\n", "memory.current", "10485760\n");
    put_group("sys/fs/cgroup/a/b", "memory.max", "524288000\n", "memory.current", "314572800\n");
    put_group("sys/fs/cgroup/a", "memory.max", "2147483648\n", "memory.current", "1073741824\n");
    assert_available(200 * MIB, "memory.max of the control group /a/b");
    put("sys/fs/cgroup/a/memory.current", "2042626048\n");
    assert_available(100 * MIB, "memory.max of the control group /a");
    /* A group beside it is none of ours. */
    put_group("sys/fs/cgroup/a/b/d", "memory.max", "1048576\n", "memory.current", "0\n");
    assert_available(100 * MIB, "memory.max of the control group /a");
}
END_TEST

/* In a container: the group is the mount's root, or lies below it, or cannot be seen. */
START_TEST(memory_in_a_container)
{
    put_system("0::/\n", v2_mount);
    put_group("sys/fs/cgroup", "memory.max", "1073741824\n", "memory.current", "0\n");
    assert_available(1024 * MIB, "memory.max of the control group /");
    put_system("0::/docker/1234/sub\n", "30 21 0:26 /docker/1234 /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
    put_group("sys/fs/cgroup/sub", "memory.max", "104857600\n", "memory.current", "0\n");
    assert_available(100 * MIB, "memory.max of the control group /sub");
    put_system("0::/docker/12345\n", "30 21 0:26 /docker/1234 /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
    assert_available(1024 * MIB, "memory.max of the control group /");
    put_system("0::/../../elsewhere\n", v2_mount);
    assert_available(1024 * MIB, "memory.max of the control group /");
    put_system("0::/sub\n", "30 21 0:26 / /odd\\040place rw - cgroup2 cgroup rw\n");
    put_group("odd place/sub", "memory.max", "209715200\n", "memory.current", "0\n");
    assert_available(200 * MIB, "memory.max of the control group /sub");
}
END_TEST

START_TEST(memory_of_version_1)
{
    put_system("12:cpu,cpuacct:/x\n5:memory:/jobs/one\n1:name=systemd:/\n0::/elsewhere\n",
               "31 21 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
               "32 21 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
               "33 21 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put_group("sys/fs/cgroup/memory", "memory.limit_in_bytes", "9223372036854771712\n",
              "memory.usage_in_bytes", "1073741824\n");
    put_group("sys/fs/cgroup/memory/jobs", "memory.limit_in_bytes", "1073741824\n", "memory.usage_in_bytes",
              "314572800\n");
    put_group("sys/fs/cgroup/memory/jobs/one", "memory.limit_in_bytes", "9223372036854771712\n",
              "memory.usage_in_bytes", "0\n");
    put_group("sys/fs/cgroup/cpu/x", "memory.limit_in_bytes", "1\n", "memory.usage_in_bytes", "0\n");
    assert_available(724 * MIB, "memory.limit_in_bytes of the control group /jobs");
    put("sys/fs/cgroup/memory/jobs/memory.stat", "cache 1\ninactive_file 1\ntotal_inactive_file 104857600\n");
    assert_available(824 * MIB, "memory.limit_in_bytes of the control group /jobs");
}
END_TEST

START_TEST(memory_of_the_address_space)
{
    io_memory m;
    put_system("", "");
    if (sysconf(_SC_PAGESIZE) != 4096)
        return;
    io_memory_available_in(in_folder(""), 300 * MIB, &m);
    ck_assert_uint_eq(m.bytes, 200 * MIB);
    ck_assert_str_eq(m.limit, "RLIMIT_AS");
    io_memory_available_in(in_folder(""), 50 * MIB, &m);
    ck_assert_uint_eq(m.bytes, 0);
    /* A group's name is whatever its maker liked. */
    put_system("0::/\x1b[31m\n", v2_mount);
    put_group("sys/fs/cgroup/\x1b[31m", "memory.max", "1048576\n", "memory.current", "0\n");
    assert_available(MIB, "memory.max of the control group /\\x1b[31m");
}
END_TEST

START_TEST(memory_of_this_system)
{
    io_memory m;
    io_memory_available(&m);
    ck_assert_uint_gt(m.bytes, 0);
    ck_assert_str_ne(m.limit, "");
}
END_TEST

static const struct {
    const char *text, *plain;
} texts[] = {
    {"", ""},
    {"plain, \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xd7\xa9",
     "plain, \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xd7\xa9"},
    {"\x1b[2J\a\b\t\r\n\x7f", "\\x1b[2J\\x07\\x08\\x09\\x0d\\x0a\\x7f"},
    {"\xc2\x9b"
     "31m",
     "\\x9b31m"}, /* CSI as one character */
    {"a\xe2\x80\xae"
     "b\xe2\x80\xac",
     "a\\u202eb\\u202c"}, /* right to left */
    {"\xe2\x81\xa6\xe2\x81\xa9\xd8\x9c", "\\u2066\\u2069\\u061c"},
    {"\xe2\x80\x8b\xef\xbb\xbf\xe2\x80\xa8", "\\u200b\\ufeff\\u2028"},
    {"\xf3\xa0\x81\x81", "\\U000e0041"}, /* a tag, which nobody sees */
    {"\xff\x80|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82",
     "\\xff\\x80|\\xc0\\xaf|\\xed\\xa0\\x80|\\xf4\\x90\\x80\\x80|\\xe2\\x82"},
};

START_TEST(text_becomes_plain)
{
    char plain[256], *printed = NULL;
    size_t size = 0;

    ck_assert_str_eq(io_plain(plain, sizeof(plain), texts[_i].text), texts[_i].plain);
    FILE *file = open_memstream(&printed, &size);
    io_put_plain(file, texts[_i].text);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_str_eq(printed, texts[_i].plain);
    free(printed);
    /* Cut anywhere, it is terminated and holds no part of a character. */
    for (size_t room = 4; room <= strlen(texts[_i].plain); room++) {
        memset(plain, 'x', sizeof(plain));
        io_plain(plain, room, texts[_i].text);
        ck_assert_uint_lt(strlen(plain), room);
        ck_assert_str_eq(plain + strlen(plain) - 3, "...");
        for (const char *at = plain; *at;) {
            uint32_t code;
            at += io_utf8(at, &code);
            ck_assert(io_is_plain(code));
        }
    }
}
END_TEST

/* Messages about files carry names from the file and of it. */
START_TEST(errors_are_plain)
{
    const char header[] = "{\"\\u001b[31m\\u202eq\":{}}";
    const blob b = make_safetensors(header, 0);

    ck_assert(!io_safetensors_parse(b.bytes, b.size, "\x1b]0;evil\a", "\xe2\x80\xaek", &tensor, &err));
    for (const char *at = err.text; *at;) {
        uint32_t code;
        at += io_utf8(at, &code);
        ck_assert_msg(io_is_plain(code), "%s", err.text);
    }
    ck_assert_ptr_nonnull(strstr(err.text, "\\x1b]0;evil\\x07: tensor '\\u202ek'"));
    ck_assert_ptr_nonnull(strstr(err.text, "'\\x1b[31m\\u202eq'"));
}
END_TEST

void add_system_tests(TCase *tc)
{
    tcase_add_test(tc, memory_without_groups);
    tcase_add_test(tc, memory_of_the_own_group);
    tcase_add_test(tc, memory_of_nested_groups);
    tcase_add_test(tc, memory_in_a_container);
    tcase_add_test(tc, memory_of_version_1);
    tcase_add_test(tc, memory_of_the_address_space);
    tcase_add_test(tc, memory_of_this_system);
    tcase_add_loop_test(tc, text_becomes_plain, 0, COUNT(texts));
    tcase_add_test(tc, errors_are_plain);
}
