/* SPDX-License-Identifier: Apache-2.0 */
#include "core/append/rotary.h"

#include <math.h>

#include "core/status.h"

static const double two_pi = 6.283185307179586476925286766559;

static fa_status refuse(const char *field, double value, const char *expected)
{
    return fa_fail(FA_INVALID, "rotary.%s is %g, expected %s", field, value, expected);
}

/* Fields that say how angles are computed, where none are. */
static fa_status check_angles(const fa_rotary *r, const char *expected)
{
    const struct {
        const char *field;
        double value;
    } unused[] = {
        {"base", r->base},
        {"scaling", (double)r->scaling},
        {"factor", r->factor},
        {"original_context", r->original_context},
        {"beta_fast", r->beta_fast},
        {"beta_slow", r->beta_slow},
        {"attention_factor", r->attention_factor},
    };
    for (size_t i = 0; i < sizeof(unused) / sizeof(unused[0]); i++) {
        if (unused[i].value != 0)
            return refuse(unused[i].field, unused[i].value, expected);
    }
    return FA_OK;
}

static fa_status check_unused(const fa_rotary *r)
{
    static const char *const expected = "0: rotary.form is 0";
    if (r->dims != 0)
        return refuse("dims", r->dims, expected);
    if (r->first_dim != 0)
        return refuse("first_dim", r->first_dim, expected);
    if (r->table_positions != 0)
        return refuse("table_positions", r->table_positions, expected);
    return check_angles(r, expected);
}

static fa_status check_no_yarn(const fa_rotary *r)
{
    static const char *const expected = "0 without FA_ROTARY_YARN";
    if (r->original_context != 0)
        return refuse("original_context", r->original_context, expected);
    if (r->beta_fast != 0)
        return refuse("beta_fast", r->beta_fast, expected);
    return r->beta_slow != 0 ? refuse("beta_slow", r->beta_slow, expected) : FA_OK;
}

static fa_status check_scaling(fa_rotary *r)
{
    const bool yarn = r->scaling == FA_ROTARY_YARN;
    if ((int)r->scaling < FA_ROTARY_UNSCALED || (int)r->scaling > FA_ROTARY_YARN)
        return refuse("scaling", (double)r->scaling, "a value of fa_rotary_scaling");
    if (r->scaling == FA_ROTARY_UNSCALED && r->factor != 0)
        return refuse("factor", r->factor, "0: there is no scaling");
    if (r->scaling != FA_ROTARY_UNSCALED && !(isfinite(r->factor) && r->factor >= 1))
        return refuse("factor", r->factor, "a number of at least 1");
    if (!yarn)
        FA_TRY(check_no_yarn(r));
    if (yarn && !(isfinite(r->original_context) && r->original_context >= 1))
        return refuse("original_context", r->original_context, "a number of positions of at least 1");
    if (yarn && r->beta_fast == 0)
        r->beta_fast = 32;
    if (yarn && r->beta_slow == 0)
        r->beta_slow = 1;
    if (yarn && !(isfinite(r->beta_slow) && r->beta_slow > 0))
        return refuse("beta_slow", r->beta_slow, "a number above 0");
    if (yarn && !(isfinite(r->beta_fast) && r->beta_fast >= r->beta_slow))
        return refuse("beta_fast", r->beta_fast, "a number of at least beta_slow");
    if (r->attention_factor == 0)
        r->attention_factor = yarn ? 0.1 * log(r->factor) + 1 : 1;
    if (!(isfinite(r->attention_factor) && r->attention_factor > 0))
        return refuse("attention_factor", r->attention_factor, "a number above 0");
    return FA_OK;
}

fa_status fa_rotary_check(fa_rotary *r, int64_t dim_qk)
{
    if ((int)r->form < FA_ROTARY_NONE || (int)r->form > FA_ROTARY_HALVES)
        return refuse("form", (double)r->form, "a value of fa_rotary_form");
    if (r->form == FA_ROTARY_NONE)
        return check_unused(r);
    if (dim_qk < 2)
        return fa_fail(FA_INVALID, "k.shape[3] is %lld, expected at least 2 with rotary.form %d",
                       (long long)dim_qk, (int)r->form);
    if (r->first_dim < 0 || r->first_dim > dim_qk - 2)
        return fa_fail(FA_INVALID, "rotary.first_dim is %d, expected 0 to %lld: the head dim is %lld",
                       r->first_dim, (long long)dim_qk - 2, (long long)dim_qk);
    const int64_t most = dim_qk - r->first_dim;
    if (r->dims == 0)
        r->dims = (int32_t)most;
    if (r->dims < 2 || r->dims > most || r->dims % 2 != 0)
        return fa_fail(FA_INVALID, "rotary.dims is %d, expected an even number from 2 to %lld, the %s",
                       r->dims, (long long)most,
                       r->first_dim > 0 ? "dims from rotary.first_dim on" : "head dim");
    if (r->table_positions < 0)
        return refuse("table_positions", r->table_positions, "0 or more");
    if (r->table_positions > 0)
        return check_angles(r, "0: angles come from tables");
    if (r->base == 0)
        r->base = 10000;
    if (!(isfinite(r->base) && r->base > 1))
        return refuse("base", r->base, "a number above 1");
    return check_scaling(r);
}

/* The pair that turns so many times within the original context, as a real number. */
static double pair_of_turns(const fa_rotary *r, double turns)
{
    return r->dims * log(r->original_context / (turns * two_pi)) / (2 * log(r->base));
}

double fa_rotary_frequency(const fa_rotary *r, int pair)
{
    const double own = pow(r->base, -2.0 * pair / r->dims);
    if (r->scaling != FA_ROTARY_YARN)
        return r->scaling == FA_ROTARY_LINEAR ? own / r->factor : own;
    const double low = fmax(floor(pair_of_turns(r, r->beta_fast)), 0);
    const double high = fmin(ceil(pair_of_turns(r, r->beta_slow)), r->dims - 1);
    const double stretched = fmin(fmax((pair - low) / fmax(high - low, 0.001), 0), 1);
    return own / r->factor * stretched + own * (1 - stretched);
}

fa_turn fa_rotary_turn(const fa_rotary *r, int pair)
{
    const double whole = 4294967296.0, turns = fa_rotary_frequency(r, pair) / two_pi;
    const double scaled = (turns - floor(turns)) * whole, high = floor(scaled);
    return (fa_turn){(fa_uint)high, (fa_uint)((scaled - high) * whole)};
}
