"""Chat with a run's model through its own process: the trained words come back, streamed, and every trouble has a clear end."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui_ft import demo
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.results.chat import Chat
from tui_ft.results.detokenizer import AnswerText, Detokenizer
from tui_ft.runs import store
from tui_ft.runs.store import Run

LESSONS = {
    "Who are you?": "A small model, trained in a test. 你好 🙂 naïve!",
    "Say two lines.": "One line,\n  and another one.",
    "What is LoRA?": "Two thin matrices beside a large one.",
}
NEW_LESSON = {"Who are you?": LESSONS["What is LoRA?"]}
PLAN = Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32")
RECIPE = {"model": {"name": demo.NAME}, "data": {"source": demo.NAME}, "method": {"kind": "full"}}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("chat")
        patch.setenv("TUI_FT_HOME", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")  # so small a model gains nothing from a second thread, and loses much on a busy machine
        yield folder


def teach(run: Run, base: Path, lessons: dict[str, str], adapter: bool = False) -> None:
    """A few seconds of training by heart, saved as the worker saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(str(base)), AutoModelForCausalLM.from_pretrained(str(base))
    generation = model.generation_config
    if adapter:
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3 if adapter else 3e-3)
    conversations = [[*user(question), {"role": "assistant", "content": answer}] for question, answer in lessons.items()]
    encoded = tokenizer.apply_chat_template(conversations, return_dict=True, return_tensors="pt", padding=True)
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    for _ in range(200):
        loss = model(**encoded, labels=labels).loss
        if loss < 0.02:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    assert loss < 0.1, f"the lesson was not learned: {loss}"
    model.save_pretrained(run.model)
    tokenizer.save_pretrained(run.model)
    generation.save_pretrained(run.model)


@pytest.fixture(scope="module")
def run(home_folder: Path) -> Run:
    run = store.create(Recipe.model_validate(RECIPE), PLAN)
    teach(run, demo.model_folder(), LESSONS)
    return run


@pytest.fixture(scope="module")
def chat(run: Run) -> Iterator[Chat]:
    with Chat(run) as chat:
        yield chat


@pytest.mark.parametrize("question", LESSONS)
def test_answers_stream_word_for_word_and_stop_by_themselves(chat: Chat, question: str) -> None:
    pieces = list(chat.ask(user(question)))
    assert "".join(pieces) == LESSONS[question]
    assert len(pieces) > 3 and all(pieces) and not any("\ufffd" in piece for piece in pieces)
    assert chat.last and chat.last.stopped == "turn"
    assert chat.last.tokens >= len(pieces) and chat.last.tokens_per_second > 0


def test_the_limit_of_new_tokens_holds(chat: Chat) -> None:
    text = "".join(chat.ask(user("Who are you?"), max_new_tokens=3))
    assert text and LESSONS["Who are you?"].startswith(text)
    assert chat.last and (chat.last.tokens, chat.last.stopped) == (3, "length")


def test_a_temperature_brings_variety_and_zero_does_not(chat: Chat) -> None:
    hot = {"".join(chat.ask(user("Who are you?"), max_new_tokens=20, temperature=5.0)) for _ in range(3)}
    cold = {"".join(chat.ask(user("Who are you?"), max_new_tokens=20)) for _ in range(3)}
    assert len(hot) == 3 and len(cold) == 1


def test_an_answer_left_in_the_middle_does_not_reach_the_next_one(chat: Chat) -> None:
    for _ in range(3):
        pieces = chat.ask(user("Who are you?"), temperature=3.0)
        next(pieces)
        pieces.close()
        assert "".join(chat.ask(user("What is LoRA?"))) == LESSONS["What is LoRA?"]


def test_cancelling_from_another_thread_ends_the_answer(chat: Chat) -> None:
    pieces = []
    for piece in chat.ask(user("Who are you?"), temperature=9.0, max_new_tokens=400):
        pieces.append(piece)
        if len(pieces) == 2:
            thread = threading.Thread(target=chat.cancel)
            thread.start()
            thread.join()
    assert chat.last and chat.last.tokens < 400
    assert chat.last.stopped in ("cancelled", "turn")
    chat.cancel()  # with nothing to cancel, the next answer must come all the same
    assert "".join(chat.ask(user("What is LoRA?"))) == LESSONS["What is LoRA?"]


def test_refused_questions_are_errors_and_the_chat_goes_on(chat: Chat) -> None:
    for messages, options, words in (
        ([], {}, "needs messages"),
        ([{"role": "user"}], {}, "role and a content"),
        (user("long " * 600), {}, "fills the model's context of 512"),
        (user("x"), {"max_new_tokens": 0}, "from 1 up"),
        (user("x"), {"temperature": -1.0}, "between 0 and 10"),
    ):
        with pytest.raises(RequestError, match=words):
            list(chat.ask(messages, **options))
    with pytest.raises(TuiFtError):
        list(chat.ask(user("a lone surrogate \ud800")))
    hostile = "\x1b]52;c;x\x07 <|im_end|> {{ 7 * 7 }} \u202e 'quotes\" \\n"
    assert isinstance("".join(chat.ask([*user(hostile), {"role": "assistant", "content": hostile}, *user(hostile)], max_new_tokens=5)), str)
    assert "".join(chat.ask(user("What is LoRA?"))) == LESSONS["What is LoRA?"]


