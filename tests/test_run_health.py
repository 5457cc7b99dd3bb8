"""Health: what must be told of a training, and what must not. Series of numbers in, alerts out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest

from tui_ft.worker.health import EXACT_STEPS, SCALER_SKIPS, SPEED_BLOCK, THROTTLED_READINGS, Health, Measured, Warning

STEPS = 1500


def told(
    losses: Iterable[float],
    *,
    rate: Callable[[int], float | None] = lambda step: 1e-4,
    grad: Callable[[int], float | None] = lambda step: 1.0,
    speed: Callable[[int], float] = lambda step: 1000.0,
    from_step: int = 0,
    total: int | None = None,
) -> list[tuple[int, Warning]]:
    """(step, alert) of a training with these losses, steps of 100 tokens."""
    health, losses = Health(from_step), list(losses)
    last = total or from_step + len(losses)
    alerts = []
    for step, loss in enumerate(losses, from_step + 1):
        now = Measured(step, last, loss, rate(step), grad(step), step * 100, speed(step))
        alerts += [(step, warning) for warning in health.step(now)]
    return alerts


def kinds(alerts: list[tuple[int, Warning]]) -> list[str]:
    return [warning.kind for _, warning in alerts if not warning.cleared]


def curve(noise: float, start: float = 5.0, end: float = 1.5, steps: int = STEPS, seed: int = 0) -> list[float]:
    chance = random.Random(seed)
    return [max(0.01, end + (start - end) * math.exp(-step / 200) + chance.gauss(0, noise)) for step in range(steps)]


def cosine(step: int) -> float:
    return 1e-4 * min(1.0, step / 100) * (1 + math.cos(math.pi * step / STEPS)) / 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("losses", "more"),
    [
        pytest.param(lambda seed: curve(0.1, seed=seed), {"rate": cosine}, id="cosine to zero"),
        pytest.param(lambda seed: curve(0.6, seed=seed), {}, id="noisy"),
        pytest.param(lambda seed: curve(1.0, 3.0, 1.2, 6000, seed=seed), {}, id="very noisy, single rows"),
        pytest.param(lambda seed: curve(0.05, 1.52, 1.5, seed=seed), {}, id="a model that knows much, falling little"),
        pytest.param(lambda seed: curve(0.02, 1.5, 1.5, seed=seed), {"from_step": 5000}, id="resumed where the loss is flat"),
        pytest.param(lambda seed: [0.3, *curve(0.1, seed=seed)], {}, id="one easy batch first"),
        pytest.param(lambda seed: [5.0] * 99 + curve(0.2, seed=seed), {"rate": lambda step: 0.0 if step < 2 else 1e-6 * step}, id="long warm-up"),
        pytest.param(
            lambda seed: curve(0.2, seed=seed), {"speed": lambda step: random.Random(step).choice([300.0, 900.0, 1500.0])}, id="rows of all lengths"
        ),
        pytest.param(lambda seed: [0.0 if step % 9 == 0 else loss for step, loss in enumerate(curve(0.1, seed=seed))], {}, id="rows without answers"),
        pytest.param(lambda seed: curve(0.1, seed=seed), {"grad": lambda step: None}, id="gradient not measured"),
    ],
)
def test_a_healthy_training_is_left_alone(losses, more, seed: int) -> None:
    assert told(losses(seed), **more) == []


def test_the_demo_is_healthy(shared_demo_losses: list[float]) -> None:
    assert told(shared_demo_losses) == []


@pytest.fixture
def shared_demo_losses() -> list[float]:
    """The losses of the demo's 160 steps as they were once measured, every fourth, with its noise."""
    points = [6.95, 6.71, 6.2, 5.5, 4.9, 4.3, 3.9, 3.6, 3.3, 3.2, 3.0, 2.9, 2.8, 2.75, 2.6, 2.5, 2.5, 2.4, 2.3, 2.2, 2.2, 2.1, 2.05, 2.0, 1.9, 1.9]
    chance = random.Random(1)
    return [point + chance.gauss(0, 0.15) for point in points for _ in range(6)]


