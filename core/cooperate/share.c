/* SPDX-License-Identifier: Apache-2.0 */
/* How two devices share keys: what the model and earlier runs expect of each, and what a run's lists allow. */
#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "core/cooperate/cooperate.h"
#include "core/status.h"
#include "core/structs.h"

static size_t link_bytes(const fa_cooperate *c)
{
    return c->home.problem[FA_HOME].span[FA_Q] + c->home.parts.part_bytes + c->home.parts.part_lse_bytes;
}

double fa_cooperate_link(const fa_cooperate *c)
{
    return (double)link_bytes(c) / c->link_bandwidth + 2 * c->link_latency;
}

static double pace_of(const fa_pace *p)
{
    return p->measured > 0 ? p->measured : p->modelled;
}

static int64_t sequences_of(const fa_cooperate *c)
{
    return FA_MAX(c->home.problem[FA_HOME].sequences, 1);
}

/* Whether the calls of both return when the work is done, so that one follows the other. */
static bool in_turn(const fa_cooperate *c)
{
    return c->away->backend->host_pointers && c->home.device->backend->host_pointers;
}

/* Of all sequences together, `keys` each on average. Devices in turn take a sum of times, which is least at an end. */
static double even_share(const fa_cooperate *c, double keys)
{
    const double away = pace_of(&c->pace[FA_AWAY]), home = pace_of(&c->pace[FA_HOME]);
    if (!(keys > 0) || !(away + home > 0))
        return 0;
    const double gain = home - fa_cooperate_link(c) / keys;
    if (in_turn(c))
        return away < gain ? 1 : 0;
    return FA_MIN(FA_MAX(gain / (away + home), 0), 1);
}

double fa_cooperate_even(const fa_cooperate *c)
{
    return even_share(c, (double)(c->home.problem[FA_AWAY].keys + c->home.problem[FA_HOME].keys));
}

/* The most recent runs count most, and the first, which warms caches up, soon no more. */
void fa_cooperate_learn(fa_cooperate *c, int side, const fa_spent *spent)
{
    fa_pace *p = &c->pace[side];
    p->last = *spent;
    if (spent->keys == 0 || !(spent->seconds > 0))
        return;
    const double now = spent->seconds * (double)sequences_of(c) / (double)spent->keys;
    p->measured = c->runs == 0 || p->measured == 0 ? now : p->measured + (now - p->measured) / 2;
}

/* One past the last key that the first row of a sequence sees, where no row is hidden anything: beyond the last key. */
static int64_t seen_by_first(const fa_problem *p, int64_t n, int64_t keys, int64_t home_from)
{
    const fa_sequence *s = &p->sequence[n];
    if (s->len_q == 0 || p->rule.right >= FA_UNLIMITED)
        return keys;
    const fa_mask m = fa_mask_of(p->rule, s->len_q, (int)(keys - home_from), 0);
    return home_from + m.diagonal + m.right;
}

static fa_status check_sequence(const fa_cooperate *c, int64_t n, int64_t keys, int64_t away, int64_t from)
{
    const int64_t room_away = c->home.problem[FA_AWAY].keys, room_home = c->home.problem[FA_HOME].keys;
    if (keys < 0 || keys > room_away + room_home)
        return fa_fail(FA_INVALID, "keys[%lld] is %lld, expected 0 to %lld, what both caches hold",
                       (long long)n, (long long)keys, (long long)(room_away + room_home));
    if (away < 0 || away > FA_MIN(keys, room_away))
        return fa_fail(FA_INVALID, "away_keys[%lld] is %lld, expected 0 to %lld", (long long)n,
                       (long long)away, (long long)FA_MIN(keys, room_away));
    if (from > away || from < FA_MAX(keys - room_home, 0))
        return fa_fail(FA_INVALID, "home_from[%lld] is %lld, expected %lld to away_keys[%lld], %lld",
                       (long long)n, (long long)from, (long long)FA_MAX(keys - room_home, 0), (long long)n,
                       (long long)away);
    if (seen_by_first(&c->home.problem[FA_HOME], n, keys, from) < from)
        return fa_fail(FA_INVALID,
                       "home_from[%lld] is %lld with keys[%lld] %lld: a row does not see all keys before",
                       (long long)n, (long long)from, (long long)n, (long long)keys);
    return FA_OK;
}

fa_status fa_cooperate_share(fa_cooperate *c, const fa_cooperate_keys *k, fa_spent *spent)
{
    const fa_problem *p = &c->home.problem[FA_HOME];
    double all = 0;
    if (!k->keys || !k->away_keys)
        return fa_fail(FA_INVALID, "%s is NULL", k->keys ? "away_keys" : "keys");
    for (int64_t n = 0; n < p->sequences; n++) {
        FA_TRY(check_sequence(c, n, k->keys[n], k->away_keys[n],
                              k->home_from ? k->home_from[n] : k->away_keys[n]));
        all += (double)k->keys[n];
    }
    const double share = even_share(c, all / (double)sequences_of(c));
    for (int64_t n = 0; n < p->sequences; n++) {
        const int64_t from = k->home_from ? k->home_from[n] : k->away_keys[n];
        const int64_t most = FA_MIN(k->away_keys[n], seen_by_first(p, n, k->keys[n], from));
        const int64_t away = FA_MAX(FA_MIN((int64_t)llround(share * (double)k->keys[n]), most), from);
        c->list[FA_AWAY][n] = away;
        c->list[FA_HOME][n] = k->keys[n] - from;
        c->list[FA_HOME + 1][n] = away - from;
        spent[FA_AWAY].keys += away;
        spent[FA_HOME].keys += k->keys[n] - away;
    }
    return FA_OK;
}

fa_status fa_cooperate_get_info(const fa_cooperate *cooperate, fa_cooperate_info *info)
{
    fa_clear_error();
    if (!cooperate || !info)
        return fa_fail(FA_INVALID, "%s is NULL", cooperate ? "info" : "cooperate");
    const fa_pace *away = &cooperate->pace[FA_AWAY], *home = &cooperate->pace[FA_HOME];
    fa_cooperate_info made = {
        .runs = cooperate->runs,
        .share_away = fa_cooperate_even(cooperate),
        .keys_away = away->last.keys,
        .keys_home = home->last.keys,
        .modelled_away = away->modelled,
        .modelled_home = home->modelled,
        .measured_away = away->measured,
        .measured_home = home->measured,
        .seconds_away = away->last.seconds,
        .seconds_home = home->last.seconds,
        .link_seconds = fa_cooperate_link(cooperate),
        .link_bytes = link_bytes(cooperate),
    };
    memcpy(made.kernel_away, cooperate->kernel[FA_AWAY], sizeof(made.kernel_away));
    memcpy(made.kernel_home, cooperate->kernel[FA_HOME], sizeof(made.kernel_home));
    return fa_fill_struct(&made, sizeof(made), FA_COOPERATE_INFO_0_1, info, "fa_cooperate_info");
}
