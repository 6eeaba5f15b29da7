/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_UNIT_TEST_BENCH_H
#define FASTATTN_TESTS_UNIT_TEST_BENCH_H

#include <check.h>

#include "tools/bench/bench.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

extern const bench_peak bench_test_peak;

/* A case of the sizes that `text` says. */
bench_case bench_test_case(const char *text, fa_dtype dtype, bool causal);
/* The tests of what is printed and drawn. */
TCase *bench_test_reports(void);

#endif
