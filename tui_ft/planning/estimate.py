"""What a trace would say, at once: polynomials in a model's dimensions that were compiled from traces of its family.

`scripts/compile_estimates.py` makes the file. A model gets an estimate only if it is built exactly as the family that was traced:
the same parameters with shapes of the same dimensions, the same switches, the same libraries. All others wait for their trace.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from math import prod
from pathlib import Path

from pydantic import BaseModel

from tui_ft.planning import memory
from tui_ft.planning.forecast import BASIS, PARTS, Fit, Region, Setup
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.schema import Method

FILE = Path(__file__).with_name("estimates.json.gz")
TILE = 32768
"""Tokens of the vocabulary whose logits trl's head makes together: smaller vocabularies are one tile."""
HEAD_TOKENS = 4096
"""Tokens whose logits it makes together."""
UNPACKED_ABOVE = 1536
"""Tokens beyond which bitsandbytes multiplies by an unpacked 4-bit weight."""

_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


Moments = list[tuple[str, list[tuple[int, int, str, float, float]]]]
"""Phase, and (part, scale, monomial, bytes, bytes for each layer)."""


class Compiled(BaseModel):
    """The moments of one setup that may be the greatest, with a mask and without."""

    setup: Setup
    padded: Moments
    single: Moments


class Family(BaseModel):
    """One family's compiled traces."""

    model_type: str
    traits: str
    grouped: bool
    large: bool
    parameters: dict[str, list[tuple[str | None, float]]]
    setups: list[Compiled]


@lru_cache(maxsize=256)
def estimated(facts: ModelFacts, setup: Setup) -> Fit | None:
    """The forecast of `setup`, some milliseconds the first time; None for what was not compiled."""
    setup = setup.model_copy(update={"precision": "bf16"}) if setup.precision == "fp16" else setup  # as many bytes, and the scaler none worth telling
    for family in _families():
        dimensions = _dimensions(family, facts)
        if dimensions is None:
            continue
        for compiled in family.setups:
            if compiled.setup == setup:
                return _fit(facts, setup, dimensions, compiled)
    return None


def scales(rows: int, length: int, rank: int) -> tuple[float, ...]:
    """What bytes of each kind of growth are multiplied by: BASIS, then tokens up to the head's most, then whether 4-bit weights are unpacked."""
    tokens = rows * length
    return 1, tokens, tokens * length, rank, rank * tokens, min(tokens, HEAD_TOKENS), float(tokens > UNPACKED_ABOVE)


def versions() -> dict[str, str]:
    """Of the libraries that decide what a step allocates, by minor version."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = ".".join(metadata.version(name).split("+")[0].split(".")[:2])
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@lru_cache(maxsize=1)
def _families() -> tuple[Family, ...]:
    """None where the file was made with other libraries, or cannot be read: then there are only traces."""
    try:
        content = json.loads(gzip.decompress(FILE.read_bytes()))
        if content["versions"] != versions() or (content["head_tokens"], content["unpacked_above"]) != (HEAD_TOKENS, UNPACKED_ABOVE):
            return ()
        return tuple(Family.model_validate(family) for family in content["families"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return ()


def _dimensions(family: Family, facts: ModelFacts) -> Mapping[str, int] | None:
    """The model's dimensions by name; None where it is not built as the family."""
    heads, groups, width = facts.heads
    if (family.model_type, family.traits) != (facts.model_type, facts.traits) or family.large != (facts.vocab_size > TILE):
        return None
    if not heads or family.grouped != (groups < heads) or len(facts.parameters) != len(family.parameters):
        return None
    found: dict[str, float] = {"heads": heads, "width": width, "queries": heads * width}
    if family.grouped:
        found |= {"groups": groups, "keys": groups * width, "repeats": heads // groups}
    for group in facts.parameters:
        expected = family.parameters.get(group.name)
        if expected is None or len(expected) != len(group.shape) or (group.layers and len(group.layers) != facts.layers):
            return None
        for (name, factor), size in zip(expected, group.shape, strict=True):
            if size != (factor if name is None else found.setdefault(name, size / factor) * factor):
                return None
    return {name: round(value) for name, value in found.items()}


def _fit(facts: ModelFacts, setup: Setup, dimensions: Mapping[str, int], compiled: Compiled) -> Fit:
    method = Method.model_validate({"kind": setup.kind, "quantization": setup.quantization, "double_quantization": setup.double_quantization})
    weights = memory.weight_bytes(facts, method, setup.precision, 0 if setup.kind == "lora" else facts.total)
    starts = sorted({0, HEAD_TOKENS, *([UNPACKED_ABOVE] if setup.quantization == "nf4" else [])})
    padded, single = (
        tuple(Region(above=above, phases=_phases(moments, above, dimensions, facts.layers, weights)) for above in starts)
        for moments in (compiled.padded, compiled.single)
    )
    return Fit(tier="estimate", padded=padded, single=single)


def _phases(moments: Moments, above: int, dimensions: Mapping[str, int], layers: int, weights: int) -> dict[str, dict[str, tuple[float, ...]]]:
    """As the trace tells them: a phase in which the most may be held at several moments comes several times."""
    phases: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, entries in moments:
        parts = {"weights": [float(weights), 0.0, 0.0, 0.0, 0.0]}
        for part, scale, monomial, fixed, each in entries:
            size = (fixed + layers * each) * prod(dimensions[symbol] for symbol in monomial.split("·") if symbol)
            row = parts.setdefault(PARTS[part], [0.0] * len(BASIS))
            if scale < len(BASIS):
                row[scale] += size
            elif scale == len(BASIS):
                row[0 if above >= HEAD_TOKENS else 1] += size * (HEAD_TOKENS if above >= HEAD_TOKENS else 1)
            elif above >= UNPACKED_ABOVE:
                row[0] += size
        count = sum(known.partition(" #")[0] == name for known in phases)
        phases[name if not count else f"{name} #{count + 1}"] = {part: tuple(row) for part, row in parts.items()}
    return phases
