"""Models are found, verified and written; every failure is one clear sentence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import COMMITS, Hub, make_model

from srgan_infer import weights
from srgan_infer.errors import WeightsError
from srgan_infer.network.generator import Generator, GeneratorConfig


def failure(model: str | Path, **options: object) -> str:
    """The message of a load that must fail; checked to be one sentence."""
    with pytest.raises(WeightsError) as caught:
        weights.load(model, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replace_tensors(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Put other tensors in, with the hash that belongs to them."""
    data = safetensors.torch.save(state)
    (folder / "model.safetensors").write_bytes(data)
    edit_config(folder, sha256=hashlib.sha256(data).hexdigest())


def test_what_is_saved_is_what_is_loaded(model_folder: Path) -> None:
    loaded = weights.load(model_folder)
    torch.manual_seed(0)
    expected = Generator(loaded.config)
    x = torch.rand(1, 3, 7, 5)
    with torch.no_grad():
        assert torch.equal(weights.build(loaded)(x), expected(x))
    assert loaded.folder == model_folder
    stored = (model_folder / "model.safetensors").read_bytes()
    assert loaded.sha256 == hashlib.sha256(stored).hexdigest()
    assert sorted(p.name for p in model_folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    whole = weights.load(make_model(tmp_path / "whole"))
    half = weights.load(make_model(tmp_path / "half", half=True))
    for key, tensor in half.state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, whole.state[key].half().float())
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]


def test_an_unknown_name_lists_the_bundled_ones() -> None:
    message = failure("sgran")
    for name in weights.bundled():
        assert name in message


def test_damaged_weights_are_refused(model_folder: Path) -> None:
    path = model_folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "damaged" in failure(model_folder)


@pytest.mark.parametrize("kept", [0, 5, 40, -4])
def test_truncated_weights_are_refused(model_folder: Path, kept: int) -> None:
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "cut short" in failure(model_folder)


def test_a_file_that_is_no_safetensors_is_refused(model_folder: Path) -> None:
    data = b"\x80\x04 this might be a pickle"
    (model_folder / "model.safetensors").write_bytes(data)
    edit_config(model_folder, sha256=hashlib.sha256(data).hexdigest())
    assert "not a safetensors file" in failure(model_folder)


def test_pickles_are_not_read(model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "model.pth")
    assert "model.pth is not read" in failure(model_folder)


def test_a_missing_tensor_is_named(model_folder: Path) -> None:
    state = dict(weights.load(model_folder).state)
    del state["trunk.weight"]
    replace_tensors(model_folder, state)
    assert "lacks tensor trunk.weight" in failure(model_folder)


def test_an_unknown_tensor_is_named(model_folder: Path) -> None:
    state = dict(weights.load(model_folder).state)
    replace_tensors(model_folder, {**state, "trunk.norm": torch.zeros(3)})
    assert "unknown tensor trunk.norm" in failure(model_folder)


def test_a_wrong_shape_is_named(model_folder: Path) -> None:
    state = dict(weights.load(model_folder).state)
    replace_tensors(model_folder, {**state, "stem.bias": torch.zeros(9)})
    assert "tensor stem.bias is (9,) instead of (8,)" in failure(model_folder)


def test_integer_weights_are_refused(model_folder: Path) -> None:
    state = dict(weights.load(model_folder).state)
    replace_tensors(model_folder, {**state, "stem.bias": torch.zeros(8, dtype=torch.int32)})
    assert "torch.int32" in failure(model_folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"architecture": "RRDBNet"}, "foreign architecture"),
        ({"architecture": None}, "foreign architecture"),
        ({"format": 2}, "pip install -U srgan-infer"),
        ({"sha256": None}, "lacks the SHA-256"),
        ({"generator": {"blocks": 10**9}}, "too few for the 1000000000 blocks"),
        ({"generator": {"blocks": -1}}, "blocks must be a positive integer"),
        ({"generator": {"attention": True}}, "unknown generator field: attention"),
        ({"generator": {"channels": 16, "blocks": 2}}, "instead of"),
        ({"generator": 3}, "does not describe a generator"),
    ],
)
def test_other_configs_are_refused(
    model_folder: Path, values: dict[str, object], expected: str
) -> None:
    edit_config(model_folder, **values)
    assert expected in failure(model_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '"srgan-generator"'])
