"""A driver that answers from a recording: what NVML said of real cards, question by question, and how it refuses the rest.

In this process: `install(monkeypatch, A100_IN_SLICES)`. In children: `install_for_children(folder, monkeypatch)`, then `tell(folder, recording)` as
often as the readings change. A question that a recording does not answer is "not supported"; one in `missing` is unknown to that driver.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

GIB, MIB = 2**30, 2**20
NOT_SUPPORTED, NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, LOST, MISMATCH = 3, 6, 9, 12, 13, 15, 18

T4: dict[str, Any] = {
    "driver": "550.54.15",
    "cards": [
        {
            "uuid": "GPU-5b2e", "name": "Tesla T4", "total": 15360 * MIB, "free": 14913 * MIB, "capability": [7, 5], "utilisation": 0,
            "temperature": 41, "power_mw": 9_540, "cores": 2560, "clock_mhz": 1590, "compute": [], "graphics": [], "mig": None,
        }
    ],
}  # fmt: skip
"""A data centre's card with nobody on it; MIG is a question that it does not know."""
RTX_WITH_A_DESKTOP: dict[str, Any] = {
    "driver": "535.183.01",
    "cards": [
        {
            "uuid": "GPU-9c41", "name": "NVIDIA GeForce RTX 3080", "total": 10240 * MIB, "free": 9219 * MIB, "capability": [8, 6], "utilisation": 7,
            "temperature": 52, "power_mw": 38_210, "cores": 8704, "clock_mhz": 2100,
            "compute": [[2931, 148 * MIB]], "graphics": [[1204, 412 * MIB], [1502, 96 * MIB], [2931, 148 * MIB]],
        }
    ],
}  # fmt: skip
"""A desktop draws on it; its browser computes as well, and is listed twice."""
A100_IN_SLICES: dict[str, Any] = {
    "driver": "535.104.05",
    "cards": [
        {
            "uuid": "GPU-a100", "name": "NVIDIA A100-SXM4-80GB", "total": 81920 * MIB, "free": 42 * GIB, "capability": [8, 0], "temperature": 38,
            "power_mw": 71_300,
            "mig": [
                {"uuid": "MIG-3g", "name": "NVIDIA A100-SXM4-80GB MIG 3g.40gb", "total": 40192 * MIB, "free": 40155 * MIB, "capability": [8, 0]},
                {
                    "uuid": "MIG-1g", "name": "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "total": 9728 * MIB, "free": 9715 * MIB,
                    "compute": [[4_194_302, 2 * GIB]],
                },
                None,
            ],
        }
    ],
}  # fmt: skip
"""Slices tell neither load nor heat, one of these not its capability; the third slot is empty."""
OLD_DRIVER: dict[str, Any] = {
    "driver": "470.57.02",
    "missing": ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetNumGpuCores"],
    "cards": [
        {
            "uuid": "GPU-1080", "name": "NVIDIA GeForce GTX 1080 Ti", "total": 11178 * MIB, "free": 3041 * MIB, "capability": [6, 1],
            "temperature": 71, "clock_mhz": 1911, "compute": [[4_194_301, 8 * GIB]], "throttled": 0x40,
        }
    ],
}  # fmt: skip
"""Older than the package that asks it: of the lists of processes it knows the second version alone."""


def two_cards(*, lost: int | None = None) -> dict[str, Any]:
    """Two plain cards; the one named has fallen off the bus."""
    cards = [{"uuid": f"GPU-{index}abc", "name": "Card", "total": 100, "free": 40, "power_mw": 61_500, "lost": index == lost} for index in range(2)]
    return {"driver": "550", "cards": cards}


