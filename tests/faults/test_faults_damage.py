"""Every kind of damage to every file of a real checkpoint is found, and the checkpoint before is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from in_process import small_recipe, train_in_process
from ledger import FULL, Row

from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run

BEFORE, DAMAGED = 4, 8


@pytest.fixture(scope="module", params=["lora", "full"] if FULL else ["lora"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two checkpoints of a real training."""
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUI_FT_HOME", str(folder / "home"))
        recipe = small_recipe(
            tiny_models.llama(folder / "llama"), folder,
            method={"kind": request.param}, train={"max_steps": DAMAGED}, checkpoints={"every": BEFORE, "keep": 9},
        )  # fmt: skip
        return train_in_process(recipe)


@pytest.fixture
def copies(trained: Run, tmp_path: Path) -> Iterator[Callable[[], Run]]:
    """Gives the run anew, undamaged, as often as it is asked."""
    place = tmp_path / trained.id

    def fresh() -> Run:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(trained.path, place)
        return Run(place)

    yield fresh


def flip_first(file: Path) -> None:
    _flip(file, 0)


def flip_middle(file: Path) -> None:
    _flip(file, file.stat().st_size // 2)


def flip_last(file: Path) -> None:
    _flip(file, file.stat().st_size - 1)


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def remove(file: Path) -> None:
    file.unlink()


def zero_tail(file: Path) -> None:
    """What a power cut leaves of a file whose length reached the disk and whose last block did not."""
    data = file.read_bytes()
    tail = min(len(data), 4096)
    file.write_bytes(data[:-tail] + bytes(tail))


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def become_a_link(file: Path) -> None:
    """To the same file of the checkpoint before: a good file, but not this one's."""
    other = file.parents[len(file.relative_to(_checkpoint_of(file)).parts)] / f"checkpoint-{BEFORE}" / file.relative_to(_checkpoint_of(file))
    file.unlink()
    file.symlink_to(other)


def swap(file: Path) -> None:
    """For the same file of the checkpoint before, as a copy that went wrong leaves it."""
    checkpoint = _checkpoint_of(file)
    shutil.copyfile(checkpoint.with_name(f"checkpoint-{BEFORE}") / file.relative_to(checkpoint), file)


def _checkpoint_of(file: Path) -> Path:
    return next(parent for parent in file.parents if parent.name == f"checkpoint-{DAMAGED}")


DAMAGES = (flip_first, flip_middle, flip_last, truncate, empty, remove, zero_tail, grow, swap, become_a_folder, become_a_link)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found(copies: Callable[[], Run], damage: Callable[[Path], None], row: Row) -> None:
    row.promise, row.fault = "a checkpoint is verified before use", f"{damage.__name__.replace('_', ' ')} of each of its files"
    names = [file.relative_to(checkpoints.folder(copies(), DAMAGED)) for file in _files(checkpoints.folder(copies(), DAMAGED))]
    assert len(names) > 5
    for name in names:
        run = copies()
        file = checkpoints.folder(run, DAMAGED) / name
        before = file.read_bytes()
        damage(file)
        if file.is_file() and file.read_bytes() == before and not file.is_symlink():
            continue  # the file is the same in both checkpoints, or ends with zeros as it is: no damage was done
        chosen, notes = checkpoints.newest_valid(run)
        assert chosen == checkpoints.folder(run, BEFORE), f"{damage.__name__} of {name} was not found"
        assert any(str(DAMAGED) in note for note in notes), "it is told which checkpoint is set aside, and why"
        assert list(checkpoints.run_quarantine(run).iterdir()), "nothing is lost: it lies in quarantine"
        row.cases += 1
    assert row.cases


def test_undamaged_is_used(copies: Callable[[], Run], row: Row) -> None:
    """Without it every test above would pass by refusing everything."""
    row.promise, row.fault, row.cases = "a checkpoint is verified before use", "none: the newest is used", 1
    assert checkpoints.newest_valid(copies()) == (checkpoints.folder(copies(), DAMAGED), [])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
