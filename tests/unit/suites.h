/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_UNIT_SUITES_H
#define FASTATTN_TESTS_UNIT_SUITES_H

#include <check.h>

Suite *mask_suite(void);
Suite *problem_suite(void);
Suite *tensor_suite(void);
Suite *formats_suite(void);
Suite *scales_suite(void);
Suite *append_suite(void);
Suite *cascade_suite(void);
Suite *tiling_suite(void);
Suite *schedule_suite(void);
Suite *balance_suite(void);
Suite *softmax_suite(void);
Suite *merge_suite(void);
Suite *reference_suite(void);
Suite *context_suite(void);
Suite *cooperate_suite(void);
Suite *plan_suite(void);
Suite *run_suite(void);
Suite *lengths_suite(void);
Suite *fill_suite(void);
Suite *lists_suite(void);
Suite *near_suite(void);
Suite *pages_suite(void);
Suite *overlap_suite(void);
Suite *host_suite(void);
Suite *messages_suite(void);
Suite *registry_suite(void);
Suite *structs_suite(void);
Suite *workspace_suite(void);

#endif
