/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_OPENCL_SUITES_H
#define FASTATTN_TESTS_OPENCL_SUITES_H

#include <check.h>

void add_cache_tests(Suite *suite);
void add_device_tests(Suite *suite);
void add_hostile_tests(Suite *suite);
void add_wrap_tests(Suite *suite);

#endif
