"""From a recipe and a machine to a plan: every `auto` resolved, each value with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tui_ft import hardware, units
from tui_ft.errors import ConfigError
from tui_ft.hardware import Hardware
from tui_ft.planning import batch, batching, device, disk, memory, options, suggestion, timing
from tui_ft.planning.chooser import Chooser
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.history import History
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.outlook import Case, Outlook
from tui_ft.planning.resolve import resolve
from tui_ft.planning.suggestion import Suggestion, at_level
from tui_ft.planning.timing import Shape
from tui_ft.planning.trained import targeted, trained_tensors
from tui_ft.recipe.plan import Gpu, Memory, Plan
from tui_ft.recipe.schema import SET, Recipe
from tui_ft.text import one_line


def make_plan(
    recipe: Recipe,
    *,
    facts: ModelFacts | None = None,
    hardware: Hardware | None = None,
    gpu_memory: int | None = None,
    rows: int | None = None,
    data: DataFacts | None = None,
    forecasts: Mapping[Setup, Fit] | None = None,
    history: History | None = None,
) -> Plan:
    """What `recipe` becomes on this machine. A pure function of its arguments once `hardware` is given, in well under 5 ms.

    Args:
        facts: the model's structure; without it memory and disk are not counted, and the plan says so.
        hardware: a reading of the machine; read now if not given.
        gpu_memory: bytes of free GPU memory to assume in place of what is free (a GPU is assumed where there is none).
        rows: training samples, where they have been counted; without them the steps stay open unless the recipe names them.
        data: what a preview found: rows as well, and the samples' true lengths.
        forecasts: of `setups_wanted`, as far as they are known; without the plan's own its memory is a lower bound.
        history: what earlier runs took.

    Raises:
        ConfigError: what this machine or model cannot do, all at once, with what it can.
    """
    planner = _Planner(recipe, facts, hardware if hardware is not None else _read(), gpu_memory, data, history or History())
    return planner.plan(rows if rows is not None else data.rows if data else None, forecasts or {})


def setups_wanted(
    recipe: Recipe,
    *,
    facts: ModelFacts | None = None,
    hardware: Hardware | None = None,
    gpu_memory: int | None = None,
    alternatives: bool = True,
) -> list[Setup]:
    """The setups whose forecasts the plan of `recipe` would like to know, the most important first; none where nothing can be planned.

    Without `alternatives` only those that the plan itself may choose.
    """
    planner = _Planner(recipe, facts, hardware if hardware is not None else _read(), gpu_memory, None, History())
    case, levels = planner.case(), planner.levels()
    if facts is None or planner.problems:
        return []
    wanted = [at_level(case.setup, level) for level in sorted(levels, key=lambda level: (level not in (False, True), str(level)))]
    if not alternatives:
        return wanted
    kept = [*(level for level in levels if level is False), *([True] if planner.gpu or False not in levels else [])]
    wanted += [at_level(case.setup, level) for level in (False, True) if level not in levels]
    wanted += [at_level(other.setup, level) for other in options.wanted_setups(recipe, case) for level in kept]
    return list(dict.fromkeys(wanted))


def _read() -> Hardware:
    return hardware.read()


class _Planner:
    """The values decided so far, with their reasons, warnings and problems."""

    def __init__(
        self, recipe: Recipe, facts: ModelFacts | None, machine: Hardware, gpu_memory: int | None, data: DataFacts | None, history: History
    ) -> None:
        self.recipe = recipe
        self.facts = facts
        self.machine = machine
        self.data = data
        self.history = history
        found = device.choose(recipe, machine, gpu_memory)
        self.gpu = found.gpu
        self.resolved = resolve(recipe, self.gpu, machine.cpus, facts, data)
        self.reasons: dict[str, str] = {"gpu": found.reason, **self.resolved.reasons}
        self.warnings = list(found.warnings)
        self.problems = [*found.problems, *self.resolved.problems]

    def plan(self, rows: int | None, forecasts: Mapping[Setup, Fit]) -> Plan:
        case, levels = self.case(), self.levels()
        least = self._lower_bound(case)
        outlook = self._outlook(forecasts)
        chooser = Chooser(self.recipe, self.gpu, self.data, self.history, self.reasons, self.warnings)
        chosen = chooser.suggestion(outlook, case, levels) if outlook else None
        case = chosen.case if chosen else chooser.careful(case, least)
        train = self.recipe.train
        accumulation = self._accumulation(case)
        plan = Plan(
            tier=forecasts[case.setup].tier if chosen else "lower-bound",
            memory=chosen.memory if chosen else least,
            gpu=self._gpu_facts(),
            fits=self._fits(chosen, least),
            micro_batch=case.rows,
            accumulation=accumulation,
            effective_batch=train.effective_batch,
            precision=self.resolved.precision,
            optimizer=self.resolved.optimizer,
            packing=self.resolved.packing,
            row_length=case.length if case.packed else None,
            length_grouped=self.resolved.length_grouped,
            fused_lora=case.setup.fused,
            data_workers=self.resolved.data_workers,
            attention=self.resolved.attention,
            activation_checkpointing=case.setup.activation_checkpointing,
            steps=self._steps(rows),
            longest=self.data.longest if self.data else None,
            setup=case.setup.model_dump(mode="json") if self.facts else None,
            rank=case.rank or None,
        )
        if self.facts and not self.problems:
            plan.trainable_parameters = memory.parameters(trained_tensors(self.facts, self.recipe.method))
            plan.parameters = self.facts.total + (plan.trainable_parameters if self.recipe.method.kind == "lora" else 0)
            plan.disk_bytes, plan.output_bytes = disk.run_bytes(self.recipe, self.facts, least, plan.precision)
            self._model_warnings(self.facts)
        if self.problems:
            raise ConfigError(self.problems)
        if outlook:
            self._time(plan, outlook, case)
        if chosen and outlook:
            lengths = batch.row_lengths(self.case(), train.effective_batch, outlook.mean(case))
            plan.options = options.options(self.recipe, outlook, case, chosen.memory, lengths, plan.seconds)
            if plan.fits is False:
                self._say_the_way_out(plan)
        plan.reasons, plan.warnings = self.reasons, self.warnings
        return plan

    def case(self) -> Case:
        """What the recipe asks for with its first `auto` values resolved: one sequence at a time, no checkpointing, until these are chosen."""
        asked = self.recipe.train.activation_checkpointing
        setup = Setup.of(
            self.recipe,
            precision=self.resolved.precision,
            optimizer=self.resolved.optimizer,
            attention="eager" if self.resolved.attention == "eager" else "sdpa",  # packed rows told apart take what one row takes
            activation_checkpointing=False if asked == "auto" or (asked == "offload" and self.gpu is None) else asked,
            device="cpu" if self.gpu is None else "cuda",
        )
        longest = self.data.longest if self.data else None
        length = min(longest or self.recipe.prompt.max_length, self.recipe.prompt.max_length)
        return Case(
            setup,
            rows=1,
            length=length,
            rank=self.recipe.method.r if self.recipe.method.kind == "lora" else 0,
            packed=self.resolved.packing and not self.resolved.length_grouped,
            masked=self.resolved.attention != batching.VARLEN,
            grouped=self.resolved.length_grouped,
        )

    def _accumulation(self, case: Case) -> int:
        """Forward passes a step; their micro-batches make the effective batch whole, or hold its mean tokens."""
        effective = self.recipe.train.effective_batch
        if not case.packed:
            self.reasons["accumulation"] = f"{case.rows} at a time until the effective batch of {effective} is whole"
            return effective // case.rows
        mean = self.data.mean if self.data else None
        passes = max(1, round(effective * mean / (case.length * batching.PACKED_FULL))) if mean else effective
        self.reasons["accumulation"] = f"as many packed rows as hold the mean tokens of {effective} samples"
        return passes

    def levels(self) -> tuple[bool | int | str, ...]:
        """The levels of activation checkpointing that may be chosen, each needing less memory than the one before."""
        asked = self.recipe.train.activation_checkpointing
        if asked == "offload" and self.gpu is None:
            self.reasons["activation_checkpointing"] = "off: on a CPU activations wait in main memory anyway"
            return (False,)
        if asked != "auto":
            self.reasons["activation_checkpointing"] = SET
            return (asked,)
        return suggestion.LADDER if self.gpu else (False, True)

    def _outlook(self, forecasts: Mapping[Setup, Fit]) -> Outlook | None:
        """None without the model's structure."""
        if self.facts is None or self.problems:
            return None
        targets = self.recipe.method.targets if self.recipe.method.kind == "lora" else "all-linear"
        return Outlook(
            forecasts=forecasts,
            free=self.gpu.free_bytes if self.gpu else self.machine.ram_free or None,
            gpu=one_line(self.gpu.name) if self.gpu else None,
            shape=Shape.of(self.facts),
            adapters=sum((linear.width_in + linear.width_out) * times for linear, times in targeted(self.facts, targets)),
            effective=self.recipe.train.effective_batch,
            lengths=self.data.lengths if self.data else (),
            history=self.history,
        )

    def _lower_bound(self, case: Case) -> Memory:
        """What the config alone proves."""
        if self.facts is None:
            self.reasons["memory"] = "not counted: the model's structure is not known yet"
            return Memory()
        try:
            need = memory.lower_bound(self.facts, self.recipe.method, case.setup.precision, case.setup.optimizer)
        except ConfigError as error:
            self.problems += error.problems
            return Memory()
        self.reasons["memory"] = (
            "what the model's config proves: weights, adapters, gradients and optimizer; activations, logits and the context come on top"
        )
        if not memory.is_counted(case.setup.optimizer):
            self.warnings.append(f"The state of the optimizer {case.setup.optimizer} is not known here and not counted.")
        return need

    def _fits(self, chosen: Suggestion | None, least: Memory) -> bool | None:
        if self.facts is None:
            self.reasons["fits"] = "not known: the model's structure is not known yet"
            return None
        need, at_least = (chosen.memory, "") if chosen else (least, "at least ")
        if self.gpu is None:
            self.reasons["fits"] = "not judged without a GPU: main memory can be swapped"
            if self.machine.ram_free and need.total_bytes > self.machine.ram_free:
                words = f"{at_least}{units.size(need.total_bytes)} of main memory is needed, and {units.size(self.machine.ram_free)} is free."
                self.warnings.append(words[0].upper() + words[1:])
            return None
        if need.total_bytes > self.gpu.free_bytes:
            shortage = f"{at_least}{units.size(need.total_bytes)} is needed, and {units.size(self.gpu.free_bytes)} may be used"
            self.reasons["fits"] = f"This cannot fit: {shortage}. {'' if chosen else self._way_out()}".rstrip()
            self.warnings.append(self.reasons["fits"])
            return False
        if chosen is None:
            self.reasons["fits"] = "not known: a lower bound shows what cannot fit, never what does"
            return None
        spare = units.size(self.gpu.free_bytes - need.total_bytes)
        self.reasons["fits"] = f"{units.size(need.total_bytes)} with context and safety, and {spare} of what may be used stay free"
        return True

    def _way_out(self) -> str:
        method = self.recipe.method
        if method.kind != "lora":
            return "LoRA (method.kind) keeps gradients and optimizer small."
        if method.quantization != "nf4":
            return "4-bit weights (method.quantization nf4) take about a quarter."
        return "A smaller model or a lower rank is needed."

    def _say_the_way_out(self, plan: Plan) -> None:
        """The shortest remedy, at the end of the refusal."""
        remedy = next((option for option in plan.options if option.remedy), None)
        words = f"It would fit {remedy.words} ({units.size(remedy.total_bytes)})." if remedy else self._way_out()
        refusal = self.reasons["fits"]
        self.reasons["fits"] = f"{refusal} {words}"
        self.warnings[self.warnings.index(refusal)] = self.reasons["fits"]

    def _time(self, plan: Plan, outlook: Outlook, case: Case) -> None:
        mean = outlook.mean(case)
        if mean is None:
            self.reasons["seconds"] = "open until the samples' lengths are known"
            return
        work = outlook.work(case)
        plan.tokens_per_step = max(1, round(plan.effective_batch * mean))
        plan.flops_per_token = work / plan.tokens_per_step
        self.reasons["tokens_per_step"] = f"{plan.effective_batch} samples of {mean:,.0f} tokens on average"
        fit = outlook.forecasts.get(case.setup)
        found = timing.rate(self.gpu, case.setup, fit.flops_per_second if fit else None, self.history, plan.flops_per_token)
        if found is None:
            self.reasons["seconds"] = "not known: nothing tells yet how fast this device is"
        elif plan.steps is None:
            self.reasons["seconds"] = "open until the samples have been counted"
        else:
            plan.seconds = plan.steps * work / found.flops_per_second
            plan.seconds_range = (plan.seconds * found.low, plan.seconds * found.high)
            self.reasons["seconds"] = f"{plan.steps:,} steps of {units.count(work)}FLOP {found.words}"

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

    def _gpu_facts(self) -> Gpu | None:
        if self.gpu is None:
            return None
        gpu = self.gpu
        return Gpu(name=one_line(gpu.name), total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes, index=gpu.index, uuid=gpu.uuid)

    def _model_warnings(self, facts: ModelFacts) -> None:
        if self.resolved.packing and not facts.packs:
            family = one_line(facts.model_type, 40)
            self.warnings.append(f"Packed documents read one another in the {family} family: the run will pad batches of like lengths instead.")
        if self.recipe.prompt.max_length > facts.context_length:
            asked = self.recipe.prompt.max_length
            self.warnings.append(f"prompt.max_length {asked:,} is longer than the model's context of {facts.context_length:,} tokens.")
        if facts.quantized:
            method = one_line(facts.quantized, 40)
            self.warnings.append(f"The model's published weights are quantized already ({method}); the memory shown does not know that.")
