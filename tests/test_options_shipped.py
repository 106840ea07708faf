"""The shipped YAMLs: they pass the checks, name the right data, and find what is published under its names."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from kit import ROOT

from dfpg_cli.main import build_parser
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestOptions
from dfpg_plugin.data.face_blur_dataset import FaceBlurOptions
from dfpg_plugin.evaluation.set_metrics import read_set_metrics
from dfpg_plugin.options.checking import check_options
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import force, read_option_file
from dfpg_plugin.preparation.face_folder import FFHQ_SIDE
from dfpg_plugin.runs.building import build_loaders

OPTIONS = ROOT / "options"
READERS = {"FaceBlurDataset": FaceBlurOptions, "FaceDeblurTestDataset": FaceDeblurTestOptions}
SIZES = (13, 27)
MSPL_SETS = {
    "test_center_celeba": ("MSPL-Center-CelebA", "datasets/MSPL/Test_data_center/Test_data_CelebA"),
    "test_center_celebahq": ("MSPL-Center-CelebA-HQ", "datasets/MSPL/Test_data_center/Test_data_CelebA-HQ"),
    "test_center_ffhq": ("MSPL-Center-FFHQ", "datasets/MSPL/Test_data_center/Test_data_FFHQ"),
    "test_random_celeba": ("MSPL-Random-CelebA", "datasets/MSPL/Test_data_random/Test_data_CelebA"),
    "test_random_celebahq": ("MSPL-Random-CelebA-HQ", "datasets/MSPL/Test_data_random/Test_data_CelebA-HQ"),
    "test_random_ffhq": ("MSPL-Random-FFHQ", "datasets/MSPL/Test_data_random/Test_data_FFHQ"),
}
SHEN_SETS = {
    "test_helen": ("Shen-Helen", "datasets/Shen/Test_data_Helen"),
    "test_celeba": ("Shen-CelebA", "datasets/Shen/Test_data_CelebA"),
}


def read(name: str) -> dict:
    return read_option_file(str(OPTIONS / name))


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (8, 8)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = cv2.imencode(".png", np.full((*size, 3), 99, np.uint8))[1]
        (folder / name).write_bytes(content.tobytes())


@pytest.mark.parametrize("path", sorted(OPTIONS.rglob("*.yml")), ids=lambda path: path.stem)
def test_every_component_and_argument_passes_the_checks(path: Path, tmp_path: Path) -> None:
    opt = read_option_file(str(path))
    assert opt["name"] == path.stem
    weights = tmp_path / "weights.pth"
    weights.touch()
    for section in opt["datasets"].values():
        section.update({key: str(tmp_path) for key in section if key.startswith("dataroot")})
    opt["path"].update({key: str(weights) for key, v in opt["path"].items() if key.startswith("pretrain_") and v})
    complete(opt, Arguments(str(path)), tmp_path, is_train="train" in opt)
    check_options(opt, load_plugins(opt.get("plugins") or []))
    for section in opt["datasets"].values():
        READERS[section["type"]].of_data_set("datasets", section)


@pytest.mark.parametrize(
    ("file", "sets", "weights"),
    [
        ("test_dfpg_mspl.yml", MSPL_SETS, "train_dfpg_mspl"),
        ("test_dfpg_shen.yml", SHEN_SETS, "train_dfpg_shen"),
    ],
)
def test_the_test_sets_and_weights_are_the_papers(file: str, sets: dict, weights: str) -> None:
    opt = read(file)
    for key, (name, dataroot) in sets.items():
        assert opt["datasets"][key] == {"name": name, "type": "FaceDeblurTestDataset", "dataroot": dataroot}
    assert opt["datasets"].keys() == sets.keys()
    assert opt["path"]["pretrain_network_g"] == f"experiments/{weights}/models/net_g_best.pth"
    assert opt["network_g"] == read(f"{weights}.yml")["network_g"]
    assert opt["val"]["metrics"] == {
        "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
        "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
        "ssim_3d": {"type": "calculate_ssim_3d", "better": "higher"},
        "d_vgg": {"type": "calculate_vggface_distance", "weights": "weights/VGGFace16.pth", "better": "lower"},
        "lpips": {"type": "calculate_lpips", "net": "vgg", "legacy_range": False, "better": "lower"},
    }
    assert ("set_metrics" in opt["val"]) == (file == "test_dfpg_shen.yml")
    read_set_metrics(opt["val"].get("set_metrics", {}))


ROWS = {  # of Table 4: Per, DFP, FT, Dis, CA-Dis & Pr
    "b1": (0, 0, 0, 0, 0), "b2": (1, 0, 0, 0, 0), "b3": (0, 1, 0, 0, 0),
    "b4": (0, 1, 1, 0, 0), "b5": (0, 1, 1, 1, 0), "b6": (0, 1, 1, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_the_ablation_differs_in_what_table_4_says(name: str) -> None:
    opt, complete_method = read(f"ablation/{name}.yml"), read("ablation/b6.yml")
    per, dfp, ft, dis, ca = map(bool, ROWS[name])
    train = opt["train"]
    assert opt["network_g"].pop("prior_stream") == dfp
    assert opt["network_g"].pop("feature_transform") == ft
    assert [key for key in ("feature_opt", "prior_opt", "gan_opt", "optim_d") if key in train] == (
        ["feature_opt"] * per + ["prior_opt"] * dfp + ["gan_opt", "optim_d"] * (dis or ca)
    )
    assert ("network_prior" in opt) == (per or dfp)
    if dis or ca:
        assert opt["network_d"].pop("channel_attention") == ca
        del complete_method["network_d"]["channel_attention"]
    for key in ("prior_stream", "feature_transform"):
        del complete_method["network_g"][key]
    for parts, others in ((opt, complete_method), (train, complete_method["train"])):
        for key, value in parts.items():
            if key not in ("name", "train", "path", "feature_opt"):
                assert value == others[key], key


@pytest.mark.parametrize("name", ["edsr", "rcan", "rrdbnet", "swinir", "nafnet"])
def test_the_baselines_are_trained_as_b1(name: str) -> None:
    opt, b1 = read(f"baseline/{name}.yml"), read("ablation/b1.yml")
    for key in ("name", "network_g"):
        assert opt.pop(key) != b1.pop(key)
    rates = {"nafnet": 3e-3, "rrdbnet": 3e-4}  # chosen for each on the validation identities
    assert opt["train"]["optim_g"].pop("lr") == rates.get(name, 1e-3)
    del b1["train"]["optim_g"]["lr"]
    assert opt == b1


def test_the_demos_test_measures_the_network_of_b6() -> None:
    network = read("ablation/b6.yml")["network_g"]
    tested = read("test_dfpg_orl.yml")["network_g"]
    assert {key: network[key] for key in tested} == tested
    assert set(read_set_metrics(read("test_dfpg_orl.yml")["val"]["set_metrics"])) == {"detection", "verification"}


def test_lfws_options_use_the_data_that_their_heads_make() -> None:
    """Commands, kernel ranges and folders stand in two files: they belong together."""
    train, test = read("train_dfpg_lfw.yml"), read("test_dfpg_lfw.yml")
    pairs = {}
    for name in ("train_dfpg_lfw.yml", "test_dfpg_lfw.yml"):
        text = (OPTIONS / name).read_text(encoding="utf-8").replace("\\\n#", "")
        for line in re.findall(r"^#   basicsr (prepare .+)$", text, re.MULTILINE):
            args = build_parser().parse_args(line.split())
            if args.kind == "pairs":
                pairs[str(args.target)] = args
    assert pairs.keys() == {train["datasets"]["val"]["dataroot"], test["datasets"]["test"]["dataroot"]}
    ranges = [train["datasets"]["train"]["kernel_range"], *(args.kernel_range for args in pairs.values())]
    assert ranges == [[0, 360], [360, 380], [380, 400]]
    assert [str(args.faces) for args in pairs.values()] == ["datasets/LFW/val", "datasets/LFW/test"]
    for args in pairs.values():
        assert str(args.kernels) == train["datasets"]["train"]["dataroot_kernels"]
        assert args.cut == train["datasets"]["train"]["crop"] == FFHQ_SIDE
        assert [0, *args.sizes] == train["datasets"]["train"]["kernel_sizes"]
    assert test["network_g"] == train["network_g"]
    assert train["train"]["scheduler"]["T_max"] == train["train"]["total_iter"]
    assert "prior_opt" in train["train"] and "gan_opt" in train["train"]  # B6, with D^C
    assert train["network_d"]["channel_attention"]
    set_metrics = read_set_metrics(test["val"]["set_metrics"])
    assert set(set_metrics) == {"detection", "verification", "verification_of_all"}
    usual, of_all = set_metrics["verification"], set_metrics["verification_of_all"]
    assert of_all == usual.model_copy(update={"unfound": "no_match"})
    assert set_metrics["verification"].photographs == str(pairs[test["datasets"]["test"]["dataroot"]].faces)
    for path in ("George_W_Bush_0001.png", "George_W_Bush/George_W_Bush_0530.webp"):  # of a sharp face, of a photograph
        assert re.search(set_metrics["verification"].identity, path)[1] == "George_W_Bush"


def test_real_blur_saves_pictures_and_measures_nothing() -> None:
    opt = read("test_dfpg_realblur.yml")
    assert opt["datasets"] == {
        "test": {"name": "Real-Blur", "type": "FaceDeblurTestDataset", "dataroot_lq": "datasets/RealBlur"}
    }
    assert opt["val"] == {"save_img": True, "suffix": None}
    assert opt["network_g"] == read("train_dfpg_mspl.yml")["network_g"]


def test_dfpg_a_differs_from_dfpg_b_in_data_and_length_only() -> None:
    shen, mspl = read("train_dfpg_shen.yml"), read("train_dfpg_mspl.yml")
    train = shen["datasets"]["train"]
    assert (train["kernel_sizes"], train["noise_sigma"]) == ([27], pytest.approx(0.01 * 255))
    assert (train["one_size_per_batch"], train["batch_size_per_gpu"]) == (False, 16)
    epoch = (2_000 + 25_000 + 2_164) // 16
    assert epoch == 1822
    assert shen["train"]["total_iter"] == 200 * epoch == 364_400
    assert shen["train"]["scheduler"] == {"type": "StepLR", "step_size": epoch, "gamma": 0.99}
    assert shen["val"].pop("val_freq") == epoch
    mspl["val"].pop("val_freq")
    for key in ("total_iter", "scheduler"):
        del shen["train"][key], mspl["train"][key]
    for key in ("model_type", "scale", "num_gpu", "network_g", "network_d", "network_prior", "path", "train", "val"):
        assert shen[key] == mspl[key], key


def published(faces: list[str], kernels: list[str], suffix: str = "") -> dict[str, list[str]]:
    """The blurred names of each face, spelt here and not by the package."""
    return {f: [f"{f}_ker{k}_blur_k{s}{suffix}.png" for k in kernels for s in SIZES] for f in faces}


def paired(name: str, tmp_path: Path, roots: dict[str, Path], is_train: bool = False) -> dict[str, dict]:
    """Build every set of a shipped YAML with other paths; return for each its pairs, blurred name -> sharp name."""
    opt = read(name)
    force(opt, [f"datasets:{key}:dataroot={root}" for key, root in roots.items()])
    complete(opt, Arguments(name), tmp_path, is_train)
    sets = {}
    for loader in build_loaders(opt, "val" if is_train else "test"):
        pairs = [(Path(batch["lq_path"][0]), Path(batch["gt_path"][0])) for batch in loader]
        assert all(lq.is_file() and gt.is_file() for lq, gt in pairs)
        sets[loader.dataset.opt["name"]] = {lq.name: gt.name for lq, gt in pairs}
        assert len(sets[loader.dataset.opt["name"]]) == len(loader.dataset) == len(pairs)
    return sets


def test_mspl_as_published(tmp_path: Path) -> None:
    """1 beside 10, other kernel ids in each set, and in Random a suffix that ground truths carry or don't."""
    faces = {"CelebA": ["1", "10", "100"], "CelebA-HQ": ["00001", "00010"], "FFHQ": ["7", "07", "face_7"]}
    kernels = {"CelebA": ["01", "10"], "CelebA-HQ": ["11", "20"], "FFHQ": ["21", "25", "30"]}
    roots, expected = {}, {}
    for key, (label, dataroot) in MSPL_SETS.items():
        root = roots[key] = tmp_path / dataroot
        short = root.name.removeprefix("Test_data_")
        is_random = "random" in dataroot
        sharp_suffix = "_random" if is_random and short != "FFHQ" else ""
        names = published(faces[short], kernels[short], "_random" if is_random else "")
        write_images(root / f"{short}_gt", [f"{face}{sharp_suffix}.png" for face in names])
        write_images(root / f"{short}_blur", [name for blurred in names.values() for name in blurred])
        expected[label] = {n: f"{face}{sharp_suffix}.png" for face, blurred in names.items() for n in blurred}
    found = paired("test_dfpg_mspl.yml", tmp_path, roots)
    assert found == expected
    assert {label: len(pairs) for label, pairs in found.items()} == {
        "MSPL-Center-CelebA": 12, "MSPL-Center-CelebA-HQ": 8, "MSPL-Center-FFHQ": 18,
        "MSPL-Random-CelebA": 12, "MSPL-Random-CelebA-HQ": 8, "MSPL-Random-FFHQ": 18,
    }  # fmt: skip
    assert found["MSPL-Center-CelebA"]["1_ker10_blur_k13.png"] == "1.png"
    assert found["MSPL-Center-CelebA"]["10_ker01_blur_k13.png"] == "10.png"
    assert found["MSPL-Random-CelebA-HQ"]["00001_ker20_blur_k27_random.png"] == "00001_random.png"
    assert found["MSPL-Random-FFHQ"]["face_7_ker21_blur_k13_random.png"] == "face_7.png"


