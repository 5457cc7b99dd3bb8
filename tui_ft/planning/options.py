"""Other settings than those of the plan: what each would cost or save; and where nothing fits, the shortest way to make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from tui_ft import units
from tui_ft.planning.forecast import is_fused
from tui_ft.planning.outlook import Case, Outlook
from tui_ft.recipe.plan import Memory, Option
from tui_ft.recipe.schema import Method, Recipe

MOST = 8
"""So many are shown."""
REMEDIES = 3
"""So many ways to make it fit."""
SHORTEST = 256
"""Tokens below which samples are not cut further unasked."""
ALIKE = 0.03
"""Speeds that differ by no more are not told apart."""
LITTLE = 0.005
"""A share of the memory that is not worth a change."""
SMALL_OPTIMIZER = "adamw_8bit"
"""AdamW with 8-bit states, not paged: what is paged lies on the GPU all the same until something pushes it out."""

_USUAL = Method()
_HARM = {"level": 0, "rows": 0, "optimizer": 1, "rank": 1, "weights": 2, "kind": 3, "length": 4}  # to what is learned, least first


@dataclass(frozen=True)
class Change:
    """One thing done otherwise."""

    about: str
    """What it is about; two changes about the same cannot be combined."""
    settings: dict[str, Any]
    words: str
    case: Case

    def apply_to(self, other: Case, base: Case) -> Case:
        """`other` with what this change does to `base`."""
        new = {name: value for name in ("rows", "length", "rank") if (value := getattr(self.case, name)) != getattr(base, name)}
        of_setup = {name: value for name, value in self.case.setup if value != getattr(base.setup, name)}
        return replace(other, **new, setup=other.setup.model_copy(update=of_setup))


def wanted_setups(recipe: Recipe, case: Case) -> list[Case]:
    """Cases beside the plan's own whose setups have to be known before `options` can tell of them."""
    return [change.case for change in _of_setup(recipe, case)]


def options(recipe: Recipe, outlook: Outlook, case: Case, need: Memory, rows: Mapping[int, int], seconds: float | None) -> list[Option]:
    """The alternatives to `case`, the most useful first; where it does not fit, remedies before all others.

    Args:
        need: what `case` takes.
        rows: numbers of samples that a forward pass may hold, ascending, with the tokens of its rows.
        seconds: of the whole training as planned; None where nobody knows.
    """
    changes = [*_of_level(case), *_of_rows(case, rows), *_of_setup(recipe, case), *_of_size(recipe, case, min(rows.values()))]
    shorter = [change for change in changes if change.about == "length"][1:]  # much shorter samples are a way out, no more
    told = [answer for change in changes if change not in shorter and (answer := _told(outlook, case, need, [change], seconds)) is not None]
    others = [answer.option for answer in sorted(told, key=lambda answer: (not answer.option.fits, answer.harm, answer.ratio))]
    if outlook.gpu is None or outlook.has_room(need):
        return others[:MOST]
    remedies = list(_remedies(outlook, case, need, changes, seconds))
    return [*remedies, *(option for option in others if option.changes not in [remedy.changes for remedy in remedies])][:MOST]


def _remedies(outlook: Outlook, case: Case, need: Memory, changes: Sequence[Change], seconds: float | None) -> Iterator[Option]:
    """The ways to make it fit that take the fewest changes, the most harmless first."""
    saving = [change for change in changes if (memory := outlook.memory(change.case)) is None or memory.total_bytes < need.total_bytes]
    for count in (1, 2, 3):
        chosen = (group for group in combinations(saving, count) if len({change.about for change in group}) == count)
        answers = [answer for group in chosen if (answer := _told(outlook, case, need, group, seconds)) is not None and answer.option.fits]
        if answers:
            for answer in sorted(answers, key=lambda answer: (answer.harm, answer.ratio))[:REMEDIES]:
                yield answer.option.model_copy(update={"remedy": True})
            return


@dataclass(frozen=True)
class _Answer:
    option: Option
    harm: int
    ratio: float
    """Of the time a step takes to that of the plan's."""


def _told(outlook: Outlook, base: Case, need: Memory, changes: Sequence[Change], seconds: float | None) -> _Answer | None:
    """What these changes together would take; None where that is not known, or where they cost and save nothing."""
    case = base
    for change in changes:
        case = change.apply_to(case, base)
    words = " and ".join(change.words for change in changes)
    settings = {key: value for change in changes for key, value in change.settings.items()}
    if case.setup not in outlook.forecasts and all(change.about != "level" for change in changes):
        # Other setups are looked at with checkpointing and without, not at each level between.
        case = replace(case, setup=case.setup.model_copy(update={"activation_checkpointing": True}))
        words, settings = f"{words} and with activation checkpointing", {**settings, "train.activation_checkpointing": True}
    memory = outlook.memory(case)
    if memory is None:
        return None
    ratio = outlook.work(case) / outlook.work(base)
    if memory.total_bytes > need.total_bytes * (1 - LITTLE) and ratio > 1 - ALIKE:
        return None
    text = f"{words}: {_compared(memory.total_bytes, need.total_bytes)}, {_slower(ratio)}"
    fits: bool | None = None
    if outlook.gpu is not None and outlook.free is not None:
        fits = outlook.has_room(memory)
        text += ": fits" if fits else f": does not fit by {units.size(memory.total_bytes - outlook.free)}"
    option = Option(changes=settings, words=words, text=text, total_bytes=memory.total_bytes, seconds=seconds and seconds * ratio, fits=fits)
    return _Answer(option, max(_HARM[change.about] for change in changes), ratio)


