/* SPDX-License-Identifier: Apache-2.0 */
/* What needs no device: the OpenCL backend's host side with a driver that computes nothing. */
#include <stdlib.h>

#include "suites.h"

int main(void)
{
    Suite *suite = suite_create("opencl stub");
    (void)setenv("FASTATTN_CACHE", "off", 1); /* unless a test makes one */
    add_device_tests(suite);
    add_hostile_tests(suite);
    add_wrap_tests(suite);
    add_cache_tests(suite);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the driver is looked for once in a process */
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
