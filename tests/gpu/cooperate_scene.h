/* SPDX-License-Identifier: Apache-2.0 */
/* A scene of segments whose first cache lies on another device, `away`; the other is the device at hand, home. */
#ifndef FA_TEST_COOPERATE_SCENE_H
#define FA_TEST_COOPERATE_SCENE_H

#include "core/backend.h"
#include "core/cooperate/cooperate.h"
#include "core/status.h"
#include "tests/gpu/segments_scene.h"

extern const char *away_name;
extern fa_device *away; /* NULL: the test is skipped */
extern fa_queue *away_queue;
extern bool had_away;

/* Around each test, behind the home device's. */
void open_away(void);
void close_away(void);

/* A scene's caches, whose lengths each run has of its own. Bit 0 of `paged` is the away one's, bit 1 the home one's. */
void make_pair(scene *s, int kind_away, int kind_home, int paged, int rows, bool packed, bool channels,
               random_state *random);

/* False where CUDA is one of both and serves no such scales, by name. */
bool create_from(const scene *s, fa_cooperate_desc desc, fa_cooperate **made);
bool create_pair(const scene *s, double link_seconds, fa_cooperate **made);

/* Everything of a run; cache 0 is the away device's. */
void make_pair_memory(const scene *s, memory_of *m);
void read_outputs(scene *s, const memory_of *m);

/* A run with keys [0, lens of cache 0) away and the others home; of those away the share is streamed, or none. */
void run_parts(scene *s, fa_cooperate *c, const memory_of *m, double share);
void run_apart(scene *s, fa_cooperate *c, const memory_of *m);

/* What runs so far have told, and that nothing was learnt since. */
fa_cooperate_info info_of(const fa_cooperate *c);
void assert_unchanged(const fa_cooperate *c, const fa_cooperate_info *before);

/* test_cooperate_streams.c, test_cooperate_refused.c */
void add_streams(TCase *tc);
void add_cooperate_refusals(TCase *tc);

#endif
