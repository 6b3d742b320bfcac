"""Attention over packed tokens: each text attends to itself alone. Three ways, the best one that works here.

- varlen: `torch.nn.attention.varlen.varlen_attn` (torch 2.10), FlashAttention's variable-length kernel, half precision.
- jagged: scaled_dot_product_attention on jagged nested tensors, for other CUDA cards, float32, and older torch.
- grouped: neighbours of about equal length side by side in one padded product, for the CPU and for MPS.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# Padding that a group may carry, as a share of its area: more makes fewer, larger products of more waste.
# Tuned on 184-token chunks sorted by length, where 0.1 leaves two or three groups of 2,048 tokens.
GROUP_WASTE = 0.1


@dataclass(frozen=True)
class Group:
    """Neighbouring texts that go through attention together. `index` and `mask` are None when all are equally long."""

    start: int  # first token
    stop: int  # one past the last token
    count: int
    width: int
    index: Tensor | None = None  # (count, width) token of the matrix that stands in each place
    kept: Tensor | None = None  # (stop - start,) places of the padded area that are tokens, in order
    mask: Tensor | None = None  # (count, 1, 1, width) True where a key counts


@dataclass(frozen=True)
class Layout:
    """Where the texts lie in the packed matrix."""

    offsets: Tensor  # (n + 1,) int32 on the device: text i is rows offsets[i] to offsets[i + 1]
    lengths: tuple[int, ...]

    @cached_property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return max(self.lengths)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Made once a batch, used by every layer."""
        return tuple(_group(start, lengths, self.offsets.device) for start, lengths in cut_groups(self.lengths))


class Attention(Protocol):
    """(tokens, 3, heads, head_dim) → (tokens, heads, head_dim)."""

    def __call__(self, qkv: Tensor, layout: Layout) -> Tensor: ...


def choose_attention(device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> Attention:
    """The best attention that works on this device, in this precision, for heads of this size: each is tried once."""
    import torch

    if device.type != "cuda":
        return attend_grouped
    half = dtype in (torch.float16, torch.bfloat16)
    for attend in (attend_varlen, attend_jagged) if half else (attend_jagged,):
        if agrees(attend, device, dtype, heads, head_dim):
            return attend
    return attend_grouped


def agrees(attend: Attention, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> bool:
    """Whether a way of attention runs here and gives what the plain product gives, on two short texts."""
    import torch

    lengths = (5, 3)
    draw = torch.randn(sum(lengths), 3, heads, head_dim, generator=torch.Generator().manual_seed(0))
    qkv = draw.to(device, dtype)
    layout = Layout(torch.tensor([0, 5, 8], dtype=torch.int32, device=device), lengths)
    try:
        with torch.inference_mode():
            difference = attend(qkv, layout).float() - attend_grouped(qkv, layout).float()
            return bool(difference.abs().max() < 0.05)  # bf16 keeps three digits of values around one
    except Exception:  # an older card, another torch, a head too wide: each has its own class
        return False


def attend_varlen(qkv: Tensor, layout: Layout) -> Tensor:
    """FlashAttention over the packed matrix itself."""
    from torch.nn.attention.varlen import varlen_attn  # torch 2.10

    query, key, value = qkv.unbind(1)
    widest = layout.max_length
    return cast("Tensor", varlen_attn(query, key, value, layout.offsets, layout.offsets, widest, widest))


def attend_jagged(qkv: Tensor, layout: Layout) -> Tensor:
    """The same by nested tensors; both length bounds are given, so that nothing waits for the device."""
    import torch
    from torch.nn import functional

    offsets = layout.offsets.long()
    shortest, longest = min(layout.lengths), layout.max_length
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
        query, key, value = (
            torch.nested.nested_tensor_from_jagged(
                part.contiguous(), offsets, min_seqlen=shortest, max_seqlen=longest
            ).transpose(1, 2)
            for part in qkv.unbind(1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return mixed.values()


def attend_grouped(qkv: Tensor, layout: Layout) -> Tensor:
    """One product a group; a group of equally long texts is a mere view of the matrix."""
    import torch
    from torch.nn import functional

    mixed = torch.empty_like(qkv[:, 0])
    for group in layout.groups:
        if group.index is None or group.kept is None:
            block = qkv[group.start : group.stop].view(group.count, group.width, *qkv.shape[1:])
        else:
            block = qkv[group.index]
        query, key, value = block.permute(2, 0, 3, 1, 4)  # 3 times (count, heads, width, head_dim)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=group.mask)
        rows = out.transpose(1, 2).reshape(group.count * group.width, *mixed.shape[1:])
        mixed[group.start : group.stop] = rows if group.kept is None else rows[group.kept]
    return mixed


def cut_groups(lengths: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Runs of neighbours of about equal length, as (first token, lengths), in order, nothing left out."""
    runs: list[tuple[int, tuple[int, ...]]] = []
    first = start = total = widest = 0
    for i, length in enumerate(lengths):
        wider = max(widest, length)
        if i > first and total + length < (1 - GROUP_WASTE) * wider * (i + 1 - first):
            runs.append((start, lengths[first:i]))
            first, start, total, wider = i, start + total, 0, length
        total += length
        widest = wider
    runs.append((start, lengths[first:]))
    return runs


def _group(start: int, lengths: tuple[int, ...], device: torch.device) -> Group:
    import torch

    count, width, total = len(lengths), max(lengths), sum(lengths)
    if total == count * width:
        return Group(start, start + total, count, width)
    sizes = torch.tensor(lengths)
    real = torch.arange(width) < sizes[:, None]  # (count, width)
    index = torch.zeros((count, width), dtype=torch.long)
    index[real] = torch.arange(start, start + total)
    index[~real] = start  # any token will do: the mask keeps it out
    kept = real.flatten().nonzero().flatten()
    return Group(
        start, start + total, count, width, index.to(device), kept.to(device), real[:, None, None, :].to(device)
    )
