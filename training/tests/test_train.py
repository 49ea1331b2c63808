"""The loop: it learns, resumes, shares out, saves on Ctrl-C and gives up on nonsense."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from srgan_training.config import load_config
from srgan_training.errors import TrainingError
from srgan_training.generator import TrainingGenerator
from srgan_training.main import main
from srgan_training.pairs import list_pairs, make_pairs
from srgan_training.train import precision, train

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.toml"
TINY = [
    "batch=4",
    "generator.channels=8",
    "generator.blocks=2",
    "data.validation_crop=16",
    "log_every=1",
    "validate_every=10",
    "save_every=5",
]
ADVERSARIAL = [
    "loss.adversarial_weight=0.1",
    "loss.shift=16",
    "discriminator.width=8",
    "discriminator.norm='spectral'",
]
MUON = ["optimizer.method='muon'"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(6):
        small = Image.fromarray(rng.integers(0, 256, (30, 34, 3), np.uint8))
        small.resize((136, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def start(
    images: Path, out: Path, settings: list[str], processes: int = 1
) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launcher += [
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            f"--master-port={port}",
            "-m",
        ]
    command = ["srgan_training", "run", str(SMOKE), "--data", str(images), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [*launcher, *command, "--quiet", "--set", *settings],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run(images: Path, out: Path, settings: list[str], processes: int = 1) -> None:
    process = start(images, out, settings, processes)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(out: Path) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = torch.load(out / "checkpoint.pt", weights_only=True)[
        "average"
    ]
    return values


@pytest.fixture
def pairs(images: Path, tmp_path: Path) -> list[str]:
    """Settings for pairs of these images, the teacher's brighter by a tenth."""
    made = tmp_path / "pairs"
    make_pairs(
        list_pairs([images], [1.0]), made, teacher=lambda low: repeat(low).add(0.1).clamp(0, 1)
    )
    return [
        f"data.{key}=['{made / kind}']"
        for key, kind in (("folders", "high"), ("low", "low"), ("teacher", "teacher"))
    ]


