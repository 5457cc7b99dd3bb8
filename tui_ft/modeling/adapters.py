"""What of a model is trained: everything, its last layers, or LoRA adapters beside frozen weights."""

from __future__ import annotations

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils.other import TrainableTokensWrapper
from torch import nn
from transformers import PreTrainedModel

from tui_ft.errors import TuiFtError
from tui_ft.modeling import fused_lora
from tui_ft.modeling.structure import last_layers
from tui_ft.recipe.schema import Method


def make_trainable(
    model: PreTrainedModel, method: Method, new_tokens: list[int], *, checkpointing: bool = False, fused: bool = False
) -> PreTrainedModel | PeftModel:
    """Freeze and unfreeze as the method says. Trained weights are fp32 whatever the frozen ones are.

    fp32 because a bf16 weight swallows small updates: at a learning rate of 2e-5 two thirds of a LoRA matrix would not move.

    Args:
        new_tokens: ids whose embedding rows are new and must learn, also where all else is frozen.
        checkpointing: activations will be recomputed, which needs gradients at the embedding's output.
        fused: adapters are added to their layer's output in one pass, where that is known how (`fused_lora`).

    Raises:
        TuiFtError: targets or layers that the model does not have.
    """
    if method.kind == "full":
        model.requires_grad_(True)
        return model.float()
    if method.kind == "last-layers":
        _train_last_layers(model, method.layers or 1)
        return model
    if checkpointing:
        model.enable_input_require_grads()
    adapted = _with_lora(model, method, new_tokens)
    if fused:
        fused_lora.fuse(adapted)
    return adapted


def _train_last_layers(model: PreTrainedModel, count: int) -> None:
    try:
        trained = last_layers(model, count)
    except ValueError as error:
        raise TuiFtError(f"method.layers: {error}", "Choose fewer, or method.kind lora or full.") from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
        if name in trained:
            parameter.data = parameter.data.float()


def _with_lora(model: PreTrainedModel, method: Method, new_tokens: list[int]) -> PeftModel:
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=method.targets,
        use_rslora=method.variant == "rslora",
        use_dora=method.variant == "dora",
        trainable_token_indices=_rows_to_train(model, new_tokens) if new_tokens else None,
        bias="none",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        if "target modules" not in str(error).lower():
            raise
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)})
        raise TuiFtError(f"method.targets {method.targets} are not in this model", f"Its linear layers are {', '.join(names)}.") from error
    head = adapted.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):  # trl's fused head reads the bias that peft hides
        head.bias = getattr(head.original_module, "bias", None)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _rows_to_train(model: PreTrainedModel, tokens: list[int]) -> list[int] | dict[str, list[int]]:
    """Rows of the embedding, and of the head where it has its own: a token whose head row stays as it was made is hard to learn to say.

    A head with a bias keeps its rows: peft would leave the bias out of every logit.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embedding.weight or getattr(head, "bias", None) is not None:
        return tokens
    return {name: tokens for name, module in model.named_modules() if module is embedding or module is head}


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters; packed 4-bit weights count as the weights they stand for."""
    if isinstance(model, PeftModel):
        trainable, everything = model.get_nb_trainable_parameters()
        return everything, trainable
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
