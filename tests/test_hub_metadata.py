"""What the Hub says of models and datasets, asked by the real client over a socket, and what is said where there is no Hub."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from local_hub import TOKEN, LocalHub, Repository, ask, black_hole, closed_port, environment

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "torch_dtype": "bfloat16"}
TEMPLATE = {"chat_template": "{{ messages }}"}
HOSTILE = "[/INST] [bold red]x[/] \x1b]0;owned\x07\u202e"


def model(*, config: dict[str, object] | None = None, tokenizer: dict[str, object] | None = None, weights: int = 1000, **about: object) -> Repository:
    files = {
        "config.json": json.dumps({**CONFIG, **(config or {})}).encode(),
        "tokenizer_config.json": json.dumps(tokenizer or {}).encode(),
        "model.safetensors": b"w" * weights,
        "onnx/model.bin": b"o" * 5000,
    }
    counted = {"parameters": {"BF16": 500, "F32": 10}, "total": 510}
    return Repository(files, about={"safetensors": counted, "cardData": {"license": "apache-2.0"}, "pipeline_tag": "text-generation", **about})


def test_a_model_is_told_of_without_its_weights(hub: LocalHub) -> None:
    hub.repositories |= {"org/chat": model(tokenizer=TEMPLATE), "org/base": model()}
    told = ask("details", name="org/chat")
    expected = {"bytes": 1000, "parameters": 510, "context_length": 4096, "licence": "apache-2.0", "dtype": "bfloat16", "chat": True, "gated": False}
    assert {key: told[key] for key in expected} == expected
    assert told["commit"] == hub.repositories["org/chat"].commit and told["changed"] == "2025-03-04" and told["architecture"] == "LlamaForCausalLM"
    assert ask("details", name="org/base")["chat"] is False
    assert hub.weights_asked() == [] and any("config.json" in request for request in hub.asked)


def test_looking_at_a_model_leaves_nothing_in_the_cache(hub: LocalHub, tmp_path: Path) -> None:
    hub.repositories["org/chat"] = model()
    ask("details", name="org/chat")
    assert not list((tmp_path / "hf").rglob("*.json"))


def test_a_gated_model_shows_what_it_is_and_says_what_to_do(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/closed"] = model()
    hub.repositories["org/closed"].gated = True
    told = ask("details", name="org/closed")
    assert told["gated"] and told["parameters"] == 510 and told["context_length"] is None and told["chat"] is None
    assert f"Accept its licence at {hub.address}/org/closed" in told["note"] and "log in" in told["note"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    told = ask("details", name="org/closed")
    assert told["context_length"] == 4096 and not told["note"]


def test_missing_and_private_ones_are_told_with_the_remedy(hub: LocalHub) -> None:
    hub.repositories["org/secret"] = model()
    hub.repositories["org/secret"].private = True
    for name in ("org/none", "org/secret"):
        told = ask("details", code=2, name=name)
        assert name in told["error"] and "private" in told["error"] and "log in" in told["hint"]
    hub.repositories["org/chat"] = model()
    assert "no such revision" in ask("details", code=2, name="org/chat", revision="v9")["error"]


def test_a_config_that_is_none_and_a_context_inside_a_part(hub: LocalHub) -> None:
    hub.repositories |= {"org/odd": model(), "org/sees": model(config={"max_position_embeddings": None, "text_config": {"n_positions": 77}})}
    hub.repositories["org/odd"].files["config.json"] = b"[" * 100_000
    assert ask("details", name="org/odd")["context_length"] is None
    assert ask("details", name="org/sees")["context_length"] == 77


def test_search_finds_by_name_and_lists_the_cached_first(hub: LocalHub, tmp_path: Path) -> None:
    hub.repositories |= {"org/tiny-a": model(), "org/tiny-b": model(), "org/other": model(), "org/untagged": model(pipeline_tag="unknown")}
    cached(tmp_path / "hf", "models--org--tiny-b", "config.json", b"{}")
    found = ask("search", kind="model", text="tiny")
    assert [hit["name"] for hit in found["hits"]] == ["org/tiny-b", "org/tiny-a"] and not found["offline"]
    assert found["hits"][0]["cached_bytes"] == 2 and found["hits"][0]["parameters"] == 510 and found["hits"][1]["cached_bytes"] is None
    assert [hit["name"] for hit in ask("search", kind="model", text="untagged")["hits"]] == ["org/untagged"]
    assert ask("search", kind="model", text="nothing-of-it")["hits"] == []


def cached(home: Path, repository: str, file: str, data: bytes) -> Path:
    """A file as the Hub's cache keeps it."""
    root = home / "hub" / repository
    snapshot = root / "snapshots" / ("a" * 40)
    for folder in (snapshot, root / "blobs", root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text("a" * 40)
    (root / "blobs" / file).write_bytes(data)
    (snapshot / file).symlink_to(root / "blobs" / file)
    return snapshot


def test_a_dataset_is_divided_as_the_hub_says(hub: LocalHub) -> None:
    parquet = {"default": {"train": ["a"], "test": ["b"]}, "small": {"partial-train": ["c"]}}
    hub.repositories["org/rows"] = Repository({"README.md": b""}, kind="dataset", parquet=parquet, about={"description": "Rows of it."})
    assert ask("choices", name="org/rows")["configs"] == {"default": ["train", "test"], "small": ["train"]}
    assert ask("search", kind="dataset", text="rows")["hits"][0]["about"] == "Rows of it."
    assert "no dataset org/none" in ask("choices", code=2, name="org/none")["error"]


def test_a_dataset_that_the_hub_did_not_convert_is_divided_by_its_card(hub: LocalHub) -> None:
    card = "---\nconfigs:\n- config_name: first\n  data_files:\n  - split: train\n    path: a.jsonl\n  - split: test\n    path: b.jsonl\n---\n"
    files = {"README.md": card.encode(), "a.jsonl": b'{"text": "a"}\n', "b.jsonl": b'{"text": "b"}\n'}
    about = {
        "cardData": {
            "configs": [{"config_name": "first", "data_files": [{"split": "train", "path": "a.jsonl"}, {"split": "test", "path": "b.jsonl"}]}]
        }
    }
    hub.repositories["org/plain"] = Repository(files, kind="dataset", about=about)
    assert ask("choices", name="org/plain")["configs"] == {"first": ["train", "test"]}


def test_without_a_hub_the_cache_is_offered_and_the_reason_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, closed_port(), tmp_path / "hf")
    cached(tmp_path / "hf", "models--org--here", "config.json", json.dumps(CONFIG).encode())
    found = ask("search", kind="model", text="")
    assert [hit["name"] for hit in found["hits"]] == ["org/here"] and "refused" in found["offline"]
    told = ask("details", name="org/here")
    assert told["place"] == "cache" and told["context_length"] == 4096 and "refused" in told["note"]
    assert "not on this machine" in ask("details", code=2, name="org/elsewhere")["error"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ask("search", kind="model", text="")["offline"] == "HF_HUB_OFFLINE is set"


def test_what_is_cached_is_listed_without_touching_a_network(hub: LocalHub, tmp_path: Path) -> None:
    cached(tmp_path / "hf", "models--org--here", "config.json", b"{}")
    cached(tmp_path / "hf", "datasets--org--rows", "rows.jsonl", b"{}")
    assert [hit["name"] for hit in ask("cached", kind="model")["hits"]] == ["org/here"]
    assert [hit["name"] for hit in ask("cached", kind="dataset")["hits"]] == ["org/rows"]
    assert hub.asked == []


def test_a_prepared_dataset_is_divided_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, closed_port(), tmp_path / "hf")
    folder = tmp_path / "hf" / "datasets" / "org___rows" / "small" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"config_name": "small", "splits": {"train": {}, "test": {}}}))
    (folder / "rows-train.arrow").write_bytes(b"1234")
    told = ask("choices", name="org/rows")
    assert told == {"configs": {"small": ["train", "test"]}, "cached": True}
    assert [(hit["name"], hit["cached_bytes"]) for hit in ask("search", kind="dataset", text="rows")["hits"]] == [("org/rows", 4)]


