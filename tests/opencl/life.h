/* SPDX-License-Identifier: Apache-2.0 */
/* What a program does with a device from first to last, in a process of its own, the stub its driver. */
#ifndef FASTATTN_TESTS_OPENCL_LIFE_H
#define FASTATTN_TESTS_OPENCL_LIFE_H

#include <stdbool.h>
#include <stdio.h>

#include "stub.h"
#include "tests/unit/helpers.h"

/* What is to go wrong, and how the program takes it. */
typedef struct life {
    const char *function; /* the call that fails; NULL: none */
    int after;            /* that many calls of it succeed before */
    cl_int error;
    bool lose;     /* the device works no more from there on */
    bool stubborn; /* goes on after a failure, as far as there are objects to go on with */
    long fail_at;  /* the request for host memory that gets none; -1: none */
    int rounds;    /* devices opened one after the other */
} life;

#define LIFE_FUNCTIONS 64

/* How it went: the first failure, and what was left when all was destroyed. */
typedef struct outcome {
    fa_status status;
    char step[40], message[1100];
    fa_status waits[2]; /* the queue's, one right after the other; FA_OK where it never came to that */
    int failures;
    int live; /* objects of the stub's */
    long host_live, host_calls;
    int compiled;
    char misuse[256];
    int functions;
    struct {
        char name[40];
        int calls;
    } function[LIFE_FUNCTIONS];
} outcome;

/* Lives it in a child process, which a leak sanitizer looks at too. A crash there fails the test. */
void live(const life *l, outcome *result);

/* How often the child called a function of the driver. */
int calls_of(const outcome *result, const char *function);

/* Nothing is left, and nothing was used in a way that a driver may refuse. */
void assert_clean(const outcome *result, const char *what);

/* Runs `function` in a child process and fails unless it returns and leaves nothing. */
typedef void (*child_fn)(void *user);
void run_child(child_fn function, void *user, void *result, size_t size);

/* A folder that is new and empty, FASTATTN_CACHE naming it; and its removal with all files in it. */
void make_cache_folder(char path[64]);
void remove_cache_folder(const char *path);

#endif
