"""Fetching a model before it is loaded: with progress, going on where an earlier try broke off, after a look at the disk.

The client library throws an unfinished file away when its process ends, and a file of weights can be five gigabytes. So large files
are fetched here, into a part file beside the cache's blobs that the next try finds; once whole and verified, the library takes them for
its own. The price: one connection a file, where the library's own protocol opens many.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tui_ft import demo, units
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.hub import network, weights
from tui_ft.recipe.schema import Model
from tui_ft.text import one_line

AT_ONCE = 4
"""Files fetched at the same time."""
TRIES = 5
"""How often a broken connection is taken up again without a byte of progress in between."""
LARGE = 1_000_000
"""Bytes from which on a file is worth a part file."""
TELL_SECONDS = 0.5
_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of what a model needs besides its weights."""


@dataclass(frozen=True)
class _File:
    """One file that the model needs."""

    name: str
    bytes: int
    sha256: str
    """Empty for a small file, which git keeps itself."""


class _Cancelled(Exception):
    """Whoever waits for the download has gone."""


def download(
    model: Model, on_progress: Callable[[int, int], None] = lambda _done, _total: None, consent: dict[str, str] | None = None
) -> Path | None:
    """Bring everything of `model` that loading needs into the Hub's cache; with nothing to do it costs one request.

    Where the Hub does not answer, a model that is whole in the cache is taken as it is, and this process goes offline.

    Args:
        on_progress: is given (bytes done, bytes in all), twice a second, in the calling thread; what it raises ends the download.
        consent: repositories whose own code may run, each with the commit that is fetched, its Python files as well.

    Returns:
        The folder that the files are in; None for the demo and for local models.

    Raises:
        RequestError: no such model, gated, private; not whole here while the Hub does not answer; or the disk is too small.
        TuiFtError: the connection broke again and again; the next try goes on from there.
    """
    if model.name == demo.NAME or os.path.exists(model.name):  # noqa: PTH110 - Path.exists raises for odd names and closed parents
        return None
    commit = (consent or {}).get(model.name)
    why = network.settle()
    if why:
        return _cached_whole(model, commit, why)
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(model.name, revision=commit or model.revision, files_metadata=True, timeout=network.ANSWER_SECONDS)
    except Exception as error:
        refusal = network.refusal(error, model.name)
        with suppress(RequestError):  # a token that ran out takes nothing away that is here
            folder = _cached_whole(model, commit, refusal.message)
            network.go_offline()
            return folder
        raise refusal from None
    files = _needed({file.rfilename: file for file in info.siblings or []}, with_code=commit is not None)
    if not any(file.name in weights.wanted([file.name for file in files]) for file in files):
        raise RequestError(f"{one_line(model.name, 100)} holds no weights", "Name another repository.")
    place = _Place(model.name, info.sha or "")
    place.remember(model.revision or "main", commit)
    missing = [file for file in files if not place.has(file)]
    _check_disk(place, missing)
    _fetch_all(place, missing, sum(file.bytes for file in files), on_progress)
    return place.snapshot


def _needed(listed: dict[str, Any], *, with_code: bool) -> list[_File]:
    """Weights of one format, and the small files beside them; what lies in folders is for other programs."""
    wanted = weights.wanted(listed)
    if weights.is_gguf(listed):
        raise RequestError("this repository holds GGUF files, each a whole model", "Download one of them and name its path in model.name.")
    endings = (*_SMALL, ".py") if with_code else _SMALL
    names = [name for name in listed if name in wanted or ("/" not in name and name.endswith(endings))]
    return [_File(name, listed[name].size or 0, _checked(listed[name].lfs.sha256, 64) if listed[name].lfs else "") for name in names]


def _checked(digits: str, count: int) -> str:
    """Hexadecimal digits that become a file's name: a mirror must not choose the place that is written to.

    Raises:
        RequestError: they are something else.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{count}}}", digits):
        raise RequestError(f"the Hub's answer makes no sense: {one_line(digits, 100)!r} is no checksum", "See HF_ENDPOINT and the proxy.")
    return digits


class _Place:
    """Where a repository lies in the cache, by the rules of the client library."""

    def __init__(self, name: str, commit: str) -> None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        self.name = name
        self.commit = _checked(commit, 40)
        self.root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
        self.snapshot = self.root / "snapshots" / self.commit

    def has(self, file: _File) -> bool:
        return (self.snapshot / file.name).exists()

    def blob(self, file: _File) -> Path:
        return self.root / "blobs" / file.sha256

    def part(self, file: _File) -> Path:
        """Named so that the library's own clearing up knows it for unfinished."""
        return self.blob(file).with_name(f"{file.sha256}.tui-ft.incomplete")

    @contextmanager
    def part_file(self, file: _File, done: dict[str, int], cancelled: threading.Event) -> Iterator[IO[bytes]]:
        """The part file, in one process at a time: two runs may want the same model at once. The wait shows what the other has done."""
        part = self.part(file)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a+b") as stream:
            while not _lock(stream):
                done[file.name] = stream.seek(0, os.SEEK_END)
                if cancelled.wait(TELL_SECONDS):
                    raise _Cancelled
            yield stream

    def remember(self, revision: str, commit: str | None) -> None:
        """Which commit a branch stands for, so that the model is found by its branch without a network."""
        if commit is None and revision != self.commit:
            ref = self.root / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self.commit)