def _compared(total: int, base: int) -> str:
    percent = round(100 * (total / base - 1)) if base else 0
    return f"{abs(percent)} % {'more' if percent > 0 else 'less'} memory" if percent else "as much memory"


def _slower(ratio: float) -> str:
    if 1 - ALIKE <= ratio <= 1 + ALIKE:
        return "as fast"
    if 1 / 1.1 < ratio < 1.1:
        return f"{100 * (ratio - 1):.0f} % slower" if ratio > 1 else f"{100 * (1 / ratio - 1):.0f} % faster"
    return f"{ratio:.1f}× slower" if ratio > 1 else f"{1 / ratio:.1f}× faster"


def _of_level(case: Case) -> Iterator[Change]:
    names = {
        False: "without activation checkpointing",
        2: "with checkpointing of every second layer alone",
        True: "with activation checkpointing",
        "offload": "with activations kept in main memory",
    }
    current = case.setup.activation_checkpointing
    for level, words in names.items():
        if level != current:
            setup = case.setup.model_copy(update={"activation_checkpointing": level})
            yield Change("level", {"train.activation_checkpointing": level}, words, replace(case, setup=setup))


def _of_rows(case: Case, rows: Mapping[int, int]) -> Iterator[Change]:
    counts = list(rows)
    place = next((index for index, count in enumerate(counts) if (rows[count] == case.length if case.packed else count == case.rows)), None)
    if place is None:
        return
    smaller = {counts[place - 1], counts[0]} if place else set()
    for count in sorted({*smaller, *counts[place + 1 : place + 2]}, reverse=True):
        if case.packed:
            words, other = f"with packed rows of {rows[count]:,} tokens", replace(case, length=rows[count])
        else:
            words, other = f"with a micro-batch of {count} in place of {case.rows}", replace(case, rows=count)
        yield Change("rows", {"train.micro_batch": count}, words, other)


def _of_setup(recipe: Recipe, case: Case) -> Iterator[Change]:
    """What needs a forecast of its own: other weights, a smaller optimizer, adapters in place of all weights."""
    setup = case.setup
    if setup.kind == "lora":
        names = {"none": "with weights as they are", "int8": "with 8-bit weights", "nf4": "with 4-bit weights (NF4)"}
        for quantization, words in names.items():
            if quantization != setup.quantization:
                double = recipe.method.double_quantization if quantization == "nf4" else True
                fused = is_fused(recipe.method.model_copy(update={"quantization": quantization}))
                other = setup.model_copy(update={"quantization": quantization, "double_quantization": double, "fused": fused})
                yield Change("weights", {"method.quantization": quantization}, words, replace(case, setup=other))
        return
    if setup.device == "cuda" and "8bit" not in setup.optimizer:
        other = setup.model_copy(update={"optimizer": SMALL_OPTIMIZER})
        yield Change("optimizer", {"train.optimizer": SMALL_OPTIMIZER}, "with 8-bit optimizer states", replace(case, setup=other))
    dropout = recipe.method.dropout > 0
    lora = setup.model_copy(update={"kind": "lora", "layers": None, "dropout": dropout, "fused": not dropout})
    settings = {"method.kind": "lora", "method.layers": None, "method.variant": "lora", "method.targets": "all-linear", "method.r": _USUAL.r}
    yield Change("kind", settings, f"as LoRA of rank {_USUAL.r}", replace(case, setup=lora, rank=_USUAL.r))
    if setup.device != "cuda":
        return
    packed = lora.model_copy(update={"quantization": "nf4"})
    words = f"as LoRA of rank {_USUAL.r} on 4-bit weights (NF4)"
    yield Change("kind", {**settings, "method.quantization": "nf4"}, words, replace(case, setup=packed, rank=_USUAL.r))


def _of_size(recipe: Recipe, case: Case, longest: int) -> Iterator[Change]:
    length = longest // 2 if case.length == longest else 0  # a packed row holds many samples: shorter ones take no less
    while length >= SHORTEST:
        yield Change("length", {"prompt.max_length": length}, f"with samples of at most {length:,} tokens", replace(case, length=length))
        length //= 2
    if case.setup.kind == "lora" and case.rank >= 16:
        rank = case.rank // 2
        settings = {"method.r": rank, "method.alpha": max(1, recipe.method.alpha // 2)}
        yield Change("rank", settings, f"with adapters of rank {rank}", replace(case, rank=rank))
