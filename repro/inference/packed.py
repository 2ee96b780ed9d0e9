"""A linear layer on the CPU that multiplies only nonzero weights: unstructured, or in groups of four rows.

Tokens are processed in tiles. A tile is transposed into a buffer of shape (inputs, tokens), so that each weight
multiplies consecutive numbers and vector instructions need no gather. Each time a row of outputs is loaded, it
accumulates the products of eight weights (or of four weights in each of four rows, for masks made of blocks). That
makes arithmetic the bottleneck instead of the cache, which limits off-the-shelf sparse products: see
benchmarks/results/sparse_inference.md.

numba (extra `kernels`) compiles the loops on first use and caches them on disk.
"""

from __future__ import annotations

from typing import TypeAlias

import numba as nb
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repro.errors import UserError

TILE = 128  # tokens per tile
_ROWS = 16  # outputs that are written back together: 16 float32 are one cache line per token
F32: TypeAlias = NDArray[np.float32]
I32: TypeAlias = NDArray[np.int32]


@nb.njit(inline="always")  # type: ignore[untyped-decorator]
def _transpose_in(x: F32, first: int, tokens: int, tile: F32) -> None:
    for start in range(0, x.shape[1], 16):
        end = min(start + 16, x.shape[1])
        for token in range(tokens):
            for k in range(start, end):
                tile[k, token] = x[first + token, k]


