/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that test fa_problem_init() have in common. */
#ifndef FASTATTN_TESTS_UNIT_TEST_PROBLEM_H
#define FASTATTN_TESTS_UNIT_TEST_PROBLEM_H

#include <stddef.h>

#include "core/attention/problem.h"
#include "helpers.h"

#define AT(field) offsetof(fa_attention_desc, field)

static inline void refuse(const fa_attention_desc *d, fa_status expected, const char *message)
{
    fa_problem p;
    fa_status status = fa_problem_init(context, d, &p);
    ck_assert_msg(status == expected, "%s, expected %s with \"%s\"; the message is \"%s\"",
                  fa_status_name(status), fa_status_name(expected), message, fa_last_error());
    assert_message(message);
    ck_assert_ptr_null(p.sequence); /* empty: nothing to release */
    ck_assert_int_eq(p.sequences, 0);
}

static inline fa_problem accept(const fa_attention_desc *d)
{
    fa_problem p;
    fa_status status = fa_problem_init(context, d, &p);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return p;
}

static inline fa_attention_desc base(void)
{
    return make_desc(2, 4, 2, 8, 12, 16);
}

/* The tensors of a description. */
static const struct {
    const char *name;
    size_t offset;
} operand[] = {{"q", AT(q)}, {"k", AT(k)},       {"v", AT(v)},
               {"o", AT(o)}, {"bias", AT(bias)}, {"keep", AT(keep)}};

static inline fa_attention_desc base_with_extras(void)
{
    fa_attention_desc d = base();
    d.bias = fa_tensor_make(FA_F32, 2, 4, 8, 12);
    d.keep = fa_tensor_make(FA_BOOL, 2, 4, 8, 12);
    fa_problem p = accept(&d);
    fa_problem_release(context, &p);
    return d;
}

/* The cases of descriptions that are refused by name. */
void problem_add_refusals(Suite *suite);

#endif
