"""Attention between positions, of one stream or of two that share a key, in tiles that never leave the chip.

Forward, per stream s and with logits in powers of two, ``c = scale * log2(e)``::

    S = c Q_s K^T        L = log2 sum_n 2^S        P = 2^(S - L)        O_s = P V_s

    over key tiles: m' = max(m, max_n S),  l' = l 2^(m - m') + sum_n 2^(S - m'),  o' = o 2^(m - m') + 2^(S - m') V

Derivative, from the saved ``L`` and ``delta = sum_d dO * O``::

    dP = dO_s V_s^T      dS = P * (dP - delta)
    dV_s = P^T dO_s      dK = scale sum_s dS^T Q_s      dQ_s = scale dS K

A program of the forward pass and of dQ owns a tile of queries, of both streams, and runs over all keys: every key tile
is loaded once for both. A program of dK and dV owns a tile of keys and runs over all queries of both streams. No two
programs write to one address: every result is a sum in a fixed order. Where queries alone do not fill the device, the
keys are split, and a second kernel joins the partial results by their ``L``.

Layout: ``(B, heads, N, d)`` of any strides; a feature map's ``(heads d) h w`` is read as it lies.
Floor: the arithmetic, ``4 B heads Nq Nk d`` operations forward per stream; memory is linear in N.
"""

from __future__ import annotations

import triton
import triton.language as tl

# fmt: off
# the arguments stay in groups

# tiles


@triton.jit
def _load(p, i_n, N, o_d, strides, D: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, RAGGED: tl.constexpr):
    """Load positions ``i_n : i_n + BN`` of one head; zero beyond N and D."""
    o_n = i_n + tl.arange(0, BN)
    p_x = p + o_n[:, None].to(tl.int64) * strides[2] + o_d[None, :].to(tl.int64) * strides[3]  # (BN, BD)
    if RAGGED and BD != D:
        return tl.load(p_x, mask=(o_n[:, None] < N) & (o_d[None, :] < D), other=0.0)
    if RAGGED:
        return tl.load(p_x, mask=o_n[:, None] < N, other=0.0)
    if BD != D:
        return tl.load(p_x, mask=o_d[None, :] < D, other=0.0)
    return tl.load(p_x)


@triton.jit
def _store(p, b_x, i_n, N, o_d, strides, D: tl.constexpr, BN: tl.constexpr):
    """Store positions ``i_n : i_n + BN`` of one head as far as they exist."""
    o_n = i_n + tl.arange(0, BN)
    p_x = p + o_n[:, None].to(tl.int64) * strides[2] + o_d[None, :].to(tl.int64) * strides[3]  # (BN, BD)
    tl.store(p_x, b_x.to(p.dtype.element_ty), mask=(o_n[:, None] < N) & (o_d[None, :] < D))


