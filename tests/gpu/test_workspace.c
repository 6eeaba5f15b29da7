/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of fa_workspace_bound() on a GPU backend, whose driver makes plans but need not compute. */
#include "tests/unit/helpers.h"
#include "tests/unit/suites.h"

int main(void)
{
    return run_unforked(workspace_suite());
}