def repeat(low: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(low, scale_factor=4)


def brightness(out: Path) -> float:
    """Mean of what a trained generator makes of even grey."""
    config = load_config(SMOKE, TINY)
    model = TrainingGenerator(config.generator, batch_norm=False)
    model.load_state_dict(weights(out))
    with torch.no_grad():
        return float(model(torch.full((1, 3, 16, 16), 0.5)).mean())


def test_the_share_of_the_teacher_decides_what_is_learned(pairs: list[str], tmp_path: Path) -> None:
    found = {}
    for share in (0.0, 1.0):
        settings = [*TINY, *pairs, "steps=60", f"loss.teacher_share={share}"]
        train(load_config(SMOKE, settings), tmp_path / str(share), progress=False)
        found[share] = brightness(tmp_path / str(share))
    assert found[1.0] - found[0.0] > 0.05


def test_a_branch_goes_on_with_the_optimizer_and_leaves_the_run_as_it_is(
    images: Path, tmp_path: Path
) -> None:
    run = [*TINY, *MUON, "steps=40", "optimizer.schedule=constant", f"data.folders=['{images}']"]
    train(load_config(SMOKE, run), tmp_path / "run", progress=False)
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    assert main(["run", "--branch", str(tmp_path / "run"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before
    branch = torch.load(tmp_path / "b/checkpoint.pt", weights_only=True)
    assert branch["step"] == 44
    lines = [json.loads(line) for line in (tmp_path / "b/metrics.jsonl").open()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert list(rates) == [41, 42, 43, 44]
    assert rates[44] < rates[41] == load_config(SMOKE).optimizer.learning_rate
    moved = max(
        float((branch["average"][name] - tensor).abs().max())
        for name, tensor in weights(tmp_path / "run").items()
    )
    assert 0 < moved < 0.1


def test_a_run_of_an_older_version_goes_on(images: Path, tmp_path: Path) -> None:
    settings = [*TINY, "steps=4", "data.min_scale=0.5", f"data.folders=['{images}']"]
    train(load_config(SMOKE, settings), tmp_path, progress=False)
    values = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    config = values["config"]
    config["data"]["smallest_reduction"] = config["data"].pop("min_scale")
    for table, key in (("data", "low"), ("loss", "artefact_weight"), ("optimizer", "decay")):
        del config[table][key]
    torch.save(values, tmp_path / "checkpoint.pt")
    assert train(load_config(SMOKE, [*settings, "steps=6"]), tmp_path, progress=False)
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5, 6]


def test_all_terms_of_stage_two_learn_together(images: Path, tmp_path: Path) -> None:
    """U-Net, relativistic average, artefact map, and a discriminator that starts alone."""
    settings = [
        *TINY,
        "steps=8",
        "loss.adversarial_weight=0.1",
        "loss.relativistic=true",
        "loss.artefact_weight=1.0",
        "loss.discriminator_first=4",
        "discriminator.layout='unet'",
        "discriminator.width=4",
        "optimizer.ema=0",
        f"data.folders=['{images}']",
    ]
    train(load_config(SMOKE, [*settings, "steps=4"]), tmp_path, progress=False)
    first = weights(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert {"artefact", "adversarial", "discriminator", "D(real)"} <= lines[0].keys()
    fresh = [line["discriminator"] for line in lines if "discriminator" in line]
    assert fresh[-1] != fresh[0]
    train(load_config(SMOKE, settings), tmp_path, progress=False)
    # The generator first moved when the discriminator's head start was over.
    untrained = TrainingGenerator(
        load_config(SMOKE, TINY).generator, batch_norm=False, initial_gain=0.5
    ).state_dict()
    biases = [name for name in untrained if name.endswith("bias")]
    assert all(not first[name].any() for name in biases)
    assert any(weights(tmp_path)[name].any() for name in biases)


def test_a_run_leaves_curves(images: Path, tmp_path: Path) -> None:
    settings = [*TINY, "steps=10", f"data.folders=['{images}']"]
    train(load_config(SMOKE, settings), tmp_path, progress=False)
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.width > 2 * curves.height


def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_config(SMOKE, ["precision=auto"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for able, name in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr("srgan_training.train.multiplies_bfloat16", lambda able=able: able)
        assert precision(config) == name


def wait_for_step(process: subprocess.Popen[bytes], out: Path, step: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "checkpoint.pt").is_file() and max(losses(out), default=0) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run never came to step {step}")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [MUON, ADVERSARIAL], ids=["srresnet", "srgan"])
def test_two_processes_draw_the_loss_curve_of_one(
    images: Path, tmp_path: Path, stage: list[str]
) -> None:
    settings = [*TINY, *stage, "steps=12"]
    run(images, tmp_path / "one", settings)
    run(images, tmp_path / "two", settings, processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(one) == list(two) == list(range(1, 13))
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, abs=1e-3)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_numbers_of_an_undisturbed_one(
    images: Path, tmp_path: Path
) -> None:
    settings = [*TINY, *ADVERSARIAL, *MUON, "steps=60"]
    run(images, tmp_path / "whole", settings)
    process = start(images, tmp_path / "killed", settings)
    wait_for_step(process, tmp_path / "killed", 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert max(losses(tmp_path / "killed")) < 60
    run(images, tmp_path / "killed", settings)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "killed")[name], tensor)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_saves_and_ends_cleanly(images: Path, tmp_path: Path) -> None:
    process = start(images, tmp_path, [*TINY, "steps=100000", "save_every=5"])
    wait_for_step(process, tmp_path, 7)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode == 130
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert saved == max(losses(tmp_path))


def test_time_budget_stretches_the_schedule_and_ends_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10_000))
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("srgan_training.train.time", clock)
    settings = [*TINY, "steps=1000000", "max_minutes=1.0", "optimizer.warmup=0"]
    config = load_config(SMOKE, [*settings, f"data.folders=['{images}']"])
    assert train(config, tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert 5 < len(rates) < 60
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 10


@pytest.mark.parametrize("method", [[], MUON], ids=["adam", "muon"])
def test_a_step_without_a_finite_gradient_is_skipped_and_ten_in_a_row_end_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: list[str]
) -> None:
    config = load_config(
        SMOKE, [*TINY, *method, "steps=40", "optimizer.ema=0", f"data.folders=['{images}']"]
    )
    calls = iter(range(1000))

    def sometimes_nan(bad_from: int, bad_to: int):  # type: ignore[no-untyped-def]
        def loss(x: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
            value = (x - target).abs().mean()
            return value * float("nan") if bad_from <= next(calls) < bad_to else value

        return loss

    monkeypatch.setattr("srgan_training.losses.distance", sometimes_nan(5, 8))
    train(config, tmp_path / "some", progress=False)
    assert (
        json.loads((tmp_path / "some/metrics.jsonl").read_text().splitlines()[-2])["skipped"] == 3
    )
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "some").values())

    calls = iter(range(1000))
    monkeypatch.setattr("srgan_training.losses.distance", sometimes_nan(5, 1000))
    with pytest.raises(TrainingError, match="10 steps in a row"):
        train(config, tmp_path / "all", progress=False)


def test_a_folder_of_another_network_or_without_images_is_refused(
    images: Path, tmp_path: Path
) -> None:
    settings = [*TINY, "steps=2", f"data.folders=['{images}']"]
    train(load_config(SMOKE, settings), tmp_path / "run", progress=False)
    for other in ("generator.blocks=3", *MUON):
        with pytest.raises(TrainingError, match="another output folder"):
            train(load_config(SMOKE, [*settings, other]), tmp_path / "run", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no image"):
        train(
            load_config(SMOKE, [*settings, f"data.folders=['{tmp_path / 'empty'}']"]),
            tmp_path / "other",
            progress=False,
        )


def test_stage_two_starts_from_the_generator_of_stage_one(images: Path, tmp_path: Path) -> None:
    first = [*TINY, "steps=3", f"data.folders=['{images}']"]
    train(load_config(SMOKE, first), tmp_path / "first", progress=False)
    start_at = f"start='{tmp_path / 'first'}'"
    frozen = [*first, *ADVERSARIAL, start_at, "optimizer.learning_rate=0.0"]
    train(load_config(SMOKE, frozen), tmp_path / "second", progress=False)
    for name, tensor in weights(tmp_path / "first").items():
        torch.testing.assert_close(weights(tmp_path / "second")[name], tensor)
    with pytest.raises(TrainingError, match="does not fit"):
        train(
            load_config(SMOKE, [*first, start_at, "generator.blocks=3"]),
            tmp_path / "third",
            progress=False,
        )
