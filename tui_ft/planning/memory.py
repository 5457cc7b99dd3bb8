"""The lower bound of a run's memory: what the config alone proves. Activations, the head's logits and the context come on top."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, prod

from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.trained import Tensor, trained_tensors
from tui_ft.recipe.plan import Memory
from tui_ft.recipe.schema import Method

FP32 = 4
"""Bytes of a trained number and of its gradient: a 16-bit weight would swallow small updates."""
WIDTH = {"bf16": 2, "fp16": 2, "fp32": FP32}
"""Bytes of a frozen number by precision."""

_NF4_BLOCK = 64  # weights that share one scale
_NF4_NESTED_BLOCK = 256  # scales that share one fp32 scale, with double quantization
_STATE_BLOCK = 256  # 8-bit optimizer numbers that share one fp32 scale
_STATE_MIN = 4096  # bitsandbytes keeps the state of smaller tensors in 32 bits

# How many numbers an optimizer keeps for each trained one, in 32 bits.
STATES_32 = {
    "adamw_torch": 2, "adamw_torch_fused": 2, "adamw_anyprecision": 2, "paged_adamw_32bit": 2, "stable_adamw": 2,
    "ademamix": 3, "paged_ademamix_32bit": 3, "lion_32bit": 1, "paged_lion_32bit": 1, "sgd": 0, "adagrad": 1,
    "rmsprop": 1, "rmsprop_bnb": 1, "rmsprop_bnb_32bit": 1, "schedule_free_adamw": 2, "schedule_free_sgd": 1,
}  # fmt: skip
# The same in 8 bits.
STATES_8 = {
    "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "ademamix_8bit": 3, "paged_ademamix_8bit": 3,
    "lion_8bit": 1, "paged_lion_8bit": 1, "rmsprop_bnb_8bit": 1,
}  # fmt: skip


def lower_bound(facts: ModelFacts, method: Method, precision: str, optimizer: str) -> Memory:
    """Bytes that this training takes at the very least on its one device, by part.

    An optimizer that is in none of the tables counts as nothing: `is_counted` tells.

    Raises:
        ConfigError: layers or targets that the model does not have.
    """
    tensors = trained_tensors(facts, method)
    trained = parameters(tensors)
    memory = Memory(
        weights=weight_bytes(facts, method, precision, trained),
        adapters=trained * FP32 if method.kind == "lora" else 0,
        gradients=trained * FP32,
        optimizer=optimizer_bytes(tensors, optimizer),
    )
    memory.total_bytes = memory.weights + memory.adapters + memory.gradients + memory.optimizer
    return memory


def parameters(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.count * tensor.times for tensor in tensors)


def weight_bytes(facts: ModelFacts, method: Method, precision: str, trained: int) -> int:
    """The model's own weights: trained ones in fp32, frozen ones in the computation's precision, quantized linears packed."""
    if method.kind != "lora":
        return trained * FP32 + (facts.total - trained) * WIDTH[precision]
    packed = [(linear.width_in * linear.width_out, len(linear.names())) for linear in facts.linears if not linear.head]
    if method.quantization == "none":
        return facts.total * WIDTH[precision]
    rest = facts.total - sum(count * times for count, times in packed)
    each = nf4_bytes if method.quantization == "nf4" else _int8_bytes
    return rest * WIDTH[precision] + sum(each(count, method.double_quantization) * times for count, times in packed)


def nf4_bytes(count: int, double_quantization: bool) -> int:
    """A weight of `count` numbers in NF4: half a byte each, and their scales (0.5159 or 0.5625 bytes a number in all)."""
    scales = ceil(count / _NF4_BLOCK)
    return ceil(count / 2) + (scales + ceil(scales / _NF4_NESTED_BLOCK) * FP32 if double_quantization else scales * FP32)


def _int8_bytes(count: int, _: bool) -> int:
    return count


def is_counted(optimizer: str) -> bool:
    """Whether the state of this optimizer is known here."""
    return optimizer in STATES_32 or optimizer in STATES_8 or optimizer == "adafactor"


def optimizer_bytes(tensors: Iterable[Tensor], optimizer: str) -> int:
    """What the optimizer keeps between steps. Paged state counts in full: it lies on the GPU until something pushes it out."""
    return sum(_state_bytes(tensor, optimizer) * tensor.times for tensor in tensors)


def _state_bytes(tensor: Tensor, optimizer: str) -> int:
    if optimizer == "adafactor":  # one number a row and one a column, for matrices
        *outer, rows, columns = (1, 1, *tensor.shape)
        return FP32 * (prod(outer) * (rows + columns) if len(tensor.shape) > 1 else tensor.count)
    if optimizer in STATES_8:
        if tensor.embedding or tensor.count < _STATE_MIN:
            return STATES_8[optimizer] * FP32 * tensor.count
        return STATES_8[optimizer] * (tensor.count + FP32 * ceil(tensor.count / _STATE_BLOCK))
    return STATES_32.get(optimizer, 0) * FP32 * tensor.count
