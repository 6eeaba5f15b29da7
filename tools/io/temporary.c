/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "temporary.h"

enum { MAX_FILES = 8, MAX_TRIES = 1000, NAME_SIZE = 64 };

/* Signals whose default action ends the process, and which come from outside or from a limit. */
static const int deadly[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGPIPE, SIGALRM,
                             SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
enum { DEADLY_COUNT = sizeof(deadly) / sizeof(deadly[0]) };

/*
 * What stands in `names` exists on disk, except while `busy` is set. Who sets it has first blocked every signal in its
 * thread, so that a handler never waits for the thread that it interrupted.
 */
static atomic_flag busy = ATOMIC_FLAG_INIT;
static const char *names[MAX_FILES];
static _Atomic pid_t owner;

static void enter(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, before);
    while (atomic_flag_test_and_set(&busy))
        continue;
}

static void leave(const sigset_t *before)
{
    const int error = errno;
    atomic_flag_clear(&busy);
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}

/* Runs on any thread, and does only what is allowed in a handler. */
static void clean_up(int number)
{
    sigset_t one;

    /* A child that has not called exec yet must not remove its parent's files. */
    if (getpid() == owner) {
        /* Never cleared again: what could make or name a file now waits for the end. */
        while (atomic_flag_test_and_set(&busy))
            continue;
        for (int i = 0; i < MAX_FILES; i++) {
            if (names[i])
                (void)unlink(names[i]);
        }
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
    sigemptyset(&one);
    sigaddset(&one, number);
    (void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

/* Once in a process: a handler that has set the default again must not find itself there again. What the process
 * ignores, as under nohup, or handles itself, stays so. */
static void install(void)
{
    struct sigaction action = {.sa_handler = clean_up}, found;

    if (owner == getpid())
        return;
    owner = getpid();
    for (int i = 0; i < DEADLY_COUNT; i++)
        sigaddset(&action.sa_mask, deadly[i]);
    for (int i = 0; i < DEADLY_COUNT; i++) {
        if (sigaction(deadly[i], NULL, &found) == 0 && !(found.sa_flags & SA_SIGINFO) &&
            found.sa_handler == SIG_DFL)
            (void)sigaction(deadly[i], &action, NULL);
    }
}

/* The file and its entry in `names` come into being together. */
static int make(char *name, const char **entry)
{
    sigset_t before;

    enter(&before);
    const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0)
        *entry = name;
    leave(&before);
    return fd;
}

static const char **free_entry(void)
{
    for (int i = 0; i < MAX_FILES; i++) {
        if (!names[i])
            return &names[i];
    }
    return NULL;
}

int io_temporary_open(io_temporary *t, const char *path, size_t length)
{
    const char **entry = free_entry();
    char *name = malloc(length + NAME_SIZE);
    int fd = -1;

    t->name = NULL;
    if (!entry || !name) {
        free(name);
        errno = entry ? ENOMEM : EMFILE;
        return -1;
    }
    install();
    memcpy(name, path, length);
    /* The target's own name is left out: it may already be as long as the system allows. Not mkstemp: its files are
     * 0600 whatever the umask says, and the result would stay so. */
    for (int i = 0; i < MAX_TRIES && fd < 0; i++) {
        snprintf(name + length, NAME_SIZE, ".fastattn-%ld-%d.tmp", (long)getpid(), i);
        fd = make(name, entry);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd >= 0) {
        t->name = name;
        return fd;
    }
    const int error = errno;
    free(name);
    errno = error;
    return -1;
}

/* It is no longer to be removed. Called between enter() and leave(). */
static void forget(const io_temporary *t)
{
    for (int i = 0; i < MAX_FILES; i++) {
        if (names[i] == t->name)
            names[i] = NULL;
    }
}

int io_temporary_rename(io_temporary *const *files, const char *const *targets, int count)
{
    sigset_t before;
    int done = 0;

    enter(&before);
    while (done < count && rename(files[done]->name, targets[done]) == 0)
        forget(files[done++]);
    leave(&before);
    const int error = errno;
    for (int i = 0; i < done; i++) {
        free(files[i]->name);
        files[i]->name = NULL;
    }
    errno = error;
    return done;
}

void io_temporary_remove(io_temporary *t)
{
    sigset_t before;

    if (!t->name)
        return;
    enter(&before);
    (void)unlink(t->name);
    forget(t);
    leave(&before);
    free(t->name);
    t->name = NULL;
}
