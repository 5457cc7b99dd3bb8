"""Import of the flat configuration file that drove TRL's SFT script: each key goes to its place in a recipe.

Keys that are absent take the script's own defaults, so that the recipe trains what the file meant.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tui_ft.errors import ConfigError, Problem
from tui_ft.recipe import files
from tui_ft.recipe.schema import Fraction, PositiveInt, Recipe
from tui_ft.text import one_line

Text = Annotated[str, Field(min_length=1)]


class FlatSft(BaseModel):
    """The flat file with the script's defaults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model_name: Text = "facebook/opt-350m"
    dataset_name: Text = "timdettmers/openassistant-guanaco"
    dataset_text_field: Text = "text"
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 1.41e-5
    batch_size: PositiveInt = 64
    seq_length: Annotated[int, Field(ge=8)] = 512
    gradient_accumulation_steps: PositiveInt = 16
    num_train_epochs: Annotated[float, Field(gt=0)] = 3
    max_steps: Annotated[int, Field(ge=-1)] = -1
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    logging_steps: PositiveInt = 1
    save_steps: PositiveInt = 100
    save_total_limit: PositiveInt = 10
    use_peft: bool = False
    peft_lora_r: PositiveInt = 64
    peft_lora_alpha: PositiveInt = 16
    trust_remote_code: bool = False
    use_auth_token: Any = None  # may hold a token: never checked, so never repeated in an error
    output_dir: Text | None = None
    push_to_hub: bool = False
    hub_model_id: Text | None = None
    gradient_checkpointing: bool | None = None
    gradient_checkpointing_kwargs: dict[str, Any] | None = None

    @field_validator("output_dir", "hub_model_id", "gradient_checkpointing", "gradient_checkpointing_kwargs", mode="before")
    @classmethod
    def _pythons_none(cls, value: object) -> object:
        return None if value == "None" else value

    @field_validator("batch_size", "seq_length", "gradient_accumulation_steps", "max_steps", "save_steps", "logging_steps", mode="before")
    @classmethod
    def _no_booleans(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("needs a whole number, not true or false")
        return value


_DROPOUT: Fraction = 0.0  # peft's default, which the script kept


def import_text(text: str, name: str) -> tuple[Recipe, list[str]]:
    """The recipe that a flat SFT file (YAML or JSON) means, and what a person should know about the change.

    `name` is the file's name: errors call the text by it, and the recipe is named after it.

    Raises:
        ConfigError: all that is wrong in the file, each with its line.
    """
    tree, lines = _read(text, name)
    try:
        flat = FlatSft.model_validate(tree)
    except ValidationError as error:
        found = {_place(item, name, lines): _problem(item, name, lines) for item in error.errors()}
        raise ConfigError(found.values()) from None
    if flat.load_in_8bit and flat.load_in_4bit:
        where = f"{name}:{lines['load_in_8bit']}: load_in_8bit" if "load_in_8bit" in lines else f"{name}: load_in_8bit"
        raise ConfigError([Problem(where, "load_in_8bit and load_in_4bit exclude each other", "Keep one of them.")])
    quantization = "int8" if flat.load_in_8bit else "nf4" if flat.load_in_4bit else "none"
    recipe = files.validate(
        {
            "name": _recipe_name(name),
            "about": f"Imported from the flat SFT file {one_line(PurePath(name).name, 80)}.",
            "model": {"name": flat.model_name},
            "data": {"source": flat.dataset_name, "format": "text", "columns": {"text": flat.dataset_text_field}},
            "prompt": {"template": "text", "learn": "all", "max_length": flat.seq_length},
            "method": {
                "kind": "lora" if flat.use_peft or quantization != "none" else "full",
                "quantization": quantization,
                "r": flat.peft_lora_r,
                "alpha": flat.peft_lora_alpha,
                "dropout": _DROPOUT,
            },
            "train": {
                "epochs": flat.num_train_epochs,
                "max_steps": flat.max_steps if flat.max_steps > 0 else None,
                "effective_batch": flat.batch_size * flat.gradient_accumulation_steps,
                "micro_batch": flat.batch_size,
                "learning_rate": flat.learning_rate,
                "schedule": "linear",
                "warmup": 0,
                "activation_checkpointing": "auto" if flat.gradient_checkpointing is None else flat.gradient_checkpointing,
            },
            "checkpoints": {"every": flat.save_steps, "keep": flat.save_total_limit},
            "log": {"every": flat.logging_steps},
            "output": {"dir": flat.output_dir, "push_to_hub": _repository(flat)},
        },
        name,
    )
    return recipe, _notices(flat, set(tree))


def _read(text: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        return files.parse_yaml(text, name)
    except ConfigError:
        try:  # JSON that is not YAML: indented with tabs
            tree = json.loads(text)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise
        return tree, {}


def _place(item: Any, name: str, lines: dict[str, int]) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    return f"{name}:{lines[key]}: {one_line(key, 80)}" if key in lines else f"{name}: {one_line(key, 80)}"


def _problem(item: Any, name: str, lines: dict[str, int]) -> Problem:
    where = _place(item, name, lines)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][0]), FlatSft.model_fields, n=1)
        known = f"The keys of a flat SFT file are {', '.join(FlatSft.model_fields)}."
        return Problem(where, "unknown key", f"Did you mean {near[0]}?" if near else known)
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return Problem(where, message if item["type"] == "value_error" else f"{message} (found {one_line(repr(item['input']), 60)})")


def _recipe_name(name: str) -> str:
    """`configs/My run.yml` → `My-run`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", PurePath(name).stem).strip("-._")[:100] or "imported"


def _repository(flat: FlatSft) -> str | None:
    """Where the script would have pushed to: without an id, a repository named after its output folder."""
    if not flat.push_to_hub:
        return None
    return flat.hub_model_id or PurePath(flat.output_dir or "output").name or "output"


def _notices(flat: FlatSft, given: set[str]) -> list[str]:
    notices = []
    if "trust_remote_code" in given:
        notices.append(
            "trust_remote_code was dropped: a recipe cannot consent to running foreign code. "
            "If this model needs its own code, read it and start with `tui-ft run … --trust-remote-code REPO@COMMIT`."
        )
    if "use_auth_token" in given:
        notices.append("use_auth_token was dropped: a recipe never holds or names a token. Log in once with `hf auth login`, or set HF_TOKEN.")
    if "gradient_checkpointing_kwargs" in given:
        notices.append(
            "gradient_checkpointing_kwargs was dropped: the form of checkpointing that is safe follows from the method and the model, "
            "and is chosen for each run; train.activation_checkpointing says how much of it."
        )
    if (flat.load_in_8bit or flat.load_in_4bit) and not flat.use_peft:
        notices.append("use_peft was switched on: quantized weights cannot be trained themselves, only adapters beside them.")
    if flat.load_in_4bit:
        notices.append("load_in_4bit became NF4 with double quantization: the script's FP4 loses more at the same size.")
    if flat.use_peft or flat.load_in_8bit or flat.load_in_4bit:
        notices.append("The adapters go on every linear layer but the head, where the script took a few by the model's family: see method.targets.")
    if flat.push_to_hub and not flat.hub_model_id:
        notices.append(f"hub_model_id is missing: the model would go to {_repository(flat)} in your account. See output.push_to_hub.")
    if flat.hub_model_id and not flat.push_to_hub:
        notices.append(f"hub_model_id was dropped, since push_to_hub is off. Set output.push_to_hub: {one_line(flat.hub_model_id, 100)} to push.")
    return notices
