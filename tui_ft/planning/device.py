"""Which device a run gets, and how much of its memory it may use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tui_ft import units
from tui_ft.errors import Problem
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.recipe.schema import Recipe, parse_bytes

BF16_SINCE = (8, 0)
"""Compute capability from which a GPU calculates in bf16 (Ampere)."""
DESKTOP_BYTES = 2**29
"""Kept free for a desktop on the same GPU: its windows come and go while a training lasts."""

_DESKTOP = ("xorg", "xwayland", "gnome-shell", "kwin", "plasmashell", "mutter", "sway", "hyprland", "weston", "cinnamon", "xfwm")


@dataclass
class Device:
    """The one GPU of a run with `free_bytes` as it may be used, or None for the CPU; and what there is to say about the choice."""

    gpu: GpuReading | None
    reason: str
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def choose(recipe: Recipe, machine: Hardware, gpu_memory: int | None) -> Device:
    """The freest of the GPUs that the recipe allows, its free memory as assumed (`gpu_memory`), reserved and limited."""
    device = _freest(recipe, machine)
    if gpu_memory is not None:
        _assume(device, gpu_memory)
    elif device.gpu is not None and (desktop := _desktop_on(device.gpu)):
        device.reason += f"; {units.size(DESKTOP_BYTES)} of it stay with the desktop ({desktop})"
        device.gpu = replace(device.gpu, free_bytes=max(0, device.gpu.free_bytes - DESKTOP_BYTES))
    limit = recipe.hardware.memory_limit
    if device.gpu is not None and limit is not None and parse_bytes(limit) < device.gpu.free_bytes:
        device.reason += f"; hardware.memory_limit leaves {limit} of its memory"
        device.gpu = replace(device.gpu, free_bytes=parse_bytes(limit))
    return device


def _freest(recipe: Recipe, machine: Hardware) -> Device:
    wanted = recipe.hardware.gpus
    present = {gpu.index: gpu for gpu in machine.gpus}
    problems, warnings = [], []
    if wanted != "auto" and present:
        missing = [index for index in wanted if index not in present]
        if missing:
            known = ", ".join(map(str, present))
            problems.append(Problem("hardware.gpus", f"there is no GPU {missing[0]}", f"The GPUs here are {known}; auto takes the freest."))
        present = {index: gpu for index, gpu in present.items() if index in wanted}
    if not present:
        if wanted != "auto" and not machine.gpus:
            warnings.append("hardware.gpus names GPUs, but there is none here: training runs on the CPU.")
        return Device(None, machine.note or "no GPU: training runs on the CPU", warnings, problems)
    gpu = max(present.values(), key=lambda g: (g.free_bytes, -g.index))
    among = "the chosen" if wanted != "auto" else "all"
    if wanted != "auto" and len(wanted) > 1:
        warnings.append(f"A run trains on one GPU: of those in hardware.gpus it takes {gpu.index}.")
    reason = f"GPU {gpu.index} has the most free memory of {among} ({units.size(gpu.free_bytes)} of {units.size(gpu.total_bytes)})"
    return Device(gpu, reason, warnings, problems)


def _assume(device: Device, free: int) -> None:
    device.reason = f"{units.size(free)} of free memory is assumed, as asked"
    gpu = device.gpu
    if gpu is None:
        device.warnings.append("There is no such GPU here: one that calculates in bf16 is assumed.")
        gpu = GpuReading(0, "", "assumed GPU", BF16_SINCE, free, free, None, None, None)
    device.gpu = replace(gpu, free_bytes=free, total_bytes=max(free, gpu.total_bytes))


def _desktop_on(gpu: GpuReading) -> str:
    """The program by which a desktop is known to use this GPU; empty without one."""
    names = (process.name for process in gpu.processes)
    return next((known for name in names for known in _DESKTOP if name.lower().startswith(known)), "")
