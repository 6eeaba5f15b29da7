/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two files that appear together or not at all: both are complete under names of their own before the first gets its
 * own name. Only a rename that fails even so can part them. What goes to pipes and devices is written before that.
 */
#include "tools/cli.h"
#include "tools/io/output.h"
#include "tools/run/run.h"

enum { OUTPUTS = 2 };

bool run_outputs_possible(run_options *o)
{
    const cli_file inputs[] = {{"q", o->q},
                               {"k", o->k},
                               {"v", o->v},
                               {"bias", o->bias},
                               {"keep", o->keep},
                               {"expect", o->expect},
                               {"alibi", o->alibi},
                               {"sinks", o->sinks},
                               {"bias-factors", o->bias_factors},
                               {"lens-q", o->lens_q},
                               {"file", o->file},
                               {"lens-kv", o->lens_kv},
                               {"first-kv", o->first_kv},
                               {"page-table", o->page_table},
                               {"k-scale", o->scales[RUN_K_SCALE]},
                               {"v-scale", o->scales[RUN_V_SCALE]},
                               {"k-zero", o->scales[RUN_K_ZERO]},
                               {"v-zero", o->scales[RUN_V_ZERO]}};
    return output_check(RUN_COMMAND, o->outputs, OUTPUTS, inputs, sizeof(inputs) / sizeof(inputs[0]));
}

/* Complete, but for its name. */
static bool stage(const cli_file *file, const io_tensor *tensor, io_output *out)
{
    io_error error;
    if (io_output_begin(out, file->path, &error) && io_npy_put(out, tensor, &error) &&
        io_output_finish(out, &error))
        return true;
    cli_error(RUN_COMMAND, "--%s: %s", file->option, error.text);
    return false;
}

bool run_write(run_options *o, const run_problem *p)
{
    const io_tensor *const tensors[OUTPUTS] = {&p->o, &p->lse};
    io_output outputs[OUTPUTS], *staged[OUTPUTS] = {NULL};
    io_error error;
    int count = 0;
    /* The targets are looked at again: computing may have taken hours. */
    bool ok = run_outputs_possible(o);
    for (int i = 0; i < OUTPUTS && ok; i++) {
        if (!o->outputs[i].path)
            continue;
        staged[count] = &outputs[count];
        ok = stage(&o->outputs[i], tensors[i], staged[count++]);
    }
    if (ok && !io_output_commit(staged, count, &error)) {
        cli_error(RUN_COMMAND, "%s", error.text);
        ok = false;
    }
    for (int i = 0; i < count; i++)
        io_output_discard(&outputs[i]);
    return ok;
}
