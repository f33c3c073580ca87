r"""Kernels of pixels that ask a few tokens.

Of the pixel ``x`` (a column of the map), the tokens' keys ``k``, values ``v`` and biases ``b``::

    l_ht = scale k_ht . x + b_ht,    p_ht = exp(l_ht) / sum_t exp(l_ht),    o = sum_h sum_t p_ht v_ht  (+ x)

With the gradient ``g`` of ``o``::

    dp_ht = v_ht . g,    dl_ht = p_ht (dp_ht - sum_t p_ht dp_ht)
    dx = scale sum_h sum_t dl_ht k_ht  (+ g),    dk_ht = scale sum_n dl_ht x,    dv_ht = sum_n p_ht g,    db = sum_n dl

Layout: maps ``(B, G, C, N)`` with any strides, ``G`` groups with a map each; tokens ``(B, G, H, T, C)`` contiguous, the
``H`` heads of a group summed over. All tokens of a head lie in one tile, so a pixel's softmax never leaves registers,
nothing but the inputs is kept for the backward pass, and no program waits for another.

Memory floor: forward reads the map once and writes the result once; backward reads map and gradient once and writes
the map's gradient once (here the sums over pixels read both once more per head, in splits of fixed size whose partial
sums are added in a fixed order: no atomics, the same bits every time).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def offsets(i_n, BN: tl.constexpr):
    """Return the pixels of a tile, as wide as their number times a stride may be."""
    return (tl.zeros((BN,), tl.int64) + i_n) * BN + tl.arange(0, BN)


@triton.jit
def load_map(p_map, o_n, m_n, i_c, C, s_c, s_n, BC: tl.constexpr):
    """Load pixels by channels, tile ``i_c`` of the channels."""
    o_c = i_c * BC + tl.arange(0, BC)
    # (BN, BC)
    return tl.load(p_map + o_n[:, None] * s_n + o_c[None, :].to(tl.int64) * s_c, m_n[:, None] & (o_c < C)[None, :], 0.0)


@triton.jit
def store_map(p_map, b_map, o_n, m_n, i_c, C, s_c, s_n, BC: tl.constexpr):
    """Store pixels by channels ``(BN, BC)``, tile ``i_c`` of the channels."""
    o_c = i_c * BC + tl.arange(0, BC)
    mask = m_n[:, None] & (o_c < C)[None, :]
    tl.store(p_map + o_n[:, None] * s_n + o_c[None, :].to(tl.int64) * s_c, b_map.to(p_map.dtype.element_ty), mask)


@triton.jit
def load_tokens(p_tokens, i_c, T, C, BT: tl.constexpr, BC: tl.constexpr):
    """Load tokens by channels, tile ``i_c`` of the channels."""
    o_t = tl.arange(0, BT)
    o_c = i_c * BC + tl.arange(0, BC)
    # (BT, BC)
    return tl.load(p_tokens + o_t[:, None] * C + o_c[None, :], (o_t < T)[:, None] & (o_c < C)[None, :], 0.0)


@triton.jit
def dot(b_a, b_b, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """Multiply tiles, of the dtype of the second one, into float32."""
    b_a = b_a.to(b_b.dtype)
    if UPCAST:
        b_a, b_b = b_a.to(tl.float32), b_b.to(tl.float32)
    return tl.dot(b_a, b_b, input_precision=PRECISION)


@triton.jit
def product(
    p_map, p_tokens, o_n, m_n, T, C, s_c, s_n,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, NC: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Multiply pixels by tokens over all channels, ``(BN, BT)``."""
    b_product = tl.zeros((BN, BT), tl.float32)
    for i_c in range(NC):
        b_map = load_map(p_map, o_n, m_n, i_c, C, s_c, s_n, BC)
        b_tokens = load_tokens(p_tokens, i_c, T, C, BT, BC)
        b_product += dot(b_map, tl.trans(b_tokens), PRECISION, UPCAST)
    return b_product


