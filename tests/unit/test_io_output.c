/* SPDX-License-Identifier: Apache-2.0 */
/* Writing to what is no plain file, and being interrupted at it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "test_io.h"

enum { PATH = 512 };

static char path[PATH], other[PATH];

static bool write_word(const char *to, const char *word)
{
    io_output o;
    const bool ok = io_output_begin(&o, to, &err) && io_output_write(&o, word, strlen(word), &err);
    return io_output_end(&o, ok, &err);
}

static void assert_text(const char *file, const char *text)
{
    const blob b = read_blob(file);
    ck_assert_uint_eq(b.size, strlen(text));
    ck_assert_mem_eq(b.bytes, text, b.size);
}

static struct stat status_of(const char *file)
{
    struct stat st;
    ck_assert_int_eq(lstat(file, &st), 0);
    return st;
}

/* The links stay, and what they lead to is replaced, be it there yet or not. */
START_TEST(links_are_followed)
{
    strcpy(path, make_folder("below"));
    strcpy(path, in_folder("below/file"));
    ck_assert_int_eq(symlink("second", in_folder("first")), 0);
    ck_assert_int_eq(symlink("below/file", in_folder("second")), 0);
    for (int round = 0; round < 2; round++) {
        const char *word = round ? "once more" : "once";
        ck_assert_msg(write_word(in_folder("first"), word), "%s", err.text);
        assert_text(path, word);
        ck_assert(S_ISREG(status_of(path).st_mode));
        ck_assert(S_ISLNK(status_of(in_folder("first")).st_mode));
        ck_assert(S_ISLNK(status_of(in_folder("second")).st_mode));
        ck_assert_int_eq(count_files(), 3);
    }
    ck_assert_int_eq(chmod(path, 0600), 0);
    ck_assert(write_word(in_folder("first"), "with its mode"));
    ck_assert_int_eq(status_of(path).st_mode & 07777, 0600);
}
END_TEST

START_TEST(owners_are_kept)
{
    if (geteuid() != 0)
        return;
    strcpy(path, in_folder("t"));
    write_text(path, "before");
    ck_assert_int_eq(chmod(path, 0640), 0);
    ck_assert_int_eq(chown(path, 65534, 65533), 0);
    ck_assert(write_word(path, "after"));
    const struct stat st = status_of(path);
    ck_assert_uint_eq(st.st_uid, 65534);
    ck_assert_uint_eq(st.st_gid, 65533);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
}
END_TEST

static const char *const devices[] = {"/dev/null", "/dev/full"};

