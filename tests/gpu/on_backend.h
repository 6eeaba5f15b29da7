/* SPDX-License-Identifier: Apache-2.0 */
/* Tests on the backend that the command line names: a device and a queue of it for each test. */
#ifndef FASTATTN_TESTS_GPU_ON_BACKEND_H
#define FASTATTN_TESTS_GPU_ON_BACKEND_H

#include "tests/unit/helpers.h"

enum { SKIPPED = 77 }; /* the exit status of a test that had no device */

extern const char *backend;
extern bool slow;         /* a driver that may compile on the CPU    */
extern fa_device *device; /* NULL: this machine has none             */
extern fa_queue *queue;

/* A test case of `suite` whose tests find them. The name is the command line's. */
TCase *add_backend_case(Suite *suite, const char *name);

/* run_unforked(), or SKIPPED where there was no device. */
int run_on_backend(Suite *suite);

/* Fails with the message of a call that failed. */
void succeed(fa_status status);

/* A buffer of so many bytes, and one with these bytes. */
fa_buffer *make_buffer(size_t bytes);
fa_buffer *upload(const void *from, size_t bytes);

#endif
