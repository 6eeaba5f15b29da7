/* SPDX-License-Identifier: Apache-2.0 */
/* exp2 and tanh over the vector vocabulary; error bounds in docs/numerics.md, checked by tests/unit. */

/*
 * 2^x for x <= 127; 0 below 2^-126.5, NaN stays NaN, and 2^0 is exactly 1.
 * x = n + f with |f| <= 1/2. Adding 1.5 * 2^23 + 127 rounds x to n and leaves n + 127, which is the exponent of
 * 2^n, in the lowest bits. (2^f - 1) / f by a Chebyshev fit of degree 5.
 */
static inline vf v_exp2(vf x)
{
    vf clamped = v_max(v_set1(-127.0f), x), magic = v_set1(0x1.8p23f + 127.0f);
    vf pushed = v_add(clamped, magic);
    vf f = v_sub(clamped, v_sub(pushed, magic));
    vf p = v_set1(1.545316295e-04f);
    p = v_fma(p, f, v_set1(1.339086336e-03f));
    p = v_fma(p, f, v_set1(9.618082557e-03f));
    p = v_fma(p, f, v_set1(5.550357114e-02f));
    p = v_fma(p, f, v_set1(2.402265076e-01f));
    p = v_fma(p, f, v_set1(6.931471880e-01f));
    p = v_fma(p, f, v_set1(1.0f));
    return v_mul(p, v_exponent(pushed));
}

/*
 * tanh: near 0 the odd series x + x^3 P(x^2) by a Chebyshev fit, so that small arguments keep their relative
 * accuracy; elsewhere 1 - 2 / (e^(2|x|) + 1) with the sign put back.
 */
static inline vf v_tanh(vf x)
{
    vf size = v_abs(x), square = v_mul(x, x);
    vf p = v_set1(2.292744813e-03f);
    p = v_fma(p, square, v_set1(-8.343945513e-03f));
    p = v_fma(p, square, v_set1(2.176891865e-02f));
    p = v_fma(p, square, v_set1(-5.395925958e-02f));
    p = v_fma(p, square, v_set1(1.333330356e-01f));
    p = v_fma(p, square, v_set1(-3.333333317e-01f));
    vf near = v_fma(v_mul(p, square), x, x);
    /* e^(-2|x|) does not overflow: (1 - e) / (1 + e). */
    vf e = v_exp2(v_mul(size, v_set1(-2.885390082f)));
    vf far = v_div(v_sub(v_set1(1.0f), e), v_add(v_set1(1.0f), e));
    far = v_if_less(x, v_set1(0.0f), v_sub(v_set1(0.0f), far), far);
    return v_if_less(size, v_set1(0.625f), near, far);
}
