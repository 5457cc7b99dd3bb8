"""Looks after a training step by step: what goes wrong without any error, with its probable cause and what to change. No torch.

Each rule speaks once, and again only after what it saw has been over. False alarms cost trust, so each waits for a
sustained sign, measured against the noise of the run's own loss.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, median

WINDOW = 50
"""Steps in a moving average: it makes the noise of single batches a seventh as large."""
RISEN_SHARE, RISEN_NATS, RISEN_NOISE = 0.5, 0.5, 6.0
"""Diverging is a mean loss above its lowest one by this share of it, by these nats, and by so many deviations of such means:
the lowest of thousands of means lies three to four deviations below the usual one, without anything being wrong."""
SUSTAINED = 50
"""Steps for which it must stay there: a hard stretch of the data passes sooner."""
FLAT_STEPS = 300
"""Looked at for the first time after so many steps: a warm-up is over by then."""
FLAT_SHARE = 0.004
"""A loss that has moved less than this share of itself is flat; only said where noise would not hide such a move."""
FLAT_KEPT = 3000
EXACT_STEPS = 10
"""Losses or gradients of exactly zero in a row: one alone may be a batch in which nothing is learned."""
ZERO_RATE_STEPS = 3
SPEED_BLOCK = 20
"""Steps whose tokens are divided by their time: rows differ in length, and so does the speed of single steps."""
SPEED_BLOCKS = 5
"""Blocks before a usual speed is known."""
SPEED_KEPT = 200
COLLAPSED = 0.4
"""Share of the usual speed: a neighbour on the same card costs half at least, other rows less."""
COLLAPSED_SECONDS = 15.0
"""For at least two blocks and this long: a backup or a copy passes sooner."""
SCALER_SKIPS = 40
"""fp16 halves its scale at each overflow and skips the step, as it should; after so many in a row no scale is left to try."""
THROTTLED_READINGS = 3
"""Readings in a row, half a minute apart."""


@dataclass(frozen=True)
class Warning:
    """One alert: what is wrong and probably why, what helps, and the recipe key that it is about."""

    kind: str
    severity: str
    cause: str
    remedy: str
    key: str = ""
    cleared: bool = False


@dataclass(frozen=True)
class Measured:
    """One optimizer step. None: it was not measured."""

    step: int
    total: int
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int = 0
    """Seen since the run began."""
    tokens_per_second: float | None = None
    scaled: bool = False
    """fp16 with a loss scaler: a gradient that overflows is skipped, and no fault."""


class Health:
    """The rules of one attempt. Its memory does not grow with the steps."""

    def __init__(self, from_step: int = 0) -> None:
        self._said: set[str] = set()
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._jumps: deque[float] = deque(maxlen=4 * WINDOW)
        self._lowest = math.inf
        self._risen = 0
        self._fallen = from_step > 0  # a resumed run has shown long ago whether it learns
        self._early: deque[float] = deque(maxlen=FLAT_KEPT)
        self._zero_loss = self._zero_grad = self._zero_rate = self._overflows = self._throttled = 0
        self._loss_was_positive = from_step > 0
        self._tokens: int | None = None
        self._block: list[tuple[int, float]] = []
        self._speeds: deque[float] = deque(maxlen=SPEED_KEPT)
        self._slow_seconds = 0.0

    def broken(self, now: Measured) -> str:
        """What is no number any more, `loss` or `gradient`; empty while training can go on."""
        if not math.isfinite(now.loss) and not now.scaled:
            return "loss"
        gradient_broken = now.grad_norm is not None and not math.isfinite(now.grad_norm)
        if gradient_broken and not now.scaled:
            return "gradient"
        self._overflows = self._overflows + 1 if gradient_broken or not math.isfinite(now.loss) else 0
        return "gradient" if self._overflows >= SCALER_SKIPS else ""

    def step(self, now: Measured) -> list[Warning]:
        """Take in a step; the alerts that it raises, and those that are over."""
        if not math.isfinite(now.loss):
            return []
        rules: tuple[Callable[[Measured], Iterator[Warning]], ...] = (self._zero, self._still, self._rate, self._rising, self._flat, self._speed)
        return [warning for rule in rules for warning in rule(now)]

    def throttled(self, reasons: tuple[str, ...], temperature: int | None) -> list[Warning]:
        """Take in a reading of the GPU."""
        self._throttled = self._throttled + 1 if reasons else 0
        heat = f" at {temperature} °C" if temperature is not None else ""
        cause = f"the GPU slows itself down{heat}: {', '.join(reasons)}"
        remedy = "See to its cooling and power supply; what it computes stays right, only later."
        over = "the GPU runs at full speed again"
        return list(self._judge("throttled", self._throttled >= THROTTLED_READINGS, not reasons, "warning", cause, remedy, "", over))

    def _judge(self, kind: str, bad: bool, good: bool, severity: str, cause: str, remedy: str, key: str, over: str) -> Iterator[Warning]:
        """Speak at the first `bad`, then not before a `good` has been said; between both nothing changes."""
        if bad and kind not in self._said:
            self._said.add(kind)
            yield Warning(kind, severity, cause, remedy, key)
        elif good and kind in self._said:
            self._said.discard(kind)
            yield Warning(kind, "info", over, "", key, cleared=True)

    def _zero(self, now: Measured) -> Iterator[Warning]:
        self._zero_loss = self._zero_loss + 1 if now.loss == 0.0 else 0
        self._loss_was_positive = self._loss_was_positive or now.loss > 0.0
        if self._loss_was_positive:
            severity, key = "warning", "train.epochs"
            cause = f"the loss has fallen to exactly zero for {EXACT_STEPS} steps: the rows are learned by heart"
            remedy = "Stop here, or use fewer epochs or more rows."
        else:
            severity, key = "error", "prompt.learn"
            cause = f"the loss is exactly zero for {EXACT_STEPS} steps: no token is learned from, its answers are cut off or masked"
            remedy = "Look at `tui-ft preview`: what is learned is marked there. Raise prompt.max_length, or change prompt.learn."
        bad = self._zero_loss >= EXACT_STEPS
        yield from self._judge("zero-loss", bad, now.loss > 0.0, severity, cause, remedy, key, "the loss is above zero again")

    def _still(self, now: Measured) -> Iterator[Warning]:
        still = now.grad_norm == 0.0 and now.loss > 0.0  # with a loss of zero the cause is another, and said
        self._zero_grad = self._zero_grad + 1 if still else 0
        cause = f"the gradient is exactly zero for {EXACT_STEPS} steps: nothing that is trained has a part in the loss"
        remedy = "Choose other method.targets or more method.layers."
        good = now.grad_norm is not None and now.grad_norm > 0.0
        yield from self._judge(
            "zero-gradient", self._zero_grad >= EXACT_STEPS, good, "error", cause, remedy, "method.targets", "gradients flow again"
        )

    def _rate(self, now: Measured) -> Iterator[Warning]:
        zero = now.learning_rate == 0.0 and now.step < now.total - 1  # a schedule may end at zero, with the last steps
        self._zero_rate = self._zero_rate + 1 if zero else 0
        cause = f"the learning rate is zero {now.total - now.step} steps before the end: nothing is learned any more"
        remedy = "The schedule is over: stop, or `tui-ft set RUN learning_rate=…` where it is meant to go on."
        good = bool(now.learning_rate)
        yield from self._judge("zero-rate", self._zero_rate >= ZERO_RATE_STEPS, good, "error", cause, remedy, "train.schedule", "it learns again")

    def _rising(self, now: Measured) -> Iterator[Warning]:
        if self._recent:
            self._jumps.append(abs(now.loss - self._recent[-1]))
        self._recent.append(now.loss)
        if len(self._recent) < WINDOW:
            return
        mean = fmean(self._recent)
        self._lowest = min(self._lowest, mean)
        limit = self._lowest + max(RISEN_SHARE * abs(self._lowest), RISEN_NATS, RISEN_NOISE * self._noise() / math.sqrt(WINDOW))
        self._risen = self._risen + 1 if mean > limit else 0
        cause = f"the loss is rising: {mean:.3g} on average, after {self._lowest:.3g}; the training diverges"
        remedy = "Lower the learning rate, at once with `tui-ft set RUN learning_rate=…`; longer warm-up or clipping (max_grad_norm) help as well."
        fallen_back = mean < (self._lowest + limit) / 2
        yield from self._judge(
            "diverging", self._risen >= SUSTAINED, fallen_back, "error", cause, remedy, "train.learning_rate", "the loss has come down again"
        )

    def _noise(self) -> float:
        """The deviation of single losses, from how they jump: a trend does not count."""
        return fmean(self._jumps) / 1.128 if self._jumps else 0.0

    def _flat(self, now: Measured) -> Iterator[Warning]:
        """Once a run: it has never moved, although it could have."""
        if self._fallen or not now.learning_rate:
            return
        self._early.append(now.loss)
        if now.step < FLAT_STEPS or now.step % WINDOW:
            return
        values = list(self._early)
        third = len(values) // 3
        first, last = fmean(values[:third]), fmean(values[-third:])
        unsure = 2 * self._noise() * math.sqrt(2 / third)
        small = FLAT_SHARE * abs(first)
        if abs(first - last) > max(small, unsure) or len(values) == FLAT_KEPT:
            self._fallen = True
            self._early.clear()
        elif unsure < small and abs(first - last) < small - unsure:
            self._fallen = True
            cause = f"the loss has not moved in {now.step} steps: {first:.4g}, then {last:.4g}"
            remedy = "Raise train.learning_rate tenfold, or see whether the model knows these rows already."
            yield Warning("flat", "warning", cause, remedy, "train.learning_rate")

    def _speed(self, now: Measured) -> Iterator[Warning]:
        before, self._tokens = self._tokens, now.tokens
        if before is None or not now.tokens_per_second or now.tokens <= before:
            return
        self._block.append((now.tokens - before, (now.tokens - before) / now.tokens_per_second))
        if len(self._block) < SPEED_BLOCK:
            return
        tokens, seconds = (sum(values) for values in zip(*self._block, strict=True))
        self._block.clear()
        speed = tokens / seconds
        usual = median(self._speeds) if len(self._speeds) >= SPEED_BLOCKS else speed
        slow = speed < COLLAPSED * usual
        long_before = self._slow_seconds
        self._slow_seconds = self._slow_seconds + seconds if slow else 0.0
        if not slow:
            self._speeds.append(speed)
        cause = f"training has slowed down: {speed:,.0f} tokens/s in place of the usual {usual:,.0f}"
        remedy = "Somebody else may use the GPU, the cores or the disk (`tui-ft doctor`, nvidia-smi, top); fewer data workers may help."
        bad = long_before > 0 and self._slow_seconds >= COLLAPSED_SECONDS
        yield from self._judge("slow", bad, not slow, "warning", cause, remedy, "", f"training is as fast as before: {speed:,.0f} tokens/s")
