"""What speaks against training on data that were read: each finding with the rows it was seen in and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tui_ft.data import conversations, lengths, samples, template_check
from tui_ft.data import tokenizer as tokenizers
from tui_ft.data.encoding import DOUBLED_BOS
from tui_ft.data.facts import Facts
from tui_ft.data.files import NOT_UTF8
from tui_ft.errors import Problem
from tui_ft.findings import Finding
from tui_ft.recipe.schema import PLAIN_TEXT, Recipe
from tui_ft.text import one_line

_ORDER = ("error", "warning", "ok")


def findings(recipe: Recipe, facts: Facts, tokenizer: Any) -> list[Finding]:
    """Everything to know before a start, errors first."""
    found = [*_bad_rows(recipe, facts), *_learning(recipe, facts, tokenizer), *_lengths(recipe, facts), *_oddities(recipe, facts)]
    return sorted([*found, *_of_template(recipe, facts, tokenizer)], key=lambda finding: _ORDER.index(finding.severity))


def _of_template(recipe: Recipe, facts: Facts, tokenizer: Any) -> list[Finding]:
    """What the template and the tokenizer mean for any data; plain text, which takes neither turns nor markers, is spared the first."""
    rows = tokenizers.embedding_rows(recipe.model)
    grows = tokenizers.vocabulary_finding(tokenizer, rows) if rows else None
    of_template = [] if facts.format == PLAIN_TEXT else template_check.check(tokenizer, recipe.prompt, facts.noted)
    return [*of_template, *([grows] if grows else [])]


def of_validation(recipe: Recipe, facts: Facts, tokenizer: Any, in_both: int) -> list[Finding]:
    """What speaks against a validation split of its own, `in_both` of whose samples stand in the training split as well."""
    name = f"the validation split {recipe.data.validation}"
    own = [*_bad_rows(recipe, facts), *_learning(recipe, facts, tokenizer), *_lengths(recipe, facts)]
    found = [replace(finding, message=f"{name}: {finding.message}") for finding in own]
    if in_both:
        hint = "Its loss will look better than it is; take them out of one of the two, or let data.validation be a share."
        found.append(Finding("warning", "data.validation", f"{in_both:,} samples of {name} are in the training split, too", hint))
    return found


def problems(found: list[Finding]) -> list[Problem]:
    """The errors among them, as a refusal carries them."""
    return [Problem(finding.where, str(finding), finding.hint) for finding in found if finding.severity == "error"]


def _bad_rows(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    allowed, share = recipe.data.max_bad_rows, facts.bad_rows / max(1, facts.rows)
    if not facts.bad_rows:
        return
    reasons = sorted(facts.bad_reasons, key=lambda reason: -facts.dropped.get(reason, 0))
    places = tuple(f"{reason}: {facts.dropped[reason]:,}; {place}" for reason in reasons for place in facts.places.get(reason, [])[:1])
    places += tuple(place for reason in reasons for place in facts.places.get(reason, [])[1:])
    many = share > allowed
    words = (
        f"{facts.bad_rows:,} of {facts.rows:,} rows are unusable ({share:.1%}, allowed {allowed:.1%})"
        if many
        else (f"{facts.bad_rows:,} of {facts.rows:,} rows are unusable and left out")
    )
    hint = "Mend the rows, map the columns with data.columns, or raise data.max_bad_rows."
    if DOUBLED_BOS in reasons:
        hint = "The template writes the bos token once more than it should: mend it, or choose another prompt.template."
    elif NOT_UTF8 in reasons:
        hint = "Is the file in another encoding? Convert it, e.g. with iconv -f WINDOWS-1252 -t UTF-8; else mend the rows."
    yield Finding("error" if many else "warning", "data.source", words, hint, places)


def _learning(recipe: Recipe, facts: Facts, tokenizer: Any) -> Iterator[Finding]:
    at = lengths.cut(facts.length_table, recipe.prompt.max_length, recipe.prompt.overlong)
    if not at.kept:
        reasons = {**facts.dropped, samples.ANSWER_LOST: at.answer_lost, samples.TOO_LONG: at.too_long}
        if recipe.prompt.overlong == "drop":
            del reasons[samples.ANSWER_LOST]
        else:
            del reasons[samples.TOO_LONG]
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])[:5] if count)
        hint = "Look at `tui-ft preview`; the languages, prompt.max_length and data.columns are the usual causes."
        yield Finding("error", "data", f"{facts.source}: no sample is left to train on ({facts.rows:,} rows{'; ' * bool(why)}{why})", hint)
        return
    pads, places = facts.noted.get(samples.PAD_LEARNED, 0), tuple(facts.places.get(samples.PAD_LEARNED, ()))
    if pads and tokenizer.pad_token_id == tokenizer.unk_token_id:
        words = f"{pads:,} samples hold characters that the tokenizer does not know: it writes {one_line(tokenizer.unk_token, 40)} for them"
        yield Finding("warning", "data.source", words, "The model learns that sign in their place; another model may know them.", places)
    elif pads:
        hint = "The model would learn to write padding. Choose another prompt.template, or a tokenizer with a padding token of its own."
        yield Finding("error", "prompt.template", f"{samples.PAD_LEARNED} in {pads:,} samples", hint, places)
    if facts.without_stop == facts.samples:
        hint = "The model would never stop by itself. Choose another prompt.template, e.g. chatml, or one that ends answers with the eos token."
        yield Finding("error", "prompt.template", "no sample teaches the model to end its answer: no end of a turn is learned", hint)
    elif facts.without_stop:
        words = f"{facts.without_stop:,} of {facts.samples:,} samples do not teach the model to end its answer"
        yield Finding("warning", "prompt.template", words, "The template writes no end of turn there.")


def _lengths(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    prompt = recipe.prompt
    at = lengths.cut(facts.length_table, prompt.max_length, prompt.overlong)
    if not at.too_long or not at.kept or prompt.overlong == "split":
        return
    hint = f"A larger prompt.max_length keeps them, at the cost of memory; the longest has {facts.length_table[-1][0]:,} tokens."
    if prompt.overlong == "drop":
        words = f"{at.too_long:,} of {at.samples:,} samples are longer than {prompt.max_length:,} tokens and left out"
    else:
        lost = f", {at.answer_lost:,} of them lost their whole answer and are dropped" if at.answer_lost else ""
        words = f"{at.too_long:,} of {at.samples:,} samples are cut to {prompt.max_length:,} tokens{lost}"
    yield Finding("warning", "prompt.max_length", words, hint)


def _oddities(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    data, prompt = recipe.data, recipe.prompt
    for notice in facts.notices:
        yield Finding("warning", "data.format", notice, "Another column can be named with data.columns.")
    if facts.confidence < 1 - data.max_bad_rows:
        words = f"only {facts.confidence:.0%} of the first rows fit the format {facts.format}"
        yield Finding("warning", "data.format", words, "Is it the right one? Set data.format, or map the columns with data.columns.")
    if facts.format == PLAIN_TEXT and prompt.template != PLAIN_TEXT:
        words = f"plain text has no turns: it is learned as it is, and prompt.template {prompt.template} only says how the model will chat"
        yield Finding("warning", "prompt.template", words, "For plain text choose the template text.")
    nothing = facts.dropped.get(samples.NOTHING, 0)
    if nothing:
        places = tuple(facts.places.get(samples.NOTHING, ()))
        yield Finding("warning", "prompt.template", f"{nothing:,} samples have nothing to learn and are left out", "Look at one of them.", places)
    two = facts.noted.get(conversations.TWO_IN_A_ROW, 0)
    if two:
        places = tuple(facts.places.get(conversations.TWO_IN_A_ROW, ()))
        words = f"{two:,} conversations have two questions or two answers in a row; they are learned as they are"
        yield Finding("warning", "data.source", words, "Some templates refuse such rows.", places)
    spelled = facts.noted.get(samples.SPELLED, 0)
    if spelled:
        words = f"{spelled:,} samples spell control tokens of this model; they are read as plain text"
        yield Finding(
            "ok", "data.source", words, "As tokens they could end a turn, or pose as another.", tuple(facts.places.get(samples.SPELLED, ()))
        )
    if facts.duplicates:
        words = f"{facts.duplicates:,} of {facts.samples:,} samples repeat an earlier one exactly"
        hint = "They weigh more than the others. In training and validation they stay on one side."
        yield Finding("warning", "data.source", words, hint, tuple(facts.duplicate_places))