class NVMLError(Exception):
    """What NVML raises for everything; `value` is its code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """What the Python package raises, beside all others, where the driver does not know the newest form of a question."""


class Recorded(ModuleType):
    """Stands for the module `pynvml`."""

    NVMLError, NVMLLibraryMismatchError = NVMLError, NVMLLibraryMismatchError
    NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_NO_PERMISSION = LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED, 4
    NVML_ERROR_LIB_RM_VERSION_MISMATCH, NVML_DEVICE_MIG_ENABLE, NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = MISMATCH, 1, 0, 1

    def __init__(self, recording: Callable[[], dict[str, Any]]) -> None:
        super().__init__("pynvml")
        self.recording = recording

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def answer(*arguments: Any) -> Any:
            recording = self.recording()
            if name in recording.get("missing", ()):
                raise NVMLLibraryMismatchError(f"use {name}_v2") if "Running" in name else NVMLError(FUNCTION_NOT_FOUND)
            return _ANSWERS.get(name, _unsupported)(recording, *arguments)

        return answer


def _unsupported(*_: Any) -> Any:
    raise NVMLError(NOT_SUPPORTED)


def _init(recording: dict[str, Any]) -> None:
    if recording.get("fails"):
        raise NVMLError(recording["fails"])


def _handle(recording: dict[str, Any], index: int) -> tuple[int, ...]:
    if recording["cards"][index].get("lost"):
        raise NVMLError(LOST)
    return (index,)


def _device(recording: dict[str, Any], handle: tuple[int, ...]) -> dict[str, Any]:
    card = recording["cards"][handle[0]]
    return dict(card["mig"][handle[1]] if len(handle) > 1 else card)


def _mig_mode(recording: dict[str, Any], handle: tuple[int, ...]) -> list[int]:
    mig = _device(recording, handle).get("mig")
    return _unsupported() if mig is None else [1, 1]


def _slice(recording: dict[str, Any], handle: tuple[int, ...], slot: int) -> tuple[int, ...]:
    slices = recording["cards"][handle[0]]["mig"]
    if slot >= len(slices) or slices[slot] is None:
        raise NVMLError(NOT_FOUND)
    return (*handle, slot)


def _fact(key: str, shape: Callable[[Any], Any] = lambda value: value) -> Callable[..., Any]:
    def answer(recording: dict[str, Any], handle: tuple[int, ...], *_: Any) -> Any:
        value = _device(recording, handle).get(key)
        return _unsupported() if value is None else shape(value)

    return answer


def _processes(listed: list[list[int]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed]


def _memory(recording: dict[str, Any], handle: tuple[int, ...]) -> SimpleNamespace:
    device = _device(recording, handle)
    return SimpleNamespace(total=device["total"], free=device["free"], used=device["total"] - device["free"])


_ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlInit": _init,
    "nvmlSystemGetDriverVersion": lambda recording: recording["driver"],
    "nvmlDeviceGetCount": lambda recording: len(recording["cards"]),
    "nvmlDeviceGetHandleByIndex": _handle,
    "nvmlDeviceGetMigMode": _mig_mode,
    "nvmlDeviceGetMaxMigDeviceCount": lambda recording, handle: 7,
    "nvmlDeviceGetMigDeviceHandleByIndex": _slice,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetUUID": _fact("uuid"),
    "nvmlDeviceGetName": _fact("name", str.encode),
    "nvmlDeviceGetCudaComputeCapability": _fact("capability", tuple),
    "nvmlDeviceGetUtilizationRates": _fact("utilisation", lambda value: SimpleNamespace(gpu=value, memory=0)),
    "nvmlDeviceGetTemperature": _fact("temperature"),
    "nvmlDeviceGetPowerUsage": _fact("power_mw"),
    "nvmlDeviceGetNumGpuCores": _fact("cores"),
    "nvmlDeviceGetMaxClockInfo": _fact("clock_mhz"),
    "nvmlDeviceGetCurrentClocksThrottleReasons": _fact("throttled"),
    "nvmlDeviceGetComputeRunningProcesses": _fact("compute", _processes),
    "nvmlDeviceGetGraphicsRunningProcesses": _fact("graphics", _processes),
    "nvmlDeviceGetComputeRunningProcesses_v2": _fact("compute", _processes),
    "nvmlDeviceGetGraphicsRunningProcesses_v2": _fact("graphics", _processes),
}


def install(monkeypatch: Any, recording: dict[str, Any]) -> None:
    """From here on this process asks the recording."""
    monkeypatch.setitem(sys.modules, "pynvml", Recorded(lambda: recording))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def install_for_children(folder: Path, monkeypatch: Any) -> None:
    """From here on children with `folder` on their PYTHONPATH ask what `tell` last wrote there."""
    (folder / "pynvml.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\nimport recorded_nvml\nrecorded_nvml.stand_in()\n"
    )
    monkeypatch.setenv("NVML_RECORDING", str(folder / "nvml.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def tell(folder: Path, recording: dict[str, Any]) -> None:
    staged = folder / "nvml.new"
    staged.write_text(json.dumps(recording))
    staged.replace(folder / "nvml.json")


def stand_in() -> None:
    """In a child, at its import of `pynvml`."""
    sys.modules["pynvml"] = Recorded(lambda: dict(json.loads(Path(os.environ["NVML_RECORDING"]).read_text())))
