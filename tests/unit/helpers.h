/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_UNIT_HELPERS_H
#define FASTATTN_TESTS_UNIT_HELPERS_H

#include <check.h>
#include <fastattn/fastattn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#if defined(_WIN32)
/* POSIX's, of what Windows has. */
static inline int setenv(const char *name, const char *value, int replace)
{
    return !replace && getenv(name) ? 0 : _putenv_s(name, value);
}

static inline int unsetenv(const char *name)
{
    return _putenv_s(name, "");
}
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* What the counting allocator has seen. `fail_at` is the number, from 0, of the request that gets no memory. */
typedef struct counting {
    atomic_long calls, live, bytes;
    long fail_at; /* -1: none */
} counting;

/* An allocator that counts, checks what it is handed back, and gives memory that is never zero by luck. */
fa_allocator counting_allocator(counting *memory);

/* The context of the test at hand and its allocator's books, which the fixture finds balanced at the end. */
extern counting memory;
extern fa_context *context;

/* Makes `context` before each test of the case and destroys it after; a leak fails the test. */
void add_context_fixture(TCase *tc);

/* Runs a suite in this process, whose drivers have threads that a fork would leave behind. EXIT_SUCCESS or EXIT_FAILURE. */
int run_unforked(Suite *suite);

/* A test case of `suite` with that fixture. */
TCase *add_context_case(Suite *suite, const char *name);

/* Random numbers that are the same in every run. */
typedef struct random_state {
    uint64_t state;
} random_state;
uint64_t random_bits(random_state *random);
int64_t random_between(random_state *random, int64_t low, int64_t high); /* both included */
float random_float(random_state *random, float low, float high);

/* f32, contiguous, dim_qk == dim_v, no mask. */
fa_attention_desc make_desc(int64_t batch, int64_t heads_q, int64_t heads_kv, int64_t len_q, int64_t len_kv,
                            int64_t dim);

/* An append with all its memory: made, run twice and waited for, up to the first failure; and destroyed, as far as it is. */
typedef struct append_life {
    fa_append *append;
    fa_append_args args;
} append_life;
fa_status append_live(append_life *life, fa_device *device, fa_queue *queue);
void append_die(append_life *life);

/* fa_last_error() holds `part`. */
void assert_message(const char *part);

/* The first device of the backend cannot be used, and says why. */
void assert_unavailable(const char *backend, const char *reason);

fa_device *open_null(void);

/* A null device of the context above and a queue of it, opened before each test of the case. */
extern fa_device *null_device;
extern fa_queue *null_queue;
TCase *add_device_case(Suite *suite, const char *name);

fa_plan *make_plan(const fa_attention_desc *desc);

/* Memory whose end is the end of what may be touched. */
typedef struct fence {
    void *memory;
    char *pages;
    size_t usable;
} fence;

fence fence_make(size_t bytes);
void fence_release(fence *f);

#endif