def test_diverging_is_told_once_and_taken_back() -> None:
    losses = [*curve(0.1, steps=600), *[1.7 + step / 100 for step in range(300)], *curve(0.1, 4.7, 1.5, 900)]
    alerts = told(losses)
    assert [(warning.kind, warning.cleared) for _, warning in alerts] == [("diverging", False), ("diverging", True)]
    (rising, first), (fallen, _) = alerts
    assert 650 < rising < 900 < fallen
    assert first.key == "train.learning_rate" and first.severity == "error" and "after 1.67" in first.cause


def test_a_loss_of_zero_from_the_first_step_is_another_fault_than_one_learned_by_heart() -> None:
    (never,) = told([0.0] * 40)
    assert never[0] == EXACT_STEPS and never[1].severity == "error" and never[1].key == "prompt.learn"
    by_heart = told([*curve(0.01, 1.0, 0.1, 100), *[0.0] * 40])
    assert [(warning.kind, warning.severity, warning.key) for _, warning in by_heart] == [("zero-loss", "warning", "train.epochs")]


def test_a_gradient_of_zero() -> None:
    alerts = told(curve(0.05, 5, 5, 60), grad=lambda step: 0.0 if step > 20 else 0.5)
    assert kinds(alerts) == ["zero-gradient"] and alerts[0][0] == 20 + EXACT_STEPS


def test_a_learning_rate_of_zero_before_the_end() -> None:
    alerts = told(curve(0.1), rate=lambda step: max(0.0, 1e-4 * (1000 - step) / 1000))
    assert kinds(alerts) == ["zero-rate"] and alerts[0][0] == 1002
    assert told(curve(0.1), rate=lambda step: 0.0 if step >= STEPS - 1 else 1e-4) == [], "a schedule may end at zero"


def test_flat_from_the_beginning_is_told_once() -> None:
    alerts = told(curve(0.02, 2.0, 2.0, 3000), rate=lambda step: 1e-9)
    assert kinds(alerts) == ["flat"] and alerts[0][1].key == "train.learning_rate"


def test_speed_that_collapses_and_comes_back() -> None:
    alerts = told(curve(0.1), speed=lambda step: 1000.0 if step < 600 or step > 900 else 100.0)
    assert [(warning.kind, warning.cleared) for _, warning in alerts] == [("slow", False), ("slow", True)]
    assert 600 + SPEED_BLOCK < alerts[0][0] < 660
    assert told(curve(0.1), speed=lambda step: 10.0 if step % 300 == 0 else 1000.0) == [], "one slow step now and then"


def test_what_is_no_number_ends_the_training_but_for_a_scaler_that_looks_for_its_scale() -> None:
    nan = float("nan")
    assert Health().broken(Measured(3, 10, nan)) == "loss"
    assert Health().broken(Measured(3, 10, 1.0, grad_norm=math.inf)) == "gradient"
    assert Health().broken(Measured(3, 10, 1.0, grad_norm=None)) == ""
    scaling = Health()
    assert [scaling.broken(Measured(step, 100, 1.0, grad_norm=math.inf, scaled=True)) for step in range(SCALER_SKIPS)] == [
        *[""] * (SCALER_SKIPS - 1),
        "gradient",
    ]


def test_a_throttled_gpu_is_told_when_it_lasts() -> None:
    health = Health()
    readings = [health.throttled(("it is too hot",), 91) for _ in range(THROTTLED_READINGS + 2)]
    assert [bool(reading) for reading in readings] == [False] * (THROTTLED_READINGS - 1) + [True, False, False]
    assert "91 °C" in readings[THROTTLED_READINGS - 1][0].cause
    assert health.throttled((), 70)[0].cleared and health.throttled((), None) == []
