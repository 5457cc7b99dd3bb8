"""The planner: every `auto` resolved with a reason, and memory against numbers computed by hand."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from dataclasses import replace
from typing import Any

import bitsandbytes
import pytest
import torch

from tui_ft.errors import ConfigError
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.planning import memory
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.planner import make_plan
from tui_ft.planning.trained import Tensor
from tui_ft.recipe import files, presets
from tui_ft.recipe.plan import Plan
from tui_ft.recipe.schema import Recipe

GIB = 2**30


def card(index: int = 0, free: int = 10 * GIB, capability: tuple[int, int] | None = (8, 6)) -> GpuReading:
    return GpuReading(index, f"GPU-{index}", f"Card {index}", capability, 16 * GIB, free, None, None, None)


CPU = Hardware(cpus=2, ram_total=32 * GIB, ram_free=24 * GIB, note="no NVIDIA GPU: no driver is installed; training runs on the CPU")
AMPERE = Hardware(gpus=(card(),))
TURING = Hardware(gpus=(card(capability=(7, 5)),))

# Two layers of one 100 × 200 linear with a bias and a norm of 100, an embedding of 50 × 100, a final norm, a head of 50 × 100.
PARAMETERS = [
    {"name": "model.embed.weight", "shape": [50, 100], "count": 5000, "role": "other", "embedding": True, "layers": []},
    {"name": "model.layers.*.up.weight", "shape": [200, 100], "count": 20000, "role": "layer", "embedding": False, "layers": [0, 1]},
    {"name": "model.layers.*.up.bias", "shape": [200], "count": 200, "role": "layer", "embedding": False, "layers": [0, 1]},
    {"name": "model.layers.*.norm.weight", "shape": [100], "count": 100, "role": "layer", "embedding": False, "layers": [0, 1]},
    {"name": "model.norm.weight", "shape": [100], "count": 100, "role": "norm", "embedding": False, "layers": []},
    {"name": "lm_head.weight", "shape": [50, 100], "count": 5000, "role": "head", "embedding": False, "layers": []},
]
FACTS = ModelFacts.model_validate(
    {
        "architecture": "TestForCausalLM", "model_type": "test", "context_length": 128, "vocab_size": 50, "hidden_size": 100, "layers": 2,
        "layer_list": "model.layers", "dtype": "float32", "tie_word_embeddings": False, "quantized": None, "parameters": PARAMETERS,
        "linears": [
            {"name": "model.layers.*.up", "in": 100, "out": 200, "head": False, "layers": [0, 1]},
            {"name": "lm_head", "in": 100, "out": 50, "head": True, "layers": []},
        ],
    }
)  # fmt: skip
TOTAL = 50_700
LAST = 20_300 + 100 + 5000  # one layer, the final norm, the head
LORA = 2 * (4 * 100 + 200 * 4)
STATE_8 = 2 * 2 * (400 + 800) * 4  # of the adapters: tensors below 4096 numbers keep 32 bits


def recipe(**settings: Any) -> Recipe:
    plain = files.validate({"model": {"name": "a/model"}, "data": {"source": "a/dataset"}, "prompt": {"max_length": 128}, "method": {"r": 4}})
    return files.with_settings(plain, [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])


def plan(
    hardware: Hardware = AMPERE, facts: ModelFacts | None = FACTS, gpu_memory: int | None = None, rows: int | None = None, **settings: Any
) -> Plan:
    return make_plan(recipe(**settings), facts=facts, hardware=hardware, gpu_memory=gpu_memory, rows=rows)


@pytest.mark.parametrize(
    ("hardware", "settings", "weights", "adapters", "gradients", "optimizer"),
    [
        (CPU, {"method__kind": "full"}, TOTAL * 4, 0, TOTAL * 4, TOTAL * 8),
        (AMPERE, {"method__kind": "full"}, TOTAL * 4, 0, TOTAL * 4, TOTAL * 8),  # trained weights are fp32 beside a bf16 computation
        (AMPERE, {"method__kind": "full", "train__optimizer": "sgd"}, TOTAL * 4, 0, TOTAL * 4, 0),
        # rows + columns of the matrices, all of the vectors
        (AMPERE, {"method__kind": "full", "train__optimizer": "adafactor"}, TOTAL * 4, 0, TOTAL * 4, 4 * (2 * 150 + 2 * 300 + 2 * 300 + 100)),
        # the embedding (5000) and small tensors in 32 bits; two linears and the head in 8, with a scale for each 256
        (
            AMPERE,
            {"method__kind": "full", "train__optimizer": "paged_adamw_8bit"},
            TOTAL * 4, 0, TOTAL * 4, 8 * (5000 + 700) + 2 * 2 * (20000 + 79 * 4) + 2 * (5000 + 20 * 4),
        ),
        (AMPERE, {"method__kind": "last-layers", "method__layers": 1}, LAST * 4 + (TOTAL - LAST) * 2, 0, LAST * 4, LAST * 8),
        (CPU, {}, TOTAL * 4, LORA * 4, LORA * 4, LORA * 8),
        (AMPERE, {}, TOTAL * 2, LORA * 4, LORA * 4, LORA * 8),
        (AMPERE, {"method__variant": "dora"}, TOTAL * 2, (LORA + 400) * 4, (LORA + 400) * 4, (LORA + 400) * 8),
        (AMPERE, {"train__optimizer": "paged_adamw_8bit"}, TOTAL * 2, LORA * 4, LORA * 4, STATE_8),
        (AMPERE, {"train__optimizer": "lion_32bit"}, TOTAL * 2, LORA * 4, LORA * 4, LORA * 4),
        (AMPERE, {"method__quantization": "int8"}, 40_000 + 10_700 * 2, LORA * 4, LORA * 4, LORA * 8),
        # 20 000 numbers: half a byte each, 313 scales of one byte, 2 scales of the scales
        (AMPERE, {"method__quantization": "nf4"}, 2 * (10_000 + 313 + 2 * 4) + 10_700 * 2, LORA * 4, LORA * 4, LORA * 8),
        (
            AMPERE,
            {"method__quantization": "nf4", "method__double_quantization": "false"},
            2 * (10_000 + 313 * 4) + 10_700 * 2, LORA * 4, LORA * 4, LORA * 8,
        ),
    ],
)  # fmt: skip
def test_the_lower_bound_by_hand(hardware: Hardware, settings: dict[str, Any], weights: int, adapters: int, gradients: int, optimizer: int) -> None:
    made = plan(hardware, **settings)
    need = made.memory
    assert made.tier == "lower-bound"
    assert (need.weights, need.adapters, need.gradients, need.optimizer) == (weights, adapters, gradients, optimizer)
    assert need.total_bytes == weights + adapters + gradients + optimizer
    assert need.activations == need.head == need.overhead == 0
    assert made.trainable_parameters == gradients // 4


def test_large_weights_take_the_published_bytes_in_nf4() -> None:
    count = 4096 * 11008
    assert memory.nf4_bytes(count, True) / count == pytest.approx(0.5159, abs=5e-5)
    assert memory.nf4_bytes(count, False) / count == pytest.approx(0.5625, abs=5e-5)


@pytest.mark.parametrize("double", [True, False])
def test_nf4_takes_what_bitsandbytes_allocates(double: bool) -> None:
    layer = bitsandbytes.nn.Linear4bit(512, 384, bias=False, compress_statistics=double, quant_type="nf4").to("cpu")
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(384, 512), compress_statistics=double, quant_type="nf4").to("cpu")
    state = layer.weight.quant_state
    scales = [state.absmax, state.state2.absmax] if double else [state.absmax]
    assert memory.nf4_bytes(384 * 512, double) == sum(tensor.numel() * tensor.element_size() for tensor in (layer.weight.data, *scales))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adamw_torch", lambda p: torch.optim.AdamW(p)),
        ("adamw_8bit", lambda p: bitsandbytes.optim.AdamW(p, optim_bits=8)),
        ("ademamix", lambda p: bitsandbytes.optim.AdEMAMix(p)),
        ("paged_ademamix_8bit", lambda p: bitsandbytes.optim.AdEMAMix(p, optim_bits=8)),
        ("lion_8bit", lambda p: bitsandbytes.optim.Lion(p, optim_bits=8)),
        ("rmsprop_bnb", lambda p: bitsandbytes.optim.RMSprop(p)),
        ("adagrad", lambda p: torch.optim.Adagrad(p)),
        ("sgd", lambda p: torch.optim.SGD(p)),
    ],
)
def test_optimizers_keep_what_is_counted(name: str, make: Any) -> None:
    shapes = [(70, 90), (130,)]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = make(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step()
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key not in ("step", "qmap1", "qmap2")
    )
    assert kept == memory.optimizer_bytes([Tensor(shape, torch.Size(shape).numel(), 1) for shape in shapes], name)


@pytest.mark.parametrize(
    ("hardware", "asked", "expected"),
    [
        (AMPERE, "auto", "bf16"), (TURING, "auto", "fp16"), (CPU, "auto", "fp32"), (AMPERE, "fp16", "fp16"), (AMPERE, "fp32", "fp32"),
        (CPU, "bf16", "bf16"), (TURING, "fp32", "fp32"),
    ],
)  # fmt: skip
def test_precision(hardware: Hardware, asked: str, expected: str) -> None:
    assert plan(hardware, train__precision=asked).precision == expected


def test_what_the_hardware_cannot_do_is_refused_with_what_it_can() -> None:
    with pytest.raises(ConfigError, match=r"Card 0 \(compute capability 7\.5\) cannot calculate in bf16\n.*fp16 and fp32"):
        plan(TURING, train__precision="bf16")
    with pytest.raises(ConfigError, match=r"CPU cannot train in fp16\n.*fp32 and bf16"):
        plan(CPU, train__precision="fp16")
    with pytest.raises(ConfigError) as caught:
        plan(TURING, train__precision="bf16", method__targets="[nothing]", hardware__gpus="[0, 5]")
    assert [problem.where for problem in caught.value.problems] == ["hardware.gpus", "train.precision", "method.targets"]


def test_every_auto_has_its_reason() -> None:
    for hardware in (CPU, AMPERE, TURING):
        made = plan(hardware)
        keys = "precision optimizer attention packing activation_checkpointing micro_batch accumulation gpu memory fits steps data_workers fused_lora"
        assert set(keys.split()) <= set(made.reasons) and all(made.reasons.values())
    assert plan(CPU).optimizer == "adamw_torch" and plan(AMPERE).optimizer == "adamw_torch_fused"
    assert plan(CPU).activation_checkpointing is False and plan(AMPERE).activation_checkpointing is True
    assert plan(CPU).packing is False and plan(CPU).attention == "sdpa" and plan(CPU).gpu is None


def test_what_the_recipe_says_is_obeyed() -> None:
    made = plan(
        train__activation_checkpointing=4, train__packing="true", train__optimizer="adafactor", train__micro_batch=2, train__effective_batch=6
    )
    assert (made.activation_checkpointing, made.packing, made.optimizer, made.micro_batch, made.accumulation) == (4, True, "adafactor", 2, 3)
    assert plan(CPU, train__optimizer="paged_adamw_8bit").optimizer == "paged_adamw_8bit"


def test_batches_are_put_together_ahead_where_there_are_processors_for_it() -> None:
    many = replace(AMPERE, cpus=8)
    assert plan(many).data_workers == 2 and "ahead" in plan(many).reasons["data_workers"]
    assert plan(AMPERE).data_workers == plan(replace(CPU, cpus=64)).data_workers == 0


def test_adapters_take_one_pass_where_that_is_exact() -> None:
    assert plan(method__dropout=0).fused_lora and not plan(method__dropout=0.05).fused_lora
    for changes, why in (({"method__variant": "dora"}, "DoRA"), ({"method__quantization": "int8"}, "8-bit"), ({"method__dropout": 0.1}, "dropout")):
        made = plan(**{"method__dropout": 0, **changes})
        assert not made.fused_lora and why in made.reasons["fused_lora"]


def test_packing_warns_for_families_that_leak() -> None:
    assert any("read one another" in warning for warning in plan(facts=FACTS, train__packing="true").warnings)
    assert not plan(facts=FACTS).warnings and not plan(facts=FACTS.model_copy(update={"packs": True}), train__packing="true").warnings


@pytest.mark.parametrize("hardware", [CPU, AMPERE])
@pytest.mark.parametrize("effective", [1, 4, 6, 7, 13, 16, 1000])
@pytest.mark.parametrize("length", [128, 2048, 32768])
def test_the_suggested_batch_divides_and_is_careful(hardware: Hardware, effective: int, length: int) -> None:
    made = plan(hardware, facts=None, train__effective_batch=effective, prompt__max_length=length)
    assert made.micro_batch * made.accumulation == made.effective_batch == effective
    assert made.micro_batch == 1 or made.micro_batch * length <= (2048 if hardware is CPU else 4096)
    assert made.micro_batch <= 8 and "careful" in made.reasons["micro_batch"]


def test_little_room_means_one_sequence() -> None:
    need = plan().memory.total_bytes
    assert plan(gpu_memory=need * 2).micro_batch == 8
    tight = plan(gpu_memory=need * 2 - 1)
    assert tight.micro_batch == 1 and "half of the free memory" in tight.reasons["micro_batch"]


def test_a_lower_bound_proves_only_what_cannot_fit() -> None:
    need = plan().memory.total_bytes
    assert plan(gpu_memory=need).fits is None and "lower bound" in plan().reasons["fits"]
    short = plan(gpu_memory=need - 1)
    assert short.fits is False and any("cannot fit" in warning and "nf4" in warning for warning in short.warnings)
    assert plan(CPU).fits is None
    assert any("main memory" in warning for warning in plan(replace(CPU, ram_free=1000)).warnings)
    assert plan(facts=None).fits is None


def test_the_freest_gpu_is_taken_the_chosen_obeyed_and_the_limit_honoured() -> None:
    three = Hardware(gpus=(card(0, 5 * GIB), card(1, 9 * GIB), card(2, 7 * GIB)))
    freest = plan(three).gpu
    assert freest is not None and (freest.index, freest.uuid) == (1, "GPU-1")
    assert plan(three, hardware__gpus="[0]").gpu.index == 0  # type: ignore[union-attr]
    several = plan(three, hardware__gpus="[0, 2]")
    assert several.gpu is not None and several.gpu.index == 2 and any("one GPU" in warning for warning in several.warnings)
    limited = plan(three, hardware__memory_limit="6000MB").gpu
    assert limited is not None and limited.free_bytes == 6_000_000_000 and limited.total_bytes == 16 * GIB
    assert plan(three, hardware__memory_limit="60GB").gpu.free_bytes == 9 * GIB  # type: ignore[union-attr]
    assert plan(CPU, hardware__gpus="[0]").gpu is None


def test_assumed_gpu_memory() -> None:
    assumed = plan(CPU, gpu_memory=10 * GIB)
    assert assumed.gpu is not None and assumed.gpu.free_bytes == 10 * GIB and assumed.precision == "bf16"
    assert any("assumed" in warning for warning in assumed.warnings) and "assumed" in assumed.reasons["gpu"]
    real = plan(TURING, gpu_memory=20 * GIB)
    assert real.gpu is not None and (real.gpu.name, real.gpu.free_bytes, real.precision) == ("Card 0", 20 * GIB, "fp16")


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (None, {}, None), (None, {"train__max_steps": 7}, 7), (1000, {"train__max_steps": 7}, 7), (33, {}, 3), (32, {}, 2), (1, {}, 1),
        (33, {"train__epochs": 2}, 6), (100, {"train__epochs": 0.5}, 4),
    ],
)  # fmt: skip
def test_steps(rows: int | None, settings: dict[str, Any], steps: int | None) -> None:
    assert plan(rows=rows, train__effective_batch=16, **settings).steps == steps


def test_disk_counts_checkpoints_zips_and_the_final_model() -> None:
    checkpoint = LORA * 4 + LORA * 8
    assert plan(checkpoints__keep=2).disk_bytes == 3 * checkpoint + LORA * 4
    assert plan(checkpoints__keep=2, checkpoints__zip="true").disk_bytes == 6 * checkpoint + LORA * 4
    assert plan(checkpoints__keep=2, output__merge="true", output__dir="/x").disk_bytes == 3 * checkpoint + 2 * TOTAL * 2
    assert plan(checkpoints__keep=1, method__kind="full").disk_bytes == 2 * TOTAL * 12 + TOTAL * 4


def test_parameters_are_those_the_run_will_report() -> None:
    assert (plan().parameters, plan().trainable_parameters) == (TOTAL + LORA, LORA)
    assert plan(method__kind="full").parameters == plan(method__kind="full").trainable_parameters == TOTAL


def test_without_facts_nothing_is_made_up() -> None:
    made = plan(facts=None)
    assert made.memory.total_bytes == 0 and made.parameters is None and made.disk_bytes is None and "not known yet" in made.reasons["memory"]


def test_longer_than_the_context_and_quantized_already_are_said() -> None:
    said = plan(facts=FACTS.model_copy(update={"quantized": "gptq"}), prompt__max_length=256).warnings
    assert any("context of 128" in warning for warning in said) and any("gptq" in warning for warning in said)


@pytest.mark.parametrize("name", [info.name for info in presets.names() if info.bundled])
@pytest.mark.parametrize("hardware", [CPU, AMPERE, TURING], ids=["cpu", "ampere", "turing"])
def test_every_bundled_preset_plans_everywhere(name: str, hardware: Hardware) -> None:
    made = make_plan(presets.get(name), hardware=hardware)
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_a_plan_of_a_large_model_is_made_within_a_frame() -> None:
    layers = list(range(100))
    groups = [p.model_copy(update={"layers": tuple(layers)}) if p.layers else p for p in FACTS.parameters for _ in range(4)]
    linears = [g.model_copy(update={"layers": tuple(layers)}) if g.layers else g for g in FACTS.linears for _ in range(8)]
    facts = FACTS.model_copy(update={"layers": 100, "parameters": tuple(groups), "linears": tuple(linears)})
    wanted = recipe(method__targets="[up]")
    spent = []
    for _ in range(5):
        start = time.process_time()
        make_plan(wanted, facts=facts, hardware=AMPERE)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.03, "the wizard plans at every key"


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; from tui_ft.planning import doctor, planner, preflight; from tui_ft.recipe import flat_sft, presets; "
        "recipe = presets.get('sft-config'); planner.make_plan(recipe); preflight.check(recipe); doctor.examine(); "
        "sys.exit(', '.join({'torch', 'transformers', 'datasets', 'textual'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
