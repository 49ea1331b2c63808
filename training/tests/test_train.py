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
from srgan_training.data import DataError
from srgan_training.train import TrainingError, train

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
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(6):
        small = Image.fromarray(rng.integers(0, 256, (30, 34, 3), np.uint8))
        small.resize((136, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def start(
    pictures: Path, out: Path, settings: list[str], processes: int = 1
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
    command = ["srgan_training.train", str(SMOKE), "--data", str(pictures), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [*launcher, *command, "--quiet", "--set", *settings],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run(pictures: Path, out: Path, settings: list[str], processes: int = 1) -> None:
    process = start(pictures, out, settings, processes)
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


def wait_for_step(process: subprocess.Popen[bytes], out: Path, step: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "checkpoint.pt").is_file() and max(losses(out), default=0) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run never came to step {step}")


@pytest.mark.parametrize("stage", [MUON, ADVERSARIAL], ids=["srresnet", "srgan"])
def test_two_processes_draw_the_loss_curve_of_one(
    pictures: Path, tmp_path: Path, stage: list[str]
) -> None:
    settings = [*TINY, *stage, "steps=12"]
    run(pictures, tmp_path / "one", settings)
    run(pictures, tmp_path / "two", settings, processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(one) == list(two) == list(range(1, 13))
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, abs=1e-3)


def test_a_killed_run_ends_with_the_numbers_of_an_undisturbed_one(
    pictures: Path, tmp_path: Path
) -> None:
    settings = [*TINY, *ADVERSARIAL, *MUON, "steps=60"]
    run(pictures, tmp_path / "whole", settings)
    process = start(pictures, tmp_path / "killed", settings)
    wait_for_step(process, tmp_path / "killed", 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert max(losses(tmp_path / "killed")) < 60
    run(pictures, tmp_path / "killed", settings)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "killed")[name], tensor)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_saves_and_ends_cleanly(pictures: Path, tmp_path: Path) -> None:
    process = start(pictures, tmp_path, [*TINY, "steps=100000", "save_every=5"])
    wait_for_step(process, tmp_path, 7)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode == 130
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert saved == max(losses(tmp_path))


def test_time_budget_stretches_the_schedule_and_ends_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10_000))
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("srgan_training.train.time", clock)
    settings = [*TINY, "steps=1000000", "max_minutes=1.0", "optimizer.warmup=0"]
    config = load_config(SMOKE, [*settings, f"data.folders=['{pictures}']"])
    assert train(config, tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert 5 < len(rates) < 60
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 10


@pytest.mark.parametrize("method", [[], MUON], ids=["adam", "muon"])
def test_a_step_without_a_finite_gradient_is_skipped_and_ten_in_a_row_end_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: list[str]
) -> None:
    config = load_config(
        SMOKE, [*TINY, *method, "steps=40", "optimizer.ema=0", f"data.folders=['{pictures}']"]
    )
    calls = iter(range(1000))

    def sometimes_nan(bad_from: int, bad_to: int):  # type: ignore[no-untyped-def]
        def loss(x: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
            value = (x - target).abs().mean()
            return value * float("nan") if bad_from <= next(calls) < bad_to else value

        return loss

    monkeypatch.setattr("srgan_training.train.distance", sometimes_nan(5, 8))
    train(config, tmp_path / "some", progress=False)
    assert (
        json.loads((tmp_path / "some/metrics.jsonl").read_text().splitlines()[-2])["skipped"] == 3
    )
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "some").values())

    calls = iter(range(1000))
    monkeypatch.setattr("srgan_training.train.distance", sometimes_nan(5, 1000))
    with pytest.raises(TrainingError, match="10 steps in a row"):
        train(config, tmp_path / "all", progress=False)


def test_a_folder_of_another_network_or_without_pictures_is_refused(
    pictures: Path, tmp_path: Path
) -> None:
    settings = [*TINY, "steps=2", f"data.folders=['{pictures}']"]
    train(load_config(SMOKE, settings), tmp_path / "run", progress=False)
    for other in ("generator.blocks=3", *MUON):
        with pytest.raises(TrainingError, match="another output folder"):
            train(load_config(SMOKE, [*settings, other]), tmp_path / "run", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        train(
            load_config(SMOKE, [*settings, f"data.folders=['{tmp_path / 'empty'}']"]),
            tmp_path / "other",
            progress=False,
        )


def test_stage_two_starts_from_the_generator_of_stage_one(pictures: Path, tmp_path: Path) -> None:
    first = [*TINY, "steps=3", f"data.folders=['{pictures}']"]
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
