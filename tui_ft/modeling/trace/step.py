"""One step of our trainer on one batch: forward, loss, backward, clipping, optimizer, and an evaluation of the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate.utils import convert_outputs_to_fp32
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from tui_ft.modeling.load import DTYPES
from tui_ft.modeling.structure import structure
from tui_ft.modeling.trace.setup import Setup


class Meter(Protocol):
    """Watches a step: told when each part of it begins, and what its tensors are for."""

    in_backward: bool

    def segment(self, *names: str, part: str = "activations") -> None: ...

    def tag(self, tensor: torch.Tensor | None, part: str, like: Sequence[int] | None = None) -> None: ...


@dataclass(frozen=True)
class Options:
    """How a step departs from our trainer's, to repeat what others have measured."""

    autocast: bool = True
    fused_head: bool = True
    evaluation: bool = True
    prepare: Callable[[nn.Module], None] = lambda _: None
    """Changes the model before the step."""


def run(model: Any, setup: Setup, meter: Meter, *, rows: int, length: int, padded: bool, period: int, options: Options | None = None) -> None:
    """Train `model` for one step in its steady state, with the optimizer's state in place as after the first step.

    Args:
        padded: the attention is given a mask, as for several rows of different lengths.
        period: layers after which the kinds of layers repeat; that many at each end are told apart.
    """
    options = options or Options()
    device = next(model.parameters()).device
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    options.prepare(model)
    _enable_recomputation(model, setup)
    if options.fused_head:
        add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _tag_model(model, meter, lora=setup.kind == "lora")
    optimizer = _optimizer(model, setup, device)
    _fill_state(optimizer, parameters, meter)
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(lambda done: meter.tag(done.grad, "gradients", tuple(done.shape)))
    marks = _Marks(base, meter, period, setup)
    forward = _forward_of(model, setup, device, options)
    batch = _batch(rows, length, device, padded)
    with _offloading(setup, meter):
        meter.segment("forward: embeddings")
        loss, outputs = forward(batch)
        marks.backward()
        loss.backward()
        del loss, outputs
    marks.end_backward()
    meter.segment("clipping", part="optimizer")
    if setup.clipping:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    meter.segment("optimizer step", part="optimizer")
    optimizer.step()
    meter.segment()
    optimizer.zero_grad(set_to_none=True)
    if options.evaluation:
        model.eval()
        marks.evaluation()
        with torch.no_grad():
            forward(batch)
        meter.segment()


def _enable_recomputation(model: Any, setup: Setup) -> None:
    if setup.every:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False}, every_n_layers=setup.every)


