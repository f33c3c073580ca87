"""Triton kernels of attention between channels.

Forward, per batch and head, with ``q_i`` a channel of the query over all positions::

    S_ij = (q_i . k_j) a_i b_j,   a_i = 1 / max(|q_i|, eps),   b_j = 1 / max(|k_j|, eps)
    P = softmax(temperature S) over j,   M = P, or W_h P with a projection W = [W_1 ... W_heads],   out = M v

Derivative, with ``dM = dout v^T`` summed over the positions like the products above::

    dv = M^T dout,   dP = dM, or W_h^T dM with a projection,   dL = P (dP - rowsum(P dP)),   dtemperature = sum(dL S)
    R = temperature dL S,   A_ij = temperature dL_ij a_i b_j
    dq = A k - diag(a^2 rowsum(R)) q,   dk = A^T q - diag(b^2 colsum(R)) k    (no second term where eps holds the norm)

Everything between the feature maps and the C x C matrices is one of two primitives: a *reduction* ``x y^T`` over the
positions and an *application* of a small matrix to every position. The reduction is split over the positions; each
program writes its own partial sum and the next kernel adds them in a fixed order, so that results repeat bitwise.

Layout: ``(B, H, C, N)`` by any strides, read in place. A row r of a map with the heads merged is channel ``r % C`` of
head ``r // C``, so merging needs no copy either. Sums and C x C matrices are float32.

Memory floor: forward reads q, k, v once and writes the output once, which these kernels do; backward has to read q, k,
v, dout and write dq, dk, dv, and these kernels read dout twice.
"""

from __future__ import annotations

import triton
import triton.language as tl

EPS = tl.constexpr(1e-12)  # the smallest norm, as in reference.py


@triton.jit
def _indices(i, NS, H):
    """Batch, split and head of a program; heads and tiles of one split run side by side and share cache lines."""
    return i // H // NS, i // H % NS, i % H