def test_shen_as_published(tmp_path: Path) -> None:
    """Names with underscores and digits at their ends, letter case that varies, files that are no pictures."""
    helen, celeba = tmp_path / "Test_data_Helen", tmp_path / "Test_data_CelebA"
    write_images(helen / "final_Helen_gt", ["1003168_1.png", "1003168_10.png", "1003168.PNG"])
    write_images(
        helen / "final_helen_Blur",
        [
            "1003168_1_ker01_blur_k13.png",
            "1003168_1_KER10_blur_k27.PNG",
            "1003168_10_ker01_blur_k13.png",
            "1003168_ker01_blur_k13.png",
        ],
    )
    (helen / "final_helen_Blur" / "Thumbs.db").write_bytes(b"no picture")
    (helen / "readme.txt").write_text("no folder")
    write_images(celeba / "final_CelebA_GT", ["000001.png", "Face_A.png"])
    write_images(celeba / "final_celeba_blur", ["000001_ker05_blur_k15_random.png", "face_a_ker05_blur_k15.png"])
    assert paired("test_dfpg_shen.yml", tmp_path, {"test_helen": helen, "test_celeba": celeba}) == {
        "Shen-Helen": {
            "1003168_1_ker01_blur_k13.png": "1003168_1.png",
            "1003168_1_KER10_blur_k27.PNG": "1003168_1.png",
            "1003168_10_ker01_blur_k13.png": "1003168_10.png",
            "1003168_ker01_blur_k13.png": "1003168.PNG",
        },
        "Shen-CelebA": {"000001_ker05_blur_k15_random.png": "000001.png", "face_a_ker05_blur_k15.png": "Face_A.png"},
    }


