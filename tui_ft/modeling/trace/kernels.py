"""CUDA's ways on fake CPU tensors: which operators run in fp32, what kernels keep for the backward pass, what they need for themselves.

Fake tensors on a CUDA device abort where there is no CUDA, so the trace runs on fake CPU tensors and only counts as CUDA would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.attention.varlen
import torch.nn.functional as F
import trl.kernels.chunked_logprob
import trl.trainer.utils

from tui_ft.modeling import varlen
from tui_ft.modeling.trace.patching import Patches
from tui_ft.modeling.trace.tracker import Tracker

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_IN_FP32: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (F, ("layer_norm", "rms_norm", "log_softmax", "cross_entropy", "nll_loss", "softplus")),
    (torch, ("pow", "rsqrt", "reciprocal", "exp", "log", "cumsum", "norm")),
    (torch.Tensor, ("pow", "__pow__", "rsqrt", "reciprocal", "exp", "log", "cumsum", "norm")),
)
"""What CUDA's autocast computes in fp32 and the CPU's does not, as far as models use it (torch: autocast op reference)."""


def use_cuda(patches: Patches, tracker: Tracker) -> None:
    """Let models, trl's head and attention allocate as their CUDA kernels do."""
    _autocast_as_cuda(patches)
    patches.set(F, "scaled_dot_product_attention", attention)
    patches.set(torch.nn.attention.varlen, "varlen_attn", _varlen)
    patches.set(varlen, "_suits_kernel", lambda query, dropout: query.dtype in _HALF and query.shape[-1] <= varlen.WIDEST_HEAD and not dropout)
    patches.set(varlen, "_ends", lambda positions: (torch.empty(2, dtype=torch.int32), positions.shape[-1]))
    patches.set(F, "dropout", _dropout)
    patches.set(F, "softmax", _softmax)
    for owner in (torch, torch.Tensor):
        patches.set(owner, "softmax", _softmax)
    # trl's Triton kernels work inside a tile that is there already; so does cuBLAS, adding bf16 products to an fp32 sum
    patches.set(trl.kernels.chunked_logprob, "_forward_tile", lambda *_, **__: None)
    patches.set(trl.kernels.chunked_logprob, "_backward_tile", lambda *_, **__: None)
    patches.set(trl.kernels.chunked_logprob, "_addmm_fp32", lambda *_: None)
    patches.set(trl.trainer.utils, "_use_triton", lambda _: True)  # scores only the labelled positions; here all are
    tracker.rewrites |= {aten.index.Tensor: _index, aten.masked_select.default: _masked_select, aten.masked_scatter_backward.default: _scattered}
    tracker.workspaces |= {
        aten._softmax_backward_data.default: _product,
        aten._index_put_impl_.default: _sorting,
        aten.index_put_.default: _sorting,
        aten.masked_scatter.default: _counting,
        aten.embedding_dense_backward.default: _ordering,
    }


