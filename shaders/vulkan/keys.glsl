/* SPDX-License-Identifier: Apache-2.0 */
/* Where rows of k and v lie: the one place that knows. */
layout(constant_id = FA_VK_FAR) const int FAR = 0;

/* The rows of k or v that an item meets: where the one of key 0 begins, and how far it is to the next. */
struct cursor {
    address first, step;
};

cursor keys_of(work w)
{
    const address bytes = address(bytes_of(TYPE_K));
    return cursor(at(FA_VK_SLOT_K) + FA_HEAD_AT(w, k) * bytes, wide(PARAMS.k_stride[2]) * bytes);
}

cursor values_of(work w)
{
    const address bytes = address(bytes_of(TYPE_V));
    return cursor(at(FA_VK_SLOT_V) + FA_HEAD_AT(w, v) * bytes, wide(PARAMS.v_stride[2]) * bytes);
}

/* Where a key's row begins. Most steps need few bits, and then the product is one instruction. */
address row_at(cursor c, int key)
{
    return c.first + (FAR != 0 ? address(key) * c.step : address(key) * address(int(c.step)));
}
