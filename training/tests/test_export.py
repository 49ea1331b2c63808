"""From a training run to a model folder with its card."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from srgan_training import export
from srgan_training.checkpoint import CHECKPOINT
from srgan_training.config import (
    DataConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    load_config,
)
from srgan_training.errors import TrainingError
from srgan_training.generator import TrainingGenerator
from srgan_training.main import main

from srgan_infer import SuperResolver, weights
from srgan_infer.network.generator import Generator, GeneratorConfig


def trained(config: TrainConfig) -> TrainingGenerator:
    """A generator whose batch norm, if any, has seen images."""
    torch.manual_seed(config.seed)
    model = TrainingGenerator(config.generator, batch_norm=config.batch_norm)
    model.train()
    for _ in range(5):
        model(torch.rand(2, 3, 12, 12) * 2 - 0.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def write_run(folder: Path, config: TrainConfig, **changes: Any) -> TrainingGenerator:
    folder.mkdir(parents=True)
    model = trained(config)
    values = {
        "config": dataclasses.asdict(config),
        "average": model.state_dict(),
        "step": 1200,
        "seconds": 90.0,
        **changes,
    }
    torch.save(values, folder / CHECKPOINT)
    return model


def small(**changes: Any) -> TrainConfig:
    generator = GeneratorConfig(channels=8, blocks=2, input_skip="nearest")
    return dataclasses.replace(TrainConfig(generator=generator, steps=1200), **changes)


def front_matter(card: str) -> Any:
    data: Any = ModelCard(card).data
    return data.to_dict()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_exported_model_computes_what_was_trained(tmp_path: Path, batch_norm: bool) -> None:
    model = write_run(tmp_path / "run", small(batch_norm=batch_norm))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "m")]) == 0
    image = np.random.default_rng(0).random((20, 17, 3), dtype=np.float32)
    big = SuperResolver.from_pretrained(tmp_path / "m", device="cpu", dtype="float32")(image)
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    np.testing.assert_allclose(big, expected.clamp(0, 1).numpy(), atol=1e-4)


def test_the_card_tells_both_stages_the_data_and_nothing_of_the_machine(tmp_path: Path) -> None:
    data = tmp_path / "photographs"
    for folder, count in (("lakes", 3), ("towns", 5)):
        (data / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (120, 120)).save(data / folder / f"{number}.png")
    Image.new("RGB", (20, 20)).save(data / "towns/too small.png")
    (tmp_path / "licences.toml").write_text('[lakes]\nwhat = "lakes"\nlicence = "CC0"\n')
    images = DataConfig(folders=(str(data),), validation=0.0)
    write_run(tmp_path / "one", small(data=images))
    second = small(
        name="srgan",
        seed=7,
        start=str(tmp_path / "one"),
        data=images,
        loss=LossConfig(
            adversarial_weight=0.1,
            feature_weight=1.0,
            feature_network=str(tmp_path / "vgg.safetensors"),
            feature_layers={"relu1_1": 0.1, "relu5_4": 1.0},
        ),
        optimizer=OptimizerConfig(milestones=(0.5, 0.75)),
    )
    write_run(tmp_path / "two", second, step=800, seconds=150.0)
    export.export(
        tmp_path / "two",
        tmp_path / "model",
        name="srgan",
        licences=tmp_path / "licences.toml",
        machine="1 × abacus",
    )
    text = (tmp_path / "model/README.md").read_text()
    assert str(tmp_path) not in text
    assert "| lakes | 3 | lakes | CC0 |" in text
    assert "| towns | 5 | not described | not stated |" in text
    assert "Hardware: 1 × abacus. Wall time: 4.0 minutes." in text
    front = front_matter(text)
    assert front["license"] == "mit"
    assert front["training"]["images"] == 8
    assert [stage["steps"] for stage in front["training"]["stages"]] == [1200, 800]
    assert [stage["seed"] for stage in front["training"]["stages"]] == [0, 7]

    # The recipe in the card trains again.
    recipe = text.split("```toml\n")[2].split("```")[0]
    (tmp_path / "recipe.toml").write_text(recipe)
    again = load_config(tmp_path / "recipe.toml")
    assert again.loss.feature_layers == second.loss.feature_layers
    assert again == dataclasses.replace(
        second,
        start="one",
        data=dataclasses.replace(images, folders=("photographs",)),
        loss=dataclasses.replace(second.loss, feature_network="vgg.safetensors"),
    )


def evaluation(sha256: str) -> str:
    def mean(psnr: float) -> dict[str, float]:
        return {"psnr": psnr, "ssim": 0.9, "feature_distance": 0.25, "judge_distance": 0.5}

    return json.dumps(
        {
            "models": {"m": sha256},
            "features": "distilled VGG-19",
            "means": {"Set5": {"bicubic": mean(28.4), "m": mean(31.237)}},
        }
    )


def test_an_evaluation_of_these_weights_is_in_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", small())
    first = export.export(tmp_path / "run", tmp_path / "m")
    file = tmp_path / "evaluation.json"
    file.write_text(evaluation(first.sha256))
    again = export.export(tmp_path / "run", tmp_path / "m", evaluation=file)
    assert again.sha256 == first.sha256
    text = (tmp_path / "m/README.md").read_text()
    assert "|  | PSNR / SSIM | distilled VGG-19 distance | efficientnet-lite0 distance |" in text
    assert "| Set5, this model | 31.24 / 0.9000 | 0.2500 | 0.5000 |" in text
    found = front_matter(text)["model-index"][0]["results"][0]
    assert found["dataset"]["name"] == "Set5"
    assert found["metrics"][0]["value"] == 31.24

    file.write_text(evaluation("0" * 64))
    command = [str(tmp_path / "run"), str(tmp_path / "m"), "--evaluation", str(file)]
    assert main(["export", *command]) == 1
    assert "other weights" in capsys.readouterr().err


def test_the_card_names_the_published_weights_that_it_started_from(tmp_path: Path) -> None:
    write_run(tmp_path / "run", small(start="srresnet"))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "m")]) == 0
    assert "started from the published `srresnet`" in (tmp_path / "m" / "README.md").read_text()
    write_run(tmp_path / "run2", small())
    assert main(["export", str(tmp_path / "run2"), str(tmp_path / "m2")]) == 0
    assert "started from" not in (tmp_path / "m2" / "README.md").read_text()


def test_a_blend_is_stored_and_the_card_says_so(tmp_path: Path) -> None:
    ours = write_run(tmp_path / "run", small(seed=1, batch_norm=False)).state_dict()
    parent = write_run(tmp_path / "parent", small(seed=2, batch_norm=False)).state_dict()
    assert main(["export", str(tmp_path / "parent"), str(tmp_path / "p")]) == 0
    blend = ["--blend", f"0.75:{tmp_path / 'p'}"]
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "m"), *blend]) == 0
    stored = weights.read(tmp_path / "m", "m").state
    for name, tensor in ours.items():
        torch.testing.assert_close(stored[name], 0.75 * tensor + 0.25 * parent[name])
    card = (tmp_path / "m/README.md").read_text()
    assert "0.75 × the generator of the last stage + 0.25 × `p`" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("blend", ["0.5", "2:srresnet", "half:srresnet"])
def test_a_blend_of_nothing_is_refused(
    tmp_path: Path, blend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", small())
    command = ["export", str(tmp_path / "run"), str(tmp_path / "m"), "--blend", blend]
    assert main(command) == 1
    assert "SHARE:MODEL" in capsys.readouterr().err


def test_runs_of_the_published_model_that_it_started_from_are_listed(tmp_path: Path) -> None:
    (tmp_path / "lakes").mkdir()
    Image.new("RGB", (120, 120)).save(tmp_path / "lakes/a.png")
    data = DataConfig(folders=(str(tmp_path / "lakes"),), validation=0.0)
    write_run(tmp_path / "one", small(name="first", data=data), step=700)
    assert main(["export", str(tmp_path / "one"), str(tmp_path / "published")]) == 0
    start = str(tmp_path / "published")
    write_run(tmp_path / "two", small(name="second", start=start), step=300)
    assert main(["export", str(tmp_path / "two"), str(tmp_path / "m")]) == 0
    card = (tmp_path / "m/README.md").read_text()
    assert "| first | 700 | 1.5 |" in card
    assert "| second | 300 | 1.5 |" in card
    assert "Wall time: 3.0 minutes" in card
    assert "started from the published `published`" in card
    assert "| lakes | 1 |" in card.split("What `published` was trained on")[1]
    assert str(tmp_path) not in card


def test_the_card_names_the_teacher(tmp_path: Path) -> None:
    Image.new("RGB", (128, 128)).save(tmp_path / "a.png")
    made = tmp_path / "pairs"
    assert main(["pairs", str(made), "--data", str(tmp_path)]) == 0
    (made / "pairs.json").write_text('{"teacher": "wise.pth"}')
    data = DataConfig(
        folders=(str(made / "high"),),
        low=(str(made / "low"),),
        teacher=(str(made / "high"),),
        validation=0.0,
    )
    write_run(tmp_path / "run", small(data=data, loss=LossConfig(teacher_share=0.25)))
    licences = tmp_path / "licences.toml"
    licences.write_text('["wise.pth"]\nwhat = "a wise network"\nlicence = "MIT"\n')
    command = ["export", str(tmp_path / "run"), str(tmp_path / "m"), "--licences", str(licences)]
    assert main(command) == 0
    card = (tmp_path / "m/README.md").read_text()
    assert (
        "0.25 of the pixel term has for its target what `wise.pth`, a wise network (MIT)," in card
    )
    assert str(tmp_path) not in card


def test_weights_have_a_version_in_their_config_and_card(tmp_path: Path) -> None:
    write_run(tmp_path / "run", small())
    for asked, said in (([], ""), (["--weights-version", "2"], "2")):
        assert main(["export", str(tmp_path / "run"), str(tmp_path / "m"), *asked]) == 0
        assert weights.read(tmp_path / "m", "m").version == said
        card = (tmp_path / "m/README.md").read_text()
        assert ("Version 2 of its weights." in card) == bool(said)
        assert ("\nversion: '2'\n" in card) == bool(said)


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    write_run(tmp_path / "run", small())
    sizes = []
    for half in (False, True):
        export.export(tmp_path / "run", tmp_path / "m", half=half)
        sizes.append((tmp_path / "m" / weights.WEIGHTS_FILE).stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("what", "message"),
    [("nothing", "does not exist"), ("text", "no checkpoint"), ("nan", "not finite")],
)
def test_a_run_that_cannot_be_exported_is_named(
    tmp_path: Path, what: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if what == "nan":
        write_run(run, small())
        values = torch.load(run / CHECKPOINT, weights_only=True)
        values["average"]["output.bias"][0] = torch.nan
        torch.save(values, run / CHECKPOINT)
    elif what == "text":
        run.mkdir()
        (run / CHECKPOINT).write_text("hello")
    assert main(["export", str(run), str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_fold_that_changes_the_result_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", small(batch_norm=True))

    def wrong(model: TrainingGenerator) -> Any:
        generator = Generator(model.config).eval()
        plain = {k: v for k, v in model.state_dict().items() if k in generator.state_dict()}
        generator.load_state_dict(plain, strict=False)
        return generator

    monkeypatch.setattr(export, "deploy", wrong)
    with pytest.raises(TrainingError, match="changed the result"):
        export.export(tmp_path / "run", tmp_path / "m")
