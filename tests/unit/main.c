/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the unit tests of the core. Check's own environment variables work: CK_RUN_SUITE, CK_FORK=no ... */
#include <stdlib.h>

#include "suites.h"

int main(void)
{
    Suite *(*const suites[])(void) = {
        mask_suite,     problem_suite,   tensor_suite,   formats_suite, append_suite,    tiling_suite,
        schedule_suite, balance_suite,   softmax_suite,  merge_suite,   reference_suite, context_suite,
        plan_suite,     run_suite,       registry_suite, structs_suite, workspace_suite, messages_suite,
        overlap_suite,  host_suite,      lengths_suite,  fill_suite,    pages_suite,     cascade_suite,
        scales_suite,   cooperate_suite, lists_suite,    near_suite,
    };
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
