"""A run's model made ready to answer: weights, tokenizer, template and stop tokens as they were in training."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from tui_ft.data import templates
from tui_ft.data import tokenizer as prepared_tokenizer
from tui_ft.data.conversations import BadRow
from tui_ft.data.encoding import Encoder
from tui_ft.data.rendering import render_errors
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.modeling.load import load_model
from tui_ft.recipe.schema import PLAIN_TEXT, Model, Prompt
from tui_ft.results.detokenizer import AnswerText, Detokenizer
from tui_ft.runs.store import Run
from tui_ft.text import one_line

Message = dict[str, str]


class Speaker:
    """Answers conversations with one model."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, generation: GenerationConfig, plain_text: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.generation = generation
        self.plain_text = plain_text
        """Trained on plain text: the last message is continued, there are no turns."""

    def answer(
        self, messages: list[Message], new_tokens: int, temperature: float, on_text: Callable[[str], None], is_cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """Write the next turn, piece by piece.

        Args:
            new_tokens: the most to write; fewer where the model's context ends.
            temperature: 0 takes the likeliest token each time.
            on_text: called with each piece.
            is_cancelled: asked after each token.

        Returns:
            The closing line of the protocol: tokens written, tokens a second, why it stopped.

        Raises:
            RequestError: the template refuses the conversation, or it fills the context.
        """
        prompt = self._encode(messages)
        room = self._context() - len(prompt)
        if room < 1:
            raise RequestError(f"the conversation has {len(prompt)} tokens and fills the model's context of {self._context()}", "Start a new one.")
        streamer = _Streamer(Detokenizer(self.tokenizer), self._answer_text(), on_text, stop_ids=set(self._stop_ids()))
        inputs = torch.tensor([prompt], device=self.model.device)
        started = time.monotonic()
        with torch.inference_mode():
            self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=self._generation_config(min(new_tokens, room), temperature),
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([_StopWhen(lambda: streamer.at_stop or is_cancelled())]),
            )
        seconds = max(time.monotonic() - started, 1e-6)
        stopped = "turn" if streamer.at_stop else "cancelled" if is_cancelled() else "length"
        return {"done": True, "tokens": streamer.tokens, "tokens_per_second": round(streamer.tokens / seconds, 2), "stopped": stopped}

    def _encode(self, messages: list[Message]) -> list[int]:
        if self.plain_text:
            ids: list[int] = self.tokenizer(messages[-1]["content"])["input_ids"]
            if ids and ids[-1] in self._stop_ids():
                ids = ids[:-1]  # some tokenizers end every text with eos: that would end the answer before it begins
            return ids or [self._start_id()]
        try:
            return Encoder(self.tokenizer, Prompt()).prompt_ids(messages)
        except (BadRow, *render_errors()) as error:  # type: ignore[misc]
            raise RequestError(f"the chat template refuses this conversation: {one_line(error, 200)}") from error

    def _answer_text(self) -> AnswerText | None:
        """None for plain text, whose spaces all count."""
        return None if self.plain_text else AnswerText(templates.turn_ends(self.tokenizer).plain.rstrip())

    def _start_id(self) -> int:
        tokenizer = self.tokenizer
        return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)

    def _context(self) -> int:
        config = self.model.config
        return int(next((size for name in ("max_position_embeddings", "n_positions", "seq_length") if (size := getattr(config, name, None))), 1024))

    def _stop_ids(self) -> list[int]:
        ids = self.generation.eos_token_id
        return ids if isinstance(ids, list) else [] if ids is None else [ids]

    def _generation_config(self, new_tokens: int, temperature: float) -> GenerationConfig:
        config = copy.deepcopy(self.generation)
        config.max_length, config.max_new_tokens = None, new_tokens
        config.do_sample = temperature > 0
        config.temperature = temperature or None
        if not config.do_sample:
            config.top_p = config.top_k = None
        config.pad_token_id = self.tokenizer.pad_token_id
        return config


