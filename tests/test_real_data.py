"""The real small model learns from the real datasets, by one command each.

What is always run: chats without and with NF4, half the steps at half the length. With TUI_FT_SLOW=1 all fifteen
combinations run in full: LoRA of rank 8 on every linear layer, 512 tokens, 60 steps of 8, learning rate 1e-2; some ten minutes on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from runs import tui_ft_json

SLOW = os.environ.get("TUI_FT_SLOW") == "1"
QUANTIZATIONS = ("none", "int8", "nf4")
SHORT = ("train.max_steps=30", "prompt.max_length=256")
FULL = ("train.max_steps=60", "prompt.max_length=512")

# name: file, what is changed, and the share of its first loss that the model must lose
DATASETS = {
    "oasst-chatml": ("oasst/oasst1_en_validation_rows.jsonl", ["prompt.template=chatml", "data.languages=[en]"], 1 / 20),
    "oasst-human-assistant": ("oasst/oasst1_en_validation_rows.jsonl", ["prompt.template=human-assistant", "data.languages=[en]"], 1 / 20),
    "wikitext": ("text/wikitext2_valid.txt", ["prompt.template=text", "prompt.overlong=split"], 1 / 5),
    "alpaca": ("alpaca/rasbt_instruction_data_1100.json", ["prompt.template=alpaca"], 1 / 3),
    "sharegpt": ("chat/fastchat_dummy_conversation.json", ["prompt.template=chatml"], 1 / 3),
}
FORMATS = {"oasst-chatml": "oasst", "oasst-human-assistant": "oasst", "wikitext": "text", "alpaca": "alpaca", "sharegpt": "sharegpt"}


@pytest.fixture(scope="module", autouse=True)
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for the whole file, so that the model is looked into once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUI_FT_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def tui_ft_home(one_home: Path) -> Path:
    """In place of the home that each test elsewhere has to itself."""
    return one_home


def train(shared_data: Path, folder: Path, dataset: str, quantization: str, settings: tuple[str, ...]) -> None:
    """`tui-ft run` to its end; its JSON tells that the loss fell as it should."""
    file, changes, share = DATASETS[dataset]
    recipe = {
        "name": dataset,
        "model": {"name": str(shared_data / "models/stories260K-hf")},
        "data": {"source": str(shared_data / "datasets" / file)},
        "method": {"kind": "lora", "r": 8, "targets": "all-linear", "quantization": quantization},
        "train": {"learning_rate": 1e-2, "effective_batch": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = tui_ft_json("run", str(folder / "recipe.yaml"), *(part for change in (*changes, *settings) for part in ("--set", change)))
    assert told["state"] == "finished" and told["step"] == told["total_steps"] >= 30
    assert told["last_loss"] <= (1 - share) * told["first_loss"], f"{told['first_loss']} → {told['last_loss']}"
    assert told["best_eval_loss"] < told["first_loss"]


@pytest.mark.parametrize(
    ("dataset", "quantization", "settings"),
    [("sharegpt", "nf4", SHORT)],
    ids=lambda value: value if isinstance(value, str) else "short",
)
@pytest.mark.skipif(SLOW, reason="the full combinations run instead")
def test_the_loss_falls(shared_data: Path, tmp_path: Path, dataset: str, quantization: str, settings: tuple[str, ...]) -> None:
    train(shared_data, tmp_path, dataset, quantization, settings)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.skipif(not SLOW, reason="fifteen whole trainings: set TUI_FT_SLOW=1")
def test_the_loss_falls_in_full(shared_data: Path, tmp_path: Path, dataset: str, quantization: str) -> None:
    train(shared_data, tmp_path, dataset, quantization, FULL)


def test_the_formats_are_found(shared_data: Path) -> None:
    """What `tui-ft preview` finds in each file without being told; all of it is usable."""
    from tui_ft.data.preview import preview
    from tui_ft.recipe.files import validate

    for dataset, (file, changes, _) in DATASETS.items():
        template = changes[0].partition("=")[2]
        recipe = {
            "model": {"name": str(shared_data / "models/stories260K-hf")},
            "data": {"source": str(shared_data / "datasets" / file)},
            "prompt": {"template": template, "max_length": 512},
        }
        found = preview(validate(recipe), n=1)
        assert found.format == FORMATS[dataset]
        assert not found.refusals and found.kept > 100
        assert any(token.learned for token in found.samples[0].tokens)
