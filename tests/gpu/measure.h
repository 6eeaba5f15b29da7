/* SPDX-License-Identifier: Apache-2.0 */
/* What programs share that measure: no tests, and without a test's library. */
#ifndef FASTATTN_TESTS_GPU_MEASURE_H
#define FASTATTN_TESTS_GPU_MEASURE_H

#include <fastattn/fastattn.h>
#include <stdint.h>

/* Ends the program with the message of a call that failed: by 77 without the device. */
void need(fa_status status);

/* A buffer, written where `from` is not NULL. */
fa_buffer *buffer_of(fa_device *device, fa_queue *queue, size_t bytes, const void *from);

/* The median of the seconds of some turns (up to 32), each waited for, after two that warm up. */
double measure_median(fa_queue *queue, int turns, void (*run)(const void *what), const void *what);

/* 31 bits, and a number from -1 to 1. */
uint32_t draw(uint64_t *state);
float draw_float(uint64_t *state);

/* 1 or -1, drawn by the number alone. */
float sign_of(uint64_t n);

#endif