@pytest.mark.parametrize("file", ["train_dfpg_mspl.yml", "train_dfpg_shen.yml"])
def test_mspls_validation_set_as_published(tmp_path: Path, file: str) -> None:
    root = tmp_path / "validationset"
    write_images(root / "gt", ["1.png", "11.png"])
    write_images(root / "blur", ["1_ker01_blur_k13.png", "1_ker02_blur_k13.png", "11_ker01_blur_k27.png"])
    assert paired(file, tmp_path, {"val": root}, is_train=True) == {
        "MSPL-val": {
            "1_ker01_blur_k13.png": "1.png",
            "1_ker02_blur_k13.png": "1.png",
            "11_ker01_blur_k27.png": "11.png",
        }
    }


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Forced options: the smallest network, with weights, and two real blurred pictures of different sizes."""
    network = {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
    torch.save({"params": build_network(dict(network)).state_dict()}, tmp_path / "net.pth")
    write_images(tmp_path / "real", ["a.png"], (21, 30))
    write_images(tmp_path / "real", ["b.png"], (16, 16))
    forced = {"network_g": network, "path:pretrain_network_g": "net.pth", "datasets:test:dataroot_lq": "real"}
    return ["num_gpu=0", *(f"{key}={json.dumps(value)}" for key, value in forced.items())]


@pytest.mark.parametrize("model", ["DFPGModel", "SRModel"])
def test_real_blur_is_restored_by_the_command(command: Callable, tmp_path: Path, tiny: list, model: str) -> None:
    file = OPTIONS / "test_dfpg_realblur.yml"
    assert command("test", "-opt", file, "--workers", 0, "--force_yml", *tiny, f"model_type={model}") == 0
    folder = tmp_path / "results" / "test_dfpg_realblur" / "visualization" / "Real-Blur"
    sizes = {path.name: cv2.imread(str(path)).shape for path in folder.iterdir()}
    assert sizes == {"a_test_dfpg_realblur.png": (21, 30, 3), "b_test_dfpg_realblur.png": (16, 16, 3)}


def test_metrics_for_real_blur_are_refused_before_anything_runs(
    command: Callable, tmp_path: Path, tiny: list, capsys: pytest.CaptureFixture
) -> None:
    metrics = "val:metrics={psnr: {type: calculate_psnr, crop_border: 0}}"
    assert command("test", "-opt", OPTIONS / "test_dfpg_realblur.yml", "--force_yml", *tiny, metrics) == 2
    said = capsys.readouterr().err
    assert "val:metrics: the data set Real-Blur has no ground truth, without which psnr can't be measured" in said
    assert "Traceback" not in said
    assert not (tmp_path / "results").exists()
