"""The fused LoRA layer against peft's own: outputs, gradients, and all that must stay as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

from tui_ft.modeling import fused_lora

WIDE, NARROW, ROWS = 128, 64, 10
Made = Callable[[], Any]


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.linear = layer

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x)


def adapted(layer: nn.Module, dtype: torch.dtype = torch.float32, **config: Any) -> PeftModel:
    """Adapters that change something, in `dtype`."""
    torch.manual_seed(1)
    model = get_peft_model(Net(layer), LoraConfig(r=4, lora_alpha=12, target_modules=["linear"], **config))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape).to(dtype) / 4
            parameter.requires_grad_(True)
    return model  # type: ignore[return-value]


def linear(dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(NARROW, WIDE, bias=bias).to(dtype).requires_grad_(False)


def conv1d() -> Conv1D:
    torch.manual_seed(2)
    return Conv1D(WIDE, NARROW).requires_grad_(False)


def nf4(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(2)
    layer = bnb.nn.Linear4bit(NARROW, WIDE, compute_dtype=dtype, quant_type="nf4").to(dtype).to("cpu")
    layer.support_avx512bf16_for_cpu = False  # as `load` does: that kernel has no gradient
    return layer


def results(model: PeftModel, x: torch.Tensor, autocast: bool = False) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of the adapters."""
    model.zero_grad()
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    y.float().pow(2).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]


def both(model: PeftModel) -> tuple[PeftModel, PeftModel]:
    other = copy.deepcopy(model)
    assert fused_lora.fuse(other) == 1 == fused_lora.count(other)
    return model, other


@pytest.mark.parametrize("shape", [(ROWS, NARROW), (2, 5, NARROW)], ids=str)
@pytest.mark.parametrize("layer", [linear, lambda: linear(bias=False), conv1d, nf4], ids=["bias", "plain", "GPT-2's", "4 bits"])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_outputs_and_gradients_are_pefts(layer: Made, config: dict[str, Any], shape: tuple[int, ...]) -> None:
    peft, fused = both(adapted(layer(), **config, fan_in_fan_out=layer is conv1d))
    x = torch.randn(shape)
    found = list(zip(results(peft, x), results(fused, x), strict=True))
    assert len(found) == 4
    for own, other in found:
        assert own.dtype == other.dtype and own.shape == other.shape
        torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-5 * float(own.abs().max()))


@pytest.mark.parametrize("layer", [lambda: linear(torch.bfloat16), lambda: nf4(torch.bfloat16)], ids=["16 bits", "4 bits"])
def test_in_16_bits_it_is_as_near_to_the_truth_as_peft(layer: Made) -> None:
    """Adapters in fp32 beside bf16 weights, under autocast, as they train; the truth is computed in fp32."""
    peft, fused = both(adapted(layer()))
    exact = adapted(nn.Linear(NARROW, WIDE).requires_grad_(False))
    base, known = exact.base_model.model.linear.base_layer, peft.base_model.model.linear.base_layer
    weight = bnb.functional.dequantize_4bit(known.weight, known.weight.quant_state) if hasattr(known.weight, "quant_state") else known.weight
    base.weight.data, base.bias.data = weight.float(), known.bias.float()
    x = torch.randn(ROWS, NARROW).to(torch.bfloat16)
    for own, other, truth in zip(results(peft, x, True), results(fused, x, True), results(exact, x.float()), strict=True):
        assert own.dtype == other.dtype
        error, usual = (float((found.float() - truth).norm() / truth.norm()) for found in (other, own))
        assert error < max(1.5 * usual, 5e-3), (error, usual)


def test_gradients_are_those_of_finite_differences() -> None:
    model = adapted(linear(torch.float64), torch.float64)
    assert fused_lora.fuse(model) == 1
    layer = model.base_model.model.linear
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(3, NARROW, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, a, b: fused_lora._Product.apply(x, a, b, layer.scaling["default"], layer.get_base_layer()), (x, a, b))


def test_names_saving_merging_and_switching_off_are_pefts() -> None:
    peft, fused = both(adapted(linear()))
    x = torch.randn(ROWS, NARROW)
    own, other = get_peft_model_state_dict(peft), get_peft_model_state_dict(fused)
    assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
    with fused.disable_adapter():
        assert torch.equal(fused(x), fused.base_model.model.linear.base_layer(x))
    before = fused(x)
    merged = fused.merge_and_unload()  # type: ignore[operator]
    assert type(merged.linear) is nn.Linear
    torch.testing.assert_close(merged(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [{"lora_dropout": 0.1}, {"use_dora": True}], ids=["dropout", "dora"])
def test_what_is_not_known_here_stays_pefts(config: dict[str, Any]) -> None:
    model = adapted(linear(), **config)
    other = copy.deepcopy(model)
    fused_lora.fuse(other)
    x = torch.randn(ROWS, NARROW)
    torch.manual_seed(3)
    own = results(model, x)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(own, results(other, x), strict=True))
