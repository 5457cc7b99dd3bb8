"""The model's tokenizer, made ready: its prompt template set, and a padding token that is never one being learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tui_ft import demo
from tui_ft.data import templates
from tui_ft.data.rendering import Renderer
from tui_ft.errors import RequestError
from tui_ft.findings import Finding
from tui_ft.hub import network, weights
from tui_ft.recipe.schema import Model, Prompt
from tui_ft.text import one_line

PAD = "[PAD]"
_OWN = "tui_ft_own_template"  # the attribute that remembers what the recipe's template replaced
_UNUSUAL = "\U0010fffd\u2fff\U000e0101\u0e5b"  # what no vocabulary has whole: read as unk, unless bytes stand in for it
_SPARE = re.compile(r"pad|reserved|unused|endoftext", re.IGNORECASE)


def load(model: Model, prompt: Prompt) -> Any:
    """The tokenizer with the recipe's template on it. Needs no weights: a folder with tokenizer files is enough.

    Tokens are added only where `prompt.add_tokens` wants the template's markers, or where no existing token can pad; whoever loads
    the model compares `len(tokenizer)` with its embedding.

    Raises:
        RequestError: no such model, no eos token, no template, or a template that cannot be used.
    """
    tokenizer = _from_pretrained(model)
    if not tokenizer.is_fast:
        raise RequestError(f"{one_line(model.name)} has only a slow tokenizer, which cannot tell which character became which token")
    if tokenizer.eos_token_id is None:
        hint = 'Choose another model, or name one in its tokenizer_config.json, e.g. "eos_token": "</s>".'
        raise RequestError(f"the tokenizer of {one_line(model.name)} has no end-of-text token (eos), so the model could not learn to stop", hint)
    setattr(tokenizer, _OWN, _template_text(tokenizer.chat_template))
    source = templates.source_of(prompt.template, tokenizer)
    if prompt.add_tokens:
        _add(tokenizer, templates.markers(prompt.template, source))
    templates.install(tokenizer, prompt.template, source, prompt.add_tokens)
    _choose_pad(tokenizer)
    tokenizer.padding_side = "right"
    return tokenizer


def stop_token_ids(tokenizer: Any) -> list[int]:
    """The tokens at which generation ends: those that end an answer or a tool call in the tokenizer's template, and eos."""
    ends = templates.turn_ends(tokenizer)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in (*ends.tokens, *ends.calls)]
    return list(dict.fromkeys([*ids, tokenizer.eos_token_id]))


def own_template(tokenizer: Any) -> str:
    """The chat template that the model came with, whatever is set now; empty for a base model."""
    return str(getattr(tokenizer, _OWN, ""))


def _template_text(template: Any) -> str:
    return str((template.get("default") if isinstance(template, dict) else template) or "")


def embedding_rows(model: Model) -> int | None:
    """How many tokens the model's embedding holds, by its config; None where that is not on this machine or does not say."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        local = Path(model.name).expanduser() / "config.json"
        found = local if local.is_file() else try_to_load_from_cache(model.name, "config.json", revision=model.revision)
        config = json.loads(Path(found).read_bytes()) if isinstance(found, str | Path) else {}
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    except (OSError, ValueError, AttributeError, HFValidationError):
        return None
    return size if isinstance(size, int) else None


def vocabulary_finding(tokenizer: Any, vocab_size: int) -> Finding | None:
    """What it means that the tokenizer knows more tokens than the model's embedding, of `vocab_size` rows (config.json), holds."""
    added = len(tokenizer) - vocab_size
    if added <= 0:
        return None
    message = f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {vocab_size}: it grows by {added} rows, which start untrained"
    hint = "With LoRA these rows are trained and saved beside the adapter. prompt.add_tokens false adds none where the model has a token to pad with."
    return Finding("warning", "prompt.add_tokens", message, hint)


def _from_pretrained(model: Model) -> Any:
    from transformers import AutoTokenizer

    name = str(demo.model_folder()) if model.name == demo.NAME else model.name
    folder = Path(name).expanduser()
    file = weights.gguf_file(name)
    packed = {"gguf_file": file.name} if file else {}
    if file:
        name = str(file.parent)
    elif folder.is_dir():
        name = str(folder)
        if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")):
            raise RequestError(f"{folder} holds no tokenizer", "A model folder has tokenizer.json and tokenizer_config.json.")
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise RequestError(f"model.name {one_line(name)} is not a folder", "Name a Hub id such as microsoft/phi-2, or a model folder.")
    else:
        network.settle()
    try:
        return AutoTokenizer.from_pretrained(name, revision=model.revision or "main", trust_remote_code=False, **packed)
    except Exception as error:  # broken tokenizer files raise errors of several libraries, some of them bare Exceptions
        refusal = network.explained(error, name)
        if refusal is not None:
            raise refusal from None
        if isinstance(error, ImportError) and file:
            raise RequestError("a GGUF file is read by the package gguf, which is not installed", "pip install gguf") from None
        raise RequestError(f"the tokenizer of {one_line(name)} cannot be read: {_first_line(error)}", "Its files may be damaged.") from None


def _first_line(error: Exception) -> str:
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def _add(tokenizer: Any, markers: tuple[str, ...]) -> None:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers], special_tokens=True)


def _choose_pad(tokenizer: Any) -> None:
    """A pad that is learned would hide the end of text from the loss in every collator that masks by id.

    An existing token first: a new one makes the embedding grow.
    """
    stops = {tokenizer.convert_ids_to_tokens(number) for number in stop_token_ids(tokenizer)}
    template = tokenizer.chat_template + templates.probe_text(Renderer(tokenizer))
    spare = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special and _SPARE.search(token.content)]

    def is_free(token: str | None) -> bool:
        if not token or token in stops or token == tokenizer.bos_token or token in template:
            return False
        return token != tokenizer.unk_token or tokenizer.unk_token_id not in tokenizer(_UNUSUAL, add_special_tokens=False)["input_ids"]

    if is_free(tokenizer.pad_token):
        return
    candidates = [token for token in (tokenizer.unk_token, *spare) if is_free(token)]
    if candidates:
        tokenizer.pad_token = candidates[0]
    else:
        tokenizer.add_special_tokens({"pad_token": PAD})
