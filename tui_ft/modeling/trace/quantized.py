"""Stand-ins for bitsandbytes' layers whose weights are fake: the real modules and their real autograd, around plain parameters.

bitsandbytes' own parameter classes cannot wrap a fake tensor. The stand-ins subclass its modules, so peft adapts them as the real ones.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import peft.tuners.lora.dora
import torch
from bitsandbytes.functional import QuantState
from torch import nn
from torch._subclasses.fake_tensor import is_fake
from transformers.pytorch_utils import Conv1D

from tui_ft.modeling.trace.patching import Patches
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.tracker import Tracker

NF4_FUSED_TOKENS = 1536
"""bitsandbytes multiplies larger batches than this by a weight that it unpacks first (backends/cuda/ops.py)."""
_BLOCK = 64  # numbers that share one scale
_NESTED = 256  # scales that share one fp32 scale
OUTLIERS = 100  # one column in so many is computed in 16 bits: the paper's share is below a hundredth (arXiv 2208.07339)


def quantize(model: nn.Module, setup: Setup, dtype: torch.dtype) -> None:
    """Replace every linear layer but the head by its quantized form, as transformers does."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            linear = _as_linear(child)
            if linear is not None and child is not head:
                setattr(module, name, _nf4(linear, dtype, setup.double_quantization) if setup.quantization == "nf4" else _int8(linear, setup.device))
    model.requires_grad_(False)
    setattr(model, f"is_loaded_in_{4 if setup.quantization == 'nf4' else 8}bit", True)


def _as_linear(module: nn.Module) -> nn.Linear | None:
    """GPT-2's layers are quantized with their weight transposed, as a linear one's; None for what stays as it is."""
    if isinstance(module, Conv1D):
        width_in, width_out = module.weight.shape
        linear = nn.Linear(width_in, width_out, dtype=module.weight.dtype)
        linear.bias = module.bias
        return linear
    return module if type(module) is nn.Linear else None


def _nf4(linear: nn.Linear, dtype: torch.dtype, double: bool) -> nn.Module:
    shape, blocks = linear.weight.shape, -(-linear.weight.numel() // _BLOCK)
    layer = _bare(bnb.nn.Linear4bit, linear)
    layer.compute_dtype, layer.compute_type_is_set, layer.support_avx512bf16_for_cpu = dtype, True, False
    layer.weight = nn.Parameter(torch.empty(-(-linear.weight.numel() // 2), 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.compress_statistics, layer.weight.quant_type = double, "nf4"
    state = {"shape": shape, "code": torch.empty(16), "blocksize": _BLOCK, "quant_type": "nf4", "dtype": dtype}
    if double:
        outer = QuantState(absmax=torch.empty(-(-blocks // _NESTED)), code=torch.empty(256), blocksize=_NESTED, dtype=torch.float32)
        state |= {"absmax": torch.empty(blocks, dtype=torch.uint8), "offset": torch.empty(()), "state2": outer}
    else:
        state["absmax"] = torch.empty(blocks)
    layer.weight.quant_state = layer.quant_state = QuantState(**state)
    return layer


def _int8(linear: nn.Linear, device: str) -> nn.Module:
    layer = _bare(_Linear8bit, linear)
    layer.index, layer.device = None, device
    layer.state = bnb.MatmulLtState()
    layer.state.threshold, layer.state.has_fp16_weights = 6.0, False
    layer.weight = nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.int8), requires_grad=False)
    layer.state.CB, layer.state.SCB = layer.weight.data, torch.empty(linear.out_features)
    return layer


def _bare(kind: Any, linear: nn.Linear) -> Any:
    """A module of `kind` without its weight, which its own constructor could not make."""
    layer: Any = kind.__new__(kind)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features, layer.bias = linear.in_features, linear.out_features, linear.bias
    return layer


class _Linear8bit(bnb.nn.Linear8bitLt):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not is_fake(x) or (self.device == "cpu" and self.training):
            return bnb.matmul(x, self.weight, bias=self.bias, state=self.state)  # type: ignore[no-any-return]
        return _Int8.apply(x, self.state.CB, self.state.SCB, self.bias)  # type: ignore[no-any-return]


class _Int8(torch.autograd.Function):
    """bitsandbytes' `MatMul8bitLt` on CUDA, which looks at values (outliers) that fake tensors do not have.

    What it keeps for the backward pass hangs on the context instead of being saved through autograd, so checkpointing cannot drop it.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        half = flat.to(torch.float16)
        outliers = half.abs() >= 6.0
        columns = outliers.any(dim=0)
        packed = torch.empty(flat.shape, dtype=torch.int8)
        row_scales = torch.empty(len(flat))
        del outliers, columns, half
        picked = torch.empty(len(flat), max(1, flat.shape[1] // OUTLIERS), dtype=flat.dtype)
        sums = torch.empty(len(flat), len(weight), dtype=torch.int32)
        scaled = torch.empty(len(flat), len(weight), dtype=torch.float16)
        out = scaled.to(flat.dtype)
        del sums, scaled
        out = out + out.new_empty(())  # the outliers' share, into a new tensor
        del packed, row_scales
        ctx.kept = (picked, flat, weight, scales) if ctx.needs_input_grad[0] else None
        ctx.shape = x.shape
        return out.reshape(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, flat, weight, scales = ctx.kept
        grad = grad.reshape(-1, grad.shape[-1]).contiguous()
        unpacked = weight.to(flat.dtype, copy=True).mul_(scales.unsqueeze(1).mul(1.0 / 127.0))
        return torch.matmul(grad.to(flat.dtype), unpacked).view(ctx.shape), None, None, None


def count_unpacking(patches: Patches, tracker: Tracker, device: str) -> None:
    """Let bitsandbytes' operators take what their kernels unpack weights into, and peft's DoRA unpack our stand-ins."""
    target = tracker.workspaces if device == "cpu" else tracker.unpacking
    target[torch.ops.bitsandbytes.gemm_4bit.default] = _unpacked
    patches.set(peft.tuners.lora.dora, "dequantize_module_weight", _dequantized(peft.tuners.lora.dora.dequantize_module_weight))


def _unpacked(x: torch.Tensor, weight: torch.Tensor, shape: Any, *_: Any, absmax_8bit: torch.Tensor | None = None, **__: Any) -> list[torch.Tensor]:
    """The weight in the computation's precision, and its scales where they are quantized, too."""
    scales = [] if absmax_8bit is None else [torch.empty(absmax_8bit.numel())]
    return [*scales, torch.empty(*shape, dtype=x.dtype)]


def _dequantized(usual: Any) -> Any:
    def weight_of(module: nn.Module) -> torch.Tensor:
        if isinstance(module, bnb.nn.Linear4bit):
            return bnb.functional.dequantize_4bit(module.weight, module.quant_state)  # type: ignore[no-any-return]
        if isinstance(module, _Linear8bit):
            return bnb.functional.int8_vectorwise_dequant(module.weight.data, module.state.SCB)  # type: ignore[no-any-return]
        return usual(module)  # type: ignore[no-any-return]

    return weight_of