def test_a_config_that_is_no_config_is_refused(model_folder: Path, text: str) -> None:
    (model_folder / "config.json").write_text(text)
    failure(model_folder)


def test_a_folder_without_a_model_and_a_file(tmp_path: Path) -> None:
    assert "has no config.json" in failure(tmp_path)
    (tmp_path / "weights.pth").touch()
    assert "give the folder" in failure(tmp_path / "weights.pth")


def test_a_folder_without_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in failure(model_folder)


def test_save_refuses_tensors_of_another_network(tmp_path: Path) -> None:
    state = Generator(GeneratorConfig(channels=8, blocks=2)).state_dict()
    with pytest.raises(WeightsError, match="does not fit"):
        weights.save(tmp_path / "model", GeneratorConfig(channels=8, blocks=1), state, "")
    assert not (tmp_path / "model").exists()


def test_a_failed_save_keeps_the_old_model(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = weights.load(model_folder)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        make_model(model_folder, seed=1)
    monkeypatch.undo()
    assert weights.load(model_folder).sha256 == old.sha256
    assert len(list(model_folder.iterdir())) == 3


class TestBlend:
    def test_ends_are_the_two_models(self, tmp_path: Path) -> None:
        a, b = (weights.load(make_model(tmp_path / str(s), seed=s)) for s in (0, 1))
        assert weights.blend(a, b, 0) is a
        assert weights.blend(a, b, 1) is b

    def test_the_middle_is_the_mean(self, tmp_path: Path) -> None:
        a, b = (weights.load(make_model(tmp_path / str(s), seed=s)) for s in (0, 1))
        middle = weights.blend(a, b, 0.5)
        for key, tensor in middle.state.items():
            torch.testing.assert_close(tensor, (a.state[key] + b.state[key]) / 2)
        assert a.sha256 in middle.sha256
        assert b.sha256 in middle.sha256

    @pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
    def test_strength_outside_its_range(self, model_folder: Path, strength: float) -> None:
        one = weights.load(model_folder)
        with pytest.raises(ValueError, match="between 0 and 1"):
            weights.blend(one, one, strength)

    def test_different_networks(self, tmp_path: Path) -> None:
        one = weights.load(make_model(tmp_path / "one"))
        config = GeneratorConfig(channels=8, blocks=1)
        weights.save(tmp_path / "two", config, Generator(config).state_dict(), "")
        with pytest.raises(WeightsError, match="different networks"):
            weights.blend(one, weights.load(tmp_path / "two"), 0.5)


class TestHub:
    @pytest.fixture(autouse=True)
    def _no_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The Hub library waits between attempts."""
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def test_fetch_and_reuse(self, hub: Hub, model_folder: Path, tmp_path: Path) -> None:
        hub.add("user/repo", model_folder)
        first = weights.load("user/repo", cache_dir=tmp_path / "cache")
        assert first.sha256 == weights.load(model_folder).sha256
        assert first.folder is not None
        assert (first.folder / "README.md").is_file()
        hub.requests.clear()
        weights.load("user/repo", cache_dir=tmp_path / "cache")
        assert not [r for r in hub.requests if r.startswith("GET")]
        hub.requests.clear()
        again = weights.load("user/repo", cache_dir=tmp_path / "cache", local_files_only=True)
        assert not hub.requests
        assert again.sha256 == first.sha256

    def test_force_download(self, hub: Hub, model_folder: Path, tmp_path: Path) -> None:
        hub.add("user/repo", model_folder)
        loaded = weights.load("user/repo", cache_dir=tmp_path / "cache")
        assert loaded.folder is not None
        stored = loaded.folder / "model.safetensors"
        stored.write_bytes(stored.read_bytes()[:-1] + b"?")
        message = failure("user/repo", cache_dir=tmp_path / "cache")
        assert "force_download=True" in message
        weights.load("user/repo", cache_dir=tmp_path / "cache", force_download=True)

    def test_revision(self, hub: Hub, tmp_path: Path) -> None:
        one, two = (make_model(tmp_path / str(seed), seed=seed) for seed in (1, 2))
        hub.add("user/repo", one)
        hub.add("user/repo", two, COMMITS["v1"])
        cache = tmp_path / "cache"
        assert weights.load("user/repo", cache_dir=cache).sha256 == weights.load(one).sha256
        tagged = weights.load("user/repo", revision="v1", cache_dir=cache)
        assert tagged.sha256 == weights.load(two).sha256
        message = failure("user/repo", revision="v9", cache_dir=cache)
        assert "no revision 'v9'" in message

    def test_token(self, hub: Hub, model_folder: Path, tmp_path: Path) -> None:
        hub.add("user/repo", model_folder)
        hub.mode = "token"
        message = failure("user/repo", cache_dir=tmp_path / "cache")
        assert "401" in message
        assert "token=" in message
        weights.load("user/repo", cache_dir=tmp_path / "cache", token="hf_secret")

    def test_a_card_is_not_needed(self, hub: Hub, model_folder: Path, tmp_path: Path) -> None:
        (model_folder / "README.md").unlink()
        hub.add("user/repo", model_folder)
        weights.load("user/repo", cache_dir=tmp_path / "cache")

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("private", "private or gated \\(HTTP 401\\)"),
            ("gated", "gated"),
            ("ill", "HTTP status 418"),
            ("truncating", "Fetching user/repo from the Hub failed"),
        ],
    )
    def test_refusals(
        self, hub: Hub, model_folder: Path, tmp_path: Path, mode: str, expected: str
    ) -> None:
        hub.add("user/repo", model_folder)
        hub.mode = mode
        assert re.search(expected, failure("user/repo", cache_dir=tmp_path / "cache"))

    def test_an_interrupted_download_can_be_repeated(
        self, hub: Hub, model_folder: Path, tmp_path: Path
    ) -> None:
        hub.add("user/repo", model_folder)
        hub.mode = "truncating"
        failure("user/repo", cache_dir=tmp_path / "cache")
        hub.mode = "well"
        weights.load("user/repo", cache_dir=tmp_path / "cache")

    def test_unknown_repository(self, hub: Hub, tmp_path: Path) -> None:
        message = failure("user/nothing", cache_dir=tmp_path)
        assert "no repository user/nothing" in message
        assert "404" in message

    def test_a_repository_that_holds_something_else(self, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "pytorch_model.bin").touch()
        hub.add("user/repo", tmp_path / "other")
        assert "no srgan-infer model" in failure("user/repo", cache_dir=tmp_path / "cache")

    def test_local_files_only_without_a_cache(self, hub: Hub, tmp_path: Path) -> None:
        message = failure("user/repo", cache_dir=tmp_path, local_files_only=True)
        assert "not in the local cache" in message
        assert not hub.requests

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
            ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ],
    )
    def test_no_network(self, tmp_path: Path, environment: dict[str, str], expected: str) -> None:
        code = f"""
import time
time.sleep = lambda seconds: None
from srgan_infer import weights
weights.load('user/repo', cache_dir={str(tmp_path)!r})
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("srgan_infer.errors.WeightsError: user/repo is not in the local")
        assert expected in last


def test_a_hub_is_waited_for_so_long_and_no_longer(
    hub: Hub, model_folder: Path, tmp_path: Path
) -> None:
    """In a process of its own, since what is left behind goes on asking."""
    for name in ("retry-later", "trickling", "stalling", "card-reset", "card-500"):
        hub.add(f"slow/{name}", model_folder)
    code = f"""
from srgan_infer import weights
weights.hub.CARD_SECONDS = 0.5
for name in ("retry-later", "trickling", "stalling", "card-reset", "card-500"):
    try:
        print(weights.load("slow/" + name, cache_dir={str(tmp_path)!r}, timeout=1).sha256)
    except weights.WeightsError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    never = "Fetching slow/{} from the Hub failed (there was no end after 1 s); try again."
    sha256 = weights.load(model_folder).sha256
    first, *others = done.stdout.splitlines()
    # Older releases of the Hub library do not wait for a Retry-After at all.
    at_once = never.format("retry-later").replace("there was no end after 1 s", "HTTP status 429")
    assert first in (never.format("retry-later"), at_once)
    assert others == [never.format("trickling"), never.format("stalling"), sha256, sha256]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"format": -5}, "format -5, which there is not"),
        ({"format": 10**30}, "newer than this"),
        ({"generator": {"channels": 10**9, "blocks": 2}}, "cannot be|instead of"),
        ({"generator": {"channels": 10**30, "blocks": 2}}, "cannot be"),
        ({"generator": {"channels": 8, "blocks": 2, "stem_kernel": 10**9 + 1}}, "cannot be"),
        ({"generator": {"channels": 8, "blocks": 2, "scale": 2**4000}}, "too few"),
        ({"generator": {"x" * 10**6: 1}}, "does not describe a generator"),
        ({"architecture": "x" * 10**6}, "foreign architecture"),
        ({"config_sha256": None}, "lacks the SHA-256 of config.json"),
    ],
)
def test_absurd_configs_are_refused_in_short(
    model_folder: Path, values: dict[str, object], expected: str
) -> None:
    edit_config(model_folder, **values)
    message = failure(model_folder)
    assert re.search(expected, message)
    assert len(message) < 1000


def test_a_config_is_sealed(model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    for change in (
        {"output_activation": "sigmoid"},
        {"input_skip": "nearest"},
        {"activation": "leaky_relu"},
    ):
        edit_config(model_folder, generator={**config["generator"], **change})
        assert re.search("was changed|does not fit", failure(model_folder))
    edit_config(model_folder, generator=config["generator"])
    weights.load(model_folder)


@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("place", ["config", "weights"])
def test_deep_nesting_is_refused(model_folder: Path, depth: int, place: str) -> None:
    nested = b'{"architecture": ' + b"[" * depth + b"]" * depth + b"}"
    if place == "config":
        (model_folder / "config.json").write_bytes(nested)
    else:
        data = len(nested).to_bytes(8, "little") + nested
        (model_folder / "model.safetensors").write_bytes(data)
        edit_config(model_folder, sha256=hashlib.sha256(data).hexdigest())
    assert len(failure(model_folder)) < 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(model_folder: Path, value: float) -> None:
    loaded = weights.load(model_folder)
    state = {key: tensor.clone() for key, tensor in loaded.state.items()}
    state["trunk.weight"][0, 0, 0, 0] = value
    replace_tensors(model_folder, state)
    assert "trunk.weight has values that are infinite or no numbers" in failure(model_folder)
    with pytest.raises(WeightsError, match="infinite or no numbers"):
        weights.save(model_folder, loaded.config, state, "")


@pytest.mark.parametrize("name", ["~nosuchuser/model", "x" * 5000, "a/" + "b" * 5000, "a\0b", ""])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    assert len(failure(name, cache_dir=tmp_path, local_files_only=True)) < 6000


def test_the_version_of_a_model_is_kept_and_sealed(model_folder: Path, tmp_path: Path) -> None:
    model = weights.load(model_folder)
    assert model.version == ""
    weights.save(tmp_path / "two", model.config, model.state, "", version="2")
    assert weights.load(tmp_path / "two").version == "2"
    config = tmp_path / "two" / "config.json"
    config.write_text(config.read_text().replace('"version": "2"', '"version": "3"'))
    assert "was changed" in failure(tmp_path / "two")
