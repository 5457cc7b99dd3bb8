"""Packed rows: each document is to the model what it is alone."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import tiny_models
from data_material import chats, recipe, write_rows

from tui_ft.data import prepare, tokenizer
from tui_ft.modeling import load


@pytest.mark.parametrize("family", [tiny_models.llama, tiny_models.gpt2, tiny_models.phi, tiny_models.stablelm])
def test_the_logits_of_packed_rows_are_those_of_each_document_alone(tmp_path: Path, family: object) -> None:
    import torch
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    folder = family(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", [*chats(6), *chats(6, answer="A longer answer")])
    wanted = recipe(folder, rows)
    loaded = tokenizer.load(wanted.model, wanted.prompt)
    prepared = prepare.prepare(wanted, loaded)
    model = load.load_model(wanted.model, vocabulary=len(loaded)).eval()
    packed = pack_dataset(prepared.train, 240, "bfd")
    assert len(packed) < len(prepared.train) and sorted(chain(*packed["seq_lengths"])) == sorted(map(len, prepared.train["input_ids"]))
    batch = DataCollatorForLanguageModeling(pad_token_id=loaded.pad_token_id, padding_free=True)(list(packed))
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    place = 0
    for row in packed:
        inside = 0
        for size in row["seq_lengths"]:
            ids = torch.tensor([row["input_ids"][inside : inside + size]])
            with torch.no_grad():
                alone = model(input_ids=ids, use_cache=False).logits[0]
            torch.testing.assert_close(together[place : place + size], alone, rtol=1e-4, atol=1e-4)
            labels = batch["labels"][0, place : place + size]
            assert labels[0] == -100, "no document is to be predicted from the end of the one before"
            inside, place = inside + size, place + size
    assert place == len(together)
