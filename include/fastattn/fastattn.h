/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fastattn: exact attention for hardware that is not an A100. Includes every header but cuda.h, dlpack.h,
 * nccl.h and reference.h.
 */
#ifndef FASTATTN_FASTATTN_H
#define FASTATTN_FASTATTN_H

#include "append.h"
#include "attention.h"
#include "bias.h"
#include "buffer.h"
#include "cascade.h"
#include "cluster.h"
#include "clustered.h"
#include "common.h"
#include "context.h"
#include "cooperate.h"
#include "device.h"
#include "hyper.h"
#include "key_lists.h"
#include "merge.h"
#include "mix.h"
#include "nsa.h"
#include "opencl.h"
#include "permute.h"
#include "plan.h"
#include "policies.h"
#include "ranks.h"
#include "ring.h"
#include "saliency.h"
#include "segments.h"
#include "select.h"
#include "sparse.h"
#include "transport.h"
#include "vulkan.h"

#endif