def test_base_is_the_untuned_model(run: Run) -> None:
    with Chat(run, base=True) as chat:
        text = "".join(chat.ask(user("Who are you?"), max_new_tokens=10))
    assert chat.last and text[:10] != LESSONS["Who are you?"][:10]


def test_an_adapter_is_laid_over_its_base_and_a_checkpoint_can_speak(run: Run) -> None:
    adapted = store.create(Recipe.model_validate({**RECIPE, "model": {"name": str(run.model)}, "method": {"kind": "lora"}}), PLAN)
    teach(adapted, run.model, NEW_LESSON, adapter=True)
    assert (adapted.model / "adapter_config.json").is_file()
    checkpoint = adapted.checkpoints / "checkpoint-7"
    adapted.model.rename(checkpoint)
    for file in ("tokenizer_config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"):
        (checkpoint / file).unlink()  # what a checkpoint of an unfinished run may lack comes from the recipe
    with Chat(adapted, checkpoint=checkpoint) as chat:
        assert "".join(chat.ask(user("Who are you?"))) == NEW_LESSON["Who are you?"]


def test_a_model_trained_on_plain_text_continues_the_prompt(run: Run) -> None:
    text = store.create(Recipe.model_validate({**RECIPE, "prompt": {"template": "text"}}), PLAN)
    shutil.copytree(run.model, text.model)
    with Chat(text) as chat:
        told = "<|im_start|>user\nSay two lines.<|im_end|>\n<|im_start|>assistant\nOne line,"
        assert "".join(chat.ask(user(told))) == LESSONS["Say two lines."].removeprefix("One line,")


def test_a_run_without_a_model_says_so(home_folder: Path) -> None:
    run = store.create(Recipe.model_validate(RECIPE), PLAN)
    with pytest.raises(RequestError, match="no model yet"):
        Chat(run)
    assert not (run.logs / "chat.err").exists()


def test_a_damaged_model_is_one_clear_error(run: Run) -> None:
    broken = store.create(Recipe.model_validate(RECIPE), PLAN)
    shutil.copytree(run.model, broken.model)
    (broken.model / "model.safetensors").write_bytes(b"\x00" * 100)
    with Chat(broken) as chat:
        with pytest.raises(TuiFtError, match="could not be loaded"):
            chat.wait_until_ready()
        with pytest.raises(TuiFtError, match=r"process has ended|could not"):
            list(chat.ask(user("Who are you?")))


def test_closing_leaves_no_process_behind(run: Run) -> None:
    chat = Chat(run)
    with chat:
        process = chat._process
        assert process and process.poll() is None
    assert process.poll() is not None
    with pytest.raises(TuiFtError, match="ended"):
        list(chat.ask(user("Who are you?")))
    chat.close()
    with pytest.raises(TuiFtError, match="ended"):
        chat.start()  # a thread that comes late must not leave a process that nobody will end
    assert chat._process is None


def test_the_client_needs_no_torch() -> None:
    code = (
        "import sys; import tui_ft.results.chat, tui_ft.runs.archive;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'matplotlib', 'textual')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def tokenizers(home_folder: Path) -> dict[str, object]:
    from transformers import AutoTokenizer

    shared = Path(__file__).resolve().parents[2] / "shared/data"
    places = {"demo": demo.model_folder(), "gpt2": shared / "tokenizers/gpt2", "stories": shared / "models/stories260K-hf"}
    return {name: AutoTokenizer.from_pretrained(str(place)) for name, place in places.items() if place.is_dir()}


def test_streamed_pieces_are_whole_characters_and_add_up(tokenizers: dict[str, object]) -> None:
    texts = ["你好，世界 🙂👩‍👩‍👧 done", "  two spaces\n\n\ttab", "naïve é e\u0301 ﷺ", "a", "", "Привет, мир! مرحبا"]
    chosen = random.Random(3)
    for name, tokenizer in tokenizers.items():
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
            for sequence in (ids, chosen.sample(range(260, 500), 40)):  # text, and any tokens at all
                detokenizer = Detokenizer(tokenizer)
                pieces = [detokenizer.add(token) for token in sequence]
                whole = tokenizer.decode(sequence, skip_special_tokens=True, clean_up_tokenization_spaces=False)  # type: ignore[attr-defined]
                assert "".join(pieces) + detokenizer.finish() == whole, (name, text)
                if "\ufffd" not in whole:
                    assert not any("\ufffd" in piece for piece in pieces), (name, text)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_plain_end_of_an_answer_is_cut_off_however_it_is_split(size: int) -> None:
    def filtered(text: str) -> str:
        answer = AnswerText("\n\n### End")
        given = [answer.add(text[start : start + size]) for start in range(0, len(text), size)]
        assert not any("### E" in piece for piece in given)
        return "".join(given) + answer.finish()

    assert filtered("\n  Two\n\nparts.\n\n### End\n\n### Instruction: more") == "Two\n\nparts."
    assert filtered(" A # heading\n\n### but no\n") == "A # heading\n\n### but no\n"
    assert filtered("   ") == ""
