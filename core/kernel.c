/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel.h"

#include <string.h>

#include "core/attention/scales.h"
#include "core/status.h"

static fa_status check_type(const fa_kernel *kernel, const fa_problem *p, int operand, unsigned types)
{
    fa_dtype dtype = p->tensor[operand].dtype;
    if (types & FA_TYPE(dtype))
        return FA_OK;
    const bool told = kernel->declines && FA_TYPE_IS_CODED((int)dtype);
    return fa_fail(FA_UNSUPPORTED, "%s: %s.dtype %s is not served%s%s", kernel->name,
                   fa_operands[operand].name, fa_dtype_name(dtype), told ? ": " : "",
                   told ? kernel->declines : "");
}

static fa_status check_scales(const fa_kernel *kernel, const fa_problem *p, int operand)
{
    const fa_scales *s = fa_scales_of(p, operand);
    const int64_t dims = p->tensor[operand].shape[3];
    if (s->scale_type < 0 || kernel->scale_dims == 0 || s->dims % kernel->scale_dims == 0 || s->dims == dims)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED, "%s: %d dims share an element of %s, multiples of %d are served or all %d",
                   kernel->name, s->dims, fa_operands[FA_SCALE_OF(operand)].name, kernel->scale_dims,
                   (int)dims);
}

/* The field that asks for a feature which the kernel lacks, and its value where it is a number. */
static fa_status refuse_feature(const fa_kernel *kernel, const fa_problem *p, unsigned feature)
{
    const struct {
        bool given;
        const char *name;
    } list[] = {{p->packed_q, "cu_rows_q"},
                {p->packed_kv, "cu_rows_kv"},
                {p->has_lens_q, "lens_q"},
                {p->has_lens_kv, "lens_kv"},
                {p->has_first_kv, "first_kv"}};
    if (feature == FA_FEATURE_GROUPS)
        return fa_fail(FA_UNSUPPORTED, "%s: q.shape[1] is %d, served is k.shape[1], %d", kernel->name,
                       p->heads_q, p->heads_kv);
    if (feature == FA_FEATURE_SPLIT)
        return fa_fail(FA_UNSUPPORTED, "%s: tuning.splits is %d, at most 1 is served", kernel->name,
                       p->tuning.splits);
    if (feature == FA_FEATURE_SOFTCAP)
        return fa_fail(FA_UNSUPPORTED, "%s: softcap is %g, 0 is served", kernel->name, (double)p->softcap);
    for (size_t i = 0; feature == FA_FEATURE_SEQUENCES && i < sizeof(list) / sizeof(list[0]); i++) {
        if (list[i].given)
            return fa_fail(FA_UNSUPPORTED, "%s: %s is given, lengths of each sequence are not served",
                           kernel->name, list[i].name);
    }
    if (feature == FA_FEATURE_SEQUENCES)
        return fa_fail(FA_UNSUPPORTED, "%s: dynamic_lengths is %d, 0 is served", kernel->name,
                       p->on_device ? 2 : 1);
    const bool told = (feature & (FA_FEATURE_LISTS | FA_FEATURE_NEIGHBOURHOOD)) && kernel->declines_lists;
    return fa_fail(FA_UNSUPPORTED, "%s: %s is not served%s%s", kernel->name, fa_feature_name(feature),
                   told ? ": " : "", told ? kernel->declines_lists : "");
}

