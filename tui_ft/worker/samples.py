"""Answers of the model in training to fixed prompts, to read how it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

MAX_NEW_TOKENS = 96


def generate_samples(trainer: Any, prompts: list[str]) -> Iterator[tuple[str, str]]:
    """(prompt, answer) for each prompt, greedily, so that no random number is drawn."""
    if not prompts:
        return
    model, tokenizer = trainer.model, trainer.processing_class
    was_training, cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        for prompt in prompts:
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(model.device)
            with torch.no_grad():
                answer = model.generate(**ids, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            yield prompt, tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        model.config.use_cache = cache
        model.train(was_training)
