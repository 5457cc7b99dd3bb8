"""The mask's promise, for every template: what is learned is what a model has to write, to the letter, and nothing else.

The expectation is found without the program's own ways: each text of a random conversation begins and ends with words that stand nowhere else,
so that its place is known, and what must surround it there is written down by hand for each template.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from data_material import byte_tokenizer

from tui_ft.data import mask, templates, tokenizer
from tui_ft.data.conversations import BadRow, Conversation, Turn
from tui_ft.data.encoding import Encoded, Encoder
from tui_ft.data.rendering import Renderer, render_errors
from tui_ft.data.shapes import Shapes
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import Model, Prompt

TEMPLATES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "chat_templates"
CONTROL = (
    r"<[|｜][^\s|｜'\"<>]{1,40}[|｜]?>|<[a-z_]+\|>|<(?:start|end)_of_turn>"
    r"|\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]"
)
WORDS = [
    "yes",
    "no",
    "🤗",
    "é",
    "日本",
    " ",
    "  ",
    "\n",
    "user",
    "assistant",
    "{",
    "</p>",
    "1,000",
    "\t",
    "system\n",
    "'",
    '"',
    "\\n",
    "end",
    "x" * 50,
]


def control_tokens(source: str) -> list[str]:
    """What a template writes as tokens of its model."""
    return sorted(set(re.findall(CONTROL, source)))


def load(folder: Path, source: str, *, special: list[str] | None = None, **prompt: Any) -> Any:
    tokens = control_tokens(source) if special is None else special
    made = byte_tokenizer(folder, bos="<s>", pad="<pad>", special=tokens, template=source)
    return tokenizer.load(Model(name=str(made), revision=None), Prompt.model_validate({"template": "model", **prompt}))


def encode(loaded: Any, turns: list[Turn], tools: tuple[dict[str, Any], ...] = (), **prompt: Any) -> Encoded | BadRow:
    (encoded,) = Encoder(loaded, Prompt.model_validate(prompt)).encode([Conversation(tuple(turns), "here", tools=tools)])
    return encoded


def runs(encoded: Encoded) -> list[str]:
    """The texts of the learned stretches."""
    found: list[str] = []
    before = False
    for piece, learned in zip(encoded.pieces(len(encoded.ids)), encoded.learned, strict=True):
        if learned:
            found[-1:] = [found[-1] + piece] if before else [*found[-1:], piece]
        before = bool(learned)
    return found


class Chance:
    """Random texts that can be found again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0

    def text(self) -> str:
        self.number += 1
        middle = "".join(self.random.choices(WORDS, k=self.random.randint(0, 10)))
        edges = self.random.choices(["", " ", "\n", "\n\n", " \n"], k=2)
        return f"{edges[0]}a{self.number}q{middle}q{self.number}z{edges[1]}"

    def chat(self, *, system: bool = True) -> list[Turn]:
        turns = [Turn("system", self.text())] if system and self.random.random() < 0.3 else []
        for _ in range(self.random.randint(1, 4)):
            turns += [Turn("user", self.text()), Turn("assistant", self.text())]
        return turns


@dataclass(frozen=True)
class Rule:
    """What a template's makers meant: written down by hand."""

    end: str
    trim: Callable[[str], str] = str
    lead: str = ""
    """What the model writes before the words of every answer."""
    last_lead: str | None = None
    """The same for the last answer, where it differs."""
    last_end: str | None = None
    system: bool = True


