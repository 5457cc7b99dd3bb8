"""The embedded demo: a small dataset of our own writing, and a small Llama-architecture model made from it on first use."""

from __future__ import annotations

from pathlib import Path

NAME = "builtin:demo"
"""In a recipe, `model.name` and `data.source` of the demo."""


def dataset_file() -> Path:
    """The demo's conversations: message trees in the rows of oasst1, one JSON object a line, in a dozen languages."""
    return Path(__file__).with_name("messages.jsonl")


def model_folder() -> Path:
    """The demo's untrained model with its tokenizer; made in the cache folder on first use (about a second, no torch).

    Raises:
        TuiFtError: the cache folder cannot be written.
    """
    from tui_ft.demo import build  # numpy and tokenizers, which the terminal does without

    return build.cached_model()
