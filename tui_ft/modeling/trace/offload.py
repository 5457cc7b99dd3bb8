"""trl's activation offloading, without the copies: what stays on the GPU, and what comes back for the backward pass."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

_SMALLEST = 1024  # bytes; smaller tensors stay
_STASH = 5  # tensors whose copy may still be under way, which keeps them on the GPU


class Offloading(saved_tensors_hooks):
    """As `trl.models.activation_offloading.OffloadActivations` with streams, whose numbers these are.

    A tensor that is saved again while its copy is under way stays on the GPU: its second saving is not offloaded.
    """

    def __init__(self) -> None:
        self._stash: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._number = 0
        super().__init__(self._pack, self._unpack)

    def _pack(self, tensor: torch.Tensor) -> Any:
        self._number += 1
        if isinstance(tensor, torch.nn.Parameter) or tensor.numel() * tensor.element_size() < _SMALLEST:
            return tensor
        if any(tensor.untyped_storage() is held.untyped_storage() for held in self._stash.values()):
            return tensor
        if not tensor.is_contiguous() or tensor.storage_offset():
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        while self._stash and next(iter(self._stash)) <= self._number - _STASH:
            self._stash.popitem(last=False)
        self._stash[self._number] = tensor
        return (tuple(tensor.shape), tensor.dtype)

    def _unpack(self, kept: Any) -> torch.Tensor:
        self._stash.clear()
        return torch.empty(kept[0], dtype=kept[1]) if isinstance(kept, tuple) else kept
