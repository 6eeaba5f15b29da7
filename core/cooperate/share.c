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

double fa_cooperate_left(double memory, double processors, double stream)
{
    return memory > 0 ? FA_MIN(processors, FA_MAX(memory - stream, memory / 2)) : processors;
}

double fa_cooperate_streamed(const fa_paces *p, double away)
{
    const double host = away * p->away + p->link; /* when nothing is streamed */
    const double copied = host / (p->away + p->stream),
                 computed = (host - (1 - away) * p->home) / (p->away + p->home);
    return FA_MAX(FA_MIN(FA_MIN(copied, computed), away), 0);
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

/* The away device's pace while keys are streamed: a model knows nothing of the copies, which read the same memory. */
static double pace_beside_copies(const fa_cooperate *c)
{
    const fa_pace *p = &c->pace[FA_AWAY];
    const double bytes =
        pace_of(&c->pace[FA_STREAM]) > 0 ? c->pace[FA_STREAM].modelled * c->link_bandwidth : 0;
    if (p->measured > 0 || !(p->modelled > 0))
        return pace_of(p);
    return bytes /
           fa_cooperate_left(c->host_bandwidth, bytes / p->modelled, bytes / pace_of(&c->pace[FA_STREAM]));
}

/* All or nothing leaves one of the two unmeasured, and never learns that it, or `blocks`, has become another. */
static bool is_old(const fa_cooperate *c)
{
    return c->runs - FA_MIN(c->pace[FA_AWAY].run, c->pace[FA_STREAM].run) >= FA_PACE_RUNS;
}

/* Of the keys that lie away alone, which are the share `away` of all; there are `keys` of each sequence on average. */
static double streamed_share(const fa_cooperate *c, double keys, double away)
{
    const fa_stream *s = &c->stream;
    if (!s->plan || !(keys > 0) || !(away > 0))
        return 0;
    if (s->forced > 0)
        return s->forced;
    const fa_paces paces = {.away = pace_beside_copies(c) * keys,
                            .home = pace_of(&c->pace[FA_HOME]) * keys,
                            .stream = pace_of(&c->pace[FA_STREAM]) * keys,
                            .link = fa_cooperate_link(c)};
    if (s->blocks && !is_old(c)) /* a sum of times, which is least at an end */
        return paces.stream < paces.away ? 1 : 0;
    return fa_cooperate_streamed(&paces, away) / away;
}

/* Where both caches are full. */
static double streamed_when_full(const fa_cooperate *c)
{
    const double away = (double)c->home.problem[FA_AWAY].keys,
                 keys = away + (double)c->home.problem[FA_HOME].keys;
    const double share = keys > 0 ? streamed_share(c, keys, away / keys) : 0;
    return away > 0 ? FA_MIN(share, (double)fa_stream_most(&c->stream) / away) : 0;
}

double fa_cooperate_even(const fa_cooperate *c)
{
    return even_share(c, (double)(c->home.problem[FA_AWAY].keys + c->home.problem[FA_HOME].keys));
}

/* The most recent runs count most, and the first, which warms caches up, soon no more; one that is old, not at all. */
void fa_cooperate_learn(fa_cooperate *c, int side, const fa_spent *spent)
{
    fa_pace *p = &c->pace[side];
    p->last = *spent;
    if (spent->keys == 0 || !(spent->seconds > 0))
        return;
    const double now = spent->seconds * (double)sequences_of(c) / (double)spent->keys;
    const bool first = p->measured == 0 || c->runs - p->run >= FA_PACE_RUNS;
    p->measured = c->runs == 0 || first ? now : p->measured + (now - p->measured) / 2;
    p->run = c->runs;
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

static bool is_as_before(fa_cooperate *c, int list)
{
    const size_t bytes = (size_t)c->home.problem[FA_HOME].sequences * sizeof(int64_t);
    const bool same = bytes == 0 || memcmp(c->list[list], c->last[list], bytes) == 0;
    if (!same)
        memcpy(c->last[list], c->list[list], bytes);
    return same;
}

bool fa_cooperate_scheduled(fa_cooperate *c, int share)
{
    bool same = is_as_before(c, share);
    if (share == FA_HOME)
        same = is_as_before(c, FA_LIST_FIRST) && same;
    same = same && c->scheduled[share];
    c->scheduled[share] = true; /* by the caller; a run that fails takes it back */
    return same;
}

/* What a sequence streams of `from` keys. So little a change gains less than work of other lengths takes to write. */
static int64_t settled(const fa_cooperate *c, int64_t n, int64_t from, int64_t wanted)
{
    enum { STEPS = 128 };
    const int64_t last = c->last[FA_STREAM][n], step = from / STEPS;
    const bool near = last > 0 && wanted > 0 && wanted - last <= step && last - wanted <= step;
    return c->scheduled[FA_STREAM] && near && last <= from ? last : wanted;
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
    int64_t alone = 0, chosen = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        const int64_t from = k->home_from ? k->home_from[n] : k->away_keys[n];
        const int64_t most = FA_MIN(k->away_keys[n], seen_by_first(p, n, k->keys[n], from));
        const int64_t away = FA_MAX(FA_MIN((int64_t)llround(share * (double)k->keys[n]), most), from);
        c->list[FA_AWAY][n] = away;
        c->list[FA_HOME][n] = k->keys[n] - from;
        c->list[FA_LIST_FIRST][n] = away - from;
        spent[FA_HOME].keys += k->keys[n] - away;
        alone += from;
        chosen += away - from;
    }
    /* What the home device has itself is never copied to it, so where the away device takes of that, it has time left. */
    const double streamed = alone > 0 && (chosen == 0 || c->stream.forced > 0)
                                ? streamed_share(c, all / (double)sequences_of(c), (double)alone / all)
                                : 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        const int64_t from = k->keys[n] - c->list[FA_HOME][n];
        c->list[FA_STREAM][n] = settled(
            c, n, from, FA_MIN((int64_t)llround(streamed * (double)from), fa_stream_most(&c->stream)));
        c->list[FA_AWAY][n] -= c->list[FA_STREAM][n];
        spent[FA_AWAY].keys += c->list[FA_AWAY][n];
        spent[FA_STREAM].keys += c->list[FA_STREAM][n];
    }
    return FA_OK;
}

fa_status fa_cooperate_get_info(const fa_cooperate *cooperate, fa_cooperate_info *info)
{
    fa_clear_error();
    if (!cooperate || !info)
        return fa_fail(FA_INVALID, "%s is NULL", cooperate ? "info" : "cooperate");
    const fa_pace *away = &cooperate->pace[FA_AWAY], *home = &cooperate->pace[FA_HOME],
                  *stream = &cooperate->pace[FA_STREAM];
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
        .keys_streamed = stream->last.keys,
        .stream_most = fa_stream_most(&cooperate->stream),
        .share_streamed = streamed_when_full(cooperate),
        .modelled_stream = stream->modelled,
        .measured_stream = stream->measured,
        .seconds_stream = stream->last.seconds,
    };
    memcpy(made.kernel_away, cooperate->kernel[FA_AWAY], sizeof(made.kernel_away));
    memcpy(made.kernel_home, cooperate->kernel[FA_HOME], sizeof(made.kernel_home));
    memcpy(made.kernel_stream, cooperate->stream.kernel, sizeof(made.kernel_stream));
    return fa_fill_struct(&made, sizeof(made), FA_COOPERATE_INFO_0_1, info, "fa_cooperate_info");
}
