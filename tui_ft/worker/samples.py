"""Answers of the model in training to fixed prompts, to read how it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tui_ft.data.conversations import BadRow
from tui_ft.data.encoding import Encoder
from tui_ft.data.rendering import render_errors
from tui_ft.recipe.schema import Prompt

MAX_NEW_TOKENS = 96


def generate_samples(trainer: Any, prompts: list[str]) -> Iterator[tuple[str, str]]:
    """(prompt, answer) for each prompt, greedily, so that no random number is drawn."""
    if not prompts:
        return
    model, tokenizer = trainer.model, trainer.processing_class
    was_training, cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    encoder = Encoder(tokenizer, Prompt())
    try:
        for prompt in prompts:
            try:
                asked = torch.tensor([encoder.prompt_ids([{"role": "user", "content": prompt}])], device=model.device)
            except (BadRow, *render_errors()) as error:  # type: ignore[misc]
                yield prompt, f"(the template refuses this prompt: {error})"
                continue
            with torch.no_grad():
                answer = model.generate(
                    asked,
                    attention_mask=torch.ones_like(asked),
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            yield prompt, tokenizer.decode(answer[0, asked.shape[1] :], skip_special_tokens=True)
    finally:
        model.config.use_cache = cache
        model.train(was_training)
