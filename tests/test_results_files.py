"""Archives and pictures: whole or not there at all, true to what they were given, whatever that is."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.results import loss_picture
from tui_ft.runs import store
from tui_ft.runs.archive import zip_folder
from tui_ft.runs.events import EventWriter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-100"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "config.json").write_text("{}" * 5000)
    (folder / "deep/er/naïve 名.txt").write_text("x")
    (folder / "empty").touch()
    os.utime(folder / "empty", (0, 0))  # 1970: before ZIP's first year
    return folder


def test_zip_holds_every_file_as_it_is(folder: Path, tmp_path: Path) -> None:
    target = zip_folder(folder, tmp_path / "out/checkpoint.zip")
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        held = {info.filename: info for info in archive.infolist()}
        assert set(held) == {f"checkpoint-100/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
        assert all(archive.read(name) == (tmp_path / name).read_bytes() for name in held)
    assert held["checkpoint-100/model.safetensors"].compress_type == zipfile.ZIP_STORED
    assert held["checkpoint-100/config.json"].compress_size < 1000
    assert target.stat().st_mode & 0o077 == 0
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint.zip"]


def test_zip_keeps_a_link_within_and_refuses_one_that_leads_out(folder: Path, tmp_path: Path) -> None:
    (folder / "link.json").symlink_to("config.json")
    with zipfile.ZipFile(zip_folder(folder, tmp_path / "a.zip")) as archive:
        assert archive.read("checkpoint-100/link.json") == (folder / "config.json").read_bytes()
    (tmp_path / "secret").write_text("token")
    for name, place in (("file", tmp_path / "secret"), ("folder", tmp_path), ("broken", tmp_path / "nowhere")):
        link = folder / "deep" / name
        link.symlink_to(place)
        with pytest.raises(RequestError, match=f"{name} is a link"):
            zip_folder(folder, tmp_path / "b.zip")
        link.unlink()
    assert not (tmp_path / "b.zip").exists()


def test_zip_refuses_what_it_cannot_hold(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="inside"):
        zip_folder(folder, folder / "self.zip")
    with pytest.raises(RequestError, match="not a folder"):
        zip_folder(tmp_path / "nowhere", tmp_path / "a.zip")
    os.mkfifo(folder / "pipe")
    with pytest.raises(RequestError, match="neither"):
        zip_folder(folder, tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100"]


def test_zip_on_a_disk_that_fills_up_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.zip"
    target.parent.mkdir()
    target.write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(TuiFtError, match="could not be written") as raised:
            zip_folder(folder, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert raised.value.exit_code == 1 and target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]


def pixels(picture: Path) -> object:
    from matplotlib.image import imread

    return imread(picture)[..., :3]


def losses(steps: list[float], loss: list[float], evals: list[tuple[int, float, float | None]] | None = None) -> SimpleNamespace:
    return SimpleNamespace(steps=steps, loss=loss, evals=evals or [])


@pytest.mark.filterwarnings("ignore:Glyph")  # matplotlib's font lacks a sign of the hostile title
@pytest.mark.parametrize(
    "drawn",
    [
        losses([], []),
        losses([1], [2.0]),
        losses([1, 2], [math.nan, math.inf]),
        losses([1, 2, 3], [3.0, math.nan, -math.inf], [(2, math.nan, None)]),
        losses([], [], [(5, 2.0, 0.5)]),
        losses(list(range(1, 20_001)), [5 / k for k in range(1, 20_001)], [(k, 1.0, None) for k in range(0, 20_001, 100)]),
    ],
)
def test_picture_of_any_run_is_a_png(drawn: SimpleNamespace, tmp_path: Path) -> None:
    target = loss_picture.write(drawn, tmp_path / "report/loss.png", "$x^ \x1b[31m a name of any kind _{")
    assert pixels(target).shape[:2] == (600, 1080)
    assert [path.name for path in target.parent.iterdir()] == ["loss.png"]


def test_picture_shows_both_curves_in_greyscale(tmp_path: Path) -> None:
    steps = list(range(1, 101))
    training = losses(steps, [5.0 - k / 25 for k in steps])
    blank = pixels(loss_picture.write(losses([1, 100], [5.0, 1.0]), tmp_path / "blank.png")).mean(axis=2)
    alone = pixels(loss_picture.write(training, tmp_path / "alone.png")).mean(axis=2)
    training.evals = [(20, 4.5, None), (60, 4.0, None), (100, 4.4, None)]
    both = pixels(loss_picture.write(training, tmp_path / "both.png")).mean(axis=2)
    plot = (slice(60, 530), slice(80, 700))  # left of the legend
    assert (alone[plot] < 0.6).sum() > (blank[plot] < 0.6).sum() + 500, "the moving average is not drawn boldly"
    assert (both[plot] < 0.6).sum() > (alone[plot] < 0.6).sum() + 200, "the validation curve does not show"


def test_report_of_a_run_is_drawn_from_its_events_by_a_child() -> None:
    recipe = Recipe.model_validate({"model": {"name": "builtin:demo"}, "data": {"source": "builtin:demo"}})
    run = store.create(recipe, Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
    writer = EventWriter(run, 1)
    for step in range(1, 30):
        writer.write("step", step=step, loss=3.0 / step)
    writer.write("eval", step=29, loss=2.0)
    writer.close()
    subprocess.run([sys.executable, "-m", "tui_ft.results.report", run.path], check=True)
    assert pixels(run.report / "loss.png").shape[:2] == (600, 1080)
    summary = json.loads((run.report / "summary.json").read_text())
    assert summary["run"] == run.id


def test_picture_needs_no_display_and_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from types import SimpleNamespace; from pathlib import Path; from tui_ft.results import loss_picture;"
        f"loss_picture.write(SimpleNamespace(steps=[1], loss=[1.0], evals=[]), Path({str(tmp_path / 'a.png')!r}));"
        "sys.exit(any(name in sys.modules for name in ('matplotlib.pyplot', 'torch', 'transformers', 'textual')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
