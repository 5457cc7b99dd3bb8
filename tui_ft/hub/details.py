"""What a model is, told from metadata and its small files alone: no weight is read, none is downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tui_ft.errors import RequestError
from tui_ft.hub import network, weights
from tui_ft.text import one_line

_SMALL = 5_000_000
"""Bytes: a config beyond this is none."""
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


class ModelDetails(BaseModel):
    """A model as its publisher describes it. Every text in it is foreign; None stands for what nobody says."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    name: str = Field(description="A Hub id, or a folder or GGUF file.")
    place: str = Field(description="hub, cache or folder.")
    commit: str | None = None
    bytes: int | None = Field(None, description="Of the weights that would be loaded.")
    parameters: int | None = None
    context_length: int | None = Field(None, description="In tokens.")
    licence: str | None = None
    gated: bool = False
    private: bool = False
    chat: bool | None = Field(None, description="It has a chat template; without one it is a base model.")
    dtype: str | None = None
    architecture: str | None = None
    changed: str | None = Field(None, description="Date of the last change, YYYY-MM-DD.")
    downloads: int | None = None
    needs_code: bool = Field(
        False, description="It names Python code of its own; whether transformers knows the architecture itself, only it can tell."
    )
    gguf: bool = False
    note: str = Field("", description="Why something is missing here, in words.")


def of_hub(name: str, revision: str | None = None) -> ModelDetails:
    """Two or three small requests: the repository's metadata, its config, its tokenizer's config where the first does not tell of a template.

    Raises:
        RequestError: there is no such model, it is private, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=network.ANSWER_SECONDS)
    except Exception as error:
        raise network.refusal(error, name) from None
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    closed = ""

    def read(file: str) -> dict[str, Any]:
        nonlocal closed
        try:
            return _fetched(name, info.sha or "main", file) if file in sizes else {}
        except Exception as error:  # a gated repository shows its metadata and closes its files
            refusal = network.explained(error, name)
            closed = f"{refusal.message}: {refusal.hint}" if refusal else f"{file} cannot be read"
            return {}

    config = read("config.json") or _mapping(info.config)
    template = _mapping(_mapping(info.config).get("tokenizer_config")).get("chat_template") or _mapping(info.gguf).get("chat_template")
    chat = bool(template) or _has_template(sizes, read)
    counted = info.safetensors
    stored = max(counted.parameters, key=counted.parameters.__getitem__) if counted and counted.parameters else None
    return ModelDetails(
        name=info.id,
        place="hub",
        commit=info.sha,
        bytes=_weight(sizes),
        parameters=counted.total if counted else _number(_mapping(info.gguf).get("total")),
        context_length=_context(config) or _number(_mapping(info.gguf).get("context_length")),
        licence=_licence(getattr(info.card_data, "license", None), info.tags),
        gated=bool(info.gated),
        private=bool(info.private),
        chat=None if closed and not chat else chat,
        dtype=weights.DTYPES.get(str(stored), stored) or _dtype(config),
        architecture=_architecture(config) or _text(_mapping(info.gguf).get("architecture")),
        changed=info.last_modified.date().isoformat() if info.last_modified else None,
        downloads=info.downloads,
        needs_code="auto_map" in config,
        gguf=weights.is_gguf(sizes),
        note=closed,
    )


def of_folder(path: Path, name: str = "", place: str = "folder", commit: str | None = None) -> ModelDetails:
    """The same of a folder, or of one GGUF file: small files and the headers of the weights.

    Args:
        name: how the model is called, where that is not the path.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        folder = path if path.is_dir() else path.parent
        sizes = {file.name: file.stat().st_size for file in (folder.iterdir() if path.is_dir() else [path]) if file.is_file()}
        newest = max((file.stat().st_mtime for file in (folder / name for name in sizes)), default=None)
    except OSError as error:
        raise RequestError(f"{one_line(path, 200)} cannot be read: {error.strerror}", "Check the path and its permissions.") from None

    def read(file: str) -> dict[str, Any]:
        return _parsed((folder / file).read_bytes()) if file in sizes and sizes[file] <= _SMALL else {}

    known: dict[str, Any] = {
        "name": name or str(path),
        "place": place,
        "commit": commit,
        "bytes": _weight(sizes),
        "changed": datetime.fromtimestamp(newest, UTC).date().isoformat() if newest else None,
        "licence": _licence(_card(folder / "README.md"), None) if "README.md" in sizes else None,
    }
    if weights.is_gguf(sizes):
        header = weights.gguf_header(folder / weights.wanted(sizes)[0])
        return ModelDetails(**known | {key: value for key, value in header.items() if value is not None}, gguf=True)
    config = read("config.json")
    count, stored = weights.counted([folder / file for file in weights.wanted(sizes)])
    return ModelDetails(
        **known,
        parameters=count,
        context_length=_context(config),
        chat=_has_template(sizes, read),
        dtype=stored or _dtype(config),
        architecture=_architecture(config),
        needs_code="auto_map" in config,
    )


def of_cache(name: str, revision: str | None = None) -> ModelDetails | None:
    """The same of what the Hub's cache holds of a model; None where it holds nothing of it. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return of_folder(folder, name, "cache", folder.name)


def _weight(sizes: dict[str, int]) -> int | None:
    """Bytes of the weights; None where there are several GGUF files, each a whole model."""
    files = weights.wanted(sizes)
    return None if weights.is_gguf(sizes) and len(files) > 1 else sum(sizes[file] for file in files) or None


def _fetched(name: str, revision: str, file: str) -> dict[str, Any]:
    """One small JSON file, without leaving anything in the cache: looking at a model is not having it."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    with get_session().stream("GET", hf_hub_url(name, file, revision=revision), headers=build_hf_headers(), timeout=network.ANSWER_SECONDS) as answer:
        if answer.status_code >= 400:
            answer.read()
        hf_raise_for_status(answer)
        data = b""
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > _SMALL:
                raise ValueError(f"{file} is larger than any config")
    return _parsed(data)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _has_template(sizes: Iterable[str], read: Callable[[str], dict[str, Any]]) -> bool:
    return bool(set(_TEMPLATES).intersection(sizes)) or bool(read("tokenizer_config.json").get("chat_template"))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _context(config: dict[str, Any]) -> int | None:
    for part in (config, _mapping(config.get("text_config"))):  # models that also see keep their text part inside
        for key in _CONTEXT:
            if (found := _number(part.get(key))) is not None:
                return found
    return None


def _dtype(config: dict[str, Any]) -> str | None:
    return _text(config.get("dtype") or config.get("torch_dtype") or _mapping(config.get("text_config")).get("dtype"))


def _architecture(config: dict[str, Any]) -> str | None:
    named = config.get("architectures")
    return _text(named[0] if isinstance(named, list) and named else config.get("model_type"))


def _licence(stated: object, tags: list[str] | None) -> str | None:
    """The card's word, else the tag that the Hub makes of it; a list, where several hold, as one text."""
    if isinstance(stated, list):
        stated = ", ".join(str(item) for item in stated)
    tagged = next((tag.removeprefix("license:") for tag in tags or [] if isinstance(tag, str) and tag.startswith("license:")), None)
    return _text(stated) or tagged


def _card(readme: Path) -> object:
    from huggingface_hub import metadata_load

    try:
        return (metadata_load(readme) or {}).get("license") if os.path.getsize(readme) <= _SMALL else None  # noqa: PTH202
    except Exception:  # YAML of a foreign README can fail in many ways, and a licence unknown is no error
        return None