@triton.jit
def _head(i_bh, H, strides):
    """Return the offset of a head."""
    return (i_bh // H).to(tl.int64) * strides[0] + (i_bh % H).to(tl.int64) * strides[1]


@triton.jit
def _dot(b_x, b_y, b_z, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """Return ``x @ y + z`` in float32."""
    if UPCAST:  # the interpreter multiplies bfloat16 as integers
        b_x = b_x.to(tl.float32)
        b_y = b_y.to(tl.float32)
    return tl.dot(b_x, b_y, b_z, input_precision=PRECISION)


# forward


@triton.jit
def _attend(b_q, b_k, p_v, b_o, b_m, b_l, i_n, NK, factor, v_strides,
            DV: tl.constexpr, RAGGED: tl.constexpr, PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Let one stream's queries (BM, BD) see one key tile (BN, BD); return its sums, maxima and partition sums."""
    BN: tl.constexpr = b_k.shape[0]
    BDV: tl.constexpr = b_o.shape[1]
    b_v = _load(p_v, i_n, NK, tl.arange(0, BDV), v_strides, DV, BN, BDV, RAGGED)  # (BN, BDV)
    b_s = _dot(b_q, tl.trans(b_k), tl.zeros((b_q.shape[0], BN), tl.float32), PREC, UPCAST)  # (BM, BN)
    b_s = b_s * factor
    if RAGGED:
        b_s = tl.where(i_n + tl.arange(0, BN)[None, :] < NK, b_s, -float("inf"))
    b_top = tl.maximum(b_m, tl.max(b_s, 1))
    b_p = tl.exp2(b_s - b_top[:, None])
    b_decay = tl.exp2(b_m - b_top)
    b_o = _dot(b_p.to(b_v.dtype), b_v, b_o * b_decay[:, None], PREC, UPCAST)  # (BM, BDV)
    return b_o, b_top, b_l * b_decay + tl.sum(b_p, 1)


@triton.jit
def forward_kernel(p_qa, p_qb, p_k, p_va, p_vb, p_oa, p_ob, p_lse,
                   factor, BH, H, NQ, NK, SPLITS, TILES, q_strides, k_strides, v_strides, o_strides,
                   D: tl.constexpr, DV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
                   BD: tl.constexpr, BDV: tl.constexpr, DUAL: tl.constexpr, RAGGED: tl.constexpr,
                   PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Attend from a tile of queries of one or both streams to one split of the keys."""
    # queries and results (B, heads, Nq, d or dv), key and values (B, heads, Nk, d or dv), lse (streams, splits, BH, Nq)
    n_m = tl.cdiv(NQ, BM)
    i_m = (tl.program_id(0) % n_m) * BM
    i_s = (tl.program_id(0) // n_m) % SPLITS
    i_bh = tl.program_id(0) // (n_m * SPLITS)
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BDV)

    o_head = _head(i_bh, H, q_strides)
    b_qa = _load(p_qa + o_head, i_m, NQ, o_d, q_strides, D, BM, BD, True)  # (BM, BD)
    b_oa = tl.zeros((BM, BDV), tl.float32)
    b_ma = tl.full((BM,), -float("inf"), tl.float32)
    b_la = tl.zeros((BM,), tl.float32)
    if DUAL:
        b_qb = _load(p_qb + o_head, i_m, NQ, o_d, q_strides, D, BM, BD, True)
        b_ob = tl.zeros((BM, BDV), tl.float32)
        b_mb = tl.full((BM,), -float("inf"), tl.float32)
        b_lb = tl.zeros((BM,), tl.float32)

    p_k += _head(i_bh, H, k_strides)
    p_va += _head(i_bh, H, v_strides)
    p_vb += _head(i_bh, H, v_strides)
    i_end = tl.minimum((i_s + 1) * TILES * BN, NK)
    for i_n in range(i_s * TILES * BN, i_end // BN * BN, BN):
        b_k = _load(p_k, i_n, NK, o_d, k_strides, D, BN, BD, False)  # (BN, BD)
        b_oa, b_ma, b_la = _attend(b_qa, b_k, p_va, b_oa, b_ma, b_la,
                                   i_n, NK, factor, v_strides, DV, False, PREC, UPCAST)
        if DUAL:
            b_ob, b_mb, b_lb = _attend(b_qb, b_k, p_vb, b_ob, b_mb, b_lb,
                                       i_n, NK, factor, v_strides, DV, False, PREC, UPCAST)
    if RAGGED and i_end == NK:  # the last, incomplete tile
        i_n = NK // BN * BN
        b_k = _load(p_k, i_n, NK, o_d, k_strides, D, BN, BD, True)
        b_oa, b_ma, b_la = _attend(b_qa, b_k, p_va, b_oa, b_ma, b_la,
                                   i_n, NK, factor, v_strides, DV, True, PREC, UPCAST)
        if DUAL:
            b_ob, b_mb, b_lb = _attend(b_qb, b_k, p_vb, b_ob, b_mb, b_lb,
                                       i_n, NK, factor, v_strides, DV, True, PREC, UPCAST)

    o_m = i_m + tl.arange(0, BM)
    o_out = _head(i_bh, H, o_strides) + i_s.to(tl.int64) * o_strides[4]
    o_lse = (i_s * BH + i_bh).to(tl.int64) * NQ + o_m
    _store(p_oa + o_out, b_oa / b_la[:, None], i_m, NQ, o_e, o_strides, DV, BM)
    tl.store(p_lse + o_lse, b_ma + tl.log2(b_la), mask=o_m < NQ)
    if DUAL:
        o_lse = ((SPLITS + i_s) * BH + i_bh).to(tl.int64) * NQ + o_m
        _store(p_ob + o_out, b_ob / b_lb[:, None], i_m, NQ, o_e, o_strides, DV, BM)
        tl.store(p_lse + o_lse, b_mb + tl.log2(b_lb), mask=o_m < NQ)


@triton.jit
def join_kernel(p_parts, p_lses, p_out, p_lse, BH, H, NQ, SPLITS, o_strides,
                DV: tl.constexpr, BM: tl.constexpr, BDV: tl.constexpr):
    """Weigh the splits' results by their share ``2^(L_s - L)`` of the whole partition sum."""
    n_m = tl.cdiv(NQ, BM)
    i_m = (tl.program_id(0) % n_m) * BM
    i_bh = tl.program_id(0) // n_m
    o_m = i_m + tl.arange(0, BM)
    o_e = tl.arange(0, BDV)
    m_m = o_m < NQ
    m_o = m_m[:, None] & (o_e[None, :] < DV)
    b_top = tl.full((BM,), -float("inf"), tl.float32)
    b_l = tl.zeros((BM,), tl.float32)
    b_o = tl.zeros((BM, BDV), tl.float32)
    for i_s in range(SPLITS):
        o_row = (i_s * BH + i_bh).to(tl.int64) * NQ + o_m
        b_lse = tl.load(p_lses + o_row, mask=m_m, other=0.0)  # (BM,)
        b_part = tl.load(p_parts + o_row[:, None] * DV + o_e[None, :], mask=m_o, other=0.0)  # (BM, BDV)
        b_new = tl.maximum(b_top, b_lse)
        b_share = tl.exp2(b_lse - b_new)
        b_decay = tl.exp2(b_top - b_new)
        b_o = b_o * b_decay[:, None] + b_part * b_share[:, None]
        b_l = b_l * b_decay + b_share
        b_top = b_new
    _store(p_out + _head(i_bh, H, o_strides), b_o / b_l[:, None], i_m, NQ, o_e, o_strides, DV, BM)
    tl.store(p_lse + i_bh.to(tl.int64) * NQ + o_m, b_top + tl.log2(b_l), mask=m_m)


# backward


@triton.jit
def delta_kernel(p_o, p_do, p_delta, H, NQ, o_strides, do_strides,
                 DV: tl.constexpr, BM: tl.constexpr, BDV: tl.constexpr):
    """Sum ``dO * O`` over the width, for one stream."""
    n_m = tl.cdiv(NQ, BM)
    i_m = (tl.program_id(0) % n_m) * BM
    i_bh = tl.program_id(0) // n_m
    o_e = tl.arange(0, BDV)
    b_o = _load(p_o + _head(i_bh, H, o_strides), i_m, NQ, o_e, o_strides, DV, BM, BDV, True)  # (BM, BDV)
    b_do = _load(p_do + _head(i_bh, H, do_strides), i_m, NQ, o_e, do_strides, DV, BM, BDV, True)
    o_m = i_m + tl.arange(0, BM)
    b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
    tl.store(p_delta + i_bh.to(tl.int64) * NQ + o_m, b_delta, mask=o_m < NQ)


@triton.jit
def _collect(p_q, p_do, p_lse, p_delta, p_v, p_dv, b_k, b_dk, i_n, NQ, NK, factor,
             q_strides, do_strides, v_strides, dv_strides,
             D: tl.constexpr, DV: tl.constexpr, BM: tl.constexpr, BDV: tl.constexpr,
             PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Add what all queries of one stream ask for to a key tile's gradient, and store its values'."""
    BN: tl.constexpr = b_k.shape[0]
    BD: tl.constexpr = b_k.shape[1]
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BDV)
    b_v = _load(p_v, i_n, NK, o_e, v_strides, DV, BN, BDV, True)  # (BN, BDV)
    b_dv = tl.zeros((BN, BDV), tl.float32)
    b_zero = tl.zeros((BN, BM), tl.float32)
    for i_m in range(0, NQ, BM):
        o_m = i_m + tl.arange(0, BM)
        m_m = o_m < NQ
        b_q = _load(p_q, i_m, NQ, o_d, q_strides, D, BM, BD, True)  # (BM, BD)
        b_do = _load(p_do, i_m, NQ, o_e, do_strides, DV, BM, BDV, True)  # (BM, BDV)
        b_lse = tl.load(p_lse + o_m, mask=m_m, other=float("inf"))  # (BM,); weight 0 beyond Nq
        b_delta = tl.load(p_delta + o_m, mask=m_m, other=0.0)
        b_s = _dot(b_k, tl.trans(b_q), b_zero, PREC, UPCAST)  # (BN, BM), as all that follows
        b_p = tl.exp2(b_s * factor - b_lse[None, :])
        b_dv = _dot(b_p.to(b_do.dtype), b_do, b_dv, PREC, UPCAST)  # (BN, BDV)
        b_dp = _dot(b_v, tl.trans(b_do), b_zero, PREC, UPCAST)
        b_ds = b_p * (b_dp - b_delta[None, :])
        b_dk = _dot(b_ds.to(b_q.dtype), b_q, b_dk, PREC, UPCAST)  # (BN, BD)
    _store(p_dv, b_dv, i_n, NK, o_e, dv_strides, DV, BN)
    return b_dk


@triton.jit
def key_value_gradient_kernel(p_qa, p_qb, p_k, p_va, p_vb, p_doa, p_dob, p_lse, p_delta, p_dk, p_dva, p_dvb,
                              scale, factor, BH, H, NQ, NK,
                              q_strides, k_strides, v_strides, do_strides, dk_strides, dv_strides,
                              D: tl.constexpr, DV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
                              BD: tl.constexpr, BDV: tl.constexpr, DUAL: tl.constexpr,
                              PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Compute dK, summed over the streams, and each stream's dV for a tile of keys."""
    # as in the forward pass; lse and delta (streams, BH, Nq)
    n_n = tl.cdiv(NK, BN)
    i_n = (tl.program_id(0) % n_n) * BN
    i_bh = tl.program_id(0) // n_n
    o_d = tl.arange(0, BD)
    o_q = _head(i_bh, H, q_strides)
    o_v = _head(i_bh, H, v_strides)
    o_do = _head(i_bh, H, do_strides)
    o_dv = _head(i_bh, H, dv_strides)
    o_row = i_bh.to(tl.int64) * NQ

    b_k = _load(p_k + _head(i_bh, H, k_strides), i_n, NK, o_d, k_strides, D, BN, BD, True)  # (BN, BD)
    b_dk = tl.zeros((BN, BD), tl.float32)
    b_dk = _collect(p_qa + o_q, p_doa + o_do, p_lse + o_row, p_delta + o_row, p_va + o_v, p_dva + o_dv, b_k, b_dk,
                    i_n, NQ, NK, factor, q_strides, do_strides, v_strides, dv_strides, D, DV, BM, BDV, PREC, UPCAST)
    if DUAL:
        o_row = (BH + i_bh).to(tl.int64) * NQ
        b_dk = _collect(p_qb + o_q, p_dob + o_do, p_lse + o_row, p_delta + o_row, p_vb + o_v, p_dvb + o_dv, b_k, b_dk,
                        i_n, NQ, NK, factor, q_strides, do_strides, v_strides, dv_strides, D, DV, BM, BDV, PREC, UPCAST)
    _store(p_dk + _head(i_bh, H, dk_strides), b_dk * scale, i_n, NK, o_d, dk_strides, D, BN)


@triton.jit
def _look_back(b_q, b_do, b_lse, b_delta, b_k, p_v, b_dq, i_n, NK, factor, v_strides,
               DV: tl.constexpr, RAGGED: tl.constexpr, PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Add to a query tile's gradient (BM, BD) what one key tile (BN, BD) gives back to it."""
    BN: tl.constexpr = b_k.shape[0]
    BDV: tl.constexpr = b_do.shape[1]
    b_v = _load(p_v, i_n, NK, tl.arange(0, BDV), v_strides, DV, BN, BDV, RAGGED)  # (BN, BDV)
    b_zero = tl.zeros((b_q.shape[0], BN), tl.float32)
    b_s = _dot(b_q, tl.trans(b_k), b_zero, PREC, UPCAST)  # (BM, BN)
    b_p = tl.exp2(b_s * factor - b_lse[:, None])
    if RAGGED:  # beyond Nk the weight of a zero key may be infinite
        b_p = tl.where(i_n + tl.arange(0, BN)[None, :] < NK, b_p, 0.0)
    b_dp = _dot(b_do, tl.trans(b_v), b_zero, PREC, UPCAST)
    b_ds = b_p * (b_dp - b_delta[:, None])
    return _dot(b_ds.to(b_k.dtype), b_k, b_dq, PREC, UPCAST)


@triton.jit
def query_gradient_kernel(p_qa, p_qb, p_k, p_va, p_vb, p_doa, p_dob, p_lse, p_delta, p_dqa, p_dqb,
                          scale, factor, BH, H, NQ, NK, q_strides, k_strides, v_strides, do_strides, dq_strides,
                          D: tl.constexpr, DV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
                          BD: tl.constexpr, BDV: tl.constexpr, DUAL: tl.constexpr, RAGGED: tl.constexpr,
                          PREC: tl.constexpr, UPCAST: tl.constexpr):
    """Compute dQ of one or both streams for a tile of queries."""
    # as in the forward pass; lse and delta (streams, BH, Nq)
    n_m = tl.cdiv(NQ, BM)
    i_m = (tl.program_id(0) % n_m) * BM
    i_bh = tl.program_id(0) // n_m
    o_d = tl.arange(0, BD)
    o_e = tl.arange(0, BDV)
    o_m = i_m + tl.arange(0, BM)
    m_m = o_m < NQ

    o_q = _head(i_bh, H, q_strides)
    o_do = _head(i_bh, H, do_strides)
    o_row = i_bh.to(tl.int64) * NQ + o_m
    b_qa = _load(p_qa + o_q, i_m, NQ, o_d, q_strides, D, BM, BD, True)  # (BM, BD)
    b_doa = _load(p_doa + o_do, i_m, NQ, o_e, do_strides, DV, BM, BDV, True)  # (BM, BDV)
    b_la = tl.load(p_lse + o_row, mask=m_m, other=float("inf"))  # (BM,); weight 0 beyond Nq
    b_ea = tl.load(p_delta + o_row, mask=m_m, other=0.0)
    b_dqa = tl.zeros((BM, BD), tl.float32)
    if DUAL:
        o_row = (BH + i_bh).to(tl.int64) * NQ + o_m
        b_qb = _load(p_qb + o_q, i_m, NQ, o_d, q_strides, D, BM, BD, True)
        b_dob = _load(p_dob + o_do, i_m, NQ, o_e, do_strides, DV, BM, BDV, True)
        b_lb = tl.load(p_lse + o_row, mask=m_m, other=float("inf"))
        b_eb = tl.load(p_delta + o_row, mask=m_m, other=0.0)
        b_dqb = tl.zeros((BM, BD), tl.float32)

    p_k += _head(i_bh, H, k_strides)
    p_va += _head(i_bh, H, v_strides)
    p_vb += _head(i_bh, H, v_strides)
    for i_n in range(0, NK // BN * BN, BN):
        b_k = _load(p_k, i_n, NK, o_d, k_strides, D, BN, BD, False)  # (BN, BD)
        b_dqa = _look_back(b_qa, b_doa, b_la, b_ea, b_k, p_va, b_dqa,
                           i_n, NK, factor, v_strides, DV, False, PREC, UPCAST)
        if DUAL:
            b_dqb = _look_back(b_qb, b_dob, b_lb, b_eb, b_k, p_vb, b_dqb,
                               i_n, NK, factor, v_strides, DV, False, PREC, UPCAST)
    if RAGGED:
        i_n = NK // BN * BN
        b_k = _load(p_k, i_n, NK, o_d, k_strides, D, BN, BD, True)
        b_dqa = _look_back(b_qa, b_doa, b_la, b_ea, b_k, p_va, b_dqa,
                           i_n, NK, factor, v_strides, DV, True, PREC, UPCAST)
        if DUAL:
            b_dqb = _look_back(b_qb, b_dob, b_lb, b_eb, b_k, p_vb, b_dqb,
                               i_n, NK, factor, v_strides, DV, True, PREC, UPCAST)

    o_dq = _head(i_bh, H, dq_strides)
    _store(p_dqa + o_dq, b_dqa * scale, i_m, NQ, o_d, dq_strides, D, BM)
    if DUAL:
        _store(p_dqb + o_dq, b_dqb * scale, i_m, NQ, o_d, dq_strides, D, BM)
