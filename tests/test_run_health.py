"""Health: what must be told of a training, and what must not. Series of numbers in, alerts out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest

from tui_ft.worker.health import EXACT_STEPS, SCALER_SKIPS, SPEED_BLOCK, THROTTLED_READINGS, Health, Measured, Warning

STEPS = 1500
DEMO = [
    6.97, 6.98, 6.92, 6.84, 6.78, 6.69, 6.64, 6.62, 6.55, 6.47, 6.38, 6.26, 6.2, 6.11, 6.05, 5.91, 5.82, 6.72, 5.72, 5.66, 5.47, 5.62, 5.44,
    5.39, 5.4, 5.21, 5.07, 5.18, 5.07, 5.06, 4.96, 4.87, 4.81, 4.71, 4.71, 4.55, 4.55, 4.54, 4.44, 4.48, 4.26, 4.2, 4.14, 4.22, 4.17, 3.92,
    3.88, 3.93, 3.81, 3.86, 3.59, 3.47, 3.57, 3.61, 3.55, 3.28, 3.19, 3.28, 3.25, 3.24, 3.07, 2.97, 2.95, 2.88, 2.92, 2.7, 2.77, 2.58, 2.66,
    2.6, 2.42, 2.43, 2.38, 2.33, 2.37, 2.14, 2.14, 2.12, 2.18, 2.11, 1.94, 1.91, 1.9, 1.9, 1.8, 1.66, 1.74, 1.67, 1.61, 1.59, 1.42, 1.46, 1.49,
    1.46, 1.41, 1.35, 1.28, 1.23, 1.23, 1.2, 1.12, 1.07, 1.05, 1.11, 1.07, 0.94, 0.923, 0.901, 0.933, 0.929, 0.799, 0.786, 0.789, 0.766, 0.73,
    0.659, 0.668, 0.639, 0.663, 0.629, 0.562, 0.598, 0.535, 0.52, 0.492, 0.49, 0.416, 0.429, 0.447, 0.464, 0.397, 0.357, 0.361, 0.355, 0.352,
    0.322, 0.323, 0.295, 0.315, 0.267, 0.243, 0.253, 0.269, 0.221, 0.228, 0.218, 0.217, 0.209, 0.196, 0.183, 0.178, 0.182, 0.186, 0.158, 0.154,
    0.154, 0.152, 0.163, 0.138, 0.128, 0.117, 0.137, 0.138, 0.119, 0.135, 0.12, 0.122, 0.108, 0.111, 0.105, 0.109, 0.11, 0.094, 0.103, 0.0941,
    0.0969, 0.0906, 0.0932, 0.0924, 0.0919, 0.0814, 0.0886, 0.0858, 0.0962, 0.0794, 0.0864, 0.0771, 0.0815, 0.0743, 0.0841, 0.0793, 0.0796,
    0.0767, 0.0726, 0.0726, 0.0734, 0.0724, 0.0721, 0.0741, 0.0709, 0.0721, 0.0726, 0.0659, 0.0686, 0.0693, 0.0657, 0.0684, 0.0756, 0.0604,
    0.0661, 0.0668, 0.066, 0.0692, 0.0627, 0.0603, 0.0585, 0.0616, 0.0642, 0.0675, 0.0632, 0.0634, 0.0658, 0.0578, 0.0609, 0.0599, 0.0664,
    0.0598, 0.0581, 0.0593, 0.0577, 0.0643, 0.0592, 0.0567, 0.0548, 0.0602, 0.0575, 0.0603, 0.0556, 0.0574, 0.0596, 0.0611, 0.0565, 0.0521,
    0.0568, 0.0607, 0.0585, 0.0538, 0.0517, 0.0607, 0.0586, 0.0533, 0.0582, 0.0551, 0.0605, 0.0534, 0.0585, 0.0539, 0.0588, 0.053, 0.0547,
    0.0532, 0.0544, 0.0527, 0.0588, 0.0583, 0.0624, 0.0507, 0.0547, 0.0481, 0.0599, 0.0557, 0.057, 0.0529, 0.0531, 0.0559, 0.0492, 0.0552,
    0.0577, 0.0558, 0.0552, 0.0558, 0.0497, 0.0634, 0.0501, 0.0537, 0.064, 0.0517, 0.0558, 0.0506, 0.0515, 0.0518, 0.0548, 0.0548, 0.0549,
    0.0561, 0.0612, 0.052, 0.0533, 0.053, 0.0534,
]  # fmt: skip
"""The losses of the demo's 300 steps, as one run of it told them."""
DEMO_SPEEDS = [
    606, 1244, 897, 1448, 705, 730, 1066, 784, 927, 1385, 1130, 790, 585, 557, 628, 489, 578, 803, 513, 731, 511, 492, 579, 635, 672, 906, 1347,
    702, 712, 499, 697, 859, 678, 889, 832, 717, 700, 932, 644, 1695, 739, 561, 898, 662, 630, 1241, 709, 615, 525, 932, 387, 661, 668, 662,
    613, 1039, 917, 619, 703, 581, 678, 718, 690, 680, 935, 957, 926, 1238, 1493, 979, 1058, 1277, 1146, 968, 1006, 1336, 1327, 2125, 1857,
    1423, 1533, 1013, 912, 1006, 939, 1327, 1068, 860, 1340, 1457, 1081, 899, 889, 635, 767, 724, 730, 791, 1011, 871,
]  # fmt: skip
"""Its tokens per second in the first 100 steps, on two cores that five others shared."""


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


def test_the_demo_is_healthy() -> None:
    assert told(DEMO) == []
    assert told(DEMO, speed=lambda step: DEMO_SPEEDS[step % len(DEMO_SPEEDS)]) == []


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
