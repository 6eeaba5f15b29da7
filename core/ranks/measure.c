/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>

#include "core/clock.h"
#include "core/context.h"
#include "core/portable/lang.h"
#include "core/ranks/transport.h"

/* The fastest of a few allreduces of so many elements, which are all 0. */
static fa_status measure(const fa_transport *t, float *data, int64_t count, double *seconds)
{
    enum { TURNS = 8 };
    *seconds = DBL_MAX;
    for (int i = 0; i < TURNS; i++) {
        const double start = fa_clock();
        FA_TRY(fa_allreduce(t, FA_F32, data, count));
        const double took = fa_clock() - start;
        *seconds = FA_MIN(*seconds, took);
    }
    return FA_OK;
}

fa_status fa_transport_measure(fa_context *context, fa_transport *transport)
{
    enum { MANY = 1 << 18 };
    fa_transport t;
    fa_rank_share took[2] = {{0}};
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    FA_TRY(fa_transport_read(transport, &t));
    if (t.device_memory)
        return fa_fail(FA_UNSUPPORTED, "transport.device_memory is 1, expected 0: host memory is measured");
    float *data = fa_alloc_zeroed(context, MANY * sizeof(*data));
    fa_status status = data ? FA_OK : FA_OUT_OF_MEMORY;
    status = fa_ranks_agree(context, &t, "a measurement", status, NULL, 0, NULL, 0);
    if (status == FA_OK)
        status = measure(&t, data, 1, &took[0].own);
    if (status == FA_OK)
        status = measure(&t, data, MANY, &took[1].own);
    if (data)
        fa_release(context, data, MANY * sizeof(*data));
    if (status != FA_RANK_LOST) /* who had another failure still tells the others */
        status = fa_ranks_agree(context, &t, "a measurement", status, NULL, 0, took, 2);
    if (status != FA_OK)
        return status;
    transport->latency = took[0].most;
    transport->bandwidth = MANY * sizeof(float) / FA_MAX(took[1].most - took[0].most, 1e-9);
    return FA_OK;
}
