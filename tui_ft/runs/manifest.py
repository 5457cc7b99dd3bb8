"""A checkpoint's manifest: what belongs to it, and what it was trained with. Read as if an enemy had written it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 24
CHUNK = 1 << 22

Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Entry(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(strict=True)

    size: int = Field(ge=0)
    xxh3: Digest


class Manifest(BaseModel):
    """What stands in `manifest.json`, as far as it is of the right shape; other keys are skipped."""

    model_config = ConfigDict(strict=True, extra="ignore")

    step: int = Field(ge=0)
    files: dict[str, Entry]
    eval_loss: float | None = None
    attempt: int = 0
    tokens: int | None = None
    """Tokens trained on up to here."""
    data: str = ""
    """Hash of every sample's ids and labels, in order."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of recipe and plan that decide the training, with their values."""
    versions: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The files that were read, by recipe key: path → size, date and hash."""
    digest: str = Field("", alias="self")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, Entry]) -> dict[str, Entry]:
        for name in files:
            if not name or name.startswith("/") or "\0" in name or re.search(r"(^|/)(\.{0,2})(/|$)", name):
                raise ValueError("names a file outside the checkpoint")
        return files


def read_manifest(checkpoint: Path) -> Manifest | str:
    """The manifest of a checkpoint, or why it cannot be trusted. Never raises, whatever stands there."""
    file = checkpoint / MANIFEST
    try:
        if file.is_symlink() or file.stat().st_size > LARGEST_MANIFEST:
            return "its manifest is a link, or far too large"
        body = json.loads(file.read_text(encoding="utf-8"))
        said = body.pop("self", None)
        if said != self_hash(body):
            return "its manifest was changed"
        manifest = Manifest.model_validate({**body, "self": said})
    except FileNotFoundError:
        return "its manifest is missing"
    except ValidationError as error:
        return f"its manifest has not the right shape ({'.'.join(str(part) for part in error.errors()[0]['loc'])[:60]!r})"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return "its manifest is damaged"
    if checkpoint.name.startswith("checkpoint-") and checkpoint.name != f"checkpoint-{manifest.step}":
        return f"its manifest is that of step {manifest.step}"
    return manifest


def self_hash(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(body, sort_keys=True).encode()).hexdigest()


def hash_file(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """The hash of a file's content; about a second a gigabyte from a fast disk.

    Raises:
        OSError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()
