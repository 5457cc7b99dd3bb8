"""Where forecasts come from: a cache, estimates shipped with the program, and a child process that traces a training step.

A trace costs a second or two a setup after some ten seconds of imports, so each one is kept as it arrives: whoever
cancels, or asks for a few more setups later, loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tui_ft import home
from tui_ft.planning import child, estimate, model_facts
from tui_ft.planning.forecast import BASIS, PARTS, Fit, Region, Setup
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.schema import Model
from tui_ft.text import one_line, visible

TIMEOUT = 300.0  # seconds: a dozen setups of a large model on a slow processor
TRACE = "tui_ft.modeling.trace"

_FORMAT = "2"  # of the cached JSON, and of what the trace counts
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")

Forecasts = Mapping[Setup, Fit]


def known(model: Model, facts: ModelFacts | None, setups: Iterable[Setup], gpu: str = "") -> dict[Setup, Fit]:
    """What can be told of these setups at once, without a child: measured on this GPU, else traced, else estimated.

    Args:
        gpu: the name of the GPU that it is asked for.
    """
    found = {setup: cached(model, setup, gpu) or (estimate.estimated(facts, setup) if facts else None) for setup in setups}
    return {setup: fit for setup, fit in found.items() if fit is not None}


def cached(model: Model, setup: Setup, gpu: str = "") -> Fit | None:
    """The forecast of an earlier trace of this very model with these very libraries, or what was measured on that GPU; a damaged one is none."""
    for on in (gpu, "") if gpu else ("",):
        path = _cache_file(model, setup, on)
        if path is not None and (fit := _read(path)) is not None:
            return fit
    return None


def missing(model: Model, setups: Iterable[Setup], *, measured_on: str = "") -> list[Setup]:
    """Those of `setups` that a trace (or, with `measured_on`, a measurement on that GPU) could still tell of, in their order."""
    files = ((setup, _cache_file(model, setup, measured_on)) for setup in setups)
    return [setup for setup, path in files if path is None or (_read(path) is None and not _is_refused(path))]


def trace(
    model: Model,
    setups: Sequence[Setup],
    *,
    on_fit: Callable[[Setup, Fit], None] | None = None,
    on_refusal: Callable[[Setup, str], None] | None = None,
    cancelled: threading.Event | None = None,
    timeout: float = TIMEOUT,
    measure: bool = False,
    gpu: str = "",
) -> dict[Setup, Fit]:
    """Have a child process follow a training step of `model` in each setup; what has arrived where `cancelled` was set or `timeout` seconds are over.

    Args:
        on_fit: is given each forecast as it arrives.
        on_refusal: is given each setup that cannot be traced, with the reason; it is not asked for again.
        measure: run the steps on the real GPU (named `gpu`) instead, with random weights.

    Raises:
        RequestError: the model is unknown or cannot be built; says what to do.
        NeedsCode: it cannot be built without running its own code.
        TuiFtError: the child failed; what had arrived is kept.
    """
    found: dict[Setup, Fit] = {}
    if not setups:
        return found
    request = {
        "model": {"name": model.name, "revision": model.revision},
        "setups": [setup.model_dump(mode="json") for setup in setups],
        "measure": measure,
    }
    subject = f"the memory of {one_line(model.name, 100)}"
    with suppress(TimeoutError):
        for told in child.stream(TRACE, stdin=json.dumps(request), subject=subject, timeout=timeout, cancelled=cancelled):
            setup = _told_of(told, setups)
            if setup is None:
                continue
            fit = _fit(told.get("fit"))
            reason = visible(str(told.get("error") or "its answer cannot be read"))
            if fit is not None or "error" in told:  # what cannot be read may be a torn line, and is asked for again
                _keep(_cache_file(model, setup, gpu if measure else ""), fit, reason)
            if fit is not None:
                found[setup] = fit
                if on_fit:
                    on_fit(setup, fit)
            elif on_refusal:
                on_refusal(setup, reason)
    return found


def _told_of(told: dict[str, Any], setups: Sequence[Setup]) -> Setup | None:
    index = told.get("setup")
    return setups[index] if isinstance(index, int) and 0 <= index < len(setups) else None


def _fit(value: object) -> Fit | None:
    """A forecast as the child tells it; None for what is none, or could not be asked."""
    try:
        fit = Fit.model_validate(value)
    except ValidationError:
        return None
    return fit if all(regions and regions[0].above == 0 and all(map(_is_whole, regions)) for regions in (fit.padded, fit.single)) else None


def _is_whole(region: Region) -> bool:
    rows = [row for phase in region.phases.values() for row in phase.values()]
    known = all(part in PARTS for phase in region.phases.values() for part in phase)
    return bool(rows) and known and all(len(row) == len(BASIS) and all(map(math.isfinite, row)) for row in rows)


def _keep(path: Path | None, fit: Fit | None, reason: str) -> None:
    content = {"fit": fit.model_dump(mode="json")} if fit else {"refused": reason}
    if path is not None:
        with suppress(OSError):  # a full disk costs the next call a trace, no more
            home.write_atomically(path, json.dumps(content))


def _read(path: Path) -> Fit | None:
    stamp = _stamp(path)
    return _parsed(path, *stamp)[0] if stamp else None


def _is_refused(path: Path) -> bool:
    stamp = _stamp(path)
    return _parsed(path, *stamp)[1] if stamp else False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=512)
def _parsed(path: Path, modified: int, size: int) -> tuple[Fit | None, bool]:
    """The forecast, and whether the setup was refused. One parse a file: the wizard asks at each change of a setting."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, False
    if not isinstance(content, dict):
        return None, False
    return _fit(content.get("fit")), isinstance(content.get("refused"), str)


def _cache_file(model: Model, setup: Setup, gpu: str) -> Path | None:
    """Named after all that decides its content; None where the model's config is not on this machine."""
    content = model_facts.config_content(model)
    if content is None:
        return None
    decisive = b"\0".join([_FORMAT.encode(), _versions().encode(), content, setup.model_dump_json().encode(), gpu.encode()])
    return home.cache_folder() / "forecasts" / f"{hashlib.sha256(decisive).hexdigest()[:32]}.json"


@lru_cache(maxsize=1)
def _versions() -> str:
    return " ".join(f"{name}={_version(name)}" for name in _LIBRARIES)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
