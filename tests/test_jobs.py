"""Which files a command line means, and where the results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from srgan_infer.cli import jobs
from srgan_infer.cli.jobs import Job, UsageError, plan
from srgan_infer.cli.lists import Lists, plan_lazily


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def pairs(names: list[str], output: str | None = None, **options: Any) -> dict[str, str]:
    """Source → target of what is to be done."""
    jobs = plan(names, output, **options)
    assert not [job for job in jobs if job.problem]
    return {job.name: Path(str(job.target)).as_posix() for job in jobs if not job.skipped}


def refusal(names: list[str], output: str | None = None, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        plan(names, output, **options)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


class TestNamedFiles:
    def test_beside_the_source(self) -> None:
        touch("a.jpg", "in/b.PNG", "c.ico")
        assert pairs(["a.jpg", "in/b.PNG", "c.ico"]) == {
            "a.jpg": "a_upscaled.jpg",
            "in/b.PNG": "in/b_upscaled.PNG",
            "c.ico": "c_upscaled.png",
        }

    def test_to_a_file(self) -> None:
        touch("a.jpg")
        assert pairs(["a.jpg"], "out.png") == {"a.jpg": "out.png"}
        assert pairs(["a.jpg"], "new/out.webp") == {"a.jpg": "new/out.webp"}
        assert pairs(["a.jpg"], "out.data", format="png") == {"a.jpg": "out.data"}

    @pytest.mark.parametrize("output", ["large", "large/", "there", "there.png"])
    def test_to_a_folder(self, output: str) -> None:
        touch("a.jpg", "b.png", "there/old.txt", "there.png/old.txt")
        folder = output.rstrip("/")
        assert pairs(["a.jpg"], output) == {"a.jpg": f"{folder}/a.jpg"}
        assert pairs(["a.jpg", "b.png"], output, format="tif") == {
            "a.jpg": f"{folder}/a.tif",
            "b.png": f"{folder}/b.tif",
        }

    def test_suffix_and_format(self) -> None:
        touch("a.jpeg", "b.png")
        assert pairs(["a.jpeg", "b.png"], format="jpg", suffix="-x4") == {
            "a.jpeg": "a-x4.jpeg",
            "b.png": "b-x4.jpg",
        }
        assert pairs(["b.png"], "large", suffix="-x4") == {"b.png": "large/b-x4.png"}

    def test_into_the_folder_that_they_come_from(self) -> None:
        touch("in/a.png")
        assert pairs(["in/a.png"], "in") == {"in/a.png": "in/a_upscaled.png"}

    def test_a_name_twice_is_one_image(self) -> None:
        touch("a.png")
        assert pairs(["a.png", "./a.png", os.path.abspath("a.png")], "large") == {
            "a.png": "large/a.png"
        }

    @pytest.mark.parametrize(
        "name", ["-a.png", "100%.png", "a b.png", "äöü 漢字.png", "[1].png", "*.png"]
    )
    def test_unusual_names(self, name: str) -> None:
        touch(name, "1.png")
        assert pairs([name], "large") == {name: f"large/{name}"}

    def test_a_missing_file_is_left_to_its_reader(self) -> None:
        touch("a.png")
        assert [job.name for job in plan(["a.png", "missing.png"], "large")] == [
            "a.png",
            "missing.png",
        ]


class TestFolders:
    def test_images_in_a_folder(self) -> None:
        touch("in/b.png", "in/a.JPG", "in/notes.txt", "in/.hidden.png", "in/deep/c.png")
        assert pairs(["in"], "large") == {"in/a.JPG": "large/a.JPG", "in/b.png": "large/b.png"}

    def test_a_mirrored_tree(self) -> None:
        touch("in/a.png", "in/deep/a.png", "in/deep/deeper/b.webp", "in/.git/c.png")
        assert pairs(["in"], "large", recursive=True) == {
            "in/a.png": "large/a.png",
            "in/deep/a.png": "large/deep/a.png",
            "in/deep/deeper/b.webp": "large/deep/deeper/b.webp",
        }

    def test_beside_the_sources(self) -> None:
        touch("in/a.png", "in/deep/b.png")
        assert pairs(["in"], recursive=True) == {
            "in/a.png": "in/a_upscaled.png",
            "in/deep/b.png": "in/deep/b_upscaled.png",
        }

    def test_links_that_lead_in_circles(self) -> None:
        touch("in/a.png")
        os.symlink(os.path.abspath("in"), "in/again")
        assert list(pairs(["in"], "large", recursive=True)) == ["in/a.png"]

    def test_nothing_in_a_folder(self) -> None:
        touch("in/deep/a.png", "b.png")
        first, second = plan(["b.png", "in"], "large")
        assert first.problem is None
        assert second.problem is not None
        assert "--recursive" in second.problem


class TestPatterns:
    def test_what_the_shell_left(self) -> None:
        touch("b.png", "a.png", "c.jpg", "notes.txt")
        assert list(pairs(["*.png"], "large")) == ["a.png", "b.png"]
        assert list(pairs(["*"], "large")) == ["a.png", "b.png", "c.jpg"]
        assert list(pairs(["[ac].*"], "large")) == ["a.png", "c.jpg"]

    def test_a_mirrored_tree(self) -> None:
        touch("in/a.png", "in/deep/a.png")
        assert pairs(["in/**/*.png"], "large") == {
            "in/a.png": "large/a.png",
            "in/deep/a.png": "large/deep/a.png",
        }

    def test_a_file_with_brackets_comes_first(self) -> None:
        touch("[a].png", "a.png")
        assert list(pairs(["[a].png"], "large")) == ["[a].png"]

    def test_no_match(self) -> None:
        assert plan(["*.gif"]) == [Job("*.gif", problem="No image matches this pattern.")]


class TestRunningAgain:
    """What one run wrote is never an input of the next."""

    def test_results_beside_their_sources(self) -> None:
        touch("in/a.png", "in/a_upscaled.png", "in/lone_upscaled.png")
        assert pairs(["in"], overwrite=True) == {
            "in/a.png": "in/a_upscaled.png",
            "in/lone_upscaled.png": "in/lone_upscaled_upscaled.png",
        }

    def test_results_of_another_format(self) -> None:
        touch("in/a.png", "in/a_upscaled.jpg")
        assert list(pairs(["in"])) == ["in/a.png"]

    def test_results_that_the_shell_named(self) -> None:
        touch("a.png", "a_upscaled.png", "b.png")
        jobs = plan(["a.png", "a_upscaled.png", "b.png"], overwrite=True)
        assert {job.name: bool(job.skipped) for job in jobs} == {
            "a.png": False,
            "a_upscaled.png": True,
            "b.png": False,
        }

    @pytest.mark.parametrize("name", ["in", "in/**/*.png"])
    def test_an_output_folder_inside_the_input(self, name: str) -> None:
        touch("in/a.png", "in/large/a.png", "in/large/large/a.png")
        found = pairs([name], "in/large", recursive=True, overwrite=True)
        assert found == {"in/a.png": "in/large/a.png"}

    def test_a_result_with_brackets(self) -> None:
        touch("in/a[1].png", "in/a[1]_upscaled.png")
        assert list(pairs(["in"], overwrite=True)) == ["in/a[1].png"]


class TestExistingResults:
    def test_are_not_replaced_unless_asked(self) -> None:
        touch("a.png", "b.png", "large/a.png", "large/b.png")
        message = refusal(["a.png", "b.png"], "large")
        assert "large/a.png" in message.replace(os.sep, "/")
        assert "--overwrite" in message
        assert "--skip-existing" in message
        assert len(pairs(["a.png", "b.png"], "large", overwrite=True)) == 2

    def test_a_stopped_batch_goes_on(self) -> None:
        touch("a.png", "b.png", "large/a.png")
        assert list(pairs(["a.png", "b.png"], "large", skip_existing=True)) == ["b.png"]

    def test_a_dangling_link_is_there(self) -> None:
        touch("a.png")
        os.symlink("nowhere", "out.png")
        refusal(["a.png"], "out.png")


class TestStreams:
    def test_in_and_out(self) -> None:
        assert plan(["-"]) == [Job("-")]
        assert plan(["-"], "-") == [Job("-")]
        assert plan(["-"], "out.png") == [Job("-", None, Path("out.png"))]
        touch("a.png")
        assert plan(["a.png"], "-") == [Job("a.png", Path("a.png"))]

    def test_existing_file(self) -> None:
        touch("out.png")
        refusal(["-"], "out.png")

    @pytest.mark.parametrize(
        ("names", "output"),
        [(["-", "a.png"], "large"), (["-"], "large"), (["a.png", "b.png"], "-")],
    )
    def test_contradictions(self, names: list[str], output: str) -> None:
        touch("a.png", "b.png")
        refusal(names, output)


class TestContradictions:
    def test_two_sources_one_target(self) -> None:
        touch("a.png", "a.jpg", "x/a.png", "y/a.png")
        assert "both become" in refusal(["a.png", "a.jpg"], "large", format="webp")
        assert "both become" in refusal(["x", "y"], "large")

    def test_a_result_in_the_place_of_a_source(self) -> None:
        touch("a.png", "y/a.png")
        assert "would replace the source" in refusal(["a.png"], "a.png", overwrite=True)
        assert "would replace the source" in refusal(["a.png"], suffix="", overwrite=True)
        message = refusal(["a.png", "y/a.png"], "y", overwrite=True)
        assert "would replace the source" in message

    def test_through_a_link(self) -> None:
        touch("a.png")
        os.symlink("a.png", "same.png")
        assert "would replace" in refusal(["a.png"], "same.png", overwrite=True)

    def test_several_into_a_file(self) -> None:
        touch("a.png", "b.png", "in/c.png", "in/d.png", "old.png")
        for names in (["a.png", "b.png"], ["in"], ["in/*.png"]):
            assert "one file" in refusal(names, "out.png")

    def test_a_file_where_a_folder_is_needed(self) -> None:
        touch("a.png", "b.png", "plain")
        assert "a folder is needed" in refusal(["a.png", "b.png"], "plain")

    @pytest.mark.parametrize(
        ("output", "options", "expected"),
        [
            ("out.xyz", {}, "no format"),
            ("out.png", {"format": "jpg"}, "contradicts"),
            ("out.png", {"suffix": "_x"}, "--suffix"),
            ("large", {"format": "xyz"}, "no format"),
        ],
    )
    def test_formats(self, output: str, options: dict[str, Any], expected: str) -> None:
        touch("a.png")
        assert expected in refusal(["a.png"], output, **options)


class TestPassedOver:
    def folder(self, path: Path, *names: str) -> Path:
        path.mkdir(exist_ok=True)
        for name in names:
            (path / name).write_bytes(b"")
        return path

    def test_other_files_are_counted_by_extension(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path / "in", "a.jpg", "b.DNG", "c.dng", "d.txt", "e", ".hidden")
        (folder / "deeper").mkdir()
        done, passed = jobs.plan([str(folder)], str(tmp_path / "out"))
        assert done.source == folder / "a.jpg"
        assert passed.skipped == "4 files passed over: .dng (2), .txt (1), no extension (1)."
        assert passed.not_taken == {".dng": 2, ".txt": 1, "": 1}

    def test_a_folder_without_images_says_what_there_is(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path / "in", "b.dng")
        (only,) = jobs.plan([str(folder)], str(tmp_path / "out"), recursive=True)
        assert only.problem == "There is no image in this folder. 1 file passed over: .dng (1)."
        assert only.not_taken == {".dng": 1}

    @pytest.mark.parametrize("installed", [True, False])
    def test_what_a_package_reads_is_taken_or_it_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
    ) -> None:
        folder = self.folder(tmp_path / "in", "a.jpg", "b.heic", "c.JXL")
        monkeypatch.setattr(jobs, "is_installed", lambda name: installed)
        if not installed:
            monkeypatch.setattr(jobs, "READ", {".jpg"})
        planned = jobs.plan([str(folder)], str(tmp_path / "out"))
        if installed:
            assert [job.target and job.target.name for job in planned] == [
                "a.jpg",
                "b.png",
                "c.png",
            ]
        else:
            assert planned[1].skipped == (
                "2 files passed over: .heic (1), .jxl (1). "
                "pip install 'srgan-infer[formats]' reads .heic, .jxl."
            )

    def test_patterns_count_too(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path / "in", "a.jpg", "a.dng")
        _, passed = jobs.plan([str(folder / "a.*")], str(tmp_path / "out"))
        assert passed.skipped == "1 file passed over: .dng (1)."

    def test_a_long_list_says_the_same(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path / "in", "a.jpg", "b.dng")
        lazily = plan_lazily(Lists([str(folder)], None, None, False), str(tmp_path / "out"))
        assert [job.skipped for job in lazily] == [None, "1 file passed over: .dng (1)."]
