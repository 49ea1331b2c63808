"""Every recipe loads; a typing mistake in a setting is an error."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from srgan_training.config import LossConfig, load_config, of_checkpoint
from srgan_training.schedule import branched, elapsed_part, expected_steps, rate_factor

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_recipe_loads(path: Path) -> None:
    config = load_config(path)
    assert config.steps > 0
    assert config.name


def test_overrides_reach_nested_settings() -> None:
    config = load_config(
        CONFIGS[0], ["optimizer.clip=0.25", "data.folders=['a', 'b']", "name=plain text"]
    )
    assert config.optimizer.clip == 0.25
    assert config.data.folders == ("a", "b")
    assert config.name == "plain text"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimiser.clip=1", "optimiser"),
        ("optimizer.clp=1", "optimizer.clp"),
        ("batch='many'", "batch"),
        ("data=3", "data"),
        ("loss.pixel=huber", "loss.pixel"),
        ("generator.blocks=0", "blocks"),
        ("steps", "key=value"),
        ("loss.shift=1000", "shift"),
    ],
)
def test_a_wrong_setting_is_named(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_config(CONFIGS[0], [override])


def test_cosine_falls_from_the_full_rate_to_the_final_one() -> None:
    settings = load_config(
        CONFIGS[0], ["optimizer.schedule=cosine", "optimizer.final=0.1", "optimizer.warmup=10"]
    ).optimizer
    rates = [rate_factor(settings, part / 100, 1000) for part in range(101)]
    assert rates[0] == 1
    assert rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert rate_factor(settings, 0, 4) == pytest.approx(0.5)


def test_the_papers_schedule_falls_to_a_tenth_half_way() -> None:
    config = load_config(CONFIGS[0].parent / "srgan_paper.toml")
    rates = [config.optimizer.learning_rate * rate_factor(config.optimizer, part, 1000)
             for part in (0.0, 0.49, 0.5, 1.0)]  # fmt: skip
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    assert config.steps == 200_000


def test_a_time_budget_counts_only_where_there_is_one() -> None:
    config = load_config(CONFIGS[0], ["max_minutes=10"])
    assert elapsed_part(config, 300) == 0.5
    assert elapsed_part(load_config(CONFIGS[0], ["max_minutes=0"]), 300) == 0


def test_the_bar_ends_where_the_time_budget_ends() -> None:
    config = load_config(CONFIGS[0], ["steps=1000"])
    assert expected_steps(config, step=100, spent=0.0) == 1000
    assert expected_steps(config, step=100, spent=0.25) == 400
    assert expected_steps(config, step=100, spent=0.05) == 1000
    assert expected_steps(config, step=100, spent=1.1) == 100


def test_a_branch_keeps_the_rate_and_takes_it_to_zero_in_a_tenth_of_the_steps_so_far() -> None:
    run = load_config(CONFIGS[0], ["optimizer.schedule=constant", "steps=1000000"])
    branch = branched(run, 800, "a/run")
    assert (branch.steps, branch.branch) == (880, "a/run")
    rates = [rate_factor(branch.optimizer, step / branch.steps, step) for step in range(700, 881)]
    assert rates[:100] == [1.0] * 100
    assert rates[101] < 1
    assert rates[140] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


def test_settings_of_an_old_checkpoint_have_new_names_and_defaults_for_what_is_new() -> None:
    """A checkpoint of version 0.1, by its keys."""
    now = dataclasses.asdict(load_config(CONFIGS[0]))
    data, loss, optimizer = (dict(now[key]) for key in ("data", "loss", "optimizer"))
    for table, new in (
        (data, ("low", "teacher", "second_order")),
        (loss, ("teacher_share", "artefact_weight", "discriminator_first")),
        (optimizer, ("decay", "method")),
    ):
        for key in new:
            del table[key]
    del data["min_scale"]
    data["smallest_reduction"] = 0.5
    old = {**now, "data": data, "loss": loss, "optimizer": optimizer}
    old["discriminator"] = {**now["discriminator"], "layout": "seed"}
    del old["branch"], old["judge"]
    config = of_checkpoint(old)
    assert config.data.min_scale == 0.5
    assert config.discriminator.layout == "coco10k"
    assert config.data.low == ()
    assert config.loss.teacher_share == LossConfig().teacher_share
    assert config.optimizer.method == "adam"


@pytest.mark.parametrize(
    "overrides", [["data.low=['a']"], ["data.folders=['a']", "data.teacher=['b']"]]
)
def test_pairs_need_a_counterpart_for_each_folder(overrides: list[str]) -> None:
    with pytest.raises(ValueError, match="needs"):
        load_config(CONFIGS[0], overrides)
