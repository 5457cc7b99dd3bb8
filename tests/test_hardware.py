"""The reading of the hardware: real drivers' answers, replayed, and what each of them leaves out."""

from __future__ import annotations

import sys

import pytest
import recorded_nvml as recorded

from tui_ft import hardware
from tui_ft.runs import devices
from tui_ft.tui.wizard.training import machine_content


def test_this_machine_can_be_read() -> None:
    read = hardware.read()
    assert read.cpus >= 1 and 0 < read.ram_free <= read.ram_total
    assert bool(read.gpus) != bool(read.note)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (recorded.LIBRARY_NOT_FOUND, "no driver is installed"),
        (recorded.DRIVER_NOT_LOADED, "not loaded"),
        (recorded.MISMATCH, "reboot after the update"),
    ],
)
def test_no_driver_is_normal_and_said(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    recorded.install(monkeypatch, {"fails": code})
    read = hardware.read()
    assert read.gpus == () and words in read.note and "CPU" in read.note
    assert hardware.throttling() == ((), None) and hardware.held_by(1) is None


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py is missing" in hardware.read().note


def test_an_idle_card_tells_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.install(monkeypatch, recorded.T4)
    read = hardware.read()
    (card,) = read.gpus
    assert (card.name, card.capability, card.total_bytes, card.free_bytes) == ("Tesla T4", (7, 5), 15360 * 2**20, 14913 * 2**20)
    assert (card.utilisation, card.temperature, card.power_watts, card.cores, card.clock_mhz) == (0, 41, 9.54, 2560, 1590)
    assert card.processes == () and read.driver == "550.54.15" and read.note == ""


def test_who_draws_and_computes_is_named_once_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.install(monkeypatch, recorded.RTX_WITH_A_DESKTOP)
    (card,) = hardware.read().gpus
    assert [(process.pid, process.memory_bytes) for process in card.processes] == [(1204, 412 * 2**20), (2931, 148 * 2**20), (1502, 96 * 2**20)]
    assert hardware.held_by(2931) == 148 * 2**20 and hardware.held_by(1) is None
    assert "412.0 MiB" in devices.holders(card)[0]
    assert "9.0 GiB free of 10.0 GiB, 7 % busy" in machine_content(hardware.read()).plain


def test_slices_stand_for_their_card_and_tell_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.install(monkeypatch, recorded.A100_IN_SLICES)
    large, small = hardware.read().gpus
    assert (large.index, large.uuid, large.name) == (0, "MIG-3g", "NVIDIA A100-SXM4-80GB MIG 3g.40gb")
    assert (large.capability, large.utilisation, large.temperature, large.cores) == ((8, 0), None, None, None)
    assert (small.index, small.uuid, small.capability, small.processes[0].user) == (1, "MIG-1g", None, "")


def test_a_driver_older_than_the_package_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.install(monkeypatch, recorded.OLD_DRIVER)
    (card,) = hardware.read().gpus
    assert (card.name, card.cores, card.clock_mhz, card.utilisation) == ("NVIDIA GeForce GTX 1080 Ti", None, 1911, None)
    assert card.processes[0].memory_bytes == 8 * 2**30
    assert hardware.throttling() == (("it is far too hot",), 71)


def test_a_lost_card_does_not_hide_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.install(monkeypatch, recorded.two_cards(lost=0))
    assert [(gpu.index, gpu.uuid) for gpu in hardware.read().gpus] == [(0, "GPU-1abc")]
    recorded.install(monkeypatch, {"driver": "550", "cards": [{"lost": True}]})
    assert "none that can be read" in hardware.read().note


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("1", ["GPU-1abc"]), ("1,0", ["GPU-1abc", "GPU-0abc"]), ("GPU-1", ["GPU-1abc"]), ("0,9,1", ["GPU-0abc"]), ("", []), ("-1", [])],
)
def test_only_visible_cards_count(monkeypatch: pytest.MonkeyPatch, setting: str, expected: list[str]) -> None:
    recorded.install(monkeypatch, recorded.two_cards())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    read = hardware.read()
    assert [gpu.uuid for gpu in read.gpus] == expected and [gpu.index for gpu in read.gpus] == list(range(len(expected)))
    assert bool(expected) or "CUDA_VISIBLE_DEVICES" in read.note
