"""Traps of the libraries that would train something else than the recipe says, without a word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from peft import PeftModel

from tui_ft import demo
from tui_ft.modeling import fused_lora
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


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_fp16_trains_with_a_scaler(quantization: str) -> None:
    """As on a GPU without bf16: a frozen base in fp16 alone, adapters in fp32, which a scaler can unscale; fp16 adapters it would refuse."""

    def made(precision: str) -> PeftModel:
        torch.manual_seed(0)
        base = load_model(Model(name=demo.NAME), precision=precision, quantization=quantization)
        return make_trainable(base, Method(kind="lora", quantization=quantization, r=4, dropout=0.0), [], fused=True)  # type: ignore[return-value]

    expected, model = gradients(made("fp32")), made("fp16")
    assert fused_lora.count(model) > 0
    trained, frozen = ([p for p in model.parameters() if p.requires_grad is wanted] for wanted in (True, False))
    assert {p.dtype for p in trained} == {torch.float32}
    assert {p.dtype for p in frozen} == ({torch.float16} if quantization == "none" else {torch.float16, torch.uint8})
    optimizer = torch.optim.SGD(trained, lr=1.0)
    for scale, is_learning in ((2.0**40, False), (2.0**12, True)):  # the first one overflows, and its step is left out
        scaler, before = torch.amp.GradScaler("cpu", init_scale=scale), [p.detach().clone() for p in trained]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(input_ids=IDS, labels=IDS).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        assert any(not torch.equal(p, old) for p, old in zip(trained, before, strict=True)) == is_learning
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(float((found[name] - grad).norm()) <= 0.05 * float(grad.norm()) for name, grad in expected.items())
