"""Repositories by name: what is on this machine first, then the Hub's, most downloaded first; and what a dataset is divided into."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tui_ft.errors import RequestError
from tui_ft.hub import cache, network
from tui_ft.hub.cache import Kind
from tui_ft.text import one_line

MOST = 40
"""Hits asked for: more than a person reads, and one page of the Hub's answer."""
_FOR_MODELS = ["gated", "private", "downloads", "lastModified", "safetensors", "pipeline_tag"]
_FOR_DATASETS = ["gated", "private", "downloads", "lastModified", "description", "mainSize"]


class Hit(BaseModel):
    """A repository in a list. Every text in it is foreign."""

    model_config = ConfigDict(frozen=True)

    name: str
    cached_bytes: int | None = Field(None, description="What of it is on this machine; None for nothing.")
    parameters: int | None = None
    bytes: int | None = Field(None, description="Of a dataset's files.")
    downloads: int | None = Field(None, description="In the last 30 days.")
    changed: str | None = Field(None, description="Date of the last change, YYYY-MM-DD.")
    gated: bool = False
    private: bool = False
    about: str = ""


class Hits(BaseModel):
    """What a search found, and why the Hub's part is missing, in words."""

    hits: list[Hit]
    offline: str = ""


class Choices(BaseModel):
    """A dataset's configurations, each with its splits, in the publisher's order."""

    configs: dict[str, list[str]]
    cached: bool = Field(False, description="Told from this machine's cache, since the Hub could not be asked.")

    @property
    def default(self) -> str:
        """The configuration that is loaded where none is named; empty where one must be."""
        return "default" if "default" in self.configs else next(iter(self.configs)) if len(self.configs) == 1 else ""


def search(kind: Kind, text: str) -> Hits:
    """Up to `MOST` hits of the Hub, and everything cached that holds `text`; an empty text lists the cache and the most downloaded.

    Raises:
        TuiFtError: the cache cannot be read.
    """
    words = text.lower().split()
    here = [found for found in cache.repositories(kind) if all(word in found.name.lower() for word in words)]
    offline, there = network.settle(), []
    if not offline:
        try:
            there = _asked(kind, text.strip())
        except Exception as error:  # a mirror may answer anything at all
            offline = network.refusal(error, text, kind).message
    sizes = {found.name: found.bytes for found in here}
    known = {hit.name: hit for hit in there}
    first = [known.get(name, Hit(name=name)).model_copy(update={"cached_bytes": size}) for name, size in sizes.items()]
    return Hits(hits=[*first, *(hit for hit in there if hit.name not in sizes)], offline=offline)


def cached(kind: Kind) -> Hits:
    """What is on this machine, last used first; asks no network.

    Raises:
        TuiFtError: the cache cannot be read.
    """
    return Hits(hits=[Hit(name=found.name, cached_bytes=found.bytes) for found in cache.repositories(kind)])


def _asked(kind: Kind, text: str) -> list[Hit]:
    from huggingface_hub import HfApi

    api = HfApi()
    if kind == "dataset":
        return [_hit(found) for found in api.list_datasets(search=text or None, sort="downloads", limit=MOST, expand=_FOR_DATASETS)]  # type: ignore[arg-type]
    generating = api.list_models(search=text or None, sort="downloads", limit=MOST, expand=_FOR_MODELS, pipeline_tag="text-generation")  # type: ignore[arg-type]
    # a base model that nobody tagged is found only where the tagged ones are few
    return [_hit(found) for found in generating] or [
        _hit(found)
        for found in api.list_models(search=text or None, sort="downloads", limit=MOST, expand=_FOR_MODELS)  # type: ignore[arg-type]
    ]


def _hit(found: Any) -> Hit:
    counted = getattr(found, "safetensors", None)
    changed = getattr(found, "last_modified", None)
    return Hit(
        name=found.id,
        parameters=counted.total if counted else None,
        bytes=getattr(found, "main_size", None),
        downloads=found.downloads,
        changed=changed.date().isoformat() if changed else None,
        gated=bool(found.gated),
        private=bool(found.private),
        about=str(getattr(found, "description", None) or "").strip()[:400],
    )


def choices(name: str) -> Choices:
    """The configurations and splits of a dataset on the Hub, from the list of its converted files; else as its own files tell.

    Raises:
        RequestError: there is no such dataset, it is gated or private, or neither Hub nor cache can tell.
    """
    if network.settle():
        return _from_cache(name)
    try:
        return Choices(configs=_converted(name) or _as_the_library_sees_it(name))
    except Exception as error:  # the library's reader of foreign cards and file trees
        raise network.refusal(error, name, "dataset") from None


def _converted(name: str) -> dict[str, list[str]]:
    """One request; empty for a dataset that the Hub did not convert."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    answer = get_session().get(f"{constants.ENDPOINT}/api/datasets/{name}/parquet", headers=build_hf_headers())
    if answer.status_code in (404, 500, 501):
        return {}
    hf_raise_for_status(answer)
    listed = answer.json()
    listed = listed if isinstance(listed, dict) else {}
    # of a very large split only the beginning is converted, under a name that says so
    return {config: [split.removeprefix("partial-") for split in splits] for config, splits in listed.items() if isinstance(splits, dict)}


def _as_the_library_sees_it(name: str) -> dict[str, list[str]]:
    """From the card and the file names; a minute where there are hundreds of configurations, so only the first are looked into."""
    import datasets

    configs = datasets.get_dataset_config_names(name)
    return {config: datasets.get_dataset_split_names(name, config) if index < 10 else ["train"] for index, config in enumerate(configs)}


def _from_cache(name: str) -> Choices:
    found: dict[str, list[str]] = {}
    for folder in cache.dataset_folders(name):
        try:
            described = json.loads((folder / "dataset_info.json").read_bytes())
            found[str(described["config_name"])] = [str(split) for split in described["splits"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        raise RequestError(
            f"the dataset {one_line(name, 100)} is not on this machine: {network.settle()}", "Check the network, or name a local file."
        )
    return Choices(configs=found, cached=True)
