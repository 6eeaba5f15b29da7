/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of the vector mathematics, in every instruction set that this CPU has; FASTATTN_ISA limits them. */
#include <check.h>
#include <stdlib.h>

#include "backends/openmp/cpu.h"
#include "test_vec.h"

const vec_ops *vec_isa[FA_ISAS];
const char *vec_isa_name[FA_ISAS];
int vec_isas;

static void list_isas(void)
{
    const vec_ops *const ops[FA_ISAS] = {
        [FA_ISA_SCALAR] = &fa_scalar_vec_ops,
#if FA_WITH_AVX2
        [FA_ISA_AVX2] = &fa_avx2_vec_ops,
#endif
#if FA_WITH_AVX512
        [FA_ISA_AVX512] = &fa_avx512_vec_ops,
#endif
#if FA_WITH_NEON
        [FA_ISA_NEON] = &fa_neon_vec_ops,
#endif
    };
    for (int isa = 0; isa < FA_ISAS; isa++) {
        if (ops[isa] && fa_cpu_has((fa_isa)isa)) {
            vec_isa[vec_isas] = ops[isa];
            vec_isa_name[vec_isas++] = fa_isa_names[isa];
        }
    }
}

int main(void)
{
    list_isas();
    Suite *suite = suite_create("vec");
    add_math_tests(suite);
    add_lane_tests(suite);
    add_micro_tests(suite);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