@pytest.mark.parametrize("kind", ["refused", "black hole", "no such name"])
def test_a_dead_network_is_said_within_seconds(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as silent:
        address = {"refused": closed_port(), "black hole": silent, "no such name": "http://no-such-hub.invalid"}[kind]
        environment(monkeypatch, address, tmp_path / "hf")
        begun = time.monotonic()
        assert ask("search", kind="model", text="x")["offline"]
        assert ask("choices", code=2, name="org/rows")["error"]
        assert time.monotonic() - begun < 15  # two children, each with a probe of four seconds and its imports


def test_a_proxy_is_used(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server stands in for the proxy: it gets the whole address in its request line."""
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HTTP_PROXY", hub.address)
    ask("search", kind="model", text="x")
    assert any("/api/models" in request for request in hub.asked)


def test_foreign_words_come_through_whole_and_harm_nobody_here(hub: LocalHub) -> None:
    hub.repositories["org/bad"] = model(cardData={"license": HOSTILE}, config={"architectures": [HOSTILE]})
    hub.repositories["org/bad"].about["lastModified"] = "2025-01-01T00:00:00.000Z"
    assert ask("details", name="org/bad")["licence"] == HOSTILE  # the screens make it visible


def test_a_models_own_code_is_listed_with_its_commit(hub: LocalHub) -> None:
    hub.repositories |= {"org/own": model(config={"auto_map": {"AutoConfig": "own.Own"}}), "org/plain": model()}
    hub.repositories["org/own"].files["own.py"] = b"print('never run here')"
    told = ask("code", name="org/own")
    commit = hub.repositories["org/own"].commit
    assert (
        told["commit"] == commit and told["files"] == [{"name": "own.py", "bytes": 23}] and told["address"] == f"{hub.address}/org/own/tree/{commit}"
    )
    assert ask("details", name="org/own")["needs_code"]
    assert "no Python file" in ask("code", code=2, name="org/plain")["error"]
