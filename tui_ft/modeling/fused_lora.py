"""peft's LoRA layers with one pass over the output: y = x Wᵀ, then y += s · (x Aᵀ) Bᵀ in place.

peft makes a pass over a tensor as large as the layer's output for each of its steps (product with B, scaling, sum, casts; a copy of
4-bit layers' results), and in 16 bits two casts of the input besides. Here the sum is part of the product with B, and the backward pass is
written by hand. It keeps the input and the small x Aᵀ alone; a 4-bit weight is unpacked once in it.

A layer changes its class and nothing else: names, state dict, saving, merging and copying are peft's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft.import_utils import is_bnb_4bit_available
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D


def fuse(model: nn.Module) -> int:
    """Fuse the LoRA layers of `model` whose base layer is known here; how many. Others stay as they are: 8-bit, GPTQ, embeddings, DoRA."""
    count = 0
    for module in model.modules():
        if type(module) in _adapted() and not module.lora_variant and _kind_of(module.get_base_layer()):
            module.__class__ = _fused(type(module))  # type: ignore[arg-type]
            count += 1
    return count


def count(model: nn.Module) -> int:
    """How many layers are fused."""
    return sum(isinstance(module, _Fused) for module in model.modules())


@cache
def _adapted() -> tuple[type, ...]:
    """peft's layers that a fused one may stand for."""
    if not is_bnb_4bit_available():
        return (Linear,)
    from peft.tuners.lora.bnb import Linear4bit

    return Linear, Linear4bit


def _kind_of(base: nn.Module) -> str:
    """`plain`, `transposed` (GPT-2's) or `4-bit`; empty for a layer whose product is not known here, subclasses of these included."""
    if type(base) is nn.Linear:
        return "plain"
    if type(base) is Conv1D:
        return "transposed"
    if is_bnb_4bit_available():
        from bitsandbytes.nn import Linear4bit

        if isinstance(base, Linear4bit):
            return "4-bit"
    return ""


@cache
def _fused(kind: type) -> type:
    return type(kind.__name__, (_Fused, kind), {})


class _Fused:
    """Goes before one of peft's classes."""

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        dtype = None if args or kwargs else _exact_dtype(self, x)
        if dtype is None:
            return super().forward(x, *args, **kwargs)  # type: ignore[misc, no-any-return]
        name = self.active_adapters[0]
        base = self.get_base_layer()
        flat = x.to(dtype).reshape(-1, x.shape[-1])
        out: torch.Tensor = _Product.apply(flat, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name], base)
        out = out.view(*x.shape[:-1], out.shape[-1])
        return out.to(x.dtype) if _kind_of(base) == "4-bit" else out  # bitsandbytes answers in the input's dtype, autocast in its own


def _exact_dtype(layer: Any, x: torch.Tensor) -> torch.dtype | None:
    """The dtype in which this call can be computed as peft would; None where it cannot, and peft's own forward is needed.

    Without autocast peft computes fp32 adapters over a 16-bit layer in fp32, which one product cannot.
    """
    names = layer.active_adapters
    if layer.disable_adapters or layer.merged or len(names) != 1 or names[0] not in layer.lora_A or layer.lora_variant:
        return None
    down, up, base = layer.lora_A[names[0]], layer.lora_B[names[0]], layer.get_base_layer()
    if type(layer.lora_dropout[names[0]]) is not nn.Identity or type(down) is not nn.Linear or up.bias is not None:
        return None
    if any(parameter.requires_grad for parameter in base.parameters(recurse=False)):
        return None
    own = base.compute_dtype if _kind_of(base) == "4-bit" else base.weight.dtype
    if torch.is_autocast_enabled(x.device.type):
        return own if own == torch.get_autocast_dtype(x.device.type) else None
    return own if own == x.dtype == down.weight.dtype else None


class _Product(torch.autograd.Function):
    """y = base(x) + s · (x Aᵀ) Bᵀ for x (tokens, in), A (r, in), B (out, r), and its gradients but for the base's own weights.

    dy B · s = g gives dx = dy W + g A, dA = gᵀ x and dB = s · dyᵀ (x Aᵀ). Products are in the dtype of x as autocast's would be; the
    gradients of A and B are returned in the dtype of A and B.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float, base: nn.Module) -> torch.Tensor:
        low = x @ a.to(x.dtype).t()
        ctx.save_for_backward(x, low, a, b)
        ctx.scaling, ctx.base = scaling, base
        out: torch.Tensor = base(x)
        return out.addmm_(low, b.to(x.dtype).t(), alpha=scaling)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, low, a, b = ctx.saved_tensors
        grad_x = grad_a = grad_b = None
        if ctx.needs_input_grad[2]:
            grad_b = (grad.t() @ low).to(b.dtype).mul_(ctx.scaling)
        grad_low = (grad @ b.to(grad.dtype)).mul_(ctx.scaling)
        if ctx.needs_input_grad[1]:
            grad_a = (grad_low.t() @ x).to(a.dtype)
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ _weight(ctx.base, grad.dtype)).addmm_(grad_low, a.to(grad.dtype))
        return grad_x, grad_a, grad_b, None, None


def _weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """The base layer's weight as (out, in)."""
    kind = _kind_of(base)
    if kind == "4-bit":
        from bitsandbytes.functional import dequantize_4bit

        unpacked: torch.Tensor = dequantize_4bit(base.weight, base.weight.quant_state)
        return unpacked.to(dtype)
    weight: torch.Tensor = base.weight
    return weight.t() if kind == "transposed" else weight