def _tag_model(model: nn.Module, meter: Meter, *, lora: bool) -> None:
    for parameter in model.parameters():
        meter.tag(parameter, "adapters" if lora and parameter.requires_grad else "weights")
    for buffer in model.buffers():
        meter.tag(buffer, "weights")
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            outer = [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            for tensor in (state.absmax, state.code, *outer):
                meter.tag(tensor, "weights")
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if isinstance(scales, torch.Tensor):
            meter.tag(scales, "weights")


def _optimizer(model: nn.Module, setup: Setup, device: torch.device) -> torch.optim.Optimizer:
    """The trainer's optimizer, with and without weight decay as the trainer groups them."""
    arguments = TrainingArguments(output_dir="unused", optim=setup.optimizer, use_cpu=True, report_to="none")
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    if setup.device == "cuda" and device.type == "cpu" and issubclass(kind, torch.optim.AdamW | torch.optim.SGD) and not settings.get("fused"):
        settings["foreach"] = True  # the default where there is a GPU; needs a copy of a whole group
    decayed = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    named = [(name in decayed, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [{"params": [p for decays, p in named if decays == wanted], "weight_decay": 0.0} for wanted in (True, False)]
    with unset_fake_temporarily():  # bitsandbytes looks at the values of its tables
        return kind([group for group in groups if group["params"]], **settings)  # type: ignore[no-any-return]


def _fill_state(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], meter: Meter) -> None:
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                meter.tag(value, "optimizer", tuple(parameter.shape) if value.numel() > 1 else None)


def _batch(rows: int, length: int, device: torch.device, padded: bool) -> dict[str, torch.Tensor]:
    shape = {"size": (rows, length), "dtype": torch.long, "device": device}
    batch = {"input_ids": torch.zeros(**shape), "labels": torch.zeros(**shape)}
    if padded:
        batch["attention_mask"] = torch.ones(**shape)
        if not isinstance(batch["attention_mask"], FakeTensor):
            batch["attention_mask"][1:, -1] = 0  # a mask that masks nothing would be left out
    return batch


def _forward_of(model: Any, setup: Setup, device: torch.device, options: Options) -> Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, Any]]:
    """The loss of a batch, as trl's `compute_loss` makes it from a model that accelerate has wrapped, and what stays until the backward pass."""
    half = setup.precision != "fp32" and options.autocast

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, DTYPES[setup.precision]) if half else nullcontext()

    def forward(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
        with autocast():
            if not options.fused_head:
                outputs = model(**batch, use_cache=False)
                return outputs.loss, outputs
            outputs = model(**batch, use_cache=False, fused_lm_head=True)
            if half:
                outputs = convert_outputs_to_fp32(lambda: outputs)()
            return (-outputs.log_probs).sum() / torch.as_tensor(batch["labels"].numel()).clamp(min=1), None

    return forward


class _Marks:
    """Tells the meter which layer a step is in."""

    def __init__(self, base: Any, meter: Meter, period: int, setup: Setup) -> None:
        parts = structure(base)
        layers = base.get_submodule(parts.layers)
        self.meter = meter
        self.count = len(layers)
        self.period = period
        self.first_trained = self.count - setup.layers if setup.kind == "last-layers" and setup.layers else None
        self.mode = "forward"
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(self._entered(index), with_kwargs=True)
            layer.register_forward_hook(self._left(index))

    def backward(self) -> None:
        self.mode, self.meter.in_backward = "backward", True
        self.meter.segment("backward: head", part="head")

    def end_backward(self) -> None:
        self.mode, self.meter.in_backward = "", False

    def evaluation(self) -> None:
        self.mode = "evaluation"
        self.meter.segment("evaluation: embeddings")

    def _entered(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self.mode in ("forward", "evaluation"):
                self.meter.segment(*self._at_end(self.mode, index))
            if self.mode == "forward" and index == 0:
                hidden = args[0] if args else kwargs["hidden_states"]
                if hidden.requires_grad:
                    hidden.register_hook(lambda _: self.meter.segment("backward: embeddings"))

        return hook

    def _left(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.mode in ("forward", "evaluation") and index == self.count - 1:
                self.meter.segment("head" if self.mode == "forward" else "evaluation: head", part="head")
            hidden = output[0] if isinstance(output, tuple) else output
            if self.mode == "forward" and hidden.requires_grad:
                hidden.register_hook(lambda _: self.meter.segment(*self._in_backward(index)))

        return hook

    def _at_end(self, mode: str, index: int) -> list[str]:
        back = self.count - index
        return [f"{mode}: {_from_end(back)}"] if back <= self.period else []

    def _in_backward(self, index: int) -> list[str]:
        """Several names for a layer that is near both ends."""
        names = self._at_end("backward", index)
        if index < self.period:
            names.append(f"backward: {'first layer' if index == 0 else f'layer {index + 1}'}")
        if self.first_trained is not None and 0 <= index - self.first_trained < self.period:
            names.append("backward: first trained layer" + (f" + {index - self.first_trained}" if index > self.first_trained else ""))
        return names


def _from_end(back: int) -> str:
    return "last layer" if back == 1 else f"layer {back} from the end"


@contextmanager
def _offloading(setup: Setup, meter: Meter) -> Iterator[None]:
    with ExitStack() as entered:
        if setup.activation_checkpointing == "offload":
            from tui_ft.modeling.trace.offload import Offloading

            entered.enter_context(Offloading())
        yield
