"""Which language a conversation is in: from a column, or read from its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tui_ft.data.conversations import Conversation

UNKNOWN = "unknown"
CHARACTERS = 500
"""What detection reads: enough to be sure, and the cost is linear."""
_LEAST_PROBABILITY = 0.5  # measured on oasst2: English with precision 0.98 at recall 0.96


def fold(code: str) -> str:
    """The language of a regional code: pt-BR → pt, uk_UA → uk."""
    return code.strip().replace("_", "-").partition("-")[0].lower() or UNKNOWN


def detect(text: str) -> str:
    """The language of a text by py3langid, offline; `unknown` below a probability of a half. About a thousand texts a second."""
    code, probability = _identifier().classify(text[:CHARACTERS])
    return str(code) if probability >= _LEAST_PROBABILITY else UNKNOWN


def with_language(conversation: Conversation) -> Conversation:
    """Judged by the whole conversation: an answer alone is often code, a name or a number."""
    return replace(conversation, languages=(detect(conversation.text(CHARACTERS)),))


def keep(
    conversations: Iterable[Conversation], wanted: Iterable[str], *, read_text: bool, counts: Counter[str], on_dropped: Callable[[Conversation], None]
) -> Iterable[Conversation]:
    """The conversations all of whose messages are in a wanted language (none wanted: every one), counting all by their first language."""
    chosen = {fold(code) for code in wanted}
    for conversation in conversations:
        if not conversation.languages and read_text:
            conversation = with_language(conversation)
        if conversation.languages:
            counts[conversation.languages[0]] += 1
        if chosen and not (conversation.languages and chosen.issuperset(conversation.languages)):
            on_dropped(conversation)
        else:
            yield conversation


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
