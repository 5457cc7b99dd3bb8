"""Which language a conversation is in: from a column, or read from its text."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from tui_ft import home
from tui_ft.data.conversations import Conversation

UNKNOWN = "unknown"
CHARACTERS = 500
"""What detection reads: enough to be sure, and the cost is linear."""
LEAST_PROBABILITY = 0.5  # measured on oasst2: English with precision 0.98 at recall 0.96
_BATCH = 256  # conversations judged at once: one look-up of what is known, and progress every tenth of a second

Judged = tuple[str, float]
"""A folded language code, or `unknown`, and the probability of the best guess, 0 to 1."""


def fold(code: str) -> str:
    """The language of a regional code: pt-BR → pt, uk_UA → uk."""
    return code.strip().replace("_", "-").partition("-")[0].lower() or UNKNOWN


def detect(text: str) -> Judged:
    """The language of a text by py3langid, offline; `unknown` below a probability of a half. Two to five thousand texts a second."""
    whole = text[:CHARACTERS].encode("utf-8", "replace").decode()  # half characters, as JSON can write them, are in no language
    code, probability = _identifier().classify(whole)
    return (fold(code) if probability >= LEAST_PROBABILITY else UNKNOWN), round(float(probability), 3)


class Detector:
    """Judges texts and remembers them, on disk where `path` says: a second look at the same dataset costs no detection.

    What is remembered is a hash of each text with its answer, 13 bytes; a file that cannot be read or written costs time, no more.
    """

    def __init__(self, path: Path | None = None) -> None:
        import numpy as np

        self._path = path
        self._hashes, self._codes, self._shares = np.empty(0, np.uint64), np.empty(0, np.uint16), np.empty(0, np.float32)
        self._names: list[str] = []
        self._new: dict[int, Judged] = {}
        if path is not None:
            with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as stored:
                hashes, codes, shares, names = (stored[name] for name in ("hashes", "codes", "shares", "names"))
                if len(hashes) == len(codes) == len(shares) and int(codes.max(initial=0)) < max(1, len(names)):
                    self._hashes, self._codes, self._shares, self._names = hashes, codes, shares, [str(name) for name in names]

    @staticmethod
    def file(key: str) -> Path:
        """Where the answers for the dataset `key` are remembered."""
        return home.cache_folder() / "languages" / f"{key}.npz"

    @property
    def knows_all(self) -> bool:
        """It was saved, so every text of its dataset has been judged."""
        return len(self._hashes) > 0

    def judge(self, texts: Sequence[str]) -> list[Judged]:
        import numpy as np
        import xxhash

        cut = [text[:CHARACTERS] for text in texts]
        keys = [xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in cut]
        places = np.searchsorted(self._hashes, np.array(keys, np.uint64))
        answers = []
        for text, key, place in zip(cut, keys, places, strict=True):
            if place < len(self._hashes) and int(self._hashes[place]) == key:
                answer = self._names[self._codes[place]], float(self._shares[place])
            else:
                answer = self._new.get(key) or self._new.setdefault(key, detect(text))
            answers.append(answer)
        return answers

    def save(self) -> None:
        """Remember everything judged so far; a full disk is no reason to stop."""
        import numpy as np

        if self._path is None or not self._new:
            return
        names = list(dict.fromkeys([*self._names, *(code for code, _ in self._new.values())]))
        index = {name: number for number, name in enumerate(names)}
        hashes = np.concatenate([self._hashes, np.fromiter(self._new, np.uint64, len(self._new))])
        codes = np.concatenate([self._codes, np.array([index[code] for code, _ in self._new.values()], np.uint16)])
        shares = np.concatenate([self._shares, np.array([share for _, share in self._new.values()], np.float32)])
        order = np.argsort(hashes)
        self._hashes, self._codes, self._shares, self._names, self._new = hashes[order], codes[order], shares[order], names, {}
        with suppress(OSError), home.replacing(self._path) as file:
            np.savez(file, hashes=self._hashes, codes=self._codes, shares=self._shares, names=np.array(names))


def text_of(conversation: Conversation) -> str:
    """What is judged: the whole conversation, since an answer alone is often code, a name or a number."""
    return conversation.text(CHARACTERS)


def keep(
    conversations: Iterable[Conversation],
    wanted: Iterable[str],
    *,
    detector: Detector | None,
    counts: Counter[str],
    on_dropped: Callable[[Conversation, str], None],
) -> Iterator[Conversation]:
    """The conversations all of whose messages are in a wanted language (none wanted: every one), counting all by their first language.

    Args:
        detector: judges those whose language is not known yet; None leaves them unknown.
        on_dropped: is given each one that goes, with its languages in words (`fr 0.98`).
    """
    chosen = {fold(code) for code in wanted}
    stream = iter(conversations)
    while batch := list(islice(stream, _BATCH)):
        open_ones = [conversation for conversation in batch if not conversation.languages] if detector else []
        judged = iter(detector.judge([text_of(conversation) for conversation in open_ones])) if detector else iter(())
        for conversation in batch:
            words = ", ".join(conversation.languages) or UNKNOWN
            if detector and not conversation.languages:
                code, probability = next(judged)
                conversation = replace(conversation, languages=(code,))
                words = f"{code} {probability:.2f}"
            if conversation.languages:
                counts[conversation.languages[0]] += 1
            if chosen and not (conversation.languages and chosen.issuperset(conversation.languages)):
                on_dropped(conversation, words)
            else:
                yield conversation


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
