"""Wrong inputs by command line: one clear message with its place and its remedy, the promised exit code, and nothing half-made."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_material import byte_tokenizer, chats, write_rows
from runs import tui_ft

from tui_ft import demo


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for the whole file, so that the demo's model is made and looked into once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUI_FT_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def tui_ft_home(shared_home: Path) -> Path:
    """In place of the home that each test elsewhere has to itself."""
    return shared_home


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that would start: the demo's model on a few chats."""
    write_rows(tmp_path / "chats.jsonl", chats(20))
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: wrong\nmodel:\n  name: builtin:demo\ndata:\n  source: chats.jsonl\n  validation: 0\n"
        "prompt:\n  template: chatml\n  max_length: 64\ntrain:\n  max_steps: 2\n"
    )
    return file


def refused(recipe: Path, *settings: str, code: int = 2, command: str = "run", **env: str) -> str:
    """What a command says when it refuses: on stderr alone, with a remedy, and without a trace of Python or of a run."""
    home = Path(env.get("TUI_FT_HOME", os.environ["TUI_FT_HOME"]))
    done = tui_ft(command, str(recipe), *(part for setting in settings for part in ("--set", setting)), code=code, **env)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "→" in done.stderr, f"no remedy in: {done.stderr}"
    if home.is_dir():
        assert not list((home / "runs").glob("*")) and not list((home / "runs").glob(".*")), "something of a run is left"
    return done.stderr


