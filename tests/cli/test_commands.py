"""The command line as a user meets it: subcommands, errors of one line with status 2."""

import ast
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from kit import ROOT, write_yaml

from dfpg_cli import doctor
from dfpg_cli.doctor import OPTIONAL
from dfpg_cli.main import build_parser, main
from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces


def error_line(status: int, said: str, after_start: bool = False) -> str:
    """The one line that a failed command prints; alone, unless it failed after the start of a training."""
    assert status == 2, said
    assert "Traceback" not in said
    lines = said.splitlines()
    assert lines[-1].startswith("basicsr: error: ")
    assert after_start or len(lines) == 1, said
    return lines[-1]


@pytest.fixture
def failing(command: Callable, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command in this process; return the line of its error."""

    def run(*args: object, after_start: bool = False) -> str:
        capfd.readouterr()
        return error_line(command(*args), capfd.readouterr().err, after_start)

    return run


@pytest.fixture
def three_faces(tmp_path: Path) -> Path:
    """A folder of 3 real faces."""
    folder = tmp_path / "three"
    folder.mkdir()
    faces = orl_faces("test")
    for name in faces.names[:3]:
        cv2.imwrite(str(folder / f"{name[:-4].replace('/', '_')}.png"), faces.read(name))
    return folder


def test_list_names_this_packages_components(command: Callable, capsys: pytest.CaptureFixture) -> None:
    assert command("list") == 0
    lines = capsys.readouterr().out.splitlines()
    ours = {tuple(line.split()[:2]) for line in lines if line.endswith(" dfpg_plugin")}
    assert ours == {
        ("arch", "DFPGNet"), ("arch", "PriorGuidedNet"), ("arch", "AdaptedNet"), ("arch", "SpandrelNet"),
        ("arch", "CAFeatureDiscriminator"), ("arch", "VGGFaceFeatureExtractor"), ("arch", "ArcFaceFeatureExtractor"),
        ("arch", "TimmFeatureExtractor"), ("arch", "TorchvisionFeatureExtractor"),
        ("dataset", "FaceBlurDataset"), ("dataset", "FaceDeblurTestDataset"), ("dataset", "FacePairDataset"),
        ("loss", "PriorLoss"), ("loss", "PriorPerceptualLoss"), ("model", "DFPGModel"),
        ("metric", "calculate_identity_similarity"), ("metric", "calculate_lpips"), ("metric", "calculate_pyiqa"),
        ("metric", "calculate_ssim_3d"), ("metric", "calculate_vggface_distance"),
    }  # fmt: skip
    assert any(line.split() == ["arch", "RRDBNet", "basicsr"] for line in lines)


def test_doctor_says_where_basicsr_is_and_what_is_patched(basicsr: Callable) -> None:
    done = basicsr("doctor")
    assert done.returncode == 0
    assert "basicsr is imported from" in done.stdout
    assert "functional_tensor: active" in done.stdout
    assert "stock_resume: not active" in done.stdout
    for patch in ("stylegan2_ops", "adam_betas", "jpeg_quality", "loading", "numpy_numbers"):
        assert f"{patch}: active" in done.stdout
    assert "plugins: dfpg_plugin" in done.stdout
    assert "calculate_lpips, net: vgg: " in done.stdout
    assert "detection_Resnet50_Final.pth is" in done.stdout
    absent = [package for module, (package, _) in OPTIONAL.items() if find_spec(module) is None]
    missing = "; ".join(f"{package} (optional)" for package in absent) or "nothing"
    assert done.stdout.splitlines()[-1] == f"missing: {missing}"
    for package, use in OPTIONAL.values():
        (line,) = re.findall(rf"^  {package} +(.*) - {re.escape(use)}$", done.stdout, re.MULTILINE)
        assert (line == f"missing: pip install {package}") == (package in absent)
    assert f"av {version('av')}" in re.sub(" +", " ", done.stdout)


def test_doctor_knows_every_extra_of_the_installation() -> None:
    source = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = {n.targets[0].id: n.value for n in source.body if isinstance(n, ast.Assign)}
    names = ("DEMO", "FACES", "VIDEO", "PAGE", "ONNX", "RESTORERS", "TIMM", "COMPLETION")
    needed = [package for name in names for package in ast.literal_eval(lists[name])]
    extras = {re.match(r"[\w-]+", package)[0] for package in needed} | {"pyiqa"}  # av of av>=17
    assert {package for package, _ in OPTIONAL.values()} == extras | {"tensorboard", "wandb"}


def test_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in ("av", "wandb") else find_spec(name))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  av +missing: pip install av - videos in basicsr restore$", out, re.MULTILINE)
    assert re.search(r"^missing: .*av \(optional\).*; wandb \(optional\)$", out, re.MULTILINE)


def test_doctor_says_where_the_package_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", requires)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"not installed, only on Python's path: {ROOT}; what it needs is not known" in out
    assert "missing: " in out


def test_missing_option_file(failing: Callable) -> None:
    assert "nowhere.yml does not exist" in failing("train", "-opt", "nowhere.yml")


def test_misspelt_network(basicsr: Callable, tmp_path: Path, demo_options: dict) -> None:
    demo_options["network_g"]["type"] = "DFPGNte"
    done = basicsr("train", "-opt", write_yaml(tmp_path / "t.yml", demo_options))
    line = error_line(done.returncode, done.stderr)
    assert "network_g:type" in line
    assert "Did you mean DFPGNet" in line


def test_all_missing_data_folders_of_the_papers_options(command: Callable, capfd: pytest.CaptureFixture) -> None:
    assert command("train", "-opt", ROOT / "options" / "train_dfpg_mspl.yml") == 2
    head, *lines = capfd.readouterr().err.splitlines()
    assert head == f"basicsr: error: {len(lines)} mistakes in the options:"
    missing = [re.search(r"^  line \d+: (\S+): the folder (\S+) does not exist", line).groups() for line in lines]
    assert missing[0] == ("datasets:train:dataroot_gt", "datasets/MSPL/train_img")
    assert ("datasets:train:dataroot_kernels", "datasets/MSPL/trainkernels") in missing


def test_file_that_is_not_vggface(failing: Callable, tmp_path: Path, demo_options: dict) -> None:
    torch.save(
        {"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.6.weight": torch.zeros(1000, 4)},
        tmp_path / "vgg16.pth",
    )
    demo_options["network_prior"]["weights"] = "vgg16.pth"
    line = failing("train", "-opt", write_yaml(tmp_path / "t.yml", demo_options))
    assert "vgg16.pth is not a VGGFace file: its classifier has 1000 outputs" in line
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("flags", [[], ["--stock"]])
def test_yaml_and_forced_values_execute_nothing(
    failing: Callable, tmp_path: Path, demo_options: dict, flags: list
) -> None:
    file = write_yaml(tmp_path / "t.yml", demo_options)
    forced = 'name=[__import__("pathlib").Path("executed").touch()]' if flags else 'x"];1/0;opt["y=1'
    failing("train", "-opt", file, *flags, "--force_yml", forced)
    file.write_text(file.read_text() + "evil: !!python/object/apply:os.system ['touch executed']\n")
    assert "could not determine a constructor" in failing("train", "-opt", file, *flags)
    assert not (tmp_path / "executed").exists()


def test_training_then_testing(
    command: Callable, tmp_path: Path, demo_options: dict, capsys, three_faces: Path
) -> None:
    demo_options["train"]["total_iter"] = 1
    demo_options["datasets"]["val"].update(faces=None, split=None, dataroot_gt=str(three_faces))
    assert command("train", "-opt", write_yaml(tmp_path / "t.yml", demo_options)) == 0
    weights = tmp_path / "experiments" / "small" / "models" / "net_g_latest.pth"
    test = {k: v for k, v in demo_options.items() if k in ("name", "model_type", "scale", "network_g", "val")}
    test["datasets"] = {"test_1": {**demo_options["datasets"]["val"], "name": "ORL-test"}}
    test["path"] = {"pretrain_network_g": str(weights), "param_key_g": "params_ema"}
    test["val"]["save_img"] = True
    capsys.readouterr()
    assert command("test", "-opt", write_yaml(tmp_path / "test.yml", test)) == 0
    assert "Validation ORL-test" in capsys.readouterr().err
    assert len(list((tmp_path / "results" / "small" / "visualization" / "ORL-test").glob("*.png"))) == 3
    assert list((tmp_path / "results" / "small").glob("test_small_*.log"))


def test_testing_without_weights(failing: Callable, tmp_path: Path, demo_options: dict) -> None:
    demo_options["datasets"] = {"test": demo_options["datasets"]["val"]}
    line = failing("test", "-opt", write_yaml(tmp_path / "t.yml", demo_options))
    assert "path:pretrain_network_g: missing" in line


@pytest.mark.parametrize("spelling", ["--local_rank", "--local-rank"])
@pytest.mark.parametrize("opt", ["-opt", "--opt"])
def test_basicsrs_flags(spelling: str, opt: str) -> None:
    line = f"train {opt} a.yml --launcher pytorch --auto_resume --debug {spelling} 3 --force_yml a=1 b:c=2"
    args = build_parser().parse_args(line.split())
    assert (args.opt, args.launcher, args.auto_resume, args.debug, args.local_rank) == (
        "a.yml",
        "pytorch",
        True,
        True,
        3,
    )
    assert args.force_yml == ["a=1", "b:c=2"]


def test_launcher_without_its_environment(
    failing: Callable, tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    file = write_yaml(tmp_path / "t.yml", demo_options)
    assert "Start with torchrun" in failing("train", "-opt", file, "--launcher", "pytorch")
    assert "Start with srun" in failing("train", "-opt", file, "--launcher", "slurm")


def test_damaged_training_image_is_named_without_a_traceback(
    failing: Callable, tmp_path: Path, demo_options: dict
) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes(b"no image")
    demo_options["datasets"]["train"].update(faces=None, split=None, dataroot_gt="faces")
    file = write_yaml(tmp_path / "t.yml", demo_options)
    assert "not an image that OpenCV can read" in failing("train", "-opt", file, after_start=True)
    forced = "datasets:train:num_worker_per_gpu=1"
    line = failing("train", "-opt", file, "--force_yml", forced, after_start=True)
    assert "not an image that OpenCV can read" in line


def test_a_yaml_may_name_plugins(basicsr: Callable, tmp_path: Path, demo_options: dict, three_faces: Path) -> None:
    """In a process of its own, which a plugin changes for good: an error that names the plugins, then a training."""
    demo_options["plugins"] = ["gfpgan"]
    demo_options["train"]["total_iter"] = 1
    demo_options["datasets"]["val"].update(faces=None, split=None, dataroot_gt=str(three_faces))
    write_yaml(tmp_path / "right.yml", demo_options)
    demo_options["network_g"]["type"] = "GFPGANv2"
    write_yaml(tmp_path / "wrong.yml", demo_options)
    code = (
        "import sys; from dfpg_cli.main import main\n"
        "status = main(['train', '-opt', 'wrong.yml']); print(file=sys.stderr, flush=True)\n"
        "print(status); sys.exit(main(['train', '-opt', 'right.yml']))"
    )
    done = basicsr(code=code)
    line = error_line(int(done.stdout.split()[0]), done.stderr.split("\n\n")[0])
    assert "Plugins loaded: dfpg_plugin, gfpgan." in line
    assert "GFPGANv1" in line
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["kernels", "k", "--count", "0"], ["kernels", "k", "--seed", "-1"], ["kernels", "k", "--sizes", "x"],
        ["check", "f", "--workers", "-1"], ["pairs", "p", "--faces", "f", "--kernels", "k", "--crop", "0"],
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", *arguments])
    assert caught.value.code == 2
    assert f"argument {arguments[-2]}: expected a whole number from" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stop(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dfpg_cli.prepare.run_kernels", stop)
    assert main(["prepare", "kernels", "k"]) == 130
    assert capsys.readouterr().err == "basicsr: interrupted\n"


def test_an_error_of_a_data_worker_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def fail(args: object) -> None:
        raise UserError("Caught UserError in DataLoader worker process 0.\nTraceback:\nchecks.UserError: a.png: bad.\n")

    monkeypatch.setattr("dfpg_cli.prepare.run_kernels", fail)
    assert main(["prepare", "kernels", "k"]) == 2
    assert capsys.readouterr().err == "basicsr: error: a.png: bad.\n"


def test_a_training_loads_no_library_that_only_another_command_needs(basicsr: Callable) -> None:
    code = "import sys, dfpg_cli.running, dfpg_cli.run_options, dfpg_plugin.training.loop; print(*sys.modules)"
    modules = set(basicsr(code=code).stdout.split())
    assert "torch" in modules
    assert not modules & {"matplotlib", "numba", "gradio", "av", "dlib", "onnx", "onnxruntime", "h5py"}