@triton.jit
def softmax(b_product, p_bias, scale, T, BT: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Weigh the tokens of each pixel, ``(BN, BT)``."""
    o_t = tl.arange(0, BT)
    b_logits = b_product * (scale * LOG2E)
    if HAS_BIAS:
        # (BT,)
        b_logits += tl.load(p_bias + o_t, o_t < T, 0.0).to(tl.float32)[None, :] * LOG2E
    b_logits = tl.where((o_t < T)[None, :], b_logits, float("-inf"))
    b_weights = tl.exp2(b_logits - tl.max(b_logits, 1)[:, None])
    return b_weights / tl.sum(b_weights, 1)[:, None]


@triton.jit
def forward_kernel(
    p_map, p_key, p_value, p_bias, p_out, scale, G, H, T, C, E, N, NN, NE,
    s_mb, s_mg, s_mc, s_mn, s_ob, s_og, s_oc, s_on,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, NC: tl.constexpr,
    HAS_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute a tile of pixels by channels of the result, all heads."""
    i = tl.program_id(0)
    i_e, i_n, i_bg = i % NE, i // NE % NN, (i // NE // NN).to(tl.int64)
    o_n = offsets(i_n, BN)
    m_n = o_n < N
    p_map += i_bg // G * s_mb + i_bg % G * s_mg
    p_out += i_bg // G * s_ob + i_bg % G * s_og

    b_out = tl.zeros((BN, BE), tl.float32)
    if RESIDUAL:
        b_out += load_map(p_map, o_n, m_n, i_e, C, s_mc, s_mn, BE).to(tl.float32)
    if NC == 1:
        # read once and kept over the heads
        b_map = load_map(p_map, o_n, m_n, 0, C, s_mc, s_mn, BC)
    for i_h in range(H):
        i_bgh = i_bg * H + i_h
        if NC == 1:
            b_key = load_tokens(p_key + i_bgh * T * C, 0, T, C, BT, BC)
            b_product = dot(b_map, tl.trans(b_key), PRECISION, UPCAST)
        else:
            b_product = product(
                p_map, p_key + i_bgh * T * C, o_n, m_n, T, C, s_mc, s_mn, BN, BT, BC, NC, PRECISION, UPCAST
            )
        b_weights = softmax(b_product, p_bias + i_bgh * T, scale, T, BT, HAS_BIAS)
        b_value = load_tokens(p_value + i_bgh * T * E, i_e, T, E, BT, BE)
        b_out += dot(b_weights, b_value, PRECISION, UPCAST)
    store_map(p_out, b_out, o_n, m_n, i_e, E, s_oc, s_on, BE)


@triton.jit
def backward_map_kernel(
    p_grad, p_map, p_key, p_value, p_bias, p_out, scale, G, H, T, C, E, N, NN,
    s_gb, s_gg, s_gc, s_gn, s_mb, s_mg, s_mc, s_mn, s_ob, s_og, s_oc, s_on,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, NC: tl.constexpr, NE: tl.constexpr,
    HAS_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute a tile of pixels by channels of the map's gradient, all heads."""
    i = tl.program_id(0)
    i_c, i_n, i_bg = i % NC, i // NC % NN, (i // NC // NN).to(tl.int64)
    o_n = offsets(i_n, BN)
    m_n = o_n < N
    p_grad += i_bg // G * s_gb + i_bg % G * s_gg
    p_map += i_bg // G * s_mb + i_bg % G * s_mg
    p_out += i_bg // G * s_ob + i_bg % G * s_og

    b_out = tl.zeros((BN, BC), tl.float32)
    for i_h in range(H):
        i_bgh = i_bg * H + i_h
        p_k, p_v = p_key + i_bgh * T * C, p_value + i_bgh * T * E
        b_product = product(p_map, p_k, o_n, m_n, T, C, s_mc, s_mn, BN, BT, BC, NC, PRECISION, UPCAST)
        b_weights = softmax(b_product, p_bias + i_bgh * T, scale, T, BT, HAS_BIAS)
        b_dweights = product(p_grad, p_v, o_n, m_n, T, E, s_gc, s_gn, BN, BT, BE, NE, PRECISION, UPCAST)
        b_dlogits = b_weights * (b_dweights - tl.sum(b_weights * b_dweights, 1)[:, None])
        b_out += dot(b_dlogits * scale, load_tokens(p_k, i_c, T, C, BT, BC), PRECISION, UPCAST)
    if RESIDUAL:
        b_out += load_map(p_grad, o_n, m_n, i_c, C, s_gc, s_gn, BC).to(tl.float32)
    store_map(p_out, b_out, o_n, m_n, i_c, C, s_oc, s_on, BC)


@triton.jit
def backward_tokens_kernel(
    p_grad, p_map, p_key, p_value, p_bias, p_dkey, p_dvalue, p_dbias, scale, G, H, T, C, E, N, NN, NS, NJ, TILES,
    s_gb, s_gg, s_gc, s_gn, s_mb, s_mg, s_mc, s_mn,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, NC: tl.constexpr, NE: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of one head's tokens over one split of the pixels, a tile ``i_j`` of their channels."""
    i = tl.program_id(0)
    i_j, i_s, i_bgh = i % NJ, i // NJ % NS, (i // NJ // NS).to(tl.int64)
    i_bg = i_bgh // H
    p_grad += i_bg // G * s_gb + i_bg % G * s_gg
    p_map += i_bg // G * s_mb + i_bg % G * s_mg
    p_k, p_v = p_key + i_bgh * T * C, p_value + i_bgh * T * E

    b_dkey = tl.zeros((BT, BC), tl.float32)
    b_dvalue = tl.zeros((BT, BE), tl.float32)
    b_dbias = tl.zeros((BT,), tl.float32)
    for i_n in range(i_s * TILES, tl.minimum((i_s + 1) * TILES, NN)):
        o_n = offsets(i_n, BN)
        m_n = o_n < N
        b_product = product(p_map, p_k, o_n, m_n, T, C, s_mc, s_mn, BN, BT, BC, NC, PRECISION, UPCAST)
        b_weights = softmax(b_product, p_bias + i_bgh * T, scale, T, BT, HAS_BIAS)
        b_dweights = product(p_grad, p_v, o_n, m_n, T, E, s_gc, s_gn, BN, BT, BE, NE, PRECISION, UPCAST)
        b_dlogits = b_weights * (b_dweights - tl.sum(b_weights * b_dweights, 1)[:, None])
        b_dbias += tl.sum(b_dlogits, 0)
        b_map = load_map(p_map, o_n, m_n, i_j, C, s_mc, s_mn, BC)
        b_dkey += dot(tl.trans(b_dlogits), b_map, PRECISION, UPCAST)
        b_grad = load_map(p_grad, o_n, m_n, i_j, E, s_gc, s_gn, BE)
        b_dvalue += dot(tl.trans(b_weights), b_grad, PRECISION, UPCAST)

    i_part = i_bgh * NS + i_s
    o_t = tl.arange(0, BT)
    m_t = o_t < T
    o_c, o_e = i_j * BC + tl.arange(0, BC), i_j * BE + tl.arange(0, BE)
    p_dkey += i_part * T * C
    p_dvalue += i_part * T * E
    tl.store(p_dkey + o_t[:, None] * C + o_c[None, :], b_dkey * scale, m_t[:, None] & (o_c < C)[None, :])
    tl.store(p_dvalue + o_t[:, None] * E + o_e[None, :], b_dvalue, m_t[:, None] & (o_e < E)[None, :])
    if i_j == 0:
        tl.store(p_dbias + i_part * T + o_t, b_dbias, m_t)
