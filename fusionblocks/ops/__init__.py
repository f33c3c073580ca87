"""Functional operators: the attention kernels that the blocks are built on.

Each operator is a folder: ``__init__`` checks the arguments, chooses a backend and holds the public function;
``reference`` is plain PyTorch, serves every device and defines the truth that any faster backend is tested against.
"""

from __future__ import annotations

# Not lazy: an operator shares its name with its folder, and the function has to win whatever is imported first.
# The folder's modules are reached by ``from fusionblocks.ops.channel_attention import reference``.
from fusionblocks.ops._backend import backend, explain
from fusionblocks.ops.channel_attention import channel_attention
from fusionblocks.ops.cross_attention import cross_attention
from fusionblocks.ops.dual_cross_attention import dual_cross_attention
from fusionblocks.ops.folded_token_attention import folded_token_attention
from fusionblocks.ops.token_attention import token_attention

__all__ = [
    "backend",
    "channel_attention",
    "cross_attention",
    "dual_cross_attention",
    "explain",
    "folded_token_attention",
    "token_attention",
]
