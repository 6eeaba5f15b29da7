/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of fa_workspace_bound() on a GPU backend, whose driver makes plans but need not compute. */
#include <stdlib.h>

#include "tests/unit/suites.h"

int main(void)
{
    SRunner *runner = srunner_create(workspace_suite());
    srunner_set_fork_status(runner, CK_NOFORK); /* drivers have threads, which a fork leaves behind */
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