/* Devices stay what they are, and what they say is passed on. */
START_TEST(devices_are_written_to)
{
    const char *device = devices[_i];
    const bool full = strcmp(device, "/dev/full") == 0;

    if (access(device, W_OK) != 0)
        return;
    const struct stat before = status_of(device);
    ck_assert(io_output_possible(device, &err));
    if (full)
        assert_refused(write_word(device, "word"), device, "write", strerror(ENOSPC));
    else
        ck_assert_msg(write_word(device, "word"), "%s", err.text);
    strcpy(path, in_folder("link"));
    ck_assert_int_eq(symlink(device, path), 0);
    ck_assert_int_eq(write_word(path, "word"), !full);
    const struct stat after = status_of(device);
    ck_assert(S_ISCHR(after.st_mode) && S_ISLNK(status_of(path).st_mode));
    ck_assert_uint_eq(after.st_ino, before.st_ino);
    ck_assert_uint_eq(after.st_rdev, before.st_rdev);
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

static void *read_pipe(void *text)
{
    const int fd = open(path, O_RDONLY);
    size_t used = 0;
    for (ssize_t n; (n = read(fd, (char *)text + used, 64 - used)) > 0;)
        used += (size_t)n;
    close(fd);
    return NULL;
}

START_TEST(pipes_are_written_to)
{
    pthread_t reader;
    char text[64] = "";

    strcpy(path, in_folder("pipe"));
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert(io_output_possible(path, &err)); /* does not wait for a reader */
    ck_assert_int_eq(pthread_create(&reader, NULL, read_pipe, text), 0);
    ck_assert_msg(write_word(path, "through the pipe"), "%s", err.text);
    ck_assert_int_eq(pthread_join(reader, NULL), 0);
    ck_assert_str_eq(text, "through the pipe");
    ck_assert(S_ISFIFO(status_of(path).st_mode));
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

/* "-" and every other name of what standard output is; what else is printed goes elsewhere once it is claimed. */
START_TEST(standard_output)
{
    const int kept[] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)};

    strcpy(path, in_folder("out"));
    strcpy(other, in_folder("err"));
    fflush(stdout);
    ck_assert_ptr_nonnull(freopen(path, "w", stdout));
    ck_assert_int_ge(dup2(open(other, O_WRONLY | O_CREAT, 0600), STDERR_FILENO), 0);
    const bool named =
        io_output_is_stdout("-") && io_output_is_stdout(path) && io_output_is_stdout("/dev/stdout");
    const bool others = io_output_is_stdout(other) || io_output_is_stdout(in_folder("none"));
    bool ok = io_output_possible("-", &err);
    printf("printed before, ");
    ok = io_output_claim_stdout(&err) && ok;
    printf("printed after");
    fflush(stdout);
    ok = write_word("-", "data ") && write_word(path, "more") && ok;
    ok = write_word(other, " and data") && ok;
    dup2(kept[0], STDOUT_FILENO);
    dup2(kept[1], STDERR_FILENO);

    ck_assert_msg(ok, "%s", err.text);
    ck_assert(named && !others);
    assert_text(path, "printed before, data more");
    assert_text(other, "printed after and data");
}
END_TEST

START_TEST(same_files)
{
    strcpy(path, in_folder("a"));
    write_text(path, "x");
    ck_assert_int_eq(link(path, in_folder("hard")), 0);
    ck_assert_int_eq(symlink("a", in_folder("soft")), 0);
    ck_assert_int_eq(symlink("new", in_folder("to-new")), 0);
    make_folder("below");
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    static const struct {
        const char *a, *b;
        bool same, replaces;
    } cases[] = {
        {"a", "a", true, true},
        {"a", "./a", true, true},
        {"a", "hard", true, true},
        {"a", "soft", true, true},
        {"soft", "hard", true, true},
        {"a", "below/../a", true, true},
        {"a", "new", false, false},
        {"new", "a", false, false},
        {"new", "newer", false, false},
        {"new", "./new", true, false},
        {"new", "below/../new", true, false},
        {"new", "below/new", false, false},
        {"to-new", "new", true, false},
        {"pipe", "pipe", true, false},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        strcpy(path, in_folder(cases[i].a));
        strcpy(other, in_folder(cases[i].b));
        ck_assert_msg(io_output_same(path, other) == cases[i].same, "%s %s", path, other);
        ck_assert_msg(io_output_replaces(path, other) == cases[i].replaces, "%s %s", path, other);
    }
    ck_assert(io_output_same("-", "-") && !io_output_same("-", path) &&
              !io_output_same("/dev/null", "/dev/null"));
}
END_TEST

/* Both or neither, and what is given up leaves nothing. */
START_TEST(two_outputs_at_once)
{
    io_output a, b, *const both[] = {&a, &b};

    strcpy(path, in_folder("a"));
    strcpy(other, in_folder("b"));
    write_text(path, "old");
    for (int given_up = 1; given_up >= 0; given_up--) {
        ck_assert(io_output_begin(&a, path, &err) && io_output_write(&a, "new a", 5, &err));
        ck_assert(io_output_begin(&b, other, &err) && io_output_write(&b, "new b", 5, &err));
        ck_assert(io_output_finish(&a, &err) && io_output_finish(&b, &err));
        ck_assert_int_eq(count_files(), 3);
        if (!given_up)
            ck_assert(io_output_commit(both, 2, &err));
        io_output_discard(&a);
        io_output_discard(&b);
        ck_assert_int_eq(count_files(), given_up ? 1 : 2);
        assert_text(path, given_up ? "old" : "new a");
    }
    assert_text(other, "new b");
}
END_TEST

