"""The head of the dashboard: which run, its state, how far it is, and the newest thing to know."""

from __future__ import annotations

from textual.content import Content

from tui_ft import text, units
from tui_ft.hardware import GpuReading
from tui_ft.runs.summary import Summary
from tui_ft.tui.text import line
from tui_ft.tui.widgets import run_line

STAGES = {
    "start": "starting",
    "download": "downloading",
    "read": "reading the data",
    "prepare": "preparing the data",
    "languages": "detecting languages",
    "tokenize": "tokenizing the data",
    "write": "writing the samples",
    "load": "loading the model",
}


def short(summary: Summary) -> str:
    """A run in a terminal's title: `42% demo-20260314-092653 · tui-ft`."""
    done = f"{100 * min(1.0, summary.step / summary.total_steps):.0f}%" if summary.total_steps and summary.is_live else summary.state
    return f"{done} {summary.run} · tui-ft"


def title(summary: Summary, width: int) -> Content:
    """The run's id on the left, its state on the right."""
    state = run_line.state(summary.state)
    room = max(0, width - len(state.plain) - 2)
    return Content.assemble((run_line.middle(text.one_line(summary.run), room).ljust(room + 2), "bold"), state)


def progress(summary: Summary, stage: tuple[int, int | None], width: int) -> Content:
    """A bar with the step, the epoch, the speed and the time left.

    Args:
        stage: done and total of what is done before the first step.
    """
    if summary.state == "starting" and not summary.step:
        done, total = stage
        what = STAGES.get(summary.stage, summary.stage or "starting")
        words = f" {what}" + (f" · {summary.stage_pace}" if summary.stage_pace else "")
    else:
        done, total = summary.step, summary.total_steps
        facts = [f"step {done:,}/{total:,}".replace(",", " ") if total else f"step {done}"]
        facts += [f"{100 * min(1.0, done / total):.0f} %"] if total else []
        facts += [f"epoch {summary.epoch:.2f}"] if summary.epoch else []
        facts += [f"{left(summary)} left"] if summary.eta_seconds is not None else []
        words = " " + " · ".join(facts)
    room = max(4, width - len(words))
    return Content.assemble(run_line.bar(done, total, room), line(words, width))


def left(summary: Summary) -> str:
    """`12 min 20 s ± 40 s`; an error of a twentieth or less is not worth its cells."""
    error = summary.eta_error_seconds or 0.0
    told = units.duration(summary.eta_seconds)
    return f"{told} ± {units.duration(error)}" if summary.eta_seconds and error > max(1.0, summary.eta_seconds / 20) else told


def notice(summary: Summary, alert: str, asked: str, width: int) -> Content:
    """One line: what was asked and became of it, else why the run failed, else an alert, else the run in figures."""
    if asked:
        return line(asked, width, "$accent")
    if summary.state in ("failed", "lost"):
        return line(f"! {summary.reason or summary.state}", width, "bold $error")
    if alert:
        return line(f"! {alert}", width, "bold $error")
    facts = [summary.reason] if summary.reason else []
    if summary.first_loss is not None and summary.last_loss is not None:
        facts.append(f"loss {summary.first_loss:.4g} → {summary.last_loss:.4g}")
    facts += [f"best validation {summary.best_eval_loss:.4g}"] if summary.best_eval_loss is not None else []
    facts += [f"{units.count(summary.tokens)} tokens"] if summary.tokens else []
    facts += [peak(summary)] if summary.peak_memory_bytes else []
    return line(" · ".join(facts), width, "$foreground 65%")


def peak(summary: Summary) -> str:
    """The most memory that was held, beside what was forecast: `memory 9.1 of 10.4 GiB forecast`."""
    measured, forecast = units.size(summary.peak_memory_bytes), summary.forecast_bytes
    if not forecast:
        return f"memory {measured}"
    if summary.forecast_tier == "lower-bound":
        return f"memory {measured}, at least {units.size(forecast)} forecast"
    number, _, unit = measured.partition(" ")
    shown = units.size(forecast)
    return f"memory {number if shown.endswith(f' {unit}') else measured} of {shown} forecast"


def gpu(reading: GpuReading) -> str:
    """A GPU in a few words: use, heat, memory, power, as far as the driver tells."""
    used = f"{units.size(reading.total_bytes - reading.free_bytes)} of {units.size(reading.total_bytes)}"
    facts = [(reading.utilisation, "{:.0f} %"), (reading.temperature, "{:.0f} °C"), (used, "{}"), (reading.power_watts, "{:.0f} W")]
    return " · ".join(form.format(value) for value, form in facts if value is not None)


def memory(used: float, gpu: GpuReading | None) -> str:
    """The run's memory, and beside it how busy its GPU is, in nine cells."""
    if gpu is None or gpu.utilisation is None:
        return units.size(used)
    return f"{used / 2**30:.1f}G {gpu.utilisation}%"
