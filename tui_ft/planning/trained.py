"""Which numbers a method trains: the shapes of all trained tensors, counted without building them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from tui_ft.errors import ConfigError, Problem
from tui_ft.planning.model_facts import LinearGroup, ModelFacts
from tui_ft.recipe.schema import Method
from tui_ft.text import one_line


@dataclass(frozen=True)
class Tensor:
    """A trained tensor that occurs `times` times."""

    shape: tuple[int, ...]
    count: int
    """Numbers in one of them."""
    times: int
    embedding: bool = False
    """8-bit optimizers keep the state of embeddings in 32 bits."""


def trained_tensors(facts: ModelFacts, method: Method) -> list[Tensor]:
    """All tensors that `method` trains in this model.

    Raises:
        ConfigError: more layers than the model has, or targets that it does not have.
    """
    if method.kind == "lora":
        return list(_adapters(facts, method))
    if method.kind == "full":
        return [Tensor(group.shape, group.count, group.times, group.embedding) for group in facts.parameters]
    return list(_last_layers(facts, method.layers or 1))


def _last_layers(facts: ModelFacts, count: int) -> Iterator[Tensor]:
    """The last layers, the norm after them and the head, which in many models is the embedding as well."""
    if count > facts.layers:
        hint = "Choose fewer, or method.kind full." if facts.layers else "Choose method.kind lora or full."
        raise ConfigError([Problem("method.layers", f"is {count}, but the model has {facts.layers} layers", hint)])
    first = facts.layers - count
    for group in facts.parameters:
        times = sum(index >= first for index in group.layers) if group.role == "layer" else int(group.role in ("head", "norm"))
        if times:
            yield Tensor(group.shape, group.count, times, group.embedding)


def _adapters(facts: ModelFacts, method: Method) -> Iterator[Tensor]:
    """For each targeted linear: A (r × in), B (out × r) and, in DoRA, a magnitude for each output."""
    for linear, times in targeted(facts, method.targets):
        yield Tensor((method.r, linear.width_in), method.r * linear.width_in, times)
        yield Tensor((linear.width_out, method.r), method.r * linear.width_out, times)
        if method.variant == "dora":
            yield Tensor((linear.width_out,), linear.width_out, times)


def targeted(facts: ModelFacts, targets: str | list[str]) -> list[tuple[LinearGroup, int]]:
    """The linear modules that `targets` mean, each with how often it occurs.

    A target matches as in peft: the whole dotted name, or its end after a dot.

    Raises:
        ConfigError: a target that matches nothing, with the names that there are.
    """
    if isinstance(targets, str):  # all-linear
        return [(linear, len(linear.names())) for linear in facts.linears if not linear.head]
    unmatched = set(targets)
    found = []
    for linear in facts.linears:
        hits = [{target for target in targets if name == target or name.endswith(f".{target}")} for name in linear.names()]
        unmatched -= set().union(*hits)
        if any(hits):
            found.append((linear, sum(map(bool, hits))))
    if any(linear.head for linear, _ in found):
        raise ConfigError([Problem("method.targets", "the head gets no adapter", "Leave it out; all-linear is every linear layer but the head.")])
    if unmatched:
        raise ConfigError(_unknown(facts, target) for target in targets if target in unmatched)
    return found


def _unknown(facts: ModelFacts, target: str) -> Problem:
    names = sorted({linear.short_name for linear in facts.linears if not linear.head})
    near = difflib.get_close_matches(target, names, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    model = one_line(facts.architecture, 60)
    return Problem("method.targets", f"{one_line(target, 60)!r} is no linear layer of this {model}", f"{hint}It has {', '.join(names)}.")
