/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/scales.h"

bool scales_given(const fa_attention_desc *d, bool of_k)
{
    return (of_k ? d->k_scale : d->v_scale).shape[0] > 0;
}

int64_t scales_index(const fa_tensor *t, const int64_t shape[4], int64_t batch, int64_t head, int64_t key,
                     int64_t dim)
{
    const int64_t place[4] = {batch, head, key, dim};
    const bool contiguous = !t->stride[0] && !t->stride[1] && !t->stride[2] && !t->stride[3];
    int64_t index = 0, stride = 1;
    for (int axis = 3; axis >= 0; axis--) {
        const int64_t group = shape[axis] / t->shape[axis];
        index += place[axis] / group * (t->shape[axis] == 1 ? 0 : contiguous ? stride : t->stride[axis]);
        stride *= t->shape[axis];
    }
    return index;
}

double scales_element(const fa_attention_desc *d, const fa_inputs *in, bool of_k, double number,
                      int64_t batch, int64_t head, int64_t key, int64_t dim)
{
    const int64_t *shape = (of_k ? d->k : d->v).shape;
    const fa_tensor *scale = of_k ? &d->k_scale : &d->v_scale, *zero = of_k ? &d->k_zero : &d->v_zero;
    const void *scales = of_k ? in->k_scale : in->v_scale, *zeros = of_k ? in->k_zero : in->v_zero;
    const float factor = of_k ? d->k_factor : d->v_factor;
    if (!scales_given(d, of_k))
        return number;
    float s = fa_element(scale->dtype, scales, scales_index(scale, shape, batch, head, key, dim));
    double z = 0;
    s *= factor != 0 ? factor : 1;
    if (zero->shape[0] > 0)
        z = (double)fa_element(zero->dtype, zeros, scales_index(zero, shape, batch, head, key, dim));
    return (double)(float)((double)s * number + z);
}
