"""From a recipe and a machine to a plan: every `auto` resolved, each value with its reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from tui_ft import hardware, units
from tui_ft.errors import ConfigError, Problem
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.planning import batch, disk, memory
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.trained import trained_tensors
from tui_ft.recipe.plan import Gpu, Memory, Plan
from tui_ft.recipe.schema import Recipe, parse_bytes
from tui_ft.text import one_line

BF16_SINCE = (8, 0)
"""Compute capability from which a GPU calculates in bf16 (Ampere)."""
LEAKING = ("opt", "falcon", "biogpt")
"""Families whose packed documents read one another: they do not pass position ids on to the attention."""

Precision = Literal["bf16", "fp16", "fp32"]


def make_plan(
    recipe: Recipe,
    *,
    facts: ModelFacts | None = None,
    hardware: Hardware | None = None,
    gpu_memory: int | None = None,
    rows: int | None = None,
) -> Plan:
    """What `recipe` becomes on this machine. A pure function of its arguments once `hardware` is given, in well under 5 ms.

    Args:
        facts: the model's structure; without it memory and disk are not counted, and the plan says so.
        hardware: a reading of the machine; read now if not given.
        gpu_memory: bytes of free GPU memory to assume in place of what is free (a GPU is assumed where there is none).
        rows: training samples, where they have been counted; without them the steps stay open unless the recipe names them.

    Raises:
        ConfigError: what this machine or model cannot do, all at once, with what it can.
    """
    return _Planner(recipe, facts, hardware if hardware is not None else _read(), gpu_memory).plan(rows)


def _read() -> Hardware:
    return hardware.read()


class _Planner:
    """The values decided so far, with their reasons, warnings and problems."""

    def __init__(self, recipe: Recipe, facts: ModelFacts | None, machine: Hardware, gpu_memory: int | None) -> None:
        self.recipe = recipe
        self.facts = facts
        self.machine = machine
        self.reasons: dict[str, str] = {}
        self.warnings: list[str] = []
        self.problems: list[Problem] = []
        self.gpu = self._gpu(gpu_memory)

    def plan(self, rows: int | None) -> Plan:
        precision = self._precision()
        optimizer = self._optimizer()
        need = self._memory(precision, optimizer)
        micro = self._micro_batch(need)
        self.reasons["accumulation"] = f"{micro} at a time until the effective batch of {self.recipe.train.effective_batch} is whole"
        plan = Plan(
            memory=need,
            gpu=self._gpu_facts(),
            fits=self._fits(need),
            micro_batch=micro,
            accumulation=self.recipe.train.effective_batch // micro,
            effective_batch=self.recipe.train.effective_batch,
            precision=precision,
            optimizer=optimizer,
            packing=self._packing(),
            attention=self._attention(),
            activation_checkpointing=self._checkpointing(),
            steps=self._steps(rows),
        )
        if self.facts and not self.problems:
            plan.trainable_parameters = memory.parameters(trained_tensors(self.facts, self.recipe.method))
            plan.parameters = self.facts.total + (plan.trainable_parameters if self.recipe.method.kind == "lora" else 0)
            plan.disk_bytes = disk.run_bytes(self.recipe, self.facts, need, precision)
            self._model_warnings(self.facts)
        if self.problems:
            raise ConfigError(self.problems)
        plan.reasons, plan.warnings = self.reasons, self.warnings
        return plan

    def _gpu(self, gpu_memory: int | None) -> GpuReading | None:
        """The one GPU of this run, its free memory as assumed and limited; None on a CPU."""
        chosen = self._chosen_gpu()
        if gpu_memory is not None:
            self.reasons["gpu"] = f"{units.size(gpu_memory)} of free memory is assumed, as asked"
            if chosen is None:
                self.warnings.append("There is no such GPU here: one that calculates in bf16 is assumed.")
                chosen = GpuReading(0, "", "assumed GPU", BF16_SINCE, gpu_memory, gpu_memory, None, None, None)
            chosen = replace(chosen, free_bytes=gpu_memory, total_bytes=max(gpu_memory, chosen.total_bytes))
        limit = self.recipe.hardware.memory_limit
        if chosen is not None and limit is not None and parse_bytes(limit) < chosen.free_bytes:
            self.reasons["gpu"] += f"; hardware.memory_limit leaves {limit} of its memory"
            chosen = replace(chosen, free_bytes=parse_bytes(limit))
        return chosen

    def _gpu_facts(self) -> Gpu | None:
        if self.gpu is None:
            return None
        gpu = self.gpu
        return Gpu(name=one_line(gpu.name), total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes, index=gpu.index, uuid=gpu.uuid)

    def _chosen_gpu(self) -> GpuReading | None:
        wanted = self.recipe.hardware.gpus
        present = {gpu.index: gpu for gpu in self.machine.gpus}
        if wanted != "auto" and present:
            missing = [index for index in wanted if index not in present]
            if missing:
                known = ", ".join(map(str, present))
                self.problems.append(Problem("hardware.gpus", f"there is no GPU {missing[0]}", f"The GPUs here are {known}; auto takes the freest."))
            present = {index: gpu for index, gpu in present.items() if index in wanted}
        if not present:
            self.reasons["gpu"] = self.machine.note or "no GPU: training runs on the CPU"
            if wanted != "auto" and not self.machine.gpus:
                self.warnings.append("hardware.gpus names GPUs, but there is none here: training runs on the CPU.")
            return None
        gpu = max(present.values(), key=lambda g: (g.free_bytes, -g.index))
        among = "the chosen" if wanted != "auto" else "all"
        self.reasons["gpu"] = f"GPU {gpu.index} has the most free memory of {among} ({units.size(gpu.free_bytes)} of {units.size(gpu.total_bytes)})"
        if wanted != "auto" and len(wanted) > 1:
            self.warnings.append(f"A run trains on one GPU: of those in hardware.gpus it takes {gpu.index}.")
        return gpu

    def _precision(self) -> Precision:
        asked = self.recipe.train.precision
        capability = self.gpu.capability if self.gpu else None
        capable = capability is None or capability >= BF16_SINCE  # MIG slices may not tell, and are new enough
        card = one_line(self.gpu.name) if self.gpu else "the CPU"
        if self.gpu is None:
            if asked == "fp16":
                self.problems.append(Problem("train.precision", "a CPU cannot train in fp16", "It can do fp32 and bf16; auto takes fp32."))
            return self._because("precision", asked, "fp32", "a CPU is exact and usually fastest in fp32")
        if capable:
            return self._because("precision", asked, "bf16", f"{card} calculates in bf16, which never overflows as fp16 does")
        if asked == "bf16":
            age = ".".join(map(str, capability or ()))
            hint = "It can do fp16 and fp32; auto takes fp16."
            self.problems.append(Problem("train.precision", f"{card} (compute capability {age}) cannot calculate in bf16", hint))
        return self._because("precision", asked, "fp16", f"{card} is too old for bf16; fp16 is its fast format, with scaled gradients")

    def _because(self, key: str, asked: Literal["auto"] | Precision, found: Precision, reason: str) -> Precision:
        self.reasons[key] = reason if asked == "auto" else "set in the recipe"
        return found if asked == "auto" else asked

    def _optimizer(self) -> str:
        asked = self.recipe.train.optimizer
        if asked != "auto":
            paged = self.gpu is None and asked.startswith("paged_")
            self.reasons["optimizer"] = "set in the recipe; on a CPU its state is not paged" if paged else "set in the recipe"
            return asked
        if self.gpu is None:
            self.reasons["optimizer"] = "AdamW, the usual choice, in torch's own form"
            return "adamw_torch"
        self.reasons["optimizer"] = "AdamW, the usual choice, in one fused kernel a step"
        return "adamw_torch_fused"

    def _memory(self, precision: Precision, optimizer: str) -> Memory:
        if self.facts is None:
            self.reasons["memory"] = "not counted: the model's structure is not known yet"
            return Memory()
        try:
            need = memory.lower_bound(self.facts, self.recipe.method, precision, optimizer)
        except ConfigError as error:
            self.problems += error.problems
            return Memory()
        self.reasons["memory"] = (
            "what the model's config proves: weights, adapters, gradients and optimizer; activations, logits and the context come on top"
        )
        if not memory.is_counted(optimizer):
            self.warnings.append(f"The state of the optimizer {optimizer} is not known here and not counted.")
        return need

    def _fits(self, need: Memory) -> bool | None:
        if self.facts is None:
            self.reasons["fits"] = "not known: the model's structure is not known yet"
            return None
        if self.gpu is None:
            self.reasons["fits"] = "not judged without a GPU: main memory can be swapped"
            if self.machine.ram_free and need.total_bytes > self.machine.ram_free:
                self.warnings.append(
                    f"At least {units.size(need.total_bytes)} of main memory is needed, and {units.size(self.machine.ram_free)} is free."
                )
            return None
        if need.total_bytes <= self.gpu.free_bytes:
            self.reasons["fits"] = "not known: a lower bound shows what cannot fit, never what does"
            return None
        shortage = f"at least {units.size(need.total_bytes)} is needed, and {units.size(self.gpu.free_bytes)} may be used"
        self.reasons["fits"] = f"This cannot fit: {shortage}. {self._way_out()}"
        self.warnings.append(self.reasons["fits"])
        return False

    def _way_out(self) -> str:
        method = self.recipe.method
        if method.kind != "lora":
            return "LoRA (method.kind) keeps gradients and optimizer small."
        if method.quantization != "nf4":
            return "4-bit weights (method.quantization nf4) take about a quarter."
        return "A smaller model or a lower rank is needed."

    def _micro_batch(self, need: Memory) -> int:
        train = self.recipe.train
        if train.micro_batch != "auto":
            self.reasons["micro_batch"] = "set in the recipe"
            return train.micro_batch
        free = self.gpu.free_bytes if self.gpu else None
        length = self.recipe.prompt.max_length
        size, reason = batch.suggest(train.effective_batch, length, on_gpu=self.gpu is not None, least=need.total_bytes, free=free)
        self.reasons["micro_batch"] = reason
        return size

    def _packing(self) -> bool:
        asked = self.recipe.train.packing
        if asked == "auto":
            self.reasons["packing"] = "off: with this attention a packed row costs as one long text, which can be slower than padding; true packs"
            return False
        self.reasons["packing"] = "set in the recipe"
        if asked and self.facts and self.facts.model_type in LEAKING:
            self.warnings.append(f"Packed documents read one another in the {self.facts.model_type} family: the run will pad instead.")
        return asked

    def _attention(self) -> str:
        self.reasons["attention"] = "torch's own fused attention: fast, exact, and there on every machine"
        return "sdpa"

    def _checkpointing(self) -> bool | int | Literal["offload"]:
        asked = self.recipe.train.activation_checkpointing
        if asked != "auto":
            self.reasons["activation_checkpointing"] = "set in the recipe"
            return asked
        if self.gpu is None:
            self.reasons["activation_checkpointing"] = "off: main memory is roomy, and recomputing costs about a third of the speed"
            return False
        self.reasons["activation_checkpointing"] = "on: about a third slower, but the activations are not forecast yet and would be the largest part"
        return True

    def _steps(self, rows: int | None) -> int | None:
        train = self.recipe.train
        if train.max_steps is not None:
            self.reasons["steps"] = "train.max_steps"
            return train.max_steps
        if rows is None:
            self.reasons["steps"] = "open until the samples have been counted"
            return None
        self.reasons["steps"] = f"{rows:,} samples in batches of {train.effective_batch}, {train.epochs:g} times"
        return max(1, math.ceil(train.epochs * math.ceil(rows / train.effective_batch)))

    def _model_warnings(self, facts: ModelFacts) -> None:
        if self.recipe.prompt.max_length > facts.context_length:
            asked = self.recipe.prompt.max_length
            self.warnings.append(f"prompt.max_length {asked:,} is longer than the model's context of {facts.context_length:,} tokens.")
        if facts.quantized:
            method = one_line(facts.quantized, 40)
            self.warnings.append(f"The model's published weights are quantized already ({method}); the memory shown does not know that.")
