"""Fetching a model over a real socket: progress, broken connections, a full disk, a dead network, a stop in the middle."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from local_hub import TOKEN, LocalHub, Repository, black_hole, closed_port, environment

MILLION = 1_000_000
FETCH = """
import json, sys
from tui_ft.errors import TuiFtError
from tui_ft.hub.download import download
from tui_ft.recipe.schema import Model
told = []
def on_progress(done, total):
    told.append((done, total))
    if STOP_AT is not None and done >= STOP_AT:
        raise KeyboardInterrupt
try:
    folder = str(download(Model(name=NAME), on_progress, CONSENT))
    print(json.dumps({"folder": folder, "told": told}))
except KeyboardInterrupt:
    print(json.dumps({"stopped": told}))
except TuiFtError as error:
    print(json.dumps({"error": error.message, "hint": error.hint, "told": told}))
"""


def fetch(name: str = "org/tiny", stop_at: int | None = None, consent: dict[str, str] | None = None, before: str = "") -> dict[str, Any]:
    """`download` in a process of its own, as the worker does it; `before` is code that runs first."""
    code = f"NAME, STOP_AT, CONSENT = {name!r}, {stop_at!r}, {consent!r}\n{before}\n{FETCH}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture
def hub(hub: LocalHub) -> LocalHub:
    weights = random.Random(0).randbytes(3 * MILLION)
    files = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": weights, "pytorch_model.bin": b"b" * MILLION}
    hub.repositories["org/tiny"] = Repository({**files, "onnx/model.bin": b"o", "README.md": b"# tiny", "own.py": b"1/0"})
    return hub


def whole(hub: LocalHub, folder: str) -> bool:
    files = hub.repositories["org/tiny"].files
    return all((Path(folder) / name).read_bytes() == files[name] for name in ("config.json", "tokenizer.json", "model.safetensors"))


def test_what_loading_needs_is_fetched_once_and_told_of(hub: LocalHub) -> None:
    done = fetch()
    assert whole(hub, done["folder"]) and sorted(path.name for path in Path(done["folder"]).iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    total = 3 * MILLION + 25
    assert done["told"][0] == [0, total] and done["told"][-1] == [total, total] and done["told"] == sorted(done["told"])
    hub.asked.clear()
    again = fetch()
    assert again["folder"] == done["folder"] and again["told"] == [[total, total]] and hub.asked.count("GET /api/models/org/tiny") == 1
    assert not any("resolve" in request for request in hub.asked)


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(hub: LocalHub) -> None:
    hub.repositories["org/tiny"].cut_after = [MILLION + 7, MILLION]
    done = fetch()
    assert whole(hub, done["folder"])
    assert hub.ranges[0] == "" and len(hub.ranges) == 3 and all(asked.startswith("bytes=") and asked != "bytes=0-" for asked in hub.ranges[1:])


def test_a_download_that_was_ended_goes_on_in_the_next_process(hub: LocalHub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].cut_after = [2 * MILLION, *[0] * 9]
    stopped = fetch(before="import tui_ft.hub.download; tui_ft.hub.download.TRIES = 2")
    assert "broke 2 times in a row" in stopped["error"] and "goes on where it broke off" in stopped["hint"]
    (part,) = (tmp_path / "hf").rglob("*.incomplete")
    have = part.stat().st_size
    assert 0 < have <= 2 * MILLION
    hub.repositories["org/tiny"].cut_after, hub.ranges[:] = [], []
    assert whole(hub, fetch()["folder"]) and hub.ranges == [f"bytes={have}-"]
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_whoever_waits_can_end_it(hub: LocalHub) -> None:
    begun = time.monotonic()
    assert fetch(stop_at=0)["stopped"] == [[0, 3 * MILLION + 25]]
    assert time.monotonic() - begun < 10


def test_what_arrives_damaged_is_not_taken(hub: LocalHub, tmp_path: Path) -> None:
    weights = hub.repositories["org/tiny"].files["model.safetensors"]
    blobs = tmp_path / "hf" / "hub" / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(weights).hexdigest()}.tui-ft.incomplete").write_bytes(b"x" * MILLION)
    assert "damaged" in fetch()["error"]
    assert whole(hub, fetch()["folder"])


def test_a_disk_that_is_too_small_is_told_before_a_byte_is_fetched(hub: LocalHub) -> None:
    small = "import shutil; from collections import namedtuple; shutil.disk_usage = lambda _: namedtuple('U', 'total used free')(9, 9, 2_000_000)"
    told = fetch(before=small)
    assert "needs 2.9 MiB more, and 1.9 MiB are free" in told["error"] and "HF_HOME" in told["hint"]
    assert hub.weights_asked() == []


def test_without_a_hub_what_is_whole_is_used_and_what_is_not_is_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()["folder"]
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert fetch()["folder"] == folder
    told = fetch("org/other")
    assert "org/other is not whole on this machine" in told["error"] and "refused" in told["error"]
    (Path(folder) / "model.safetensors").unlink()
    assert "weights is missing" in fetch()["hint"]


def test_a_silent_hub_is_given_up_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as address:
        environment(monkeypatch, address, tmp_path / "hf")
        begun = time.monotonic()
        assert "does not answer within 4 seconds" in fetch()["error"]
        assert time.monotonic() - begun < 12


def test_gated_private_and_missing_ones_are_refused_with_the_remedy(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "org/none" in fetch("org/none")["error"]
    hub.repositories["org/tiny"].gated = True
    told = fetch()
    assert "is gated" in told["error"] and f"Accept its licence at {hub.address}/org/tiny" in told["hint"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert whole(hub, fetch()["folder"]) and TOKEN in hub.tokens


def test_code_comes_only_with_consent_and_of_that_commit(hub: LocalHub) -> None:
    commit = hub.repositories["org/tiny"].commit
    folder = Path(fetch(consent={"org/tiny": commit})["folder"])
    assert folder.name == commit and (folder / "own.py").exists()


def test_gguf_files_on_the_hub_are_named_for_what_they_are(hub: LocalHub) -> None:
    hub.repositories["org/many"] = Repository({"a.Q4.gguf": b"a", "a.Q8.gguf": b"b"})
    assert "each a whole model" in fetch("org/many")["error"]


def test_a_mirror_cannot_choose_where_is_written(hub: LocalHub, tmp_path: Path) -> None:
    hub.repositories["org/evil"] = Repository({"config.json": b"{}", "model.safetensors": b"w" * 10}, about={"sha": "../../../../escaped"})
    assert "makes no sense" in fetch("org/evil")["error"]
    assert not list(tmp_path.rglob("escaped*"))
