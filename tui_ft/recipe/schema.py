"""The recipe: every setting of a run, as it stands in a YAML file.

Each field's description is what the wizard shows as help: its meaning, its unit and its trade-off.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

PLAIN_TEXT = "text"
BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str | int) -> int:
    """`"6GB"` → 6_000_000_000, `"10GiB"` → 10 · 2³⁰, `"1024"` → 1024.

    Raises:
        ValueError: `text` is not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?)b?\s*", str(text).lower())
    if not match or match[2] not in BYTES:
        raise ValueError(f"{text!r} is not a size; write it as 6GB or 10GiB")
    return int(float(match[1]) * BYTES[match[2]])


SET = "set in the recipe"
"""The reason for a value that a person gave."""


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors, and no value is silently turned into another type."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class Model(Section):
    name: Annotated[str, Field(min_length=1)] = Field(
        description="The model to start from: a Hugging Face Hub id such as microsoft/phi-2, or a local folder."
    )
    revision: str | None = Field(None, description="A branch, tag or commit of the Hub repository; empty takes the main branch.")


class Data(Section):
    source: Annotated[str, Field(min_length=1)] = Field(
        description="What to learn from: a Hub dataset id, a file (jsonl, json, csv, parquet, txt), or a folder of them."
    )
    config: str | None = Field(None, description="The configuration (subset) of a Hub dataset that has several.")
    split: Annotated[str, Field(min_length=1)] = Field(
        "train", description="The split to train on, as the dataset names it; slices such as train[:80%] work."
    )
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt-completion", "text", "oasst"] = Field(
        "auto", description="How a row holds its conversation. auto looks at the columns and says what it found and why."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Which column plays which part, only where auto cannot tell, e.g. instruction: question, output: answer.",
    )
    languages: list[str] = Field(
        default_factory=list, description="Language codes to keep, e.g. en, es. Empty keeps all. Regional codes fold: pt-BR counts as pt."
    )
    language_column: str = Field("auto", description="The column that names a row's language; auto looks for one, detect reads the text itself.")
    oasst: Literal["best", "all"] = Field(
        "best",
        description="From a message tree: the best-ranked answer at each turn (one conversation a tree), or all paths (more rows, weaker answers).",
    )
    max_bad_rows: Fraction = Field(0.01, description="Share of unusable rows, 0 to 1, above which the run is refused before it starts.")
    validation: Fraction | Annotated[str, Field(min_length=1)] = Field(
        0.05, description="What the validation loss is measured on: a share of the conversations, 0 to 1 (0: none), or the name of a split."
    )
    max_rows: PositiveInt | None = Field(None, description="Use at most so many conversations, chosen by the seed; empty uses all.")


class Prompt(Section):
    template: Annotated[str, Field(min_length=1)] = Field(
        "model",
        description="How a conversation becomes text: model (its own chat template), chatml, alpaca, human-assistant, text, or a .jinja file. "
        "A chat model learns best in the form it already knows.",
    )
    learn: Literal["assistant", "all"] = Field(
        "assistant", description="Which tokens enter the loss: only the assistant's turns with their end, or every token. Plain text learns all."
    )
    max_length: Annotated[int, Field(ge=8)] = Field(
        2048, description="Longest sample in tokens. Memory for activations grows with it; what is longer is handled by overlong."
    )
    overlong: Literal["truncate", "drop", "split"] = Field(
        "truncate", description="What happens to longer samples: cut at the end, left out, or (plain text only) cut into blocks that all train."
    )
    add_tokens: bool = Field(
        False,
        description="Turn the template's markers into new tokens, trained and saved (larger adapter, needs data), or leave them as plain text with eos ending a turn.",
    )