class _Streamer(BaseStreamer):
    """Takes the tokens that `generate` chooses: first the prompt, then one at a time."""

    def __init__(self, detokenizer: Detokenizer, answer: AnswerText | None, on_text: Callable[[str], None], stop_ids: set[int]) -> None:
        self.tokens = 0
        self.at_stop = False
        self._detokenizer, self._answer, self._on_text, self._stop_ids = detokenizer, answer, on_text, stop_ids
        self._past_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if not self._past_prompt:
            self._past_prompt = True
            return
        token_id = int(value.flatten()[-1])
        self.at_stop = token_id in self._stop_ids
        if not self.at_stop:
            self.tokens += 1
            self._send(self._detokenizer.add(token_id))

    def end(self) -> None:
        self._send(self._detokenizer.finish())
        if self._answer and (held := self._answer.finish()):
            self._on_text(held)

    def _send(self, piece: str) -> None:
        if self._answer:
            piece = self._answer.add(piece)
            self.at_stop = self.at_stop or self._answer.ended
        if piece:
            self._on_text(piece)


class _StopWhen(StoppingCriteria):
    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        return torch.full((input_ids.shape[0],), self._condition(), dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def load_speaker(folder: Path, *, base: bool = False, checkpoint: Path | None = None) -> Speaker:
    """The final model of the run in `folder`, one of its checkpoints, or the model it started from with the run's own template.

    Raises:
        RequestError: the run has no model yet, or the checkpoint is not there.
        TuiFtError: damaged files, or a base model that cannot be loaded.
    """
    run = Run(folder)
    recipe = run.recipe()
    trained = checkpoint or run.model
    if not base and not trained.is_dir():
        raise RequestError(f"{one_line(trained)} is not there", "A run's model is written when the run ends.")
    finished = next((place for place in (trained, run.model) if (place / "tokenizer_config.json").is_file()), None)
    tokenizer = AutoTokenizer.from_pretrained(str(finished)) if finished else prepared_tokenizer.load(recipe.model, recipe.prompt)
    model = _base_model(run, len(tokenizer)) if base else _trained_model(run, trained, len(tokenizer))
    model.config.use_cache = True
    model.eval()
    generation = GenerationConfig.from_pretrained(str(finished)) if finished and (finished / "generation_config.json").is_file() else None
    if generation is None or generation.eos_token_id is None:
        generation = copy.deepcopy(model.generation_config or GenerationConfig())
        generation.eos_token_id = prepared_tokenizer.stop_token_ids(tokenizer)
    return Speaker(model, tokenizer, generation, plain_text=recipe.prompt.template == PLAIN_TEXT)


def _base_model(run: Run, vocabulary: int) -> PreTrainedModel:
    recipe, consent = run.recipe(), run.record().get("trust_remote_code") or {}
    return load_model(
        recipe.model,
        precision=_precision(run),
        quantization=recipe.method.quantization,
        double_quantization=recipe.method.double_quantization,
        vocabulary=vocabulary,
        vocabulary_multiple=1,
        consent=consent,
    )


def _trained_model(run: Run, folder: Path, vocabulary: int) -> PreTrainedModel:
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        base = _base_model(run, vocabulary)
        try:
            return PeftModel.from_pretrained(base, str(folder))  # type: ignore[return-value]
        except (OSError, ValueError, RuntimeError) as error:
            raise TuiFtError(f"the adapter in {folder} could not be loaded: {one_line(error, 400)}") from error
    commit = (run.record().get("trust_remote_code") or {}).get(run.recipe().model.name)
    return load_model(Model(name=str(folder), revision=None), precision=_precision(run), consent={str(folder): commit} if commit else None)


def _precision(run: Run) -> str:
    """As trained; without a GPU, numbers of 16 bits are slower than those of 32."""
    return run.plan().precision if torch.cuda.is_available() else "fp32"
