"""What `auto` stands for on a device, where no forecast is needed to tell: precision, optimizer, batching, attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tui_ft.errors import Problem
from tui_ft.hardware import GpuReading
from tui_ft.planning import batching
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.device import BF16_SINCE
from tui_ft.planning.forecast import is_fused
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.schema import SET, Method, Recipe
from tui_ft.text import one_line

DATA_WORKERS = 2
"""Rows are tokenized already, so two keep ahead of any GPU."""
ENOUGH_PROCESSORS = 4

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass
class Resolved:
    """The values, a reason for each, and what this device cannot do."""

    precision: Precision = "fp32"
    optimizer: str = ""
    attention: str = "sdpa"
    packing: bool = False
    length_grouped: bool = False
    data_workers: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def resolve(recipe: Recipe, gpu: GpuReading | None, processors: int, facts: ModelFacts | None, data: DataFacts | None) -> Resolved:
    """The values of `recipe` on this GPU, or on the CPU."""
    found = Resolved()
    _precision(found, recipe, gpu)
    _optimizer(found, recipe, gpu)
    batches = batching.choose(recipe, gpu, found.precision, facts, data)
    found.packing, found.length_grouped = batches.packing, batches.length_grouped
    found.reasons |= batches.reasons
    _attention(found, facts)
    _data_workers(found, gpu, processors)
    if recipe.method.kind == "lora":
        found.reasons["fused_lora"] = _why_fused(recipe.method)
    return found


def _precision(found: Resolved, recipe: Recipe, gpu: GpuReading | None) -> None:
    asked = recipe.train.precision
    capability = gpu.capability if gpu else None
    card = one_line(gpu.name) if gpu else "the CPU"
    best: Precision
    if gpu is None:
        best, reason = "fp32", "a CPU is exact and usually fastest in fp32"
        if asked == "fp16":
            found.problems.append(Problem("train.precision", "a CPU cannot train in fp16", "It can do fp32 and bf16; auto takes fp32."))
    elif capability is None or capability >= BF16_SINCE:  # MIG slices may not tell, and are new enough
        best, reason = "bf16", f"{card} calculates in bf16, which never overflows as fp16 does"
    else:
        best, reason = "fp16", f"{card} is too old for bf16; fp16 is its fast format, with scaled gradients"
        if asked == "bf16":
            age = ".".join(map(str, capability))
            hint = "It can do fp16 and fp32; auto takes fp16."
            found.problems.append(Problem("train.precision", f"{card} (compute capability {age}) cannot calculate in bf16", hint))
    found.precision = best if asked == "auto" else asked
    found.reasons["precision"] = reason if asked == "auto" else SET


def _optimizer(found: Resolved, recipe: Recipe, gpu: GpuReading | None) -> None:
    asked = recipe.train.optimizer
    if asked != "auto":
        paged = gpu is None and asked.startswith("paged_")
        found.optimizer, found.reasons["optimizer"] = asked, f"{SET}; on a CPU its state is not paged" if paged else SET
    elif gpu is None:
        found.optimizer, found.reasons["optimizer"] = "adamw_torch", "AdamW, the usual choice, in torch's own form"
    else:
        found.optimizer, found.reasons["optimizer"] = "adamw_torch_fused", "AdamW, the usual choice, in one fused kernel a step"


def _attention(found: Resolved, facts: ModelFacts | None) -> None:
    if facts is not None and facts.attention == "eager":
        found.attention, found.reasons["attention"] = "eager", "this family's attention has a term that no fused kernel here knows"
    elif found.packing and facts is not None and facts.packs:
        found.attention = batching.VARLEN
        found.reasons["attention"] = (
            "torch's own attention over packed samples, each at the cost of its own length; tried on the model before the first step"
        )
    else:
        found.reasons["attention"] = "torch's own fused attention: fast, exact, and there on every machine"


def _data_workers(found: Resolved, gpu: GpuReading | None, processors: int) -> None:
    if gpu is not None and processors >= ENOUGH_PROCESSORS:
        found.data_workers, found.reasons["data_workers"] = DATA_WORKERS, "batches are put together ahead of the GPU, by two processes"
    elif gpu is None:
        found.reasons["data_workers"] = "the training itself puts batches together: on a CPU others would take its cores"
    else:
        found.reasons["data_workers"] = f"the training itself puts batches together: {processors} processors leave none for others"


def _why_fused(method: Method) -> str:
    if is_fused(method):
        return "on: adapters are added to their layer's output in one pass, which saves time and memory and changes rounding alone"
    if method.variant == "dora":
        return "off: DoRA's magnitudes need peft's own steps"
    if method.quantization == "int8":
        return "off: 8-bit weights need peft's own steps"
    return "off: dropout needs peft's own steps; method.dropout 0 is faster"