fa_status fa_kernel_supports(const fa_kernel *kernel, const fa_problem *p)
{
    unsigned missing = p->features & ~kernel->features;
    if (p->tuning.splits > 1 && !(kernel->features & FA_FEATURE_SPLIT))
        missing |= FA_FEATURE_SPLIT;
    if (missing)
        return refuse_feature(kernel, p, missing & (~missing + 1));
    const unsigned lacks = kernel->needs & ~p->features;
    if (lacks)
        return fa_fail(FA_UNSUPPORTED, "%s: a problem without %s is not served", kernel->name,
                       fa_feature_name(lacks & (~lacks + 1)));
    if (p->dim_qk > kernel->max_dim_qk)
        return fa_fail(FA_UNSUPPORTED, "%s: q.shape[3] is %d, at most %d is served", kernel->name, p->dim_qk,
                       kernel->max_dim_qk);
    if (p->dim_v > kernel->max_dim_v)
        return fa_fail(FA_UNSUPPORTED, "%s: v.shape[3] is %d, at most %d is served", kernel->name, p->dim_v,
                       kernel->max_dim_v);
    fa_dtype q = p->tensor[FA_Q].dtype, k = p->tensor[FA_K].dtype, v = p->tensor[FA_V].dtype;
    const bool coded_k = FA_TYPE_IS_CODED((int)k), coded_v = FA_TYPE_IS_CODED((int)v);
    const bool fits = kernel->mixes_coded ? (coded_k || q == k) && (coded_v || q == v)
                                          : (coded_k && coded_v) || (q == k && k == v);
    if (kernel->same_types && !fits)
        return fa_fail(FA_UNSUPPORTED, "%s: q.dtype %s, k.dtype %s and v.dtype %s differ, one type is served",
                       kernel->name, fa_dtype_name(q), fa_dtype_name(k), fa_dtype_name(v));
    const unsigned types[] = {kernel->types_q, kernel->types_k, kernel->types_v, kernel->types_o};
    for (int t = FA_Q; t <= FA_O; t++) {
        fa_status status = check_type(kernel, p, t, types[t]);
        if (status != FA_OK)
            return status;
    }
    if (FA_TYPE_IS_MLA((int)k) && !(p->features & FA_FEATURE_V_IN_K))
        return fa_fail(FA_UNSUPPORTED, "%s: k.dtype %s is served with v_in_k alone", kernel->name,
                       fa_dtype_name(k));
    FA_TRY(check_scales(kernel, p, FA_K));
    return check_scales(kernel, p, FA_V);
}

/* Turns of loops that a key of pruned rows costs more: a fetch of four elements counts bits in half of the row's words, and
 * 64 work-items share the fetches of a key. */
static int32_t count_turns(const fa_tensor *t, int32_t dim)
{
    return FA_TYPE_PRUNES((int)t->dtype) ? dim * dim / (256 * 64) + 1 : 0;
}

fa_limits fa_kernel_limits(const fa_kernel *kernel, const fa_problem *problem, const fa_limits *device)
{
    const fa_tensor *tensor = problem->tensor;
    const bool coded =
        (FA_TYPE_IS_CODED((int)tensor[FA_K].dtype) || FA_TYPE_IS_CODED((int)tensor[FA_V].dtype)) &&
        kernel->resident_coded > 0;
    fa_limits limits = fa_limits_sane(device, coded ? kernel->resident_coded : kernel->traits.resident);
    if (coded)
        limits.onchip_bytes -= FA_MIN(limits.onchip_bytes, (uint64_t)kernel->coded_bytes);
    const int32_t turns = kernel->traits.key_turns;
    const int32_t more =
        count_turns(&tensor[FA_K], problem->dim_qk) + count_turns(&tensor[FA_V], problem->dim_v);
    if (turns > 0 && limits.loop_turns > 0)
        limits.loop_turns = FA_MAX((int32_t)((int64_t)limits.loop_turns * turns / (turns + more)), 1);
    return limits;
}

bool fa_kernel_may_run(const fa_kernel *kernel, const fa_problem *problem, unsigned features)
{
    fa_problem plain = *problem;
    plain.features = features;
    plain.tuning.splits = 0;
    if (problem->kernel_name[0] ? strcmp(kernel->name, problem->kernel_name) != 0 : kernel->baseline)
        return false;
    return fa_kernel_supports(kernel, &plain) == FA_OK;
}