static const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGPIPE, SIGALRM,
                              SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};

/* A child in which no signal has a handler, as in a program that just began: Check has some of its own. */
static pid_t start_child(void)
{
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    for (int i = 0; child == 0 && i < COUNT(signals); i++)
        (void)signal(signals[i], SIG_DFL);
    return child;
}

/* In a child: two files are on their way when the signal comes. */
static void die_of(int number)
{
    io_output a, b;
    if (io_output_begin(&a, path, NULL) && io_output_write(&a, "new", 3, NULL) &&
        io_output_begin(&b, other, NULL) && io_output_finish(&a, NULL))
        raise(number);
    _exit(1);
}

START_TEST(a_signal_leaves_nothing)
{
    int status;

    strcpy(path, in_folder("a"));
    strcpy(other, in_folder("b"));
    write_text(path, "old");
    const pid_t child = start_child();
    if (child == 0)
        die_of(signals[_i]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == signals[_i]);
    assert_text(path, "old");
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

/* What a process ignores, as under nohup, it still ignores. */
START_TEST(ignored_signals_stay_ignored)
{
    strcpy(path, in_folder("a"));
    signal(SIGHUP, SIG_IGN);
    io_output o;
    ck_assert(io_output_begin(&o, path, &err));
    raise(SIGHUP);
    ck_assert(io_output_end(&o, true, &err));
    ck_assert_int_eq(count_files(), 1);
}
END_TEST

static void *idle(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

/* In a child: files are made without end, while other threads may take the signal. */
static void write_for_ever(void)
{
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        (void)pthread_create(&thread, NULL, idle, NULL);
    for (;;) {
        io_output a, b, *const both[] = {&a, &b};
        const bool ok = io_output_begin(&a, path, NULL) && io_output_write(&a, "new", 3, NULL);
        if (ok && io_output_begin(&b, other, NULL))
            (void)io_output_commit(both, 2, NULL);
        io_output_discard(&a);
        io_output_discard(&b);
    }
}

START_TEST(a_signal_at_any_moment_leaves_nothing)
{
    enum { ROUNDS = 100 };
    strcpy(path, in_folder("a"));
    strcpy(other, in_folder("b"));
    for (int round = 0; round < ROUNDS; round++) {
        int status;
        (void)unlink(other);
        const pid_t child = start_child();
        if (child == 0)
            write_for_ever();
        while (access(other, F_OK) != 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        nanosleep(&(struct timespec){.tv_nsec = 20011 * (long)round}, NULL);
        ck_assert_int_eq(kill(child, signals[round % COUNT(signals)]), 0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == signals[round % COUNT(signals)]);
        /* And no signal comes between the two names: either both are there, or neither was replaced. */
        ck_assert_msg(count_files() == 2, "round %d", round);
        assert_text(path, "new");
    }
}
END_TEST

void add_output_tests(TCase *tc)
{
    tcase_add_test(tc, links_are_followed);
    tcase_add_test(tc, owners_are_kept);
    tcase_add_loop_test(tc, devices_are_written_to, 0, COUNT(devices));
    tcase_add_test(tc, pipes_are_written_to);
    tcase_add_test(tc, standard_output);
    tcase_add_test(tc, same_files);
    tcase_add_test(tc, two_outputs_at_once);
    tcase_add_loop_test(tc, a_signal_leaves_nothing, 0, COUNT(signals));
    tcase_add_test(tc, ignored_signals_stay_ignored);
    tcase_add_test(tc, a_signal_at_any_moment_leaves_nothing);
}
