"""A recipe's keys as form fields: what they are called, what they accept, and the text a person types for a value.

Everything comes from the schema: a new key of the recipe is a new field with help, without a line here.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from tui_ft.recipe import Recipe
from tui_ft.recipe.schema import OPTIMIZERS, SCHEDULES

_LABELS = {
    "model.name": "Model",
    "data.source": "Dataset",
    "data.config": "Configuration",
    "data.oasst": "Message trees",
    "data.max_bad_rows": "Bad rows allowed",
    "prompt.max_length": "Longest sample",
    "prompt.overlong": "Longer ones",
    "prompt.add_tokens": "Markers as tokens",
    "method.kind": "What is trained",
    "method.double_quantization": "Double quantized",
    "method.layers": "Last layers",
    "method.r": "Rank r",
    "method.targets": "Target modules",
    "train.warmup": "Warm-up",
    "train.activation_checkpointing": "Recomputation",
    "train.max_grad_norm": "Gradient limit",
    "evaluate.every": "Evaluate every",
    "evaluate.samples": "Sample prompts",
    "checkpoints.every": "Checkpoint every",
    "checkpoints.keep": "Checkpoints kept",
    "checkpoints.zip": "ZIP each one",
    "log.every": "Log every",
    "log.trackers": "Report to",
    "hardware.gpus": "GPUs",
    "output.dir": "Copy model to",
    "output.push_to_hub": "Push to Hub",
    "output.merge": "Merge adapter",
}
_NAMED_VALUES = {"train.schedule": SCHEDULES, "train.optimizer": OPTIMIZERS}


@dataclass(frozen=True)
class Spec:
    """One key of the recipe as a field of a form."""

    key: str
    """Dotted, as in the file: `train.learning_rate`."""
    label: str
    help: str
    """The schema's description: meaning, unit, trade-off."""
    choices: tuple[str, ...]
    """The words it accepts; empty where it takes anything typed."""
    kinds: frozenset[str]
    """What else it accepts: str, int, float, bool, list, dict, none."""

    @property
    def closed(self) -> bool:
        """Nothing but the choices fits, so that it is chosen, not typed."""
        return bool(self.choices) and not self.kinds - {"bool"}


@cache
def spec(key: str) -> Spec:
    """The field of a dotted key of the recipe."""
    section, _, leaf = key.rpartition(".")
    model: type[BaseModel] = Recipe
    if section:
        annotation = Recipe.model_fields[section].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    field = model.model_fields[leaf]
    kinds: set[str] = set()
    choices = list(_NAMED_VALUES.get(key, ()))
    for part in _members(field.annotation):
        if get_origin(part) is Literal:
            choices += [str(value) for value in get_args(part)]
        elif get_origin(part) in (list, dict):
            kinds.add(get_origin(part).__name__)
        else:
            kinds.add("none" if part is type(None) else part.__name__)
    if key in _NAMED_VALUES:
        kinds.discard("str")
    if kinds == {"bool"}:
        choices = [*choices, "true", "false"]
    label = _LABELS.get(key) or leaf.replace("_", " ").capitalize()
    return Spec(key, label, field.description or "", tuple(choices), frozenset(kinds))


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, looked at without their constraints."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _members(part)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation


def separator(key: str) -> str:
    """What stands between the items of a list: sentences hold commas, names do not."""
    return " | " if key == "evaluate.samples" else ", "


def to_text(value: Any, separator: str = ", ") -> str:
    """A value of the recipe as a person types it: `2e-4`, `q_proj, v_proj`, `output: answer`, nothing for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return separator.join(to_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {to_text(item)}" for name, item in value.items())
    return str(value)


def number(value: float) -> str:
    """The shortest usual form: 1, 0.05, 2e-5."""
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    if abs(value) >= 1e-3:
        return f"{value:.10g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def from_text(key: str, text: str) -> Any:
    """What a typed text means for this key; what fits nothing comes back as text, for the schema to refuse with its reason."""
    field, text = spec(key), text.strip()
    if not text and ("none" in field.kinds or field.kinds & {"list", "dict"}):
        return None if "none" in field.kinds else ([] if "list" in field.kinds else {})
    if "bool" in field.kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text in field.choices:
        return text
    if "dict" in field.kinds:
        return _mapping(text)
    if "list" in field.kinds:
        items = [item.strip() for item in text.split(separator(key).strip()) if item.strip()]
        return [int(item) if re.fullmatch(r"\d{1,9}", item) and key == "hardware.gpus" else item for item in items]
    if field.kinds & {"int", "float"}:
        return _number(text)
    return text


def _number(text: str) -> int | float | str:
    if len(text) > 40:
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _mapping(text: str) -> Any:
    """`instruction: question, output: answer` as a mapping, or the text itself where a part has no colon."""
    pairs = [part.partition(":") for part in text.split(",") if part.strip()]
    if not all(colon and name.strip() and value.strip() for name, colon, value in pairs):
        return text
    return {name.strip(): value.strip() for name, _, value in pairs}
