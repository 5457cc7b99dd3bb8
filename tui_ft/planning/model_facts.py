"""What is known of a model without its weights: from a child process that builds it from its config, and from its cache."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tui_ft import demo, home
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.hub import weights
from tui_ft.planning import child
from tui_ft.recipe.schema import Model
from tui_ft.text import one_line

_FORMAT = "2"  # of the cached JSON; a new one makes old entries unknown
TIMEOUT = 180.0  # seconds: the imports take about ten on a slow disk, the build well under one


class ParameterGroup(BaseModel):
    """Parameters of one shape; `*` in the name stands for each index in `layers`."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    count: int = Field(ge=0, description="Numbers in one of them.")
    role: str = Field(description="layer, head, norm (after the last layer) or other. A head tied to the input embedding stands as head.")
    embedding: bool = Field(description="It is an embedding's table, tied to the head or not.")
    layers: tuple[int, ...] = Field(description="Empty for one that stands outside the layers.")

    @property
    def times(self) -> int:
        return max(1, len(self.layers))


class LinearGroup(BaseModel):
    """Linear modules of one shape, named as `ParameterGroup` is."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    name: str
    width_in: int = Field(alias="in", ge=0)
    width_out: int = Field(alias="out", ge=0)
    head: bool
    layers: tuple[int, ...]

    def names(self) -> list[str]:
        return [self.name.replace("*", str(index), 1) for index in self.layers] or [self.name]

    @property
    def short_name(self) -> str:
        """The name that a recipe's targets use, e.g. `q_proj`."""
        return self.name.rpartition(".")[2]


class ModelFacts(BaseModel):
    """A model's structure. Widths and counts in numbers, `context_length` in tokens."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    architecture: str
    model_type: str
    context_length: int
    vocab_size: int
    hidden_size: int
    layers: int
    layer_list: str
    dtype: str | None = Field(description="How the published weights are stored, e.g. bfloat16; None where the config does not say.")
    tie_word_embeddings: bool
    attention: str = Field("sdpa", description="The implementation that it is loaded with: sdpa, or eager for families that have no other.")
    packs: bool = Field(False, description="Its attention can be given another implementation, which keeps packed samples apart.")
    heads: tuple[int, int, int] = Field((0, 0, 0), description="Attention heads, those of keys and values, a head's width; 0: not told.")
    traits: str = Field("", description="Switches and choices of the config that decide a step's memory besides its sizes.")
    quantized: str | None = Field(description="The method by which the published weights are quantized already; None for usual ones.")
    parameters: tuple[ParameterGroup, ...]
    linears: tuple[LinearGroup, ...]

    @property
    def total(self) -> int:
        """All parameters; a tied weight counts once."""
        return sum(group.count * group.times for group in self.parameters)


def facts(model: Model, *, compute: bool = True, timeout: float = TIMEOUT, cancelled: threading.Event | None = None) -> ModelFacts | None:
    """The facts of `model` from the cache, else (with `compute`) from a child process that takes some seconds.

    Returns None where they are not cached and `compute` is off, or where `cancelled` was set while waiting.

    Raises:
        RequestError: the model is unknown, gated or cannot be built; says what to do.
        NeedsCode: it cannot be looked at without running its own code.
        TuiFtError: the child failed or took longer than `timeout` seconds.
    """
    known = _cached(model)
    if known is not None or not compute:
        return known
    subject = f"the model {one_line(model.name, 100)}"
    request = json.dumps({"name": model.name, "revision": model.revision})
    try:
        answer = child.ask("tui_ft.modeling.inventory", stdin=request, subject=subject, timeout=timeout, cancelled=cancelled)
    except TimeoutError as error:
        raise TuiFtError(str(error), "Try again.") from None
    if answer is None:
        return None
    found = ModelFacts.model_validate(answer)
    path = _cache_file(model)  # asked again: a Hub model's config may have come with the child
    if path is not None:
        with suppress(OSError):  # a full disk costs the next call some seconds, no more
            home.write_atomically(path, json.dumps(answer))
    return found


def _cached(model: Model) -> ModelFacts | None:
    path = _cache_file(model)
    if path is None:
        return None
    try:
        stamp = path.stat()
        return _parsed(path, stamp.st_mtime_ns, stamp.st_size)
    except (OSError, ValidationError):
        return None


@lru_cache(maxsize=32)
def _parsed(path: Path, modified: int, size: int) -> ModelFacts:
    """One parse a file: the wizard asks at each change of a setting."""
    return ModelFacts.model_validate_json(path.read_text(encoding="utf-8"))


def _cache_file(model: Model) -> Path | None:
    """Named after the config's content, so that a changed model is never mistaken for the old one; None without a config."""
    content = config_content(model)
    if content is None:
        return None
    key = hashlib.sha256(b"\0".join([_FORMAT.encode(), _transformers().encode(), content])).hexdigest()[:32]
    return home.cache_folder() / "inventory" / f"{key}.json"


def config_content(model: Model) -> bytes | None:
    """What decides the structure of `model`, for the names of cache files; None where it is not on this machine."""
    source = config_file(model)
    if source is None:
        return None
    try:
        state = source.stat()
        packed = source.suffix.lower() == weights.GGUF  # too large to read: its place, size and time stand for it
        return f"{source} {state.st_size} {state.st_mtime_ns}".encode() if packed else source.read_bytes()
    except OSError:
        return None


def config_file(model: Model) -> Path | None:
    """The file that decides the structure of `model`, where it is on this machine already; never asks a network."""
    if model.name == demo.NAME:
        return Path(demo.__file__).with_name("build.py")  # the demo's config is made there
    try:
        if (file := weights.gguf_file(model.name)) is not None:
            return file
    except RequestError:  # several files: which one is meant is asked elsewhere
        return None
    if os.path.isdir(model.name):  # noqa: PTH112 - Path.is_dir raises for odd names and closed parents
        return Path(model.name) / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    except (HFValidationError, OSError):
        return None
    return Path(found) if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _transformers() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return "none"
