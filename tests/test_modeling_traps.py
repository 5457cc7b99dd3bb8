"""Traps of the libraries that would train something else than the recipe says, without a word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tui_ft import demo
from tui_ft.modeling.adapters import make_trainable
from tui_ft.modeling.load import load_model
from tui_ft.recipe.schema import Method, Model

IDS = torch.arange(10, 74).reshape(2, 32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_nf4_learns_the_same_after_an_evaluation() -> None:
    """bitsandbytes repacks weights at the first evaluation on some CPUs, for a kernel that has no gradient."""
    torch.manual_seed(0)
    method = Method(kind="lora", quantization="nf4", r=4, dropout=0.0)
    model = make_trainable(load_model(Model(name=demo.NAME), quantization="nf4"), method, [])
    before = gradients(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=IDS)
    after = gradients(model)
    assert before.keys() == after.keys() and len(before) > 50
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(gradient.abs().sum() > 0 for gradient in after.values())


def test_new_tokens_learn_where_head_and_embedding_are_one() -> None:
    """trl's fused head reads the head's weight and bias; peft's wrapper of a tied head must show both."""
    from trl.trainer.utils import add_fused_lm_head

    base = load_model(Model(name=demo.NAME), vocabulary=1030)
    assert base.config.tie_word_embeddings and base.config.vocab_size == 1088
    add_fused_lm_head(base)
    model = make_trainable(base, Method(kind="lora", r=4), [1024, 1025])
    labels = IDS.clone()
    labels[:, -1] = 1024
    model(input_ids=labels, labels=labels, fused_lm_head=True).loss.backward()
    learned = {name: weight.grad for name, weight in model.named_parameters() if "trainable_tokens" in name and weight.grad is not None}
    assert learned and any(gradient.abs().sum() > 0 for gradient in learned.values())
