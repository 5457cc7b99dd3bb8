"""Material for the tests of `tui_ft.data`: small tokenizers and files made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_ft.data import reading
from tui_ft.data.conversations import Conversation
from tui_ft.data.reading import Reading
from tui_ft.recipe.schema import Data, Recipe


@dataclass
class Read:
    """A split that was read to its end."""

    conversations: list[Conversation]
    reading: Reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reading, name)


def read(data: Data, seed: int = 0) -> Read:
    opened = reading.open_reading(data)
    return Read(list(opened.conversations(seed)), opened)


def byte_tokenizer(
    folder: Path, *, bos: str = "", eos: str = "</s>", pad: str = "", unk: str = "", special: Iterable[str] = (), template: str = ""
) -> Path:
    """A model folder without a model: every byte is a token, so that texts and tokens can be compared by eye. `bos` is added by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk}
    tokenizer.add_special_tokens([name for name in dict.fromkeys([*names.values(), *special]) if name])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **{key: name for key, name in names.items() if name}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **({"chat_template": template} if template else {})}))
    return folder


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """A JSON Lines file; a string is written as it is, broken or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows), encoding="utf-8")
    return path


def chats(count: int, answer: str = "Answer") -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": f"{answer} {n}"}]} for n in range(count)]


def recipe(model: Path, source: Path | str, **sections: dict[str, Any]) -> Recipe:
    """A recipe with room for whole samples, plain ChatML, and no validation unless a section says otherwise."""
    return Recipe.model_validate(
        {
            "model": {"name": str(model)},
            "data": {"source": str(source), "validation": 0, **sections.get("data", {})},
            "prompt": {"template": "chatml", "max_length": 4096, **sections.get("prompt", {})},
            "train": {"seed": 7, **sections.get("train", {})},
        }
    )
