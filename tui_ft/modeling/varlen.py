"""Attention over packed rows: each document attends to itself alone, at the cost of its own length, by torch's own kernel.

A dense mask over a packed row costs the square of the whole row. Here the documents' boundaries, which the collator
gives as `cu_seq_lens_q`, go to FlashAttention's variable-length form (`torch.nn.attention.varlen`, in torch itself since
2.11); where that cannot be used (a CPU, fp32, dropout) each document goes through the usual kernel by itself.
What is not packed goes the usual way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "varlen"
"""The attention implementation under which it is registered."""
WIDEST_HEAD = 256
"""The kernel takes no wider ones."""


def register() -> None:
    """Make `attn_implementation="varlen"` known to transformers; twice does no harm."""
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, varlen_mask)


def varlen_mask(batch_size: int, q_length: int, kv_length: int, *args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
    """No mask for rows without padding, whose documents are told by their lengths; the usual one for all else."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, *args, attention_mask=attention_mask, **kwargs)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    Args:
        query: (1, heads, tokens, width) of a packed row; key and value may have fewer heads, each shared by a group.
        sliding_window: a token sees so many, itself included.
        cu_seq_lens_q: where the documents begin, and the end of the last: (documents + 1).
        max_length_q: tokens of the longest document.
        position_ids: begin anew at each document; what families go by that hand nothing else on. Looked at once a batch: a wait for the GPU.

    Returns:
        (1, tokens, heads, width), and no weights.

    Raises:
        ValueError: a term in the scores that no kernel here knows (soft cap, sinks).
    """
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("this model's attention has a term that packed rows cannot be given (soft cap or sinks)")
    tokens = query.shape[2]
    if attention_mask is not None or tokens != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if query.shape[0] == 1 and cu_seq_lens_q is None and position_ids is not None:
        cu_seq_lens_q, max_length_q = _ends(position_ids)
    if query.shape[0] == 1 and cu_seq_lens_q is not None and not _suits_kernel(query, dropout):
        spans = pairwise(cu_seq_lens_q.tolist())
        parts = [_one(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], dropout, scaling, sliding_window) for a, b in spans]
        return torch.cat(parts, 2).transpose(1, 2).contiguous(), None
    if cu_seq_lens_q is None or query.shape[0] > 1:
        return _one(query, key, value, dropout, scaling, sliding_window).transpose(1, 2).contiguous(), None
    return _by_kernel(query, key, value, scaling, sliding_window, cu_seq_lens_q, max_length_q), None


def _ends(positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where documents begin and the last ends, and the tokens of the longest; kept with the tensor, which every layer is given."""
    known: tuple[torch.Tensor, int] | None = getattr(positions, "_document_ends", None)
    if known is None:
        row = positions.reshape(-1)
        starts = (row == row.min()).nonzero().view(-1)
        ends = torch.cat([starts, starts.new_tensor([len(row)])]).to(torch.int32)
        known = ends, int(ends.diff().max())
        positions._document_ends = known  # type: ignore[attr-defined]
    return known


def _suits_kernel(query: torch.Tensor, dropout: float) -> bool:
    return query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= WIDEST_HEAD and not dropout


def _by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, window: int | None, ends: torch.Tensor, longest: int | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    ends = ends.to(query.device, torch.int32)
    longest = longest or int(ends.diff().max())
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))  # (tokens, heads, width)
    reach = (window - 1, 0) if window else (-1, 0)
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=reach, enable_gqa=q.shape[1] != k.shape[1])
    return out[None]  # type: ignore[index]


def _one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float, scaling: float | None, window: int | None) -> torch.Tensor:
    """Causal attention over whole rows, none of them padded: (rows, heads, tokens, width)."""
    groups, length = q.shape[1] // k.shape[1], q.shape[2]
    if window and length > window:
        seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril_().triu_(1 - window)
        k, v = repeat_kv(k, groups), repeat_kv(v, groups)  # shared heads and a mask together would leave the fast kernels
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, scale=scaling)
    return scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=groups > 1)