def test_a_missing_recipe(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refused(tmp_path / "nowhere.yaml")
    assert "no-such-preset" in refused(Path("no-such-preset"))


def test_a_missing_dataset(recipe: Path) -> None:
    said = refused(recipe, "data.source=gone.jsonl")
    assert "data.source" in said and "gone.jsonl" in said


def test_unknown_keys_and_wrong_types_all_at_once(recipe: Path) -> None:
    text = recipe.read_text().replace("max_steps: 2", "max_steps: many\n  learning_rat: 1.0e-4")
    recipe.write_text(text)
    said = refused(recipe)
    assert f"{recipe}:12: train.learning_rat: unknown key" in said
    assert "Did you mean train.learning_rate?" in said
    assert f"{recipe}:11: train.max_steps" in said and "(found 'many')" in said


def test_unknown_keys_by_set(recipe: Path) -> None:
    assert "Did you mean train.epochs?" in refused(recipe, "train.epoch=3")


def test_a_wrong_type_by_set(recipe: Path) -> None:
    text = recipe.read_text().replace("max_steps: 2", "max_steps: 2\n  epochs: -1")
    recipe.write_text(text)
    said = tui_ft("run", str(recipe), code=2).stderr
    assert "train.epochs" in said and "greater than 0" in said


def test_an_unknown_column(recipe: Path) -> None:
    said = refused(recipe, "data.format=alpaca", "data.columns={instruction: question, output: answer}")
    assert "data.columns.instruction: there is no column 'question'" in said
    assert "data.columns.output: there is no column 'answer'" in said
    assert "The columns are: messages." in said


def test_empty_datasets(recipe: Path) -> None:
    (recipe.parent / "nothing.jsonl").write_text("")
    assert "nothing.jsonl is empty" in refused(recipe, f"data.source={recipe.parent}/nothing.jsonl")
    (recipe.parent / "none.json").write_text("[]")
    assert "none.json" in refused(recipe, f"data.source={recipe.parent}/none.json")


def test_nothing_that_could_be_learned(recipe: Path) -> None:
    said = refused(recipe, "prompt.max_length=8")
    assert "no sample is left to train on" in said
    assert "prompt.max_length" in said


def test_a_tokenizer_without_an_end(recipe: Path, tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path / "endless", eos="", unk="<unk>")
    (folder / "config.json").write_bytes((demo.model_folder() / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"never read before the tokenizer is")
    said = refused(recipe, f"model.name={folder}")
    assert "no end-of-text token (eos)" in said and "tokenizer_config.json" in said


def test_bad_jinja(recipe: Path) -> None:
    (recipe.parent / "mine.jinja").write_text("{% for message in messages %}\n{{ message['content'] }\n{% endfor %}")
    said = refused(recipe, f"prompt.template={recipe.parent}/mine.jinja")
    assert "mine.jinja:2: not valid Jinja" in said


def test_an_unknown_model(recipe: Path, tmp_path: Path) -> None:
    assert "model.name" in refused(recipe, "model.name=nobody/nothing")
    assert f"there is no model folder {tmp_path / 'absent'}" in refused(recipe, f"model.name={tmp_path / 'absent'}")
    strange = tmp_path / "strange"
    byte_tokenizer(strange)
    (strange / "config.json").write_text(json.dumps({"model_type": "not-of-this-world"}))
    (strange / "model.safetensors").write_bytes(b"")
    assert "unknown to the installed transformers" in refused(recipe, f"model.name={strange}")


def test_folders_that_cannot_be_read(recipe: Path, tmp_path: Path) -> None:
    """A folder that leads in a circle cannot be read by anybody, root included."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert os.strerror(errno.ELOOP) in refused(recipe, f"data.source={loop}/rows.jsonl")
    assert str(loop) in refused(recipe, f"model.name={loop}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_without_permission(recipe: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    write_rows(closed / "rows.jsonl", chats(3))
    closed.chmod(0)
    try:
        assert "Permission denied" in refused(recipe, f"data.source={closed}/rows.jsonl")
    finally:
        closed.chmod(0o700)


def test_a_home_that_is_a_file(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(recipe, TUI_FT_HOME=str(tmp_path / "file"))
    assert f"{tmp_path / 'file'} is not a folder" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB that holds a few dozen files."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40,mode=700", "tmpfs", str(small)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield small
    subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(recipe: Path, small_disk: Path, shared_home: Path) -> None:
    (small_disk / "cache").symlink_to(shared_home / "cache")  # the demo's model is made already
    told = refused(recipe, TUI_FT_HOME=str(small_disk))
    assert "disk: the run writes up to" in told and "checkpoints.keep" in told

    with pytest.raises(OSError, match="No space left"):
        for number in range(100):
            (small_disk / f"filler{number}").write_text("")
    done = tui_ft("presets", "save", str(recipe), "mine", code=2, TUI_FT_HOME=str(small_disk))
    assert "No space left" in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    assert not list(small_disk.rglob("*mine*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_run_that_finds_no_room_for_its_folder(recipe: Path, small_disk: Path, shared_home: Path) -> None:
    """There is space, as the checks see, but no room for another file: a fault while it is carried out, and all of it is taken back."""
    subprocess.run(["mount", "-o", "remount,size=2g", str(small_disk)], check=True)
    (small_disk / "cache").symlink_to(shared_home / "cache")
    (small_disk / "runs").mkdir()
    with pytest.raises(OSError, match="No space left"):
        for number in range(100):
            (small_disk / f"filler{number}").write_text("")
    for number in range(5):  # room for the first few folders of a run
        (small_disk / f"filler{number}").unlink()
    said = refused(recipe, code=1, TUI_FT_HOME=str(small_disk))
    assert "a run cannot be created" in said and "No space left" in said


def test_a_preset_that_holds_a_secret_or_exists(recipe: Path, shared_home: Path) -> None:
    recipe.write_text(recipe.read_text().replace("name: wrong", "name: wrong\nabout: hf_" + "a" * 34))
    said = refused_preset(recipe, "leaky")
    assert "secret" in said or "token" in said
    recipe.write_text(recipe.read_text().replace("hf_" + "a" * 34, "nothing secret"))
    tui_ft("presets", "save", str(recipe), "mine")
    assert "there is a preset mine already" in refused_preset(recipe, "mine")
    tui_ft("presets", "delete", "mine")
    assert not list((shared_home / "presets").iterdir())


def refused_preset(recipe: Path, name: str) -> str:
    done = tui_ft("presets", "save", str(recipe), name, code=2)
    assert done.stdout == "" and done.stderr.startswith("error: ")
    return done.stderr
