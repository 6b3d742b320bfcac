"""Any sentence-transformers model in padded batches: for architectures that the packed forward does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vaultvec.datatypes import TokenIds
from vaultvec.engines.torch_device import send

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PaddedEncoder:
    """Token ids → unit vectors through the modules of a SentenceTransformer; what follows the transformer is fp32."""

    compiled = False
    pads = True

    def __init__(self, reference: Any, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        modules = list(reference)
        self.device = device
        self._backbone = _cast(modules[0].to(device=device), dtype).eval()
        self._head = [module.to(device=device, dtype=torch.float32).eval() for module in modules[1:]]
        self._pad_id = int(getattr(reference.tokenizer, "pad_token_id", None) or 0)
        self._types = "token_type_ids" in reference.tokenizer.model_input_names
        config = modules[0].auto_model.config
        hidden = int(getattr(config, "hidden_size", 0) or 1024)
        # The products of a layer, its inner rows four times as wide, and the padded attention weights beside them.
        self.bytes_per_token = 24 * hidden * dtype.itemsize

    def encode(self, rows: Sequence[TokenIds]) -> Tensor:
        """Unit vectors (len(rows), dim) float32 on the device."""
        return self.run(*self.pack(rows))

    def pack(self, rows: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask (len(rows), longest) int64 on the device."""
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        real = np.arange(lengths.max()) < lengths[:, None]  # (len(rows), longest)
        ids = np.full(real.shape, self._pad_id, dtype=np.int64)
        ids[real] = np.concatenate(rows)
        return self._send(ids), self._send(real.astype(np.int64))

    def run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The modules over what `pack` made."""
        import torch

        with torch.inference_mode():
            inputs = {"input_ids": ids, "attention_mask": mask}
            if self._types:
                inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
            features = self._backbone(inputs)
            features = {name: _widened(value) for name, value in features.items()}
            for module in self._head:
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"].float())

    def _send(self, array: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        import torch

        host = torch.from_numpy(array)
        if self.device.type == "cuda":
            host = host.pin_memory()
        return send(host, self.device)


def _cast(module: Any, dtype: torch.dtype) -> Any:
    """The parameters in `dtype`. Buffers stay as they are, as in transformers' own half precision: rotary frequencies
    that are rounded put the tokens of a long text in the wrong places."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return module


def _widened(value: Any) -> Any:
    """Half precision ends where pooling begins."""
    import torch

    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
