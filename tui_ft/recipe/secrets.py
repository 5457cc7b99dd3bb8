"""No token in a recipe: recipes are shared, presets are kept, and each run directory holds a copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tui_ft.errors import Problem
from tui_ft.recipe.schema import Recipe

_SECRET = re.compile(
    r"\b(?:"
    r"hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|api_org_[A-Za-z0-9]{16,}"  # Hugging Face organisations
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|sk-[A-Za-z0-9_-]{20,}"  # the usual form of model services
    r"|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}"
    r"|wandb_v\d_\w{20,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # JSON web tokens
    r")"
    r"|\b\w+:/{1,2}[^/\s:@]+:[^/\s@]+@",  # a password inside an address, also where one was taken for a path
)
_HEX_KEY = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")  # a Weights & Biases key, but also a commit
_COMMITS = {"model.revision"}


def find(recipe: Recipe) -> list[Problem]:
    """The keys whose value looks like a token; the value itself is never repeated."""
    return [
        Problem(key, "looks like it holds a token or password", "Recipes never hold secrets: use `hf auth login` or an environment variable.")
        for key, text in _texts(recipe.model_dump(mode="json"))
        if _SECRET.search(text) or (key not in _COMMITS and _HEX_KEY.search(text) and "/" not in text)
    ]


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
            if key:  # names of a free mapping are foreign text too
                yield key, str(name)
