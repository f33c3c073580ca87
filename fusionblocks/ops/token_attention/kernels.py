r"""Kernels of a few tokens that ask all pixels.

Of a token's query ``q``, the pixels' keys ``k_n`` and values ``v_n`` (columns of two maps)::

    l_n = scale q . k_n,    p_n = exp(l_n) / sum_n exp(l_n),    o = sum_n p_n v_n

With the gradient ``g`` of ``o``::

    dp_n = g . v_n,    dl_n = p_n (dp_n - g . o)
    dq = scale sum_n dl_n k_n,    dk_n = scale dl_n q,    dv_n = p_n g

Layout: maps ``(B, H, C, N)`` with any strides, tokens ``(B, H, T, C)`` contiguous. The pixels are split into runs of
fixed length; each program carries maximum, sum and weighted values of all tokens through its run (a softmax that is
rescaled as it goes), and a second kernel combines the runs in a fixed order: no atomics, the same bits every time.
Where key and value are one map, it is loaded once.

Memory floor: forward reads the maps once; backward reads the maps and writes their gradients once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fusionblocks.ops.folded_token_attention.kernels import (
    LOG2E,
    dot,
    load_map,
    load_tokens,
    offsets,
    product,
    store_map,
)


@triton.jit
def forward_kernel(
    p_query, p_key, p_value, p_sums, p_max, p_denominator, scale, H, T, C, E, N, NN, NS, NE, TILES,
    s_kb, s_kh, s_kc, s_kn, s_vb, s_vh, s_vc, s_vn,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, NC: tl.constexpr,
    SHARED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Attend to one split of the pixels, a tile ``i_e`` of the values' channels."""
    i = tl.program_id(0)
    i_e, i_s, i_bh = i % NE, i // NE % NS, (i // NE // NS).to(tl.int64)
    p_query += i_bh * T * C
    p_key += i_bh // H * s_kb + i_bh % H * s_kh
    p_value += i_bh // H * s_vb + i_bh % H * s_vh

    b_max = tl.full((BT,), float("-inf"), tl.float32)
    b_denominator = tl.zeros((BT,), tl.float32)
    b_sums = tl.zeros((BT, BE), tl.float32)
    for i_n in range(i_s * TILES, tl.minimum((i_s + 1) * TILES, NN)):
        o_n = offsets(i_n, BN)
        m_n = o_n < N
        if SHARED:
            b_value = load_map(p_key, o_n, m_n, 0, C, s_kc, s_kn, BC)
            b_query = load_tokens(p_query, 0, T, C, BT, BC)
            b_logits = dot(b_value, tl.trans(b_query), PRECISION, UPCAST)
        else:
            b_logits = product(p_key, p_query, o_n, m_n, T, C, s_kc, s_kn, BN, BT, BC, NC, PRECISION, UPCAST)
            b_value = load_map(p_value, o_n, m_n, i_e, E, s_vc, s_vn, BE)
        # (BN, BT)
        b_logits = tl.where(m_n[:, None], b_logits * (scale * LOG2E), float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_logits, 0))
        b_weights = tl.exp2(b_logits - b_new[None, :])
        b_shrink = tl.exp2(b_max - b_new)
        b_max = b_new
        b_denominator = b_denominator * b_shrink + tl.sum(b_weights, 0)
        b_sums = b_sums * b_shrink[:, None] + dot(tl.trans(b_weights), b_value, PRECISION, UPCAST)

    i_part = i_bh * NS + i_s
    o_t, o_e = tl.arange(0, BT), i_e * BE + tl.arange(0, BE)
    m_t = o_t < T
    p_sums += i_part * T * E
    tl.store(p_sums + o_t[:, None] * E + o_e[None, :], b_sums, m_t[:, None] & (o_e < E)[None, :])
    if i_e == 0:
        tl.store(p_max + i_part * T + o_t, b_max, m_t)
        tl.store(p_denominator + i_part * T + o_t, b_denominator, m_t)