def _autocast_as_cuda(patches: Patches) -> None:
    """Wraps the functions themselves: a mode for functions is not active where autograd computes a dropped layer again."""

    def full(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALF else value

    def in_fp32(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if torch.is_autocast_enabled("cpu"):
                args, kwargs = tuple(full(value) for value in args), {key: full(value) for key, value in kwargs.items()}
            return function(*args, **kwargs)

        return wrapped

    for owner, names in _IN_FP32:
        for name in names:
            patches.set(owner, name, in_fp32(getattr(owner, name)))


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input  # keeps a mask of bytes


def _softmax(input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> torch.Tensor:
    if dtype is None and torch.is_autocast_enabled("cpu"):
        dtype = torch.float32
    if input.dtype == torch.float16 and dtype == torch.float32:
        return torch._softmax(input, dim, True)  # fused: no copy of the input in fp32
    return torch._softmax(input if dtype in (None, input.dtype) else input.to(dtype), dim, False)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot product attention by FlashAttention, or by the memory-efficient kernel where there is a mask, fp32 or a wide head."""
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(half), key.to(half), value.to(half)
    width = query.shape[-1]
    flash = FORCED_KERNEL != "efficient" and attn_mask is None and query.dtype in _HALF and width <= 256
    if flash and width % 8:
        query, key, value = (F.pad(tensor, (0, 8 - width % 8)) for tensor in (query, key, value))
    bias = None if attn_mask is None else _bias(attn_mask, query.dtype)
    if enable_gqa and not flash:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    out: torch.Tensor = _Attention.apply(query, key, value, bias, flash)
    return out[..., :width] if flash and width % 8 else out


FORCED_KERNEL = ""
"""`efficient` on GPUs that FlashAttention does not know (compute capability below 8.0)."""


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as the kernel adds it to the scores: in the dtype of the query, its rows aligned to 16 bytes."""
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros_like(mask, dtype=dtype)
        bias.masked_fill_(mask.logical_not(), float("-inf"))
    return bias.clone() if bias.shape[-1] % 8 else bias


def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Attention over the documents of one packed row: (tokens, heads, width). It keeps what FlashAttention keeps."""
    out: torch.Tensor = _Attention.apply(*(tensor.transpose(0, 1)[None] for tensor in (query, key, value)), None, True)
    return out[0].transpose(0, 1)


class _Attention(torch.autograd.Function):
    """Allocates what the fused kernels allocate: the output, a log-sum for each row, and in the backward pass sums in fp32."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, flash: bool) -> torch.Tensor:
        rows, heads, length, width = query.shape
        out = torch.empty(rows, length, heads, width, dtype=query.dtype).transpose(1, 2)
        log_sums = torch.empty(rows, heads, length, dtype=torch.float32)
        ctx.flash = flash
        ctx.save_for_backward(query, key, value, out, log_sums, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, *_ = ctx.saved_tensors
        rows, heads, length, width = query.shape
        keys, others = key.shape[1], key.shape[2]

        def empty(*shape: int, dtype: torch.dtype = query.dtype) -> torch.Tensor:
            return torch.empty(*shape, dtype=dtype)

        grads = [empty(rows, size, count, width).transpose(1, 2) for size, count in ((length, heads), (others, keys), (others, keys))]
        sums = empty(rows, heads, length, dtype=torch.float32)
        summed = empty(rows, length, heads, -(-width // 32) * 32, dtype=torch.float32)
        expanded = [empty(rows, others, heads, width) for _ in range(2)] if ctx.flash and keys != heads else []  # summed over each group
        del sums, summed, expanded
        return (*grads, None, None)


def _index(value: torch.Tensor, indices: list[torch.Tensor | None]) -> torch.Tensor:
    """Rows chosen by a mask that chooses all of them; the kernel lists the places first."""
    mask = indices[0]
    if mask is None or mask.dtype != torch.bool:
        return aten.index.Tensor(value, indices)  # type: ignore[no-any-return]
    _places(mask)
    return torch.empty(mask.numel(), *value.shape[mask.ndim :], dtype=value.dtype)


def _places(mask: torch.Tensor) -> torch.Tensor:
    return torch.empty(mask.numel(), mask.ndim, dtype=torch.int64)


def _masked_select(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    _places(mask)
    return torch.empty(mask.numel(), dtype=value.dtype)


def _scattered(grad: torch.Tensor, mask: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    return torch.empty(*sizes, dtype=grad.dtype)


def _sorting(value: torch.Tensor, indices: list[torch.Tensor | None], *_: Any, **__: Any) -> list[torch.Tensor]:
    """The places as one list, sorted, and the order they had."""
    count = max((index.numel() for index in indices if index is not None), default=0)
    return [torch.empty(count, dtype=torch.int64) for _ in range(3)]


def _product(grad: torch.Tensor, *_: Any) -> list[torch.Tensor]:
    """Gradient times output, before it is summed."""
    return [torch.empty_like(grad)]


def _counting(value: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> list[torch.Tensor]:
    """How many places come before each one."""
    return [torch.empty(mask.shape, dtype=torch.int64)]


def _ordering(grad: torch.Tensor, indices: torch.Tensor, *_: Any) -> list[torch.Tensor]:
    """The tokens sorted, where they stood, how often each comes, and room to sort in."""
    return [torch.empty_like(indices) for _ in range(4)]
