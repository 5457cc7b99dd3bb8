"""Templates and masks: what is learned is each answer with its end, whatever the template and the tokenizer."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_material import byte_tokenizer

from tui_ft.data import mask, templates, tokenizer
from tui_ft.data.conversations import BadRow, Conversation, Ledger, Turn
from tui_ft.data.encoding import Encoder
from tui_ft.data.rendering import Renderer
from tui_ft.data.samples import encode
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import Model, Prompt

CHAT = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello! How are you 🤗?"},
    {"role": "user", "content": "Fine.\n"},
    {"role": "assistant", "content": "a"},
]
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim "
    "+ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def load(folder: Path, **prompt: Any) -> Any:
    return tokenizer.load(Model(name=str(folder), revision=None), Prompt.model_validate({"max_length": 4096, **prompt}))


@dataclass
class Sample:
    ids: np.ndarray
    learned: np.ndarray
    pieces: list[str]


def samples(loaded: Any, *chats: list[dict[str, Any]], **prompt: Any) -> list[Sample]:
    conversations = [
        Conversation(tuple(Turn(m["role"], m["content"], {k: m[k] for k in m if k not in ("role", "content")}) for m in chat), "here")
        for chat in chats
    ]
    ledger = Ledger()
    made = [item.encoded for item in encode(conversations, Encoder(loaded, Prompt.model_validate({"max_length": 4096, **prompt})), ledger)]
    assert not ledger.dropped, ledger.samples
    return [Sample(encoded.ids, encoded.learned, encoded.pieces(len(encoded.ids))) for encoded in made]


def learned(sample: Sample) -> str:
    return "".join(piece for piece, is_learned in zip(sample.pieces, sample.learned, strict=True) if is_learned)


def text(sample: Sample) -> str:
    return "".join(sample.pieces)


@pytest.mark.parametrize("bos", ["", "<s>"])
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "chatml",
            "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n[Hello! How are you 🤗?</s>]\n<|im_start|>user\nFine.\n<|im_end|>\n"
            "<|im_start|>assistant\n[a</s>]\n",
        ),
        ("human-assistant", "Human: Hi there\nAssistant:[ Hello! How are you 🤗?</s>]\nHuman: Fine.\n\nAssistant:[ a</s>]\n"),
        (
            "alpaca",
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nHi there\n\n"
            "### Output:\n[Hello! How are you 🤗?\n\n### End</s>]\n\n### Instruction:\nFine.\n\n\n### Output:\n[a\n\n### End</s>]",
        ),
        ("text", "Hi there\n[Hello! How are you 🤗?</s>]Fine.\n[a</s>]"),
    ],
)
def test_our_templates_to_the_letter(tmp_path: Path, template: str, bos: str, expected: str) -> None:
    loaded = load(byte_tokenizer(tmp_path, bos=bos, unk="<unk>"), template=template)
    (sample,) = samples(loaded, CHAT)
    marked = "".join(
        ("[" if is_learned and not before else "") + ("]" if before and not is_learned else "") + piece
        for piece, is_learned, before in zip(sample.pieces, sample.learned, [False, *sample.learned[:-1]], strict=True)
    ) + ("]" if sample.learned[-1] else "")
    assert marked == bos + expected
    assert loaded.decode(sample.ids) == text(sample) == Renderer(loaded).render(CHAT)


def test_alpaca_gives_the_input_its_own_section_and_others_join_it(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Spell\n\nfreind", "instruction": "Spell", "input": "freind"}
    chat = [asked, {"role": "assistant", "content": "friend"}]
    folder = byte_tokenizer(tmp_path, unk="<unk>")
    (sample,) = samples(load(folder, template="alpaca"), chat)
    intro = "Below is an instruction that describes a task, paired with an input that provides further context."
    intro += " Write a response that appropriately completes the request."
    parts = [intro, "### Instruction:\nSpell", "### Input:\nfreind", "### Output:\nfriend", "### End</s>"]
    assert text(sample) == "\n\n".join(parts) and learned(sample) == "friend\n\n### End</s>"
    assert "Spell\n\nfreind" in text(samples(load(folder, template="chatml"), chat)[0])


def test_a_system_message_reaches_every_template(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, unk="<unk>")
    for template in templates.OURS:
        (sample,) = samples(load(folder, template=template), [{"role": "system", "content": "Be kind."}, *CHAT])
        assert text(sample).count("Be kind.") == 1 and "Be kind." not in learned(sample)


def test_learn_all_takes_everything_but_what_nothing_predicts(tmp_path: Path) -> None:
    loaded = load(byte_tokenizer(tmp_path, bos="<s>", unk="<unk>"), template="chatml")
    (sample,) = samples(loaded, CHAT, learn="all")
    assert "<s>" + learned(sample) == text(sample)


def test_added_tokens_become_markers_and_the_end_marker_ends_the_turn(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, unk="<unk>")
    loaded = load(folder, template="chatml", add_tokens=True)
    (sample,) = samples(loaded, CHAT)
    assert learned(sample) == "Hello! How are you 🤗?<|im_end|>a<|im_end|>"
    assert tokenizer.stop_token_ids(loaded) == [loaded.convert_tokens_to_ids("<|im_end|>"), loaded.eos_token_id]
    assert list(sample.pieces).count("<|im_start|>") == 4 and len(loaded) == len(load(folder, template="chatml")) + 2
    alpaca = load(folder, template="alpaca", add_tokens=True)
    assert learned(samples(alpaca, CHAT)[0]) == "Hello! How are you 🤗?\n\n### Enda\n\n### End" and "### End" in samples(alpaca, CHAT)[0].pieces


def test_a_template_without_a_stop_token_gets_eos_after_its_answers(tmp_path: Path) -> None:
    plain = load(byte_tokenizer(tmp_path / "plain", bos="<s>", unk="<unk>", template=GEMMA), template="model")
    own = load(
        byte_tokenizer(tmp_path / "own", bos="<s>", unk="<unk>", special=["<start_of_turn>", "<end_of_turn>"], template=GEMMA), template="model"
    )
    assert learned(samples(plain, CHAT)[0]) == "Hello! How are you 🤗?</s>a</s>"
    assert learned(samples(own, CHAT)[0]) == "Hello! How are you 🤗?<end_of_turn>a<end_of_turn>"
    assert own.chat_template == GEMMA
    assert text(samples(plain, CHAT)[0]).replace("</s>", "") == text(samples(own, CHAT)[0])
    assert text(samples(plain, CHAT)[0]).count("<s>") == 1


def test_a_stop_that_only_the_last_answer_has_is_not_enough(tmp_path: Path) -> None:
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% else %}{{ eos_token }}{% endif %}"
    loaded = load(byte_tokenizer(tmp_path, unk="<unk>", template=template), template="model")
    assert learned(samples(loaded, CHAT)[0]) == "Hello! How are you 🤗?</s>a</s>"


def test_a_header_that_follows_an_answer_is_not_its_end(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    loaded = load(byte_tokenizer(tmp_path, unk="<unk>", special=["<|user|>", "<|assistant|>"], template=template), template="model")
    assert learned(samples(loaded, CHAT)[0]) == "Hello! How are you 🤗?</s>a</s>"


def test_the_saved_tokenizer_renders_what_training_saw(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name in ("chatml", "model"):
        loaded = load(byte_tokenizer(tmp_path / "base", bos="<s>", unk="<unk>", template=GEMMA), template=name)
        loaded.save_pretrained(tmp_path / "final")
        final = AutoTokenizer.from_pretrained(tmp_path / "final")
        (sample,) = samples(loaded, CHAT)
        assert final.apply_chat_template(CHAT, return_dict=False) == list(sample.ids) and final.pad_token == loaded.pad_token
        prompt = final.apply_chat_template(CHAT[:3], add_generation_prompt=True, return_dict=False)
        assert prompt == list(sample.ids[: len(prompt)]) and sample.learned[len(prompt)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"pad": "<pad>"}, "<pad>"),
        ({"pad": "</s>", "unk": "<unk>"}, "<unk>"),
        ({"unk": "</s>", "special": ["<|reserved_special_token_0|>"]}, "<|reserved_special_token_0|>"),
        ({"bos": "</s>", "unk": "</s>", "pad": "</s>"}, "[PAD]"),
        ({"pad": "<|im_end|>", "special": ["<|im_start|>", "<|im_end|>"]}, "[PAD]"),
    ],
)
def test_pad_is_never_a_learned_token(tmp_path: Path, names: dict[str, Any], expected: str) -> None:
    loaded = load(byte_tokenizer(tmp_path, **names), template="chatml")
    assert loaded.pad_token == expected
    assert loaded.pad_token_id not in {*tokenizer.stop_token_ids(loaded), loaded.eos_token_id}
    assert loaded.pad_token_id not in samples(loaded, CHAT)[0].ids


def test_bos_is_never_doubled(tmp_path: Path) -> None:
    jinja = tmp_path / "twice.jinja"
    jinja.write_text("{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' }}{% endfor %}")
    loaded = load(byte_tokenizer(tmp_path / "model", bos="<s>", unk="<unk>"), template=str(jinja))
    ledger = Ledger()
    conversation = Conversation(tuple(Turn(m["role"], m["content"]) for m in CHAT), "row 1")
    assert not list(encode([conversation], Encoder(loaded, Prompt()), ledger)) and ledger.dropped == {"the bos token comes twice": 1}


def test_refused_models(tmp_path: Path) -> None:
    no_eos = byte_tokenizer(tmp_path / "no-eos", eos="", unk="<unk>")
    (tmp_path / "empty").mkdir()
    broken = byte_tokenizer(tmp_path / "broken")
    (broken / "tokenizer.json").write_text('{"version": ')
    for folder, template, words in [
        (no_eos, "chatml", "no end-of-text token"),
        (tmp_path / "empty", "chatml", "holds no tokenizer"),
        (broken, "chatml", "cannot be"),
        (tmp_path / "missing", "chatml", "is not a folder"),
        (byte_tokenizer(tmp_path / "base"), "model", "no chat template of its own"),
        (byte_tokenizer(tmp_path / "base"), "chatlm", "not known"),
        (byte_tokenizer(tmp_path / "base"), str(tmp_path / "none.jinja"), "cannot be read"),
    ]:
        with pytest.raises(RequestError) as error:
            load(folder, template=template)
        assert words in error.value.message and error.value.message.count("\n") == 0
    with pytest.raises(RequestError, match="someone/unknown-model"):
        tokenizer.load(Model(name="someone/unknown-model", revision=None), Prompt(template="chatml"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for m in messages %}\n{{ m['content'] }}\n{% if %}{% endfor %}", "bad.jinja:3: not valid Jinja"),
        ("line\n{{ messages[0].content.nothing.more }}", "bad.jinja:2: "),
        ("{{ 1 }}\n{{ 1 / 0 }}", "bad.jinja:2: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "bad.jinja:1: "),
        ("{{ messages.append(1) }}", "bad.jinja:1: "),
        ("{% for i in range(999999999) %}{% endfor %}", "bad.jinja:1: "),
        ("always the same", "does not write answers"),
        ("{% include '/etc/passwd' %}", "bad.jinja:1: "),
    ],
)
def test_bad_templates_name_file_and_line(tmp_path: Path, source: str, words: str) -> None:
    bad = tmp_path / "bad.jinja"
    bad.write_text(source)
    with pytest.raises(RequestError) as error:
        load(byte_tokenizer(tmp_path / "model"), template=str(bad))
    assert words in error.value.message


def test_what_a_template_refuses_is_a_bad_row_with_its_words(tmp_path: Path) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + GEMMA
    loaded = load(byte_tokenizer(tmp_path, unk="<unk>", template=strict), template="model")
    ledger = Ledger()
    chats = [
        Conversation((Turn("system", "S"), Turn("user", "Q"), Turn("assistant", "A")), "row 1"),
        Conversation((Turn("user", "Q"), Turn("assistant", "A")), "row 2"),
    ]
    assert len(list(encode(chats, Encoder(loaded, Prompt()), ledger))) == 1
    assert ledger.dropped == {"the template refuses it: System role not supported": 1} and ledger.bad == 1


# The real templates: what each adds around an answer is checked against random conversations. Those that take no plain chat are named.
NEEDS_TOOLS = {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja"}
CONTROL = r"<[|｜][^\s|｜'\"]{1,40}[|｜]>|<start_of_turn>|<end_of_turn>|<turn\|>|<\|turn>|\[/?INST\]"
ENDS_THOUGHTS_ALIKE = {"openai-gpt-oss-120b.jinja"}  # <|end|> also stands between thinking and answer, where generation goes on
HEADERS = {"openai-gpt-oss-120b.jinja": "<|channel|>final<|message|>", "Qwen-Qwen3-0.6B.jinja": "<think>\n\n</think>\n\n"}
WORDS = ["yes", "no", "🤗", "é", "日本", " ", "  ", "\n", "a", "user", "assistant", "{", "</p>", "1,000", "\t"]


def random_chat(random_source: random.Random) -> list[dict[str, Any]]:
    turns = random_source.randint(1, 4)
    return [
        {"role": role, "content": "x".join(random_source.choices(WORDS, k=random_source.randint(1, 12))) + random_source.choice(["", ".", " ", "\n"])}
        for _ in range(turns)
        for role in ("user", "assistant")
    ]


def real_templates() -> list[str]:
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "chat_templates"
    return sorted(path.name for path in folder.glob("*.jinja")) or ["none"]


@pytest.mark.parametrize("known", [True, False], ids=["its-tokens", "plain-text"])
@pytest.mark.parametrize("name", real_templates())
def test_real_templates(tmp_path: Path, shared_data: Path, name: str, known: bool) -> None:
    """With its control tokens in the tokenizer each answer ends as the template says, else with eos; all other tokens are masked."""
    source = (shared_data / "chat_templates" / name).read_text("utf-8")
    control = sorted(set(re.findall(CONTROL, source))) if known else []
    folder = byte_tokenizer(tmp_path, bos="<s>", pad="<pad>", special=control, template=source)
    loaded = load(folder, template="model")
    if name in NEEDS_TOOLS:
        (refused,) = Encoder(loaded, Prompt()).encode([Conversation((Turn("user", "Q"), Turn("assistant", "A")), "row 1")])
        assert isinstance(refused, BadRow) and "not iterable" in refused.reason
        return
    stops = {loaded.convert_ids_to_tokens(number) for number in tokenizer.stop_token_ids(loaded)}
    source_of_chance = random.Random(11)
    chats = [random_chat(source_of_chance) for _ in range(6)]
    for chat, sample in zip(chats, samples(loaded, *chats), strict=True):
        assert text(sample) == Renderer(loaded).render(chat)
        runs = _runs(sample)
        answers = [message["content"] for message in chat if message["role"] == "assistant"]
        assert len(runs) == len(answers)
        for run, answer in zip(runs, answers, strict=True):
            stop = next((stop for stop in stops if run.endswith(stop)), "")
            assert stop or (name in ENDS_THOUGHTS_ALIKE and run is not runs[-1])
            body = run.removesuffix(stop).removeprefix(HEADERS.get(name, ""))
            assert body.strip() == answer.strip()
        assert known or stops == {"</s>"} or "end" in "".join(stops)


def _runs(sample: Sample) -> list[str]:
    """The texts of the learned stretches."""
    runs, before = [], False
    for piece, is_learned in zip(sample.pieces, sample.learned, strict=True):
        if is_learned and not before:
            runs.append("")
        if is_learned:
            runs[-1] += piece
        before = bool(is_learned)
    return runs


@pytest.mark.parametrize("template", templates.OURS)
@pytest.mark.parametrize("model", ["tokenizers/smollm2", "tokenizers/gpt2", "models/stories260K-hf"])
def test_real_tokenizers(shared_data: Path, model: str, template: str) -> None:
    loaded = load(shared_data / model, template=template)
    source_of_chance = random.Random(5)
    chats = [random_chat(source_of_chance) for _ in range(20)]
    ends = templates.turn_ends(loaded)
    assert loaded.pad_token_id not in tokenizer.stop_token_ids(loaded)
    for chat, sample in zip(chats, samples(loaded, *chats), strict=True):
        whole, spans = mask.answers(Renderer(loaded), chat, (), ends.tokens, templates.special_tokens(loaded))
        assert text(sample) == whole and len(spans) == len(chat) // 2
        assert [run.strip() for run in _runs(sample)] == [whole[start:stop].strip() for start, stop in spans]
        assert sum(number in tokenizer.stop_token_ids(loaded) for number in sample.ids[sample.learned]) == len(chat) // 2
        assert list(sample.ids).count(loaded.bos_token_id) == whole.count(loaded.bos_token)


def test_smollm2_chatml_is_its_own(shared_data: Path) -> None:
    loaded = load(shared_data / "tokenizers" / "smollm2", template="chatml")
    (sample,) = samples(loaded, CHAT)
    assert learned(sample) == "Hello! How are you 🤗?<|im_end|>a<|im_end|>"
    own = load(shared_data / "tokenizers" / "smollm2", template="model")
    chat = [{"role": "system", "content": "S"}, *CHAT]
    assert list(samples(own, chat)[0].ids) == list(samples(loaded, chat)[0].ids)


def test_todays_date_is_not_in_the_tokens(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}" + GEMMA
    loaded = load(byte_tokenizer(tmp_path, unk="<unk>", template=dated), template="model")
    assert text(samples(loaded, CHAT)[0]).startswith("26 Jul 2024")
