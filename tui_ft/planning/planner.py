"""From a recipe and a machine to a plan: every `auto` resolved, each value with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tui_ft import hardware, units
from tui_ft.errors import ConfigError
from tui_ft.hardware import Hardware
from tui_ft.planning import batch, device, disk, memory, options, suggestion, timing
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.history import History
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.outlook import Case, Outlook
from tui_ft.planning.resolve import SET, resolve
from tui_ft.planning.suggestion import Bounds, Suggestion
from tui_ft.planning.timing import Shape
from tui_ft.planning.trained import targeted, trained_tensors
from tui_ft.recipe.plan import Gpu, Memory, Plan
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line

LEAKING = ("opt", "falcon", "biogpt")
"""Families whose packed documents read one another: they do not pass position ids on to the attention."""

_TOLD = {
    "estimate": "estimated from traces of models of this architecture",
    "traced": "counted by following a training step of this very model, without its weights",
    "measured": "measured on this GPU with random weights",
}


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
    wanted = [_at(case.setup, level) for level in sorted(levels, key=lambda level: (level not in (False, True), str(level)))]
    if not alternatives:
        return wanted
    kept = [*(level for level in levels if level is False), *([True] if planner.gpu or False not in levels else [])]
    wanted += [_at(case.setup, level) for level in (False, True) if level not in levels]
    wanted += [_at(other.setup, level) for other in options.wanted_setups(recipe, case) for level in kept]
    return list(dict.fromkeys(wanted))


def _at(setup: Setup, level: bool | int | str) -> Setup:
    return setup.model_copy(update={"activation_checkpointing": level})


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
        self.resolved = resolve(recipe, self.gpu)
        self.reasons: dict[str, str] = {"gpu": found.reason, **self.resolved.reasons}
        self.warnings = list(found.warnings)
        self.problems = [*found.problems, *self.resolved.problems]

    def plan(self, rows: int | None, forecasts: Mapping[Setup, Fit]) -> Plan:
        case, levels = self.case(), self.levels()
        least = self._lower_bound(case)
        outlook = self._outlook(forecasts)
        chosen = self._suggestion(outlook, case, levels) if outlook else None
        case = chosen.case if chosen else self._careful(case, least)
        train = self.recipe.train
        micro = train.micro_batch if case.packed and train.micro_batch != "auto" else case.rows
        self.reasons["accumulation"] = f"{micro} at a time until the effective batch of {train.effective_batch} is whole"
        plan = Plan(
            tier=forecasts[case.setup].tier if chosen else "lower-bound",
            memory=chosen.memory if chosen else least,
            gpu=self._gpu_facts(),
            fits=self._fits(chosen, least),
            micro_batch=micro,
            accumulation=train.effective_batch // micro,
            effective_batch=train.effective_batch,
            precision=self.resolved.precision,
            optimizer=self.resolved.optimizer,
            packing=self.resolved.packing,
            attention=case.setup.attention,
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
            ways = suggestion.divisors(train.effective_batch)
            plan.options = options.options(self.recipe, outlook, case, chosen.memory, ways, plan.seconds)
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
            attention=self.resolved.attention,
            activation_checkpointing=False if asked == "auto" else asked,
            device="cpu" if self.gpu is None else "cuda",
        )
        longest = self.data.longest if self.data else None
        packed = self.resolved.packing and not (self.facts and self.facts.model_type in LEAKING)
        length = self.recipe.prompt.max_length if packed or longest is None else min(longest, self.recipe.prompt.max_length)
        return Case(setup, 1, length, self.recipe.method.r if self.recipe.method.kind == "lora" else 0, packed)

    def levels(self) -> tuple[bool | int | str, ...]:
        """The levels of activation checkpointing that may be chosen, each needing less memory than the one before."""
        asked = self.recipe.train.activation_checkpointing
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

    def _suggestion(self, outlook: Outlook, case: Case, levels: tuple[bool | int | str, ...]) -> Suggestion | None:
        train = self.recipe.train
        if case.packed:
            rows = [1]
            self.reasons["micro_batch"] = (
                f"one packed row of {case.length:,} tokens at a time, as many as hold the tokens of {train.effective_batch} samples"
            )
        elif train.micro_batch != "auto":
            rows = [train.micro_batch]
            self.reasons["micro_batch"] = SET
        else:
            most = None if self.gpu else batch.most(case.length, on_gpu=False)
            rows = suggestion.divisors(train.effective_batch, most)
        limits = {level: limit for level in levels if (limit := self._ran_out(case, level)) is not None}
        if train.micro_batch != "auto" and any(limit < rows[0] for limit in limits.values()):
            self.warnings.append(f"A micro-batch of {rows[0]} ran out of memory in an earlier run of this model on this GPU.")
        chosen = suggestion.suggest(outlook, case, Bounds(levels, rows, limits), largest=self.gpu is None)
        if chosen is not None:
            self.reasons |= chosen.reasons
            self.reasons.setdefault("micro_batch", "the effective batch is one sequence")
            tier = _TOLD[outlook.forecasts[chosen.case.setup].tier]
            self.reasons["memory"] = f"{tier}; the most is held in {chosen.memory.phase or 'the step'}, with {self._longest_words(chosen.case)}"
        return chosen

    def _longest_words(self, case: Case) -> str:
        rows = "one row" if case.rows == 1 else f"{case.rows} rows"
        if case.packed:
            return f"{rows} packed to {case.length:,} tokens"
        longest = self.data.longest if self.data else None
        return f"{rows} of {case.length:,} tokens, " + ("the longest there are" if longest else "the longest that prompt.max_length allows")

    def _ran_out(self, case: Case, level: bool | int | str) -> int | None:
        if self.gpu is None:
            return None
        setup, name = _at(case.setup, level), one_line(self.gpu.name)
        return self.history.most_rows(name, self.recipe.model.name, setup, length=case.length, rank=case.rank, packed=case.packed)

    def _careful(self, case: Case, least: Memory) -> Case:
        """The choice without a forecast: activation checkpointing on a GPU, and a small micro-batch."""
        train = self.recipe.train
        level = case.setup.activation_checkpointing
        if train.activation_checkpointing == "auto":
            level = self.gpu is not None
            self.reasons["activation_checkpointing"] = (
                "on: about a third slower, but the activations are not forecast yet and would be the largest part"
                if level
                else "off: main memory is roomy, and recomputing costs about a third of the speed"
            )
        if train.micro_batch != "auto":
            rows, self.reasons["micro_batch"] = train.micro_batch, SET
        else:
            free = self.gpu.free_bytes if self.gpu else None
            rows, self.reasons["micro_batch"] = batch.suggest(
                train.effective_batch, case.length, on_gpu=self.gpu is not None, least=least.total_bytes, free=free, limit=self._ran_out(case, level)
            )
        return Case(_at(case.setup, level), 1 if case.packed else rows, case.length, case.rank, case.packed)

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
        if self.resolved.packing and facts.model_type in LEAKING:
            self.warnings.append(f"Packed documents read one another in the {facts.model_type} family: the run will pad instead.")
        if self.recipe.prompt.max_length > facts.context_length:
            asked = self.recipe.prompt.max_length
            self.warnings.append(f"prompt.max_length {asked:,} is longer than the model's context of {facts.context_length:,} tokens.")
        if facts.quantized:
            method = one_line(facts.quantized, 40)
            self.warnings.append(f"The model's published weights are quantized already ({method}); the memory shown does not know that.")
