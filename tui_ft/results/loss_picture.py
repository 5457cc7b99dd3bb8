"""The picture of a run: training and validation loss over optimizer steps, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tui_ft.home import replacing
from tui_ft.text import one_line

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

INCHES = (9, 5)
DOTS_PER_INCH = 120
SMOOTHED_SHARE = 0.04
"""Width of the moving average as a share of the steps: wide enough to show the trend, narrow enough to show a jump."""


class Losses(Protocol):
    """What is drawn. `runs.curves.Curves` has it all."""

    @property
    def steps(self) -> Sequence[float]: ...

    @property
    def loss(self) -> Sequence[float]:
        """One value for each of `steps`; NaN or infinite where the loss was not a number, drawn as a gap."""

    @property
    def evals(self) -> Sequence[tuple[int, float, float | None]]:
        """(step, validation loss, token accuracy or None)"""


def write(losses: Losses, target: Path, title: str = "") -> Path:
    """Draw `losses` into the PNG file `target` and return it. Lines differ in weight and form, so greyscale serves as well.

    Raises:
        OSError: the file cannot be written; an older picture is still there.
    """
    # The object interface: pyplot would keep global state and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_training(axes, losses)
    _draw_validation(axes, losses)
    axes.set_title(one_line(title, 100), loc="left", parse_math=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no loss was measured", transform=axes.transAxes, ha="center", color="0.4")
    with replacing(target) as file:
        figure.savefig(file, format="png")
    return target


def _draw_training(axes: Axes, losses: Losses) -> None:
    import numpy as np

    steps, loss = np.asarray(losses.steps, float), np.asarray(losses.loss, float)
    loss = np.where(np.isfinite(loss), loss, np.nan)
    if np.isnan(loss).all():
        return
    axes.plot(steps, loss, color="0.72", linewidth=0.8, marker="." if len(steps) == 1 else "", label="training, each step")
    width = max(1, round(len(loss) * SMOOTHED_SHARE))
    if width > 1:
        axes.plot(steps, _moving_average(loss, width), color="#1b4f8f", linewidth=2.2, label=f"training, mean of {width} steps")


def _moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the about `width` values around each one, fewer at the ends; values that are NaN do not count, and stay gaps."""
    import numpy as np

    known = ~np.isnan(values)
    sums = np.cumsum(np.insert(np.where(known, values, 0.0), 0, 0.0))
    counts = np.cumsum(np.insert(known, 0, 0))
    here = np.arange(len(values))
    starts, ends = np.maximum(0, here - width // 2), np.minimum(len(values), here + width // 2 + 1)
    with np.errstate(invalid="ignore"):
        return np.where(known, (sums[ends] - sums[starts]) / (counts[ends] - counts[starts]), np.nan)


def _draw_validation(axes: Axes, losses: Losses) -> None:
    points = [(step, loss) for step, loss, _ in losses.evals if math.isfinite(loss)]
    if not points:
        return
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color="#b3541e", linestyle="--", linewidth=1.4, marker="o", markerfacecolor="white", label="validation")
    best_step, best = min(points, key=lambda point: point[1])
    axes.plot([best_step], [best], color="black", linestyle="", marker="*", markersize=13, label=f"best validation: {best:.4g} at step {best_step}")