RULES = {
    "HuggingFaceTB-SmolLM3-3B.jinja": Rule("<|im_end|>", lambda text: text.lstrip("\n")),
    "LFM2-8B-A1B.jinja": Rule("<|im_end|>"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": Rule("<|im_end|>"),
    "Qwen-Qwen2.5-7B-Instruct.jinja": Rule("<|im_end|>"),
    "Qwen-Qwen3-0.6B.jinja": Rule("<|im_end|>", last_lead="<think>\n\n</think>\n\n"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja": Rule("<｜end▁of▁sentence｜>"),
    "google-gemma-2-2b-it.jinja": Rule("<end_of_turn>", str.strip, system=False),
    "google-gemma-4-31B-it.jinja": Rule("<turn|>", str.strip),
    "ibm-granite-granite-3.3-2B-Instruct.jinja": Rule("<|end_of_text|>"),
    "meta-llama-Llama-3.1-8B-Instruct.jinja": Rule("<|eot_id|>", str.strip),
    "meta-llama-Llama-3.2-3B-Instruct.jinja": Rule("<|eot_id|>", str.strip),
    "microsoft-Phi-3.5-mini-instruct.jinja": Rule("<|end|>"),
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": Rule("</s>"),
    # <|end|> ends its thoughts too: where generation goes on after a token, that token is no end of turn
    "openai-gpt-oss-120b.jinja": Rule("", lead="<|channel|>final<|message|>", last_end="<|return|>"),
    "openbmb-MiniCPM5-1B.jinja": Rule("<|im_end|>"),
}


def expected(rule: Rule, turns: list[Turn]) -> list[str]:
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    found = [rule.lead + rule.trim(answer) + rule.end for answer in answers]
    lead = rule.lead if rule.last_lead is None else rule.last_lead
    end = rule.end if rule.last_end is None else rule.last_end
    # a think block before it has the last answer's leading line ends cut off
    last = answers[-1].lstrip("\n") if rule.last_lead else answers[-1]
    return [*found[:-1], lead + rule.trim(last) + end]


@pytest.mark.parametrize("name", sorted(RULES))
def test_random_conversations_through_the_real_templates(tmp_path: Path, shared_data: Path, name: str) -> None:
    source = (shared_data / "chat_templates" / name).read_text("utf-8")
    loaded = load(tmp_path, source)
    tools = (templates.PROBE_TOOL,) if "tool_use" in name else ()
    chance = Chance(3)
    chats = [chance.chat(system=RULES[name].system) for _ in range(200)]
    encoder, renderer = Encoder(loaded, Prompt()), Renderer(loaded)
    made = encoder.encode([Conversation(tuple(chat), "here", tools=tools) for chat in chats])
    for number, (chat, encoded) in enumerate(zip(chats, made, strict=True)):
        assert isinstance(encoded, Encoded), encoded
        assert runs(encoded) == expected(RULES[name], chat)
        assert not encoded.spelled
        if number % 10 == 0:
            messages = [turn.message() for turn in chat]
            assert encoded.text == loaded.decode(encoded.ids) == renderer.render(messages, tools)
            today = "strftime_now" in source  # ours is always the same day
            assert today or list(encoded.ids) == loaded.apply_chat_template(messages, tools=list(tools) or None, return_dict=False)


def test_every_real_template_has_a_rule(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "chat_templates").glob("*.jinja")} == set(RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_one_rendering_and_many_tell_the_same(tmp_path: Path, shared_data: Path, name: str) -> None:
    """The quick road, by the shape of a conversation, against the slow one."""
    loaded = load(tmp_path, (shared_data / "chat_templates" / name).read_text("utf-8"))
    ends, special = templates.turn_ends(loaded), templates.special_tokens(loaded)
    stops = {*ends.tokens, *ends.calls}
    shapes = Shapes(Renderer(loaded), stops, special)
    chance = Chance(5)
    for _ in range(40):
        chat = chance.chat(system=RULES[name].system)
        if chance.random.random() < 0.3:
            chat[-1] = Turn("assistant", f"<think>\n{chance.text()}\n</think>\n\n{chance.text()}")
        elif chance.random.random() < 0.3:
            chat[-1] = Turn("assistant", chance.text(), {"reasoning_content": chance.text()})
        messages = [turn.message() for turn in chat]
        tools = (templates.PROBE_TOOL,) if "tool_use" in name else ()
        assert shapes.answers(messages, tools) == mask.answers(Renderer(loaded), messages, tools, stops, special)


THINKING = {
    "Qwen-Qwen3-0.6B.jinja": ("<think>\n{}\n</think>\n\n{}<|im_end|>", True),
    "openbmb-MiniCPM5-1B.jinja": ("<think>\n{}\n</think>\n\n{}<|im_end|>", True),
    "openai-gpt-oss-120b.jinja": (
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
        False,
    ),
}


@pytest.mark.parametrize("name", sorted(THINKING))
def test_thinking_is_learned_where_the_template_shows_it(tmp_path: Path, shared_data: Path, name: str) -> None:
    shape, inline = THINKING[name]
    loaded = load(tmp_path, (shared_data / "chat_templates" / name).read_text("utf-8"))
    keyed = [
        Turn("user", "q"),
        Turn("assistant", "one", {"reasoning_content": "r1"}),
        Turn("user", "q"),
        Turn("assistant", "two", {"thinking": "r2"}),
    ]
    encoded = encode(loaded, keyed)
    assert isinstance(encoded, Encoded) and runs(encoded)[-1] == shape.format("r2", "two") and "r1" not in encoded.text
    if inline:
        chat = [Turn("user", "q"), Turn("assistant", "<think>\nr1\n</think>\n\none"), Turn("user", "q")]
        encoded = encode(loaded, [*chat, Turn("assistant", "<think>\nr2\n</think>\n\ntwo")])
        assert isinstance(encoded, Encoded) and runs(encoded) == ["one<|im_end|>", shape.format("r2", "two")]


def call(**arguments: Any) -> dict[str, Any]:
    return {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": arguments}}


TOOLS = {
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": (
        '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call><|im_end|>',
        "<|im_end|>",
    ),
    "Qwen-Qwen2.5-7B-Instruct.jinja": (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call><|im_end|>',
        "<|im_end|>",
    ),
    "Qwen-Qwen3-0.6B.jinja": ('<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call><|im_end|>', "<|im_end|>"),
    "google-gemma-4-31B-it.jinja": ('<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:3}<tool_call|><|tool_response>', "<turn|>"),
    "meta-llama-Llama-3.1-8B-Instruct.jinja": ('{"name": "weather", "parameters": {"city": "Rome", "days": 3}}<|eot_id|>', "<|eot_id|>"),
    "meta-llama-Llama-3.2-3B-Instruct.jinja": ('{"name": "weather", "parameters": {"city": "Rome", "days": 3}}<|eot_id|>', "<|eot_id|>"),
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": (
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome", "days": 3}, "id": "abcdefghi"}]</s>',
        "</s>",
    ),
    "openai-gpt-oss-120b.jinja": (' to=functions.weather<|channel|>commentary json<|message|>{"city": "Rome", "days": 3}<|call|>', "<|return|>"),
    "openbmb-MiniCPM5-1B.jinja": (
        '<function name="weather"><param name="city">Rome</param><param name="days">3</param></function><|im_end|>',
        "<|im_end|>",
    ),
}


@pytest.mark.parametrize("name", sorted(RULES))
def test_tool_calls_are_learned_and_their_results_are_not(tmp_path: Path, shared_data: Path, name: str) -> None:
    """Two rounds, so that calls and results stand before later turns; a template that shows no calls says so."""
    loaded = load(tmp_path, (shared_data / "chat_templates" / name).read_text("utf-8"))
    round_ = [
        Turn("user", "Weather?"),
        Turn("assistant", "", {"tool_calls": [call(city="Rome", days=3)]}),
        Turn("tool", "18 degrees", {"name": "weather", "tool_call_id": "abcdefghi"}),
        Turn("assistant", "Mild."),
    ]
    encoded = encode(loaded, [*round_, *round_], (templates.PROBE_TOOL,))
    if name not in TOOLS:
        assert isinstance(encoded, BadRow)
        assert "does not show the tool calls; use prompt.template" in encoded.reason or "refuses" in encoded.reason
        return
    assert isinstance(encoded, Encoded)
    learned = runs(encoded)
    asked, end = TOOLS[name]
    if "Hermes" in name:
        asked = asked.removeprefix("\n")
    assert [learned[0], learned[2]] == [asked, asked] and learned[3].endswith(f"Mild.{end}") and "degrees" not in "".join(learned)
    ids = Encoder(loaded, Prompt()).stop_ids
    assert all(learned[at].endswith(tuple(loaded.convert_ids_to_tokens(sorted(ids)))) for at in (0, 2, 3))


# Templates that nobody has seen.
LOOP = "{% for m in messages %}"
NASTY: dict[str, tuple[str, Callable[[str], str]]] = {
    "earlier thinking stripped": (
        LOOP + "<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last and '</t>' in m.content %}{{ m.content.split('</t>')[1] }}"
        "{% else %}{{ m.content }}{% endif %}<|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
    "a system text merged into the first question": (
        "{% set s = messages[0].content if messages[0].role == 'system' else '' %}" + LOOP + "{% if m.role != 'system' %}<|{{ m.role }}|>"
        "{{ s + '\\n' if loop.index0 <= 1 and m.role == 'user' else '' }}{{ m.content }}<|e|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
    "a system text that moves to the last question": (
        "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% set u = messages | selectattr('role', 'equalto', 'user') | list %}"
        + LOOP
        + "{% if m.role != 'system' %}<|{{ m.role }}|>{{ s if m == u[-1] else '' }}{{ m.content }}<|e|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
    "asks otherwise than it shows": (
        LOOP + "<|{{ m.role }}|>\n{{ m.content }}<|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}",
        str,
    ),
    "never asks": (LOOP + "{% if m.role == 'user' %}[Q]{{ m.content }}[/Q]{% else %}{{ m.content }}<|e|>{% endif %}{% endfor %}", str),
    "trims": (LOOP + "<|{{ m.role }}|> {{ m.content | trim }} <|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", str.strip),
    "no end token": (LOOP + "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}", str),
    "an end only after the last turn": (
        LOOP + "<|{{ m.role }}|>{{ m.content }}{% if loop.last and not add_generation_prompt %}<|e|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
    "numbers its turns": (
        LOOP + "[{{ loop.index }} of {{ messages | length }}]<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}"
        "{% if add_generation_prompt %}[{{ messages | length + 1 }} of {{ messages | length + 1 }}]<|assistant|>{% endif %}",
        str,
    ),
    "repeats questions": (
        LOOP + "<|{{ m.role }}|>{{ m.content }}<|e|>{% if m.role == 'user' %}<|user|>again: {{ m.content }}<|e|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
    "the words of the turns' roles": (
        LOOP + "{{ m.role }}\n{{ m.content }}<|e|>{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}",
        str,
    ),
    "newest first": (
        "{% for m in messages | reverse %}<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        str,
    ),
}


@pytest.mark.parametrize("name", sorted(NASTY))
def test_templates_nobody_has_seen(tmp_path: Path, name: str) -> None:
    """Each answer's words, what the template does to them, and its end: at its place, in the order of the text; all else is masked."""
    source, change = NASTY[name]
    special = [*control_tokens(source), "<|user|>", "<|assistant|>", "<|system|>"]
    loaded = load(tmp_path, source, special=special)
    end = "<|e|>" if "<|e|>" in loaded.convert_ids_to_tokens(tokenizer.stop_token_ids(loaded)) else "</s>"
    chance = Chance(7)
    chats = [chance.chat() for _ in range(200)]
    for chat, encoded in zip(chats, Encoder(loaded, Prompt()).encode([Conversation(tuple(chat), "here") for chat in chats]), strict=True):
        assert isinstance(encoded, Encoded), encoded
        answers = [change(turn.content) for turn in chat if turn.role == "assistant"]
        answers = answers[::-1] if name == "newest first" else answers
        learned = runs(encoded)
        assert [text.strip() for text in learned] == [_shown(answer, encoded.text, end).strip() for answer in answers]
        assert all(text.endswith(end) for text in learned)
        assert loaded.decode(encoded.ids) == encoded.text


def _shown(answer: str, text: str, end: str) -> str:
    """The answer with all up to its end token, as it stands in the text; its words stand there once."""
    assert text.count(answer) == 1
    place = text.index(answer)
    return text[place : text.index(end, place + len(answer)) + len(end)]


IMPOSSIBLE = {
    "writes answers twice": (LOOP + "<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}summary: {{ messages[-1].content }}", "writes an answer twice"),
    "hides answers": (
        LOOP + "{% if m.role == 'user' or m.content == 'Probe answer' %}{{ m.content }}<|e|>{% endif %}{% endfor %}",
        "does not show the answer",
    ),
    "cuts answers": (LOOP + "<|{{ m.role }}|>{{ m.content[:14] }}<|e|>{% endfor %}", "changes with the words of an answer"),
    "counts letters": (LOOP + "<|{{ m.role }} {{ m.content | length }}|>{{ m.content }}<|e|>{% endfor %}", "changes with the words of an answer"),
}


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_a_mask_that_cannot_be_is_said_with_a_remedy(tmp_path: Path, name: str) -> None:
    source, words = IMPOSSIBLE[name]
    loaded = load(tmp_path, source)
    chat = [Turn("user", "A question that is long"), Turn("assistant", "An answer that is longer than others")]
    refused = encode(loaded, chat)
    assert isinstance(refused, BadRow) and words in refused.reason
    if name == "hides answers":
        return
    assert "prompt.template chatml, or prompt.learn all" in refused.reason
    everything = encode(loaded, chat, learn="all")
    assert isinstance(everything, Encoded) and everything.learned.all() and everything.text == Renderer(loaded).render([t.message() for t in chat])


def test_a_template_that_changes_words_is_refused_before_any_row(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not write answers as they are"):
        load(tmp_path, LOOP + "<|{{ m.role }}|>{{ m.content | upper }}<|e|>{% endfor %}")


def test_templates_find_their_stop_tokens(tmp_path: Path, shared_data: Path) -> None:
    stops = {
        "google-gemma-4-31B-it.jinja": {"<turn|>", "<|tool_response>"},
        "openai-gpt-oss-120b.jinja": {"<|return|>", "<|call|>"},
    }
    for name, rule in RULES.items():
        loaded = load(tmp_path / name, (shared_data / "chat_templates" / name).read_text("utf-8"))
        encoder = Encoder(loaded, Prompt())
        assert set(loaded.convert_ids_to_tokens(sorted(encoder.stop_ids))) == {"</s>", *stops.get(name, {rule.end})}, name
        assert encoder.pad_id == loaded.pad_token_id and encoder.pad_id not in encoder.stop_ids


def test_kinds_of_tokens(tmp_path: Path) -> None:
    loaded = load(tmp_path, LOOP + "<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}", special=["<|e|>", "<|user|>"])
    encoder = Encoder(loaded, Prompt())
    names = {"<s>": "bos", "</s>": "eos", "<|e|>": "end", "<pad>": "pad", "<|user|>": "special", "a": ""}
    assert {token: encoder.kind(loaded.convert_tokens_to_ids(token)) for token in names} == names


def test_refusals_are_rows_not_errors(tmp_path: Path) -> None:
    loaded = load(tmp_path, LOOP + "{{ m.content }}{{ 1 // (m.content | length - 3) }}<|e|>{% endfor %}")
    refused = encode(loaded, [Turn("user", "abc"), Turn("assistant", "fine")])
    assert isinstance(refused, BadRow) and refused.reason.startswith("the template refuses it: ")
    assert ZeroDivisionError in [error for kind in render_errors() for error in (kind, *kind.__subclasses__())]