@nb.njit(inline="always")  # type: ignore[untyped-decorator]
def _transpose_out(tile: F32, y: F32, first: int, tokens: int, start: int, end: int) -> None:
    for token in range(tokens):
        for i in range(start, end):
            y[first + token, i] = tile[i - start, token]


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rows_of_one(starts: I32, columns: I32, values: F32, bias: F32, x: F32, y: F32, ins: F32, outs: F32) -> None:
    outputs = y.shape[1]
    for tile in nb.prange((x.shape[0] + TILE - 1) // TILE):
        xt, yt = ins[nb.get_thread_id()], outs[nb.get_thread_id()]
        first = tile * TILE
        tokens = min(TILE, x.shape[0] - first)
        _transpose_in(x, first, tokens, xt)
        for start in range(0, outputs, _ROWS):
            end = min(start + _ROWS, outputs)
            for i in range(start, end):
                out = yt[i - start]
                for j in range(TILE):
                    out[j] = bias[i]
                p, last = starts[i], starts[i + 1]
                while p + 8 <= last:
                    w0, w1, w2, w3 = values[p], values[p + 1], values[p + 2], values[p + 3]
                    w4, w5, w6, w7 = values[p + 4], values[p + 5], values[p + 6], values[p + 7]
                    x0, x1, x2, x3 = xt[columns[p]], xt[columns[p + 1]], xt[columns[p + 2]], xt[columns[p + 3]]
                    x4, x5, x6, x7 = xt[columns[p + 4]], xt[columns[p + 5]], xt[columns[p + 6]], xt[columns[p + 7]]
                    for j in range(TILE):
                        low = w0 * x0[j] + w1 * x1[j] + w2 * x2[j] + w3 * x3[j]
                        out[j] += low + w4 * x4[j] + w5 * x5[j] + w6 * x6[j] + w7 * x7[j]
                    p += 8
                while p < last:
                    w0, x0 = values[p], xt[columns[p]]
                    for j in range(TILE):
                        out[j] += w0 * x0[j]
                    p += 1
            _transpose_out(yt, y, first, tokens, start, end)


@nb.njit(parallel=True, fastmath=True, nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rows_of_four(starts: I32, columns: I32, values: F32, bias: F32, x: F32, y: F32, ins: F32, outs: F32) -> None:
    outputs = y.shape[1]
    for tile in nb.prange((x.shape[0] + TILE - 1) // TILE):
        xt, yt = ins[nb.get_thread_id()], outs[nb.get_thread_id()]
        first = tile * TILE
        tokens = min(TILE, x.shape[0] - first)
        _transpose_in(x, first, tokens, xt)
        for start in range(0, outputs, _ROWS):
            end = min(start + _ROWS, outputs)
            for i in range(start, end, 4):
                a, b, c, d = yt[i - start], yt[i - start + 1], yt[i - start + 2], yt[i - start + 3]
                for j in range(TILE):
                    a[j], b[j], c[j], d[j] = bias[i], bias[i + 1], bias[i + 2], bias[i + 3]
                p, last = starts[i // 4], starts[i // 4 + 1]
                while p + 4 <= last:
                    q = 4 * p
                    a0, b0, c0, d0 = values[q], values[q + 1], values[q + 2], values[q + 3]
                    a1, b1, c1, d1 = values[q + 4], values[q + 5], values[q + 6], values[q + 7]
                    a2, b2, c2, d2 = values[q + 8], values[q + 9], values[q + 10], values[q + 11]
                    a3, b3, c3, d3 = values[q + 12], values[q + 13], values[q + 14], values[q + 15]
                    x0, x1, x2, x3 = xt[columns[p]], xt[columns[p + 1]], xt[columns[p + 2]], xt[columns[p + 3]]
                    for j in range(TILE):
                        s0, s1, s2, s3 = x0[j], x1[j], x2[j], x3[j]
                        a[j] += a0 * s0 + a1 * s1 + a2 * s2 + a3 * s3
                        b[j] += b0 * s0 + b1 * s1 + b2 * s2 + b3 * s3
                        c[j] += c0 * s0 + c1 * s1 + c2 * s2 + c3 * s3
                        d[j] += d0 * s0 + d1 * s1 + d2 * s2 + d3 * s3
                    p += 4
                while p < last:
                    q = 4 * p
                    a0, b0, c0, d0 = values[q], values[q + 1], values[q + 2], values[q + 3]
                    x0 = xt[columns[p]]
                    for j in range(TILE):
                        a[j] += a0 * x0[j]
                        b[j] += b0 * x0[j]
                        c[j] += c0 * x0[j]
                        d[j] += d0 * x0[j]
                    p += 1
            _transpose_out(yt, y, first, tokens, start, end)


class PackedLinear(nn.Module):
    """The nonzero weights of a linear layer, packed in groups of `rows` outputs, for float32 inference on a CPU.

    `rows` is 1, or 4 for masks made of blocks: then the weights of an input are stored for all four outputs of a group
    or for none. Raises `ValueError` for another number, or if it does not divide the number of outputs.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        if rows not in (1, 4) or linear.out_features % rows:
            raise ValueError(f"rows={rows} for {linear.out_features} outputs: must be 1, or 4 if 4 divides the outputs")
        self.in_features, self.out_features, self.rows = linear.in_features, linear.out_features, rows
        weight = linear.weight.detach().float().cpu().view(-1, rows, linear.in_features)
        active = (weight != 0).any(1)
        ends = active.sum(1).cumsum(0)
        self.register_buffer("starts", torch.cat([ends.new_zeros(1), ends]).int())
        self.register_buffer("columns", active.nonzero()[:, 1].int())
        self.register_buffer("values", weight.transpose(1, 2)[active].flatten())
        bias = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias
        self.register_buffer("bias", bias.detach().clone().float().cpu())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), both float32 on the CPU, without a gradient.

        Raises `UserError` for another dtype or device.
        """
        if inputs.dtype != torch.float32 or inputs.device.type != "cpu":
            raise UserError(
                f"a packed layer computes in float32 on a CPU, not in {inputs.dtype} on {inputs.device}; load the "
                "export with kernels='dense'"
            )
        x = inputs.detach().reshape(-1, self.in_features).contiguous()
        y = torch.empty(len(x), self.out_features)
        torch_threads = torch.get_num_threads()
        threads = min(torch_threads, nb.config.NUMBA_NUM_THREADS)
        nb.set_num_threads(threads)
        ins = np.empty((threads, self.in_features, TILE), np.float32)
        outs = np.empty((threads, _ROWS, TILE), np.float32)
        kernel = _rows_of_one if self.rows == 1 else _rows_of_four
        packed = (self.starts.numpy(), self.columns.numpy(), self.values.numpy(), self.bias.numpy())
        kernel(*packed, x.numpy(), y.numpy(), ins, outs)
        if torch.get_num_threads() != torch_threads:  # numba shares OpenMP with torch, and starts it with all cores
            torch.set_num_threads(torch_threads)
        return y.view(*inputs.shape[:-1], self.out_features)
