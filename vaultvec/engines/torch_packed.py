"""BERT and XLM-RoBERTa over packed tokens: all texts of a batch in one (tokens, hidden) matrix, no padding anywhere.

Only attention needs to know where one text ends and the next begins; see torch_attention.py. The idea is that of
ByteTransformer (Zhai et al. 2022, arXiv:2210.03052) and of FlashAttention's variable-length kernels.

No CUDA graphs: a batch is as large as keeps each kernel at work for longer than the next one's launch takes, so there is
nothing left for a graph to save, and it would want every batch padded to a size it has recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaultvec.datatypes import TokenIds
from vaultvec.engines.packing import token_positions
from vaultvec.engines.torch_attention import Layout, choose_attention
from vaultvec.engines.torch_device import send
from vaultvec.engines.torch_weights import Weights
from vaultvec.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LayerWeights(NamedTuple):
    """One encoder layer; query, key and value are one product."""

    qkv_weight: Tensor  # (3 hidden, hidden)
    qkv_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm1_weight: Tensor
    norm1_bias: Tensor
    up_weight: Tensor  # (inner, hidden)
    up_bias: Tensor
    down_weight: Tensor
    down_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor


class PackedEncoder:
    """Token ids → unit vectors on the device. `compiled` may be switched off when torch.compile fails."""

    pads = False

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> None:
        import torch

        self.architecture = weights.architecture
        self.device = device
        self.dtype = dtype
        self.compiled = compiled
        heads = self.architecture.heads
        self.attend = choose_attention(device, dtype, heads, self.architecture.hidden // heads)
        self._step = torch.compile(_layer_step) if compiled else _layer_step
        self._load(weights.state)

    @property
    def bytes_per_token(self) -> int:
        """What a token takes at its worst: some seven hidden rows, the inner ones twice, and an fp32 copy to pool."""
        hidden, inner = self.architecture.hidden, self.architecture.inner
        return (7 * hidden + 2 * inner) * self.dtype.itemsize + 4 * hidden

    def _load(self, state: Mapping[str, Tensor]) -> None:
        try:
            # Every token is of type 0, so its row is added to each position once, in fp32.
            types = state["embeddings.token_type_embeddings.weight"][0].float()
            self._words = self._put(state["embeddings.word_embeddings.weight"])
            self._positions = self._put(state["embeddings.position_embeddings.weight"].float() + types)
            self._norm_weight = self._put(state["embeddings.LayerNorm.weight"])
            self._norm_bias = self._put(state["embeddings.LayerNorm.bias"])
            self._layers = [self._layer(state, f"encoder.layer.{i}.") for i in range(self.architecture.layers)]
        except KeyError as error:
            raise ModelError(f"the weights lack the tensor {error.args[0]}; get the model again") from error

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)

    def _layer(self, state: Mapping[str, Tensor], prefix: str) -> LayerWeights:
        import torch

        def both(name: str) -> list[Tensor]:
            return [self._put(state[f"{prefix}{name}.{part}"]) for part in ("weight", "bias")]

        parts = [both(f"attention.self.{name}") for name in ("query", "key", "value")]
        qkv = [torch.cat([part[i] for part in parts]) for i in (0, 1)]
        names = ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense")
        rest = [tensor for name in (*names, "output.LayerNorm") for tensor in both(name)]
        return LayerWeights(*qkv, *rest)

    def encode(self, rows: Sequence[TokenIds]) -> Tensor:
        """Unit vectors (len(rows), hidden) float32 on the device; on a GPU they are queued, not awaited."""
        return self.run(*self.pack(rows))

    def run(self, layout: Layout, ids: Tensor, positions: Tensor) -> Tensor:
        """The model over what `pack` made."""
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            x = functional.embedding(ids, self._words) + functional.embedding(positions, self._positions)
            x = functional.layer_norm(x, (x.shape[1],), self._norm_weight, self._norm_bias, self.architecture.eps)
            for layer in self._layers:
                x = self._run_layer(x, layer, layout)
            # Pooled and normalised in fp32: pooling in bf16 loses more than all layers do (0.9965 against 0.9999).
            return functional.normalize(pool(x, layout, self.architecture.pooling))

    def _run_layer(self, x: Tensor, layer: LayerWeights, layout: Layout) -> Tensor:
        from torch.nn import functional

        heads = self.architecture.heads
        qkv = functional.linear(x, layer.qkv_weight, layer.qkv_bias).view(x.shape[0], 3, heads, -1)
        mixed = self.attend(qkv, layout).reshape(x.shape)
        step = _layer_step
        if self.compiled:
            _mark_tokens_dynamic(mixed, x)
            step = self._step
        return step(mixed, x, layer, self.architecture.eps, self.architecture.gelu)

    def pack(self, rows: Sequence[TokenIds]) -> tuple[Layout, Tensor, Tensor]:
        """One host buffer, one copy: token ids, positions, offsets. Pinned on CUDA, so that nothing waits for it.

        Raises ModelError for a text that has more tokens than the model has positions.
        """
        import torch

        lengths = np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows))
        if lengths.max() + self.architecture.position_offset > self.architecture.max_positions:
            raise ModelError(
                f"a text has {lengths.max()} tokens, the model takes at most "
                f"{self.architecture.max_positions - self.architecture.position_offset}; cut texts with its tokenizer"
            )
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(lengths, out=offsets[1:])
        total = int(offsets[-1])
        host = torch.empty(2 * total + len(offsets), dtype=torch.int32, pin_memory=self.device.type == "cuda")
        view = host.numpy()
        np.concatenate(rows, out=view[:total], casting="same_kind")
        view[total : 2 * total] = token_positions(view[:total], offsets, self.architecture.position_offset)
        view[2 * total :] = offsets
        there = send(host, self.device)
        layout = Layout(there[2 * total :], tuple(lengths.tolist()))
        return layout, there[:total], there[total : 2 * total]


def _layer_step(mixed: Tensor, x: Tensor, layer: LayerWeights, eps: float, gelu: str) -> Tensor:
    """What follows attention in one layer, (tokens, hidden) → (tokens, hidden).

    Apart from attention, so that torch.compile sees one graph with one dynamic size, the same for every layer.
    """
    from torch.nn import functional

    width = (x.shape[1],)
    x = x + functional.linear(mixed, layer.out_weight, layer.out_bias)
    x = functional.layer_norm(x, width, layer.norm1_weight, layer.norm1_bias, eps)
    inner = functional.gelu(functional.linear(x, layer.up_weight, layer.up_bias), approximate=gelu)
    x = x + functional.linear(inner, layer.down_weight, layer.down_bias)
    return functional.layer_norm(x, width, layer.norm2_weight, layer.norm2_bias, eps)


def _mark_tokens_dynamic(*tensors: Tensor) -> None:
    """One compilation for every number of tokens. `dynamic=True` would do so for the hidden sizes too, which makes the
    kernels generic and slow."""
    import torch._dynamo

    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)


def pool(x: Tensor, layout: Layout, pooling: str) -> Tensor:
    """One float32 row a text from its tokens (tokens, hidden): "mean" or the first token ("cls")."""
    import torch

    if pooling == "cls":
        return x[layout.offsets[:-1].long()].float()
    if x.device.type == "mps":  # no segment_reduce there
        index = torch.repeat_interleave(torch.tensor(layout.lengths)).to(x.device)
        sums = x.new_zeros((len(layout.lengths), x.shape[1]), dtype=torch.float32).index_add_(0, index, x.float())
        return sums / torch.tensor(layout.lengths, dtype=torch.float32).to(x.device)[:, None]
    # unsafe: no look at the offsets on the host, which would wait for the device.
    reduced: Any = torch.segment_reduce(x.float(), "mean", offsets=layout.offsets, axis=0, unsafe=True)
    return torch.as_tensor(reduced)
