/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor-parallel latent attention (TPLA, arXiv 2508.15881) as a layer with sharded heads: a rank has all heads and a part of the
 * latent's dims. tests/gpu/test_shards.c has the definition, on one device.
 */
#ifndef FASTATTN_TESTS_RANKS_LATENT_SCENE_H
#define FASTATTN_TESTS_RANKS_LATENT_SCENE_H

#include <fastattn/fastattn.h>

/* Runs it on this rank, in so many chunks of tokens, and counts what of the layer's output is not within the bound. */
fa_status latent_scene_run(fa_context *context, fa_device *device, const fa_transport *transport,
                           int64_t chunks, int *wrong);

#endif
