"""Whether a model keeps the documents of a packed row apart, and with which attention: tried on the very model, since nothing else can tell."""

from __future__ import annotations

import sys

import torch
from transformers import PreTrainedModel

from tui_ft.modeling import varlen

LENGTHS = (11, 17, 9)
"""Tokens of the documents that are tried: of different lengths, none of them a round number."""
TOLERANCE = {torch.float32: 1e-4}
"""The largest share of the largest logit by which packed and single documents may differ."""
COARSE = 5e-2
"""The same in 16 bits, and above quantized weights."""


def isolate(model: PreTrainedModel, vocabulary: int, *, need: str = "") -> str | None:
    """Give `model` an attention under which packed documents cannot read one another, the fastest first: its name.

    None where they read one another under each; the model's attention is then what it was.

    Args:
        need: `varlen`, where the rows are so long that a dense mask over one would cost more memory and time than padding.
    """
    before = str(model.config._attn_implementation)
    names = [name for name, known in ((varlen.NAME, knows_attention_by_name(model)), (before, need != varlen.NAME)) if known]
    for name in names:
        if name == varlen.NAME:
            varlen.register()
        model.set_attn_implementation(name)
        if not is_leaking(model, vocabulary):
            return name
    model.set_attn_implementation(before)
    return None


def can_pack(model: PreTrainedModel) -> bool:
    """Whether varlen attention can be tried at all, as far as the model's structure tells: it knows no soft cap and no sinks in the scores."""
    config = model.config.get_text_config()
    has_sinks = any(name.endswith(".sinks") for name, _ in model.named_parameters())
    return knows_attention_by_name(model) and getattr(config, "attn_logit_softcapping", None) is None and not has_sinks


def knows_attention_by_name(model: PreTrainedModel) -> bool:
    """Whether the model's code looks its attention up among the registered ones; older families have a fixed choice."""
    return hasattr(sys.modules[type(model).__module__], "ALL_ATTENTION_FUNCTIONS")


def is_leaking(model: PreTrainedModel, vocabulary: int) -> bool:
    """Whether documents packed into one row read one another: four small forwards, with all that the trainer's collator tells of them.

    With the usual attention a family keeps them apart only if it passes position ids on; OPT and Falcon, for example, do not.
    """
    place = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, vocabulary, (1, length), generator=generator).to(place) for length in LENGTHS]
    ends = torch.tensor([0, *LENGTHS], device=place).cumsum(0).to(torch.int32)
    told = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": max(LENGTHS), "max_length_k": max(LENGTHS)}
    positions = torch.cat([torch.arange(length, device=place) for length in LENGTHS])[None]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = model(input_ids=torch.cat(documents, 1), position_ids=positions, use_cache=False, **told).logits.float()
            alone = torch.cat([model(input_ids=document, use_cache=False).logits for document in documents], 1).float()
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        return True  # it does not even take position ids, or this attention is not for it, or has no kernel for this GPU
    finally:
        model.train(was_training)
    return float((packed - alone).abs().max()) > TOLERANCE.get(model.dtype, COARSE) * float(alone.abs().max())