class Method(Section):
    kind: Literal["full", "last-layers", "lora"] = Field(
        "lora",
        description="What is trained: all weights (most memory), the last n layers, or small LoRA adapters beside frozen weights (least memory).",
    )
    quantization: Literal["none", "int8", "nf4"] = Field(
        "none",
        description="How the frozen base weights are held: as they are, in 8 bits, or in 4 bits (NF4, the QLoRA form: about a quarter of the memory, slower).",
    )
    double_quantization: bool = Field(True, description="Quantize the NF4 scales as well: 0.05 bytes a parameter less, no measurable loss.")
    variant: Literal["lora", "rslora", "dora"] = Field(
        "lora", description="lora; rslora scales by the root of r, steadier at high r; dora also learns magnitudes: better at low r, slower."
    )
    layers: PositiveInt | None = Field(
        None, description="How many of the last transformer layers are trained (kind last-layers), with the final norm and the head."
    )
    r: PositiveInt = Field(16, description="Rank of the LoRA adapters: higher learns more and costs more. 8 to 64 is usual.")
    alpha: PositiveInt = Field(32, description="LoRA's scale: adapters are multiplied by alpha / r. Twice r is a common choice.")
    dropout: Fraction = Field(0.05, description="Dropout on the adapters' input, 0 to 1: a little helps small datasets, 0 is faster.")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="Which linear layers get adapters: all but the head, or a list of module names such as q_proj, v_proj."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Method:
        if self.kind != "lora" and self.quantization != "none":
            raise ValueError("quantized weights cannot be trained themselves: kind must be lora, or quantization none")
        if self.kind == "last-layers" and self.layers is None:
            raise ValueError("kind last-layers needs layers: how many of the last layers to train")
        return self


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = Field(1, description="How often the whole dataset is seen. 1 to 3 is usual; more tends to memorise.")
    max_steps: PositiveInt | None = Field(None, description="Stop after so many optimizer steps; wins over epochs.")
    effective_batch: PositiveInt = Field(
        16, description="Sequences per optimizer step over all GPUs. The learning rate goes with it; memory does not."
    )
    micro_batch: PositiveInt | Auto = Field(
        "auto", description="Sequences per forward pass on one GPU: memory grows with it, the result does not change. auto takes what safely fits."
    )
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = Field(
        2e-4, description="Step size. About 2e-4 for LoRA, 2e-5 for full training; too high diverges, too low learns nothing."
    )
    schedule: str = Field(
        "cosine", description="How the learning rate moves after warm-up: linear, cosine, constant, or another of transformers' names."
    )
    warmup: Annotated[float, Field(ge=0)] = Field(
        0.03, description="Steps over which the learning rate rises: below 1 a share of all steps, else a number of steps."
    )
    optimizer: str = Field(
        "auto",
        description="auto, or one of transformers' names such as adamw_torch_fused, paged_adamw_8bit (8-bit states save memory in full training).",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="Number format of the computation. auto: bf16 where the GPU has it, else fp16; fp32 on a CPU."
    )
    activation_checkpointing: bool | PositiveInt | Literal["auto", "offload"] = Field(
        "auto",
        description="Recompute activations instead of keeping them: much less memory, about a third slower. A number does it for every n-th layer.",
    )
    packing: bool | Auto = Field("auto", description="Put several short samples into one row: no padding, much faster on short data.")
    length_grouped: bool | Auto = Field(
        "auto", description="Make batches of samples of like length, in random order: little padding where samples are not packed."
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Pull of the weights towards zero per step; 0 to 0.1.")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="Gradients longer than this are shortened to it; 0 switches clipping off.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="Same seed, same data order, same adapters at the start.")

    @field_validator("micro_batch", "effective_batch", "max_steps", "seed", mode="before")
    @classmethod
    def _no_booleans(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("needs a whole number, not true or false")
        return value

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        return _one_of(value, SCHEDULES)

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return _one_of(value, OPTIMIZERS)

    @field_validator("warmup")
    @classmethod
    def _whole_steps(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("below 1 it is a share of the steps, from 1 up a whole number of steps")
        return value


class Evaluate(Section):
    every: PositiveInt | Literal["epoch", "never"] = Field(
        "epoch", description="How often the validation loss is measured: every n steps, epoch, or never."
    )
    early_stopping: PositiveInt | None = Field(
        None, description="Stop after so many evaluations without improvement, and take the best weights for the final model."
    )
    samples: list[str] = Field(default_factory=list, description="Prompts answered by the model at each evaluation, to read how it changes.")


class Checkpoints(Section):
    every: PositiveInt | Literal["epoch"] = Field(
        100, description="How often a checkpoint is written: every n steps, or epoch. A crash costs the work since the last one."
    )
    keep: PositiveInt = Field(2, description="How many of the newest are kept; the best one by validation loss is kept besides.")
    zip: bool = Field(False, description="Also write each checkpoint as one ZIP file, easy to copy away (twice the disk).")


class Log(Section):
    every: PositiveInt = Field(10, description="Steps between two lines of the log; the loss chart has every step.")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        default_factory=list, description="Also report to these services, with the credentials found in the environment."
    )


class Hardware(Section):
    gpus: Auto | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        "auto", description="Which GPUs may be used, by number; auto takes the one with the most free memory."
    )
    memory_limit: str | None = Field(None, description="Most memory to use per GPU, e.g. 6GB, so that others keep room.")

    @field_validator("memory_limit")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bytes(value)
        return value


class Output(Section):
    dir: str | None = Field(None, description="A folder that gets a copy of the final model; the run keeps its own.")
    push_to_hub: str | None = Field(None, description="A Hub repository id that gets the final model, with the token of your Hub login.")
    merge: bool = Field(False, description="Merge the adapter into the base weights for the final model: larger, but runs without peft.")


class Recipe(Section):
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "my-run", description="Name of this recipe: letters, digits, dot, dash, underscore. Runs are named after it."
    )
    about: str = Field("", description="One line on what it is for and what it needs.")
    model: Model
    data: Data
    prompt: Prompt = Field(default_factory=Prompt)
    method: Method = Field(default_factory=Method)
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    log: Log = Field(default_factory=Log)
    hardware: Hardware = Field(default_factory=Hardware)
    output: Output = Field(default_factory=Output)
    version: Literal[1] = Field(1, description="Version of this file format.")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.prompt.overlong == "split" and self.prompt.template != PLAIN_TEXT:
            raise ValueError("prompt.overlong split is for plain text only: a conversation cannot be cut into blocks; use truncate or drop")
        micro, whole = self.train.micro_batch, self.train.effective_batch
        if micro != "auto" and whole % micro:
            raise ValueError(f"train.effective_batch {whole} is not a multiple of train.micro_batch {micro}")
        if self.evaluate.early_stopping and (self.evaluate.every == "never" or self.data.validation == 0):
            raise ValueError("evaluate.early_stopping needs a validation set and evaluations: set data.validation and evaluate.every")
        return self


# transformers' names, kept here because reading them there would load torch into the terminal (a test compares them).
SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
)  # fmt: skip
OPTIMIZERS = (
    "auto", "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "adamw_anyprecision",
    "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit",
    "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
    "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw",
    "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise",
    "lomo", "adalomo", "grokadamw", "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw",
    "apollo_adamw_layerwise", "stable_adamw",
)  # fmt: skip


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=3)
        raise ValueError(f"{value!r} is not known" + (f"; did you mean {' or '.join(near)}?" if near else f"; one of {', '.join(allowed)}"))
    return value
