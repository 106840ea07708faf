"""`basicsr study`: real small trainings, tested and reported; what is finished is kept."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from kit import write_yaml

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.records import MANIFEST
from dfpg_plugin.files import sha256_of
from dfpg_plugin.options.reading import force
from dfpg_plugin.reports.study import StudyRun, is_tested, network_options, results_folder, run_study

NOT_PLAIN = ("network_d", "network_prior", "prior_opt", "gan_opt", "optim_d", "ema_decay")


def write_models(folder: Path, options: dict) -> tuple[Path, Path, Path]:
    """Write two models' options, with and without a prior stream, and a test's."""
    options["train"]["total_iter"] = 2
    del options["val"]
    full = write_yaml(folder / "full.yml", options)
    plain = {key: value for key, value in options.items() if key not in NOT_PLAIN}
    plain["network_g"] = {**options["network_g"], "prior_stream": False}
    plain["train"] = {
        k: v for k, v in options["train"].items() if k not in ("prior_opt", "gan_opt", "optim_d", "ema_decay")
    }
    test = {
        "name": "t", "model_type": "DFPGModel", "num_gpu": 0, "manual_seed": 0,
        "datasets": {"test": {"name": "Val", "type": "FaceBlurDataset", "faces": "orl", "split": "val",
                              "kernel_sizes": [5], "kernels_per_size": 2}},
        "network_g": {"type": "DFPGNet"}, "path": {"pretrain_network_g": "replaced.pth"},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    }  # fmt: skip
    return full, write_yaml(folder / "plain.yml", plain), write_yaml(folder / "test.yml", test)


def test_a_models_network_and_weights_go_into_the_test(tmp_path: Path, demo_options: dict) -> None:
    full, plain, test = write_models(tmp_path, demo_options)
    opt = yaml.safe_load(test.read_text())
    force(opt, network_options(str(full), Path("a.pth"), str(test)))
    sizes = {"prior_channels": [64, 128, 256], "prior_strides": [1, 2, 4]}  # of the training's prior
    assert opt["network_g"] == {**demo_options["network_g"], **sizes}
    assert opt["plugins"] == []
    assert opt["path"] == {"pretrain_network_g": "a.pth", "param_key_g": "params_ema"}
    force(opt, network_options(str(plain), Path("b.pth"), str(test)))
    assert opt["network_g"]["prior_stream"] is False
    assert opt["path"] == {"pretrain_network_g": "b.pth", "param_key_g": "params"}


def test_a_network_that_was_sized_to_its_prior_is_tested_in_that_size(tmp_path: Path, demo_options: dict) -> None:
    demo_options["network_prior"] = {"type": "ArcFaceFeatureExtractor", "weights": "elsewhere.pth"}
    demo_options["plugins"] = ["gfpgan"]
    opt = {"path": {}}
    test = write_yaml(tmp_path / "test.yml", {"plugins": ["realesrgan"]})
    force(opt, network_options(str(write_yaml(tmp_path / "arcface.yml", demo_options)), Path("a.pth"), str(test)))
    assert (opt["network_g"]["prior_channels"], opt["network_g"]["prior_strides"]) == ([64, 64, 128], [1, 2, 4])
    assert opt["plugins"] == ["realesrgan", "gfpgan"]


def test_what_is_wrong_with_the_files_is_said_first(tmp_path: Path, demo_options: dict) -> None:
    full, _, test = write_models(tmp_path, demo_options)
    logs = tmp_path / "logs"
    with pytest.raises(UserError, match=r"-opt: nowhere\.yml does not exist"):
        run_study(["nowhere.yml"], [0], str(test), 1, logs)
    with pytest.raises(UserError, match=r"--test: nowhere\.yml does not exist"):
        run_study([str(full)], [0], "nowhere.yml", 1, logs)
    (tmp_path / "other").mkdir()
    twin = write_yaml(tmp_path / "other" / "full.yml", demo_options)
    with pytest.raises(UserError, match="-opt: full is also the name of another option file"):
        run_study([str(full), str(twin)], [0], str(test), 1, logs)
    sharp = write_yaml(tmp_path / "sharp.yml", demo_options)
    with pytest.raises(UserError, match="-opt: sharp is also the name of another option file or of the test set"):
        run_study([str(sharp)], [0], str(test), 1, logs)
    with pytest.raises(UserError, match="--seeds: 0 0 names a seed twice"):
        run_study([str(full)], [0, 0], str(test), 1, logs)
    without = {key: value for key, value in demo_options.items() if key != "path"}
    with pytest.raises(UserError, match=r"pathless\.yml: the section `path` is missing"):
        run_study([str(full)], [0], str(write_yaml(tmp_path / "pathless.yml", without)), 1, logs)
    assert not logs.exists()


def test_a_training_by_other_options_is_not_taken_for_this_one(
    tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    full, _, test = write_models(tmp_path, demo_options)
    (tmp_path / "experiments" / "full_seed0" / "models").mkdir(parents=True)
    (tmp_path / "experiments" / "full_seed0" / "models" / "net_g_latest.pth").touch()
    copy = tmp_path / "experiments" / "full_seed0" / "full.yml"
    for text in (None, "# CMD\n\n" + full.read_text().replace("total_iter: 2", "total_iter: 3")):
        if text is not None:
            copy.write_text(text)
        with pytest.raises(UserError, match="full_seed0: was trained with other options than"):
            run_study([str(full)], [0], str(test), 1, tmp_path / "logs")


def test_a_run_that_fails_ends_the_study_with_its_own_words(
    tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demo_options["network_g"]["type"] = "DFPGNte"
    full, _, test = write_models(tmp_path, demo_options)
    with pytest.raises(
        UserError, match=r"full_seed0: training ended with status 2: line 33: network_g:type: no arch is called"
    ):
        run_study([str(full)], [0], str(test), 1, tmp_path / "logs")


def test_a_prior_that_can_not_be_built_is_said_before_the_trainings(
    tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Gone", torch.load)
    demo_options["network_prior"] = {"type": "Gone", "f": "nowhere.pth"}
    full, _, test = write_models(tmp_path, demo_options)
    with pytest.raises(UserError, match=r"^network_prior: Gone can't be built: .*nowhere\.pth"):
        run_study([str(full)], [0], str(test), 1, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_two_models_and_two_seeds(basicsr: Callable, tmp_path: Path, demo_options: dict) -> None:
    full, plain, test = write_models(tmp_path, demo_options)
    arguments = ["study", "-opt", full, plain, "--test", test, "--seeds", 0, 1, "--jobs", 2, "--out", "report"]
    done = basicsr(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    for step in ("full_seed0: training", "plain_seed1: testing"):
        assert f"INFO: {step}" in done.stderr
    names = {path.parent.name: path for path in (tmp_path / "results").glob("*/evaluation.json")}
    assert sorted(names) == ["blurred", "full_seed0", "full_seed1", "plain_seed0", "plain_seed1", "sharp"]
    manifest = json.loads(names["plain_seed1"].read_text())
    assert manifest["machine"]["workers"] == max(1, len(os.sched_getaffinity(0)) // 2) - 1
    method = manifest["method"]
    assert method["weights"]["file"] == "experiments/plain_seed1/models/net_g_latest.pth"
    assert method["network_g"]["prior_stream"] is False
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["title"] == "Study"
    text = (tmp_path / "report" / "report.md").read_text()
    assert all(label in text for label in ("blurred", "sharp", "full", "plain"))
    before = {name: path.stat().st_mtime_ns for name, path in names.items()}
    assert basicsr(*arguments).returncode == 0
    assert {name: path.stat().st_mtime_ns for name, path in names.items()} == before
    assert not list((tmp_path / "results").glob("*archived*"))


@pytest.mark.slow
def test_a_study_writes_where_the_option_files_say(basicsr: Callable, tmp_path: Path, demo_options: dict) -> None:
    for name in ("runs", "tests"):
        (tmp_path / name).mkdir()
    full, _, test = write_models(tmp_path, {**demo_options, "path": {"root": "runs"}})
    test.write_text(test.read_text().replace("path:", f"path:\n  root: {tmp_path / 'tests'}"))
    done = basicsr("study", "-opt", full, "--test", test, "--seeds", 0, "--out", "report")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "experiments" / "full_seed0" / "models" / "net_g_latest.pth").is_file()
    assert len(list((tmp_path / "tests" / "results").glob("*/evaluation.json"))) == 3
    assert not (tmp_path / "experiments").exists()
    assert not (tmp_path / "results").exists()


def test_runs_are_found_where_the_option_files_say(
    tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "tests"):
        (tmp_path / name).mkdir()
    full, plain, test = write_models(tmp_path, {**demo_options, "path": {"root": "runs"}})
    test.write_text(test.read_text().replace("path:", f"path:\n  root: {tmp_path / 'tests'}"))
    run = StudyRun(str(full), 0)
    assert run.weights == Path("runs/experiments/full_seed0/models/net_g_latest.pth")
    assert results_folder(str(test)) == tmp_path / "tests" / "results"
    assert results_folder(str(write_yaml(plain, {"path": None}))) == Path("results")
    run.weights.parent.mkdir(parents=True)
    run.weights.write_bytes(b"weights")
    (tmp_path / "tests" / "results" / run.name).mkdir(parents=True)
    method = {"images": "restored", "weights": {"sha256": sha256_of(run.weights)}}
    manifest = {"finished": "now", "option_file": {"sha256": sha256_of(test)}, "method": method}
    (tmp_path / "tests" / "results" / run.name / MANIFEST).write_text(json.dumps(manifest))
    assert is_tested(run.name, str(test), run)
    with pytest.raises(UserError, match="runs/experiments/full_seed0: was trained with other options"):
        run_study([str(full)], [0], str(test), 1, tmp_path / "logs")
    (tmp_path / "tests").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"path:root: the folder .*tests does not exist"):
        run_study([str(full)], [0], str(test), 1, tmp_path / "logs")


def test_results_of_another_test_or_other_weights_are_not_kept(
    tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    full, _, test = write_models(tmp_path, demo_options)
    run = StudyRun(str(full), 0)
    run.weights.parent.mkdir(parents=True)
    run.weights.write_bytes(b"weights")
    folder = tmp_path / "results" / run.name
    assert not is_tested(run.name, str(test), run)
    folder.mkdir(parents=True)
    method = {"images": "restored", "weights": {"sha256": sha256_of(run.weights)}}
    manifest = {"finished": "now", "option_file": {"sha256": sha256_of(test)}, "method": method}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert is_tested(run.name, str(test), run)
    assert not is_tested(run.name, str(test), None)  # these are not the blurred faces
    (folder / MANIFEST).write_text(json.dumps({**manifest, "finished": None}))
    assert not is_tested(run.name, str(test), run)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    run.weights.write_bytes(b"others")
    assert not is_tested(run.name, str(test), run)
    run.weights.write_bytes(b"weights")
    test.write_text(test.read_text() + "# changed")
    assert not is_tested(run.name, str(test), run)
