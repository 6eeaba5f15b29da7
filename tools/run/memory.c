/* SPDX-License-Identifier: Apache-2.0 */
/* What a run will take, known before any data is read. */
#include <math.h>

#include "tools/check.h"
#include "tools/cli.h"
#include "tools/run/run.h"

/* While f64 or Fortran order is converted, the tensor at hand is there twice at most. What is quantised is there beside it. */
static double input_bytes(const run_problem *p)
{
    double bytes = 0, twice = 0;
    for (int i = 0; i < RUN_INPUTS; i++) {
        if (!p->inputs[i].source)
            continue;
        bytes += (double)p->inputs[i].found.tensor.bytes;
        if (p->inputs[i].found.fortran)
            twice = fmax(twice, (double)p->inputs[i].found.tensor.bytes);
    }
    /* Numbers that a scale has divided are f32. */
    const fa_tensor *of[] = {&p->desc.k, &p->desc.v}, *scale[] = {&p->desc.k_scale, &p->desc.v_scale};
    for (int i = 0; i < 2; i++) {
        const int64_t *n = of[i]->shape;
        if (scale[i]->shape[0] > 0)
            bytes += (double)n[0] * (double)n[1] * (double)n[2] * (double)n[3] * sizeof(float);
    }
    return bytes + twice + (double)run_format_bytes(&p->k_format, &p->desc.k) +
           (double)run_format_bytes(&p->v_format, &p->desc.v);
}

static double output_values(const run_problem *p)
{
    const int64_t *o = p->desc.o.shape;
    return (double)o[0] * (double)o[1] * (double)o[2] * (double)o[3];
}

static double output_bytes(const run_problem *p)
{
    const int64_t *o = p->desc.o.shape;
    double rows = (double)o[0] * (double)o[1] * (double)o[2];
    return output_values(p) * (double)fa_dtype_size(p->desc.o.dtype) +
           (p->desc.want_lse ? rows * sizeof(float) : 0);
}

bool run_fits(const run_options *options, const run_problem *p, const fa_device_info *device,
              const fa_plan *plan)
{
    double inputs = input_bytes(p), outputs = output_bytes(p);
    double workspace = (double)fa_plan_workspace(plan);
    /* Devices that "auto" leaves out are drivers that compute on the CPU: their buffers lie in the same memory. */
    double device_bytes = device->host_memory ? workspace
                          : device->automatic ? 0
                                              : inputs + outputs + workspace;
    double check = options->check ? check_reference_bytes(&p->desc) : 0;
    double expect = p->has_expect ? output_values(p) * (sizeof(double) + sizeof(float)) : 0;
    char why[384];
    if (cli_memory_fits(inputs + outputs + fmax(device_bytes, fmax(check, expect)), why, sizeof(why)))
        return true;
    cli_error(RUN_COMMAND, "this run %s; --ignore-memory goes on all the same", why);
    return false;
}
