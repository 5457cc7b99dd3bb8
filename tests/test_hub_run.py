"""A whole run whose model is fetched from a Hub: told on the way, trained on, and with its own code only after consent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from local_hub import LocalHub, Repository
from runs import tui_ft, tui_ft_json

from tui_ft.runs import store
from tui_ft.runs.events import EventReader

SETTINGS = {
    "model.name": "org/tiny", "prompt.template": "chatml", "prompt.max_length": 128, "train.max_steps": 2, "train.effective_batch": 2,
    "train.micro_batch": 2, "evaluate.every": "never", "evaluate.samples": "[]",
}  # fmt: skip
OWN = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own-of-it"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def hub(hub: LocalHub, tmp_path: Path) -> LocalHub:
    folder = tiny_models.llama(tmp_path / "published")
    hub.repositories["org/tiny"] = Repository({file.name: file.read_bytes() for file in folder.iterdir()})
    return hub


def arguments() -> list[str]:
    return ["run", "demo", *(part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}"))]


def test_a_run_fetches_its_model_and_tells_of_it(hub: LocalHub) -> None:
    done = tui_ft_json(*arguments())
    assert done["state"] == "finished" and done["step"] == 2
    told = [event for event in EventReader(store.find(done["run"])).poll() if event["type"] == "progress" and event["stage"] == "download"]
    total = sum(len(data) for name, data in hub.repositories["org/tiny"].files.items() if name.endswith((".json", ".safetensors")))
    assert [told[0]["done"], told[-1]["done"], told[-1]["total"]] == [told[0]["done"], total, total] and told[0]["done"] < total
    hub.close()  # without the Hub the same model is there
    assert tui_ft_json("plan", "demo", *arguments()[2:], "--instant")["parameters"] == done["parameters"]


def test_a_dataset_of_the_hub_is_previewed_and_later_found_in_the_cache(hub: LocalHub) -> None:
    rows = b"".join(json.dumps({"prompt": f"Why {n}?", "completion": f"Because {n}."}).encode() + b"\n" for n in range(50))
    hub.repositories["org/rows"] = Repository({"README.md": b"", "train.jsonl": rows}, kind="dataset")
    preview = ["preview", "demo", "--set", "data.source=org/rows", "--set", "data.format=auto", "--set", "data.languages=[]"]
    first = tui_ft_json(*preview)
    assert first["rows"] == 50
    hub.close()
    assert tui_ft_json(*preview)["rows"] == 50
    refused = tui_ft("preview", "demo", "--set", "data.source=org/others", code=2).stderr
    assert "org/others is not on this machine" in refused and "the connection was refused" in refused


def test_configurations_and_splits_of_a_hub_dataset_are_choices(hub: LocalHub) -> None:
    card = b"---\nconfigs:\n- config_name: small\n  data_files: small.jsonl\n- config_name: large\n  data_files: large.jsonl\n---\n"
    row = json.dumps({"prompt": "Why?", "completion": "Because."}).encode() + b"\n"
    hub.repositories["org/two"] = Repository({"README.md": card, "small.jsonl": row * 3, "large.jsonl": row * 7}, kind="dataset")
    recipe = {"model": {"name": "builtin:demo"}, "data": {"source": "org/two"}, "prompt": {"template": "model"}}

    def look(**data: str) -> tuple[int, dict[str, Any]]:
        asked = json.dumps({**recipe, "data": {**recipe["data"], **data}})
        done = subprocess.run([sys.executable, "-m", "tui_ft.data.preview"], input=asked, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    code, told = look()
    assert code == 2 and told["choices"] == {"part": "config", "columns": ["small", "large"]} and "several configurations" in told["error"]
    code, told = look(config="small", split="dev")
    assert code == 2 and told["choices"] == {"part": "split", "columns": ["train"]}, told
    code, told = look(config="large")
    assert (code, told["rows"]) == (0, 7)
    refused = tui_ft("preview", "demo", "--set", "data.source=org/two", "--set", "data.config=tiny", code=2).stderr
    assert "has no configuration tiny" in refused and "small, large" in refused


def test_own_code_runs_only_with_consent_to_its_commit(hub: LocalHub) -> None:
    repository = hub.repositories["org/tiny"]
    config = json.loads(repository.files["config.json"])
    config |= {"model_type": "own-of-it", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    repository.files |= {"config.json": json.dumps(config).encode(), "own.py": OWN.encode()}
    refused = tui_ft(*arguments(), code=2)
    assert "needs its own code" in refused.stderr and "consent" in refused.stderr
    done = tui_ft_json(*arguments(), "--trust-remote-code", f"org/tiny@{repository.commit}")
    assert done["state"] == "finished" and store.find(done["run"]).record()["trust_remote_code"] == {"org/tiny": repository.commit}