@triton.jit
def _rows(p_x, i_b, i_h, o_r, s_x, C: tl.constexpr, ADJACENT: tl.constexpr):
    """Pointers to the first position of rows ``o_r``, counted from channel 0 of head ``i_h``."""
    p_b = p_x + i_b.to(tl.int64) * s_x[0]
    if ADJACENT:  # the next head follows at the distance of channels: the compiler sees whole vectors in channels-last
        p_r = p_b + (i_h * C + o_r).to(tl.int64) * s_x[2]
    else:
        p_r = p_b + (i_h + o_r // C).to(tl.int64) * s_x[1] + (o_r % C).to(tl.int64) * s_x[2]
    return p_r


@triton.jit
def reduce_kernel(
    p_x,
    p_y,
    p_g,
    p_s,
    s_x,
    s_y,
    H,
    N,
    P,
    NS,
    X: tl.constexpr,
    Y: tl.constexpr,
    XC: tl.constexpr,
    YC: tl.constexpr,
    BX: tl.constexpr,
    BY: tl.constexpr,
    BN: tl.constexpr,
    USE_NORMS: tl.constexpr,
    ADJACENT: tl.constexpr,
    USE_DOT: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Partial ``x y^T`` ``(B H, NS, X, Y)`` and squares of both ``(B H, NS, 2, X)``, over P positions each."""
    NX: tl.constexpr = (X + BX - 1) // BX
    NY: tl.constexpr = (Y + BY - 1) // BY
    i_tile = tl.program_id(0) % (NX * NY)
    i_b, i_s, i_h = _indices(tl.program_id(0) // (NX * NY), NS, H)
    o_x = i_tile // NY * BX + tl.arange(0, BX)
    o_y = i_tile % NY * BY + tl.arange(0, BY)
    o_n = tl.arange(0, BN)
    m_x, m_y = o_x < X, o_y < Y
    start = i_s.to(tl.int64) * P
    stop = tl.minimum(start + P, N)
    p_xs = _rows(p_x, i_b, i_h, o_x, s_x, XC, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_x[3]
    p_ys = _rows(p_y, i_b, i_h, o_y, s_y, YC, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_y[3]
    if USE_DOT:
        b_g = tl.zeros([BX, BY], tl.float32)
        b_x2 = tl.zeros([BX], tl.float32)
        b_y2 = tl.zeros([BY], tl.float32)
    else:
        b_g = tl.zeros([BX, BY, BN], tl.float32)  # a lane keeps its own sums until the end
        b_x2 = tl.zeros([BX, BN], tl.float32)
        b_y2 = tl.zeros([BY, BN], tl.float32)
    for n in tl.range(start, stop, BN, num_stages=STAGES):
        m_n = n + o_n < N
        # [BX, BN]
        b_x = tl.load(p_xs + n * s_x[3], mask=m_x[:, None] & m_n[None, :], other=0.0)
        # [BY, BN]
        b_y = tl.load(p_ys + n * s_y[3], mask=m_y[:, None] & m_n[None, :], other=0.0)
        if UPCAST or not USE_DOT:
            b_x, b_y = b_x.to(tl.float32), b_y.to(tl.float32)
        if USE_DOT:
            b_g = tl.dot(b_x, tl.trans(b_y), b_g, input_precision=PRECISION)
        else:
            b_g += b_x[:, None, :] * b_y[None, :, :]
        if USE_NORMS:
            b_x, b_y = b_x.to(tl.float32), b_y.to(tl.float32)
            if USE_DOT:
                b_x2 += tl.sum(b_x * b_x, 1)
                b_y2 += tl.sum(b_y * b_y, 1)
            else:
                b_x2 += b_x * b_x
                b_y2 += b_y * b_y
    if not USE_DOT:
        b_g = tl.sum(b_g, 2)
    i_out = (i_b * H + i_h).to(tl.int64) * NS + i_s
    tl.store(p_g + i_out * X * Y + o_x[:, None] * Y + o_y[None, :], b_g, mask=m_x[:, None] & m_y[None, :])
    if USE_NORMS:
        if not USE_DOT:
            b_x2, b_y2 = tl.sum(b_x2, 1), tl.sum(b_y2, 1)
        tl.store(p_s + i_out * 2 * X + o_x, b_x2, mask=m_x)
        tl.store(p_s + i_out * 2 * X + X + o_y, b_y2, mask=m_y)


@triton.jit
def _sum_splits(p_x, i_g, NS, o_x, o_y, X: tl.constexpr, Y: tl.constexpr, BS: tl.constexpr):
    """Sum of the ``NS`` partial matrices ``(X, Y)`` of group ``i_g``, in a fixed order."""
    b_x = tl.zeros([o_x.shape[0], o_y.shape[0]], tl.float32)
    for s in range(0, NS, BS):
        o_s = s + tl.arange(0, BS)
        offsets = (i_g.to(tl.int64) * NS + o_s)[:, None, None] * (X * Y) + (o_x[:, None] * Y + o_y[None, :])[None, :, :]
        mask = (o_s < NS)[:, None, None] & ((o_x < X)[:, None] & (o_y < Y)[None, :])[None, :, :]
        # [BS, BX, BY]
        b_x += tl.sum(tl.load(p_x + offsets, mask=mask, other=0.0), 0)
    return b_x


@triton.jit
def attend_kernel(
    p_g,
    p_s,
    p_t,
    p_attention,
    p_cosines,
    p_scales,
    H,
    NS,
    C: tl.constexpr,
    BC: tl.constexpr,
    BS: tl.constexpr,
    HALF: tl.constexpr,
):
    """Attention and cosines ``(B H, C, C)`` and inverse norms ``(B H, 2, C)`` from the partial sums."""
    i_g = tl.program_id(0)
    o_c, o_two = tl.arange(0, BC), tl.arange(0, 2)
    m_c = o_c < C
    m_cc = m_c[:, None] & m_c[None, :]
    b_g = _sum_splits(p_g, i_g, NS, o_c, o_c, C, C, BS)
    # [2, BC]
    b_norms = tl.sqrt_rn(_sum_splits(p_s, i_g, NS, o_two, o_c, 2, C, BS))
    if HALF:  # of float16 channels only zeros are below EPS: cosine 0 and gradient 0, for 1 / EPS exceeds float16
        b_scales = tl.where(b_norms < EPS, 0.0, 1.0 / tl.maximum(b_norms, EPS))
    else:
        b_scales = 1.0 / tl.maximum(b_norms, EPS)
    b_a = tl.sum(tl.where(o_two[:, None] == 0, b_scales, 0.0), 0)
    b_b = tl.sum(tl.where(o_two[:, None] == 1, b_scales, 0.0), 0)
    b_cosines = b_g * b_a[:, None] * b_b[None, :]
    b_logits = b_cosines * tl.load(p_t + i_g % H).to(tl.float32)
    b_logits = tl.where(m_c[None, :], b_logits, float("-inf"))
    b_p = tl.exp(b_logits - tl.max(b_logits, 1)[:, None])
    b_p = b_p / tl.sum(b_p, 1)[:, None]
    o_cc = i_g.to(tl.int64) * C * C + o_c[:, None] * C + o_c[None, :]
    tl.store(p_attention + o_cc, b_p, mask=m_cc)
    tl.store(p_cosines + o_cc, b_cosines, mask=m_cc)
    tl.store(p_scales + i_g.to(tl.int64) * 2 * C + o_c, b_a, mask=m_c)
    tl.store(p_scales + i_g.to(tl.int64) * 2 * C + C + o_c, b_b, mask=m_c)


@triton.jit
def differentiate_kernel(
    p_dp,
    p_attention,
    p_cosines,
    p_scales,
    p_t,
    p_a,
    p_d,
    p_dt,
    H,
    NS,
    C: tl.constexpr,
    BC: tl.constexpr,
    BS: tl.constexpr,
):
    """The matrix A ``(B H, C, C)``, the diagonals of dq and dk ``(B H, 2, C)`` and dtemperature ``(B H,)`` from dP."""
    i_g = tl.program_id(0)
    o_c = tl.arange(0, BC)
    m_c = o_c < C
    m_cc = m_c[:, None] & m_c[None, :]
    o_cc = i_g.to(tl.int64) * C * C + o_c[:, None] * C + o_c[None, :]
    b_dp = _sum_splits(p_dp, i_g, NS, o_c, o_c, C, C, BS)
    # [BC, BC]
    b_p = tl.load(p_attention + o_cc, mask=m_cc, other=0.0)
    b_cosines = tl.load(p_cosines + o_cc, mask=m_cc, other=0.0)
    # [BC]
    b_a = tl.load(p_scales + i_g.to(tl.int64) * 2 * C + o_c, mask=m_c, other=0.0)
    b_b = tl.load(p_scales + i_g.to(tl.int64) * 2 * C + C + o_c, mask=m_c, other=0.0)
    b_dl = b_p * (b_dp - tl.sum(b_p * b_dp, 1)[:, None])
    b_r = b_dl * b_cosines
    tl.store(p_dt + i_g, tl.sum(tl.sum(b_r, 1), 0))
    b_t = tl.load(p_t + i_g % H).to(tl.float32)
    b_ds = b_dl * b_t
    b_r *= b_t
    # a norm held at EPS does not depend on its channel; the inverse of EPS is known up to the division's rounding
    b_dq = tl.where(b_a < 0.9999 / EPS, -b_a * b_a * tl.sum(b_r, 1), 0.0)
    b_dk = tl.where(b_b < 0.9999 / EPS, -b_b * b_b * tl.sum(b_r, 0), 0.0)
    tl.store(p_a + o_cc, b_ds * b_a[:, None] * b_b[None, :], mask=m_cc)
    tl.store(p_d + i_g.to(tl.int64) * 2 * C + o_c, b_dq, mask=m_c)
    tl.store(p_d + i_g.to(tl.int64) * 2 * C + C + o_c, b_dk, mask=m_c)


@triton.jit
def _operand(b_m, dtype: tl.constexpr, UPCAST: tl.constexpr):
    """A float32 matrix as an operand of ``dtype``: its rows scaled to at most 1, and the scales that undo it.

    Without it the entries of A, about 1 / N, and those of W P leave float16's range.
    """
    b_scale = tl.max(tl.abs(b_m), 1, keep_dims=True)
    b_scale = tl.where(b_scale > 0, b_scale, 1.0)
    b_m = b_m / b_scale
    if not UPCAST:
        b_m = b_m.to(dtype)
    return b_m, b_scale


@triton.jit
def _lanewise(b_x, b_y):
    """``x^T y`` in float32 without a matrix unit.

    The sum is over the first axis. Of one over the second, Triton makes a product of matrices, and in TF32.
    """
    return tl.sum(b_x[:, :, None] * b_y[:, None, :], 0)


@triton.jit
def _matrix(
    p_m,
    i_b,
    i_h,
    o_r,
    o_k,
    s_m,
    R: tl.constexpr,
    K: tl.constexpr,
    OC: tl.constexpr,
    XC: tl.constexpr,
    dtype: tl.constexpr,
    USE_DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A tile of the matrix of rows (head, r) and columns (head, k), one of the two running over one head alone."""
    p_ms = p_m + i_b.to(tl.int64) * s_m[0] + (i_h + o_r[:, None] // OC + o_k[None, :] // XC) * s_m[1]
    p_ms += o_r[:, None] % OC * s_m[2] + o_k[None, :] % XC * s_m[3]
    # [BR, BK]
    b_m = tl.load(p_ms, mask=(o_r < R)[:, None] & (o_k < K)[None, :], other=0.0)
    if USE_DOT:
        b_m, b_scale = _operand(b_m, dtype, UPCAST)
    else:
        b_scale = tl.full([1, 1], 1.0, tl.float32)
    return b_m, b_scale


@triton.jit
def apply_kernel(
    p_m,
    p_x,
    p_o,
    s_m,
    s_x,
    s_o,
    H,
    N,
    P,
    NS,
    R: tl.constexpr,
    K: tl.constexpr,
    OC: tl.constexpr,
    XC: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    ADJACENT: tl.constexpr,
    USE_DOT: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """``out = M x``: ``(R, K)`` matrices applied to K rows, of one head or of all, P positions a program."""
    NR: tl.constexpr = (R + BR - 1) // BR
    NK: tl.constexpr = (K + BK - 1) // BK
    i_r = tl.program_id(0) % NR
    i_b, i_s, i_h = _indices(tl.program_id(0) // NR, NS, H)
    o_r, o_k, o_n = i_r * BR + tl.arange(0, BR), tl.arange(0, BK), tl.arange(0, BN)
    m_r = o_r < R
    start = i_s.to(tl.int64) * P
    stop = tl.minimum(start + P, N)
    p_os = _rows(p_o, i_b, i_h, o_r, s_o, OC, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_o[3]
    if NK == 1:
        b_m, b_scale = _matrix(p_m, i_b, i_h, o_r, o_k, s_m, R, K, OC, XC, p_x.dtype.element_ty, USE_DOT, UPCAST)
    for n in tl.range(start, stop, BN, num_stages=STAGES):
        m_n = n + o_n < N
        b_o = tl.zeros([BR, BN], tl.float32)
        for k in tl.static_range(0, NK * BK, BK):
            if NK > 1:
                b_m, b_scale = _matrix(
                    p_m, i_b, i_h, o_r, k + o_k, s_m, R, K, OC, XC, p_x.dtype.element_ty, USE_DOT, UPCAST
                )
            p_xs = _rows(p_x, i_b, i_h, k + o_k, s_x, XC, ADJACENT)[:, None] + (n + o_n)[None, :] * s_x[3]
            # [BK, BN]
            b_x = tl.load(p_xs, mask=(k + o_k < K)[:, None] & m_n[None, :], other=0.0)
            if UPCAST or not USE_DOT:
                b_x = b_x.to(tl.float32)
            if USE_DOT:
                b_o += tl.dot(b_m, b_x, input_precision=PRECISION) * b_scale
            else:
                b_o += _lanewise(tl.trans(b_m), b_x)
        tl.store(p_os + n * s_o[3], b_o.to(p_o.dtype.element_ty), mask=m_r[:, None] & m_n[None, :])


@triton.jit
def apply_pair_kernel(
    p_a,
    p_d,
    p_q,
    p_k,
    p_dq,
    p_dk,
    s_q,
    s_k,
    s_dq,
    s_dk,
    H,
    N,
    P,
    NS,
    C: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
    ADJACENT: tl.constexpr,
    USE_DOT: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """``dq = A k + diag(d_0) q`` and ``dk = A^T q + diag(d_1) k``: both maps read once, both gradients written once."""
    i_b, i_s, i_h = _indices(tl.program_id(0), NS, H)
    i_g = (i_b * H + i_h).to(tl.int64)
    o_c, o_n = tl.arange(0, BC), tl.arange(0, BN)
    m_c = o_c < C
    start = i_s.to(tl.int64) * P
    stop = tl.minimum(start + P, N)
    p_qs = _rows(p_q, i_b, i_h, o_c, s_q, C, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_q[3]
    p_ks = _rows(p_k, i_b, i_h, o_c, s_k, C, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_k[3]
    p_dqs = _rows(p_dq, i_b, i_h, o_c, s_dq, C, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_dq[3]
    p_dks = _rows(p_dk, i_b, i_h, o_c, s_dk, C, ADJACENT)[:, None] + o_n.to(tl.int64)[None, :] * s_dk[3]
    # [BC]
    b_dq = tl.load(p_d + i_g * 2 * C + o_c, mask=m_c, other=0.0)
    b_dk = tl.load(p_d + i_g * 2 * C + C + o_c, mask=m_c, other=0.0)
    # [BC, BC]
    b_a = tl.load(p_a + i_g * C * C + o_c[:, None] * C + o_c[None, :], mask=m_c[:, None] & m_c[None, :], other=0.0)
    if USE_DOT:
        b_aq, b_scale_q = _operand(b_a, p_q.dtype.element_ty, UPCAST)
        b_ak, b_scale_k = _operand(tl.trans(b_a), p_q.dtype.element_ty, UPCAST)
    for n in tl.range(start, stop, BN, num_stages=STAGES):
        mask = m_c[:, None] & (n + o_n < N)[None, :]
        # [BC, BN]
        b_q = tl.load(p_qs + n * s_q[3], mask=mask, other=0.0)
        b_k = tl.load(p_ks + n * s_k[3], mask=mask, other=0.0)
        b_q32, b_k32 = b_q.to(tl.float32), b_k.to(tl.float32)
        if USE_DOT:
            if UPCAST:
                b_q, b_k = b_q32, b_k32
            b_o = tl.dot(b_aq, b_k, input_precision=PRECISION) * b_scale_q
        else:
            b_o = _lanewise(tl.trans(b_a), b_k32)
        b_o += b_dq[:, None] * b_q32
        tl.store(p_dqs + n * s_dq[3], b_o.to(p_dq.dtype.element_ty), mask=mask)
        if USE_DOT:
            b_o = tl.dot(b_ak, b_q, input_precision=PRECISION) * b_scale_k
        else:
            b_o = _lanewise(b_a, b_q32)
        b_o += b_dk[:, None] * b_k32
        tl.store(p_dks + n * s_dk[3], b_o.to(p_dk.dtype.element_ty), mask=mask)