def _check_disk(place: _Place, missing: list[_File]) -> None:
    """The room on the cache's own file system, which need not be that of the runs.

    Raises:
        RequestError: it is too small.
    """
    needed = sum(file.bytes for file in missing)
    needed -= sum(place.part(file).stat().st_size for file in missing if file.sha256 and place.part(file).exists())
    existing = next(path for path in (place.root, *place.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise RequestError(
            f"{place.name} needs {units.size(needed)} more, and {units.size(free)} are free at {existing}",
            "Free some space (`hf cache prune` removes what is not used), or point HF_HOME to a larger disk.",
        )


def _fetch_all(place: _Place, missing: list[_File], total: int, on_progress: Callable[[int, int], None]) -> None:
    cancelled = threading.Event()
    done = {file.name: 0 for file in missing}
    already = total - sum(file.bytes for file in missing)
    on_progress(already, total)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            waiting = {pool.submit(_fetch, place, file, done, cancelled) for file in missing}
            while waiting:
                ended, waiting = wait(waiting, TELL_SECONDS)
                on_progress(already + sum(done.values()), total)
                for future in ended:
                    future.result()
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(place: _Place, file: _File, done: dict[str, int], cancelled: threading.Event) -> None:
    """One file, whole and verified, in the cache; `done` counts its bytes."""
    from huggingface_hub import hf_hub_download

    if cancelled.is_set():
        raise _Cancelled
    try:
        if file.sha256 and file.bytes >= LARGE and not place.blob(file).exists():
            with place.part_file(file, done, cancelled) as stream:
                if not place.blob(file).exists():
                    _fetch_large(place, file, stream, done, cancelled)
        hf_hub_download(place.name, file.name, revision=place.commit)
    except (_Cancelled, TuiFtError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise TuiFtError("the disk is full", f"Free some space at {place.root}; what was fetched so far is kept.") from None
        raise network.refusal(error, place.name) from None
    done[file.name] = file.bytes


def _lock(stream: IO[bytes]) -> bool:
    """False while another process has it. On a file system without locks the checksum alone tells of two writers."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _fetch_large(place: _Place, file: _File, stream: IO[bytes], done: dict[str, int], cancelled: threading.Event) -> None:
    """Append to the part file what it lacks, over as many connections as it takes, then make it the cache's blob."""
    failures = 0
    while (have := stream.seek(0, os.SEEK_END)) < file.bytes:
        done[file.name] = have
        try:
            _append(place, file, stream, have, done, cancelled)
        except Exception as error:
            if not network.is_network(error):
                raise
        failures = 0 if stream.seek(0, os.SEEK_END) > have else failures + 1
        if failures >= TRIES:
            raise TuiFtError(
                f"the connection to the Hub broke {TRIES} times in a row while fetching {one_line(file.name, 100)}",
                "Try again: the download goes on where it broke off.",
            )
        if failures and cancelled.wait(failures):
            raise _Cancelled
    stream.flush()
    os.fsync(stream.fileno())
    if _sha256(stream) != file.sha256:
        stream.truncate(0)
        raise TuiFtError(f"{one_line(file.name, 100)} of {place.name} arrived damaged", "Try again: it is fetched anew.")
    place.part(file).rename(place.blob(file))


def _append(place: _Place, file: _File, stream: IO[bytes], have: int, done: dict[str, int], cancelled: threading.Event) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with get_session().stream("GET", hf_hub_url(place.name, file.name, revision=place.commit), headers=headers) as answer:
        if answer.status_code >= 400:
            answer.read()
        hf_raise_for_status(answer)
        if have and answer.status_code != 206:  # a proxy that knows no ranges sends the beginning
            stream.truncate(0)
            have = 0
        for chunk in answer.iter_raw():  # as it comes: chunks of a set size would lose a begun one where the connection breaks
            if cancelled.is_set():
                raise _Cancelled
            stream.write(chunk)
            have += len(chunk)
            done[file.name] = have
    stream.flush()


def _sha256(stream: IO[bytes]) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _cached_whole(model: Model, commit: str | None, why: str) -> Path:
    """The model as it lies in the cache.

    Raises:
        RequestError: something of it is missing.
    """
    from huggingface_hub import try_to_load_from_cache

    missing = f"the model {one_line(model.name, 100)} is not whole on this machine, and the Hub cannot be asked: {why}"
    hint = "Check the network, choose a model that is on this machine, or name a local folder."
    found = try_to_load_from_cache(model.name, "config.json", revision=commit or model.revision)
    if not isinstance(found, str):
        raise RequestError(missing, hint)
    folder = Path(found).parent
    lacking = weights.lacking(folder)
    if lacking:
        raise RequestError(missing, f"{one_line(lacking, 100)} is missing. {hint}")
    return folder
