/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of k and v that tensors of their own scale, as <fastattn/attention.h> says what they are. */
#ifndef FASTATTN_TOOLS_SCALES_H
#define FASTATTN_TOOLS_SCALES_H

#include <stdbool.h>

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>

/* Whether k, or else v, has scales. */
bool scales_given(const fa_attention_desc *d, bool of_k);

/* The element of k or v in that place whose code stands for `number`; the batch entry is the page, where there are such. */
double scales_element(const fa_attention_desc *d, const fa_inputs *in, bool of_k, double number,
                      int64_t batch, int64_t head, int64_t key, int64_t dim);

/* Where the scale or zero for that place lies in a tensor of either, for k or v of that shape. */
int64_t scales_index(const fa_tensor *t, const int64_t shape[4], int64_t batch, int64_t head, int64_t key,
                     int64_t dim);

#endif