@triton.jit
def combine_kernel(
    p_sums, p_max, p_denominator, p_out, p_log, T, E, NS, NE,
    BS: tl.constexpr, NB: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Combine the splits of one token, a tile ``i_e`` of the values' channels."""
    i = tl.program_id(0)
    i_e, i_t, i_bh = i % NE, i // NE % T, (i // NE // T).to(tl.int64)
    o_e = i_e * BE + tl.arange(0, BE)
    m_e = o_e < E
    p_parts = i_bh * NS * T + i_t

    o_all = tl.arange(0, BS * NB)
    # (BS NB,)
    b_max = tl.max(tl.load(p_max + p_parts + o_all * T, o_all < NS, float("-inf")), 0)
    b_out = tl.zeros((BE,), tl.float32)
    b_total = tl.zeros((BS,), tl.float32)
    for i_b in range(NB):
        o_s = i_b * BS + tl.arange(0, BS)
        m_s = o_s < NS
        # (BS,)
        b_shrink = tl.exp2(tl.load(p_max + p_parts + o_s * T, m_s, float("-inf")) - b_max)
        b_total += b_shrink * tl.load(p_denominator + p_parts + o_s * T, m_s, 0.0)
        # (BS, BE)
        o_part = (p_parts + o_s * T)[:, None] * E + o_e[None, :]
        b_sums = tl.load(p_sums + o_part, m_s[:, None] & m_e[None, :], 0.0)
        b_out += tl.sum(b_shrink[:, None] * b_sums, 0)
    b_denominator = tl.sum(b_total, 0)
    i_row = i_bh * T + i_t
    tl.store(p_out + i_row * E + o_e, (b_out / b_denominator).to(p_out.dtype.element_ty), m_e)
    if i_e == 0:
        tl.store(p_log + i_row, b_max + tl.log2(b_denominator))


@triton.jit
def backward_kernel(
    p_grad, p_query, p_key, p_value, p_delta, p_log, p_dquery, p_dkey, p_dvalue,
    scale, H, T, C, E, N, NN, NS, NJ, TILES,
    s_kb, s_kh, s_kc, s_kn, s_vb, s_vh, s_vc, s_vn,
    s_dkb, s_dkh, s_dkc, s_dkn, s_dvb, s_dvh, s_dvc, s_dvn,
    BN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, NC: tl.constexpr, NE: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute the maps' gradients over one split of the pixels and sum the queries', a tile ``i_j`` of channels."""
    i = tl.program_id(0)
    i_j, i_s, i_bh = i % NJ, i // NJ % NS, (i // NJ // NS).to(tl.int64)
    p_query += i_bh * T * C
    p_grad += i_bh * T * E
    p_key += i_bh // H * s_kb + i_bh % H * s_kh
    p_value += i_bh // H * s_vb + i_bh % H * s_vh
    p_dkey += i_bh // H * s_dkb + i_bh % H * s_dkh
    p_dvalue += i_bh // H * s_dvb + i_bh % H * s_dvh

    o_t = tl.arange(0, BT)
    m_t = o_t < T
    # (BT,), the weights of no token being none
    b_log = tl.load(p_log + i_bh * T + o_t, m_t, float("inf"))
    b_delta = tl.load(p_delta + i_bh * T + o_t, m_t, 0.0)
    b_query = load_tokens(p_query, i_j, T, C, BT, BC)
    b_grad = load_tokens(p_grad, i_j, T, E, BT, BE)
    b_dquery = tl.zeros((BT, BC), tl.float32)
    for i_n in range(i_s * TILES, tl.minimum((i_s + 1) * TILES, NN)):
        o_n = offsets(i_n, BN)
        m_n = o_n < N
        b_logits = product(p_key, p_query, o_n, m_n, T, C, s_kc, s_kn, BN, BT, BC, NC, PRECISION, UPCAST)
        b_weights = tl.exp2(b_logits * (scale * LOG2E) - b_log[None, :])
        b_weights = tl.where(m_n[:, None], b_weights, 0.0)
        b_dweights = product(p_value, p_grad, o_n, m_n, T, E, s_vc, s_vn, BN, BT, BE, NE, PRECISION, UPCAST)
        b_dlogits = b_weights * (b_dweights - b_delta[None, :]) * scale
        b_dvalue = dot(b_weights, b_grad, PRECISION, UPCAST)
        store_map(p_dvalue, b_dvalue, o_n, m_n, i_j, E, s_dvc, s_dvn, BE)
        b_dkey = dot(b_dlogits, b_query, PRECISION, UPCAST)
        store_map(p_dkey, b_dkey, o_n, m_n, i_j, C, s_dkc, s_dkn, BC)
        b_key = load_map(p_key, o_n, m_n, i_j, C, s_kc, s_kn, BC)
        b_dquery += dot(tl.trans(b_dlogits), b_key, PRECISION, UPCAST)

    o_c = i_j * BC + tl.arange(0, BC)
    p_dquery += (i_bh * NS + i_s) * T * C
    tl.store(p_dquery + o_t[:, None] * C + o_c[None, :], b_dquery, m_t[:, None] & (o_c < C)[None, :])
