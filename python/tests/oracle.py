# SPDX-License-Identifier: Apache-2.0
"""Attention in float64, as the definition reads, and how far f32 arithmetic may be from it."""

import numpy as np

UNIT = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8, "float32": 2.0**-24, "float16": 2.0**-11,
        "bfloat16": 2.0**-8}


def positions(rows, keys, mask, alignment, offset):
    top_left = mask == "causal_top_left" or (mask in (None, "none") and alignment == "top_left")
    return np.arange(rows) + (0 if top_left else keys - rows) + offset


def visible(rows, keys, mask, window, prefix, first, place):
    """Which keys each row sees."""
    j = np.arange(keys)[None, :]
    p = place[:, None]
    seen = np.ones((rows, keys), bool)
    if mask in ("causal", "causal_bottom_right", "causal_top_left"):
        seen &= j <= p
    left, right = window or (None, None)
    if left is not None:
        seen &= j > p - left
    if right is not None:
        seen &= j < p + right
    seen |= j < prefix
    return seen & (j >= first)


def natten_window(i, length, kernel, stride, causal):
    """The tokens of an axis that token i sees: `kernel` around the leader of those that share a window."""
    together = [j for j in range(length) if j // stride == i // stride]
    leader = together[-1] if causal else min(together[0] + stride // 2, length - 1)
    if causal:
        return [j for j in range(length) if leader - kernel < j <= i]
    start = leader - kernel // 2
    while start < 0:
        start += 1
    while start + kernel > length:
        start -= 1
    return list(range(start, start + kernel))


def natten(size, kernel, stride, dilation, causal, tile):
    """Which tokens of a grid each token sees, and the order of tokens by group, patch and place in it. An argument has an
    entry for each axis."""
    axes = range(len(size))
    tokens = list(np.ndindex(*size))
    sees = [[set() for _ in range(size[n])] for n in axes]
    for n in axes:
        for group in range(dilation[n]):
            here = range(group, size[n], dilation[n])
            for i, token in enumerate(here):
                sees[n][token] = {here[j] for j in natten_window(i, len(here), kernel[n], stride[n], causal[n])}
    seen = np.array([[all(b[n] in sees[n][a[n]] for n in axes) for b in tokens] for a in tokens])
    number = lambda t: ([t[n] % dilation[n] for n in axes], [t[n] // dilation[n] // tile[n] for n in axes],
                        [t[n] // dilation[n] % tile[n] for n in axes])
    order = np.array(sorted(range(len(tokens)), key=lambda at: number(tokens[at])))
    return seen, order


def head(q, k, v, seen, place, scale, softcap, slope, bias, sink, weights="f32"):
    """One head of one sequence: output, LSE and the tolerance of the output, by element, and of the LSE."""
    u = UNIT["f32"]
    dims, keys = q.shape[1], k.shape[0]
    scores = scale * (q @ k.T)
    size = abs(scale) * (abs(q) @ abs(k).T)
    error = u * (dims + 3) * size
    if softcap:
        error += u * 8 * softcap + u * 4 * abs(scores)
        scores = softcap * np.tanh(scores / softcap)
    distance = abs(place[:, None] - np.arange(keys)[None, :])
    error += u * (3 * abs(slope) * distance + 2 * abs(scores))
    scores = scores - slope * distance + bias
    error += u * (3 * abs(np.where(np.isfinite(bias), bias, 0)) + 2 * abs(np.where(np.isfinite(scores), scores, 0)))
    scores = np.where(seen, scores, -np.inf)
    error = np.where(seen & np.isfinite(scores), error, 0).max(axis=1, initial=0)
    top = np.maximum(scores.max(axis=1, initial=-np.inf), sink)
    safe = np.where(np.isfinite(top), top, 0)
    p = np.exp(scores - safe[:, None])
    total = p.sum(axis=1) + np.exp(sink - safe)
    divided = p / np.where(total > 0, total, 1)[:, None]
    out = divided @ np.where(seen.any(axis=0)[:, None], v, 0)
    with np.errstate(divide="ignore"):
        lse = np.log(total) + safe
    # Weights are off by the errors of two scores, of exp and of the sum, and are rounded; the products are summed.
    each = np.expm1(2 * error) + (2 * keys + 24) * u + (UNIT[weights] if weights != "f32" else 0)
    spread = divided @ np.where(seen.any(axis=0)[:, None], abs(v), 0)
    lost = keys * 2.0**-25 * abs(v).max(initial=0) if weights == "f16" else 0
    finite = np.where(np.isfinite(lse), abs(lse), 0)
    return out, lse, each[:, None] * spread + lost, error + (keys + 24) * u + 4 * u * finite


def attention(q, k, v, *, mask=None, attn_mask=None, scale=None, softcap=0, window=None, prefix=0, diagonal_offset=0,
              alignment=None, alibi_slopes=None, sinks=None, bias_factors=None, lens_q=None, lens_kv=None,
              first_kv=None, weights="f32"):
    """Dense batches (batch, heads, rows, dim) in float64: output, LSE and their tolerances."""
    batch, heads, rows, dim = q.shape
    group = heads // k.shape[1]
    scale = dim**-0.5 if scale is None else scale
    results = [np.zeros((batch, heads, rows, v.shape[3])), np.full((batch, heads, rows), -np.inf),
               np.zeros((batch, heads, rows, v.shape[3])), np.zeros((batch, heads, rows))]
    slopes = None if alibi_slopes is None else np.broadcast_to(np.asarray(alibi_slopes, float), (batch, heads))
    for b in range(batch):
        n = rows if lens_q is None else lens_q[b]
        m = k.shape[2] if lens_kv is None else lens_kv[b]
        place = positions(n, m, mask, alignment, diagonal_offset)
        seen = visible(n, m, mask, window, prefix, 0 if first_kv is None else first_kv[b], place)
        for h in range(heads):
            here, bias = seen, np.zeros((n, m))
            if attn_mask is not None:
                full = np.broadcast_to(attn_mask, (batch, heads, rows, k.shape[2]))[b, h, :n, :m]
                if full.dtype == bool:
                    here = seen & full
                else:
                    bias = full.astype(float) * (1 if bias_factors is None else bias_factors[h])
            got = head(q[b, h, :n].astype(float), k[b, h // group, :m].astype(float),
                       v[b, h // group, :m].astype(float), here, place, scale, softcap,
                       0 if slopes is None else slopes[b, h], bias, -np.inf if sinks is None else sinks[h], weights)
            for result, part in zip(results, got):
                result[b, h, :n] = part
    return results
