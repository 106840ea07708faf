"""GFPGAN, Real-ESRGAN and BasicSR's own models under the command, from option files like theirs; our parts in them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from kit import small_options, write_yaml

from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.evaluation.records import read_run

SEVERAL = """
import shlex, sys
from dfpg_cli.main import main
for line in sys.argv.pop(1).splitlines():
    status = main(shlex.split(line))
    if status:
        sys.exit(status)
"""  # commands in one process: importing torch takes longer than they do

DEGRADATION = {
    "blur_kernel_size": 41, "kernel_list": ["iso", "aniso"], "kernel_prob": [0.5, 0.5], "blur_sigma": [0.1, 10],
    "downsample_range": [0.8, 8], "noise_range": [0, 20], "jpeg_range": [60, 100],
    "color_jitter_prob": 0.3, "color_jitter_shift": 20, "color_jitter_pt_prob": 0.3, "gray_prob": 0.01,
}  # fmt: skip
NORMALISED = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False}}
L1 = {"type": "L1Loss", "loss_weight": 1, "reduction": "mean"}


def adam(lr: float = 2e-3) -> dict:
    """Return options of their own for each network: BasicSR removes keys from what it reads."""
    return {"type": "Adam", "lr": lr}


def write_faces(folder: Path, count: int, size: int, sigma: float = 0.0) -> Path:
    """Write square faces of different people, blurred by a Gaussian where ``sigma`` is not 0."""
    folder.mkdir()
    faces = orl_faces("train")
    for i in range(count):
        image = cv2.resize(faces.read(faces.names[10 * i]), (size, size), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{i:08d}.png"), cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image)
    return folder


def weights(run: Path, name: str) -> dict:
    return torch.load(run / "models" / f"{name}.pth", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[part][k], b[part][k]) for part in a for k in a[part])


def losses(text: str, name: str) -> list[float]:
    values = [float(value) for value in re.findall(rf"(?<!\w){name}: (\S+)", text)]
    assert values, f"{name} was not logged"  # of none, all are finite
    return values


def gfpgan_options() -> dict:
    """Return options with the keys and sizes of GFPGAN's ``train_gfpgan_v1_simple.yml``."""
    network = {"out_size": 512, "channel_multiplier": 1, "resample_kernel": [1, 3, 3, 1]}
    generator = {
        "type": "GFPGANv1", **network, "num_style_feat": 512, "decoder_load_path": "decoder.pth", "fix_decoder": True,
        "num_mlp": 8, "lr_mlp": 0.01, "input_is_latent": True, "different_w": True, "narrow": 1, "sft_half": True,
    }  # fmt: skip
    loader = {"use_shuffle": True, "num_worker_per_gpu": 6, "batch_size_per_gpu": 3, "dataset_enlarge_ratio": 1}
    disk = {"io_backend": {"type": "disk"}}
    train = {
        "optim_g": adam(), "optim_d": adam(), "optim_component": adam(),
        "scheduler": {"type": "MultiStepLR", "milestones": [600_000, 700_000], "gamma": 0.5},
        "total_iter": 800_000, "warmup_iter": -1, "pixel_opt": {**L1, "loss_weight": 0.1}, "L1_opt": L1,
        "pyramid_loss_weight": 1, "remove_pyramid_loss": 50_000, "perceptual_opt": {"type": "PerceptualLoss"},
        "gan_opt": {"type": "GANLoss", "gan_type": "wgan_softplus", "loss_weight": 0.1}, "r1_reg_weight": 10,
        "net_d_iters": 1, "net_d_init_iters": 0, "net_d_reg_every": 16,
    }  # fmt: skip
    return {
        "name": "gfpgan", "model_type": "GFPGANModel", "num_gpu": "auto", "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "FFHQ", "type": "FFHQDegradationDataset", "dataroot_gt": "gt", **disk, "use_hflip": True,
                **NORMALISED, "out_size": 512, **DEGRADATION, **loader, "prefetch_mode": None,
            },
            "val": {
                "name": "validation", "type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", **disk,
                **NORMALISED, "scale": 1,
            },
        },
        "network_g": generator, "network_d": {"type": "StyleGAN2Discriminator", **network},
        "path": {
            "pretrain_network_g": None, "param_key_g": "params_ema", "strict_load_g": None, "pretrain_network_d": None,
            "resume_state": None,
        },
        "train": train, "val": {"val_freq": 5e3, "save_img": True, "metrics": PSNR},
        "logger": {
            "print_freq": 100, "save_checkpoint_freq": 5e3, "use_tb_logger": True,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29_500}, "find_unused_parameters": True,
    }  # fmt: skip


PLUGIN = "plugins=['gfpgan']"  # so that their file stays as it is
SMALL_GENERATOR = (
    "network_g:num_style_feat=32 network_g:num_mlp=2 network_g:narrow=0.125 network_g:decoder_load_path=~ "
    "network_g:fix_decoder=false"
)
SHORT = (
    "datasets:train:num_worker_per_gpu=0 datasets:train:batch_size_per_gpu=1 train:perceptual_opt=~ "
    "train:net_d_reg_every=2 val:val_freq=2 logger:print_freq=1 logger:save_checkpoint_freq=2 "
    "logger:use_tb_logger=false"
)
SMALL_GFPGAN = (
    f'"{PLUGIN}" {SHORT} {SMALL_GENERATOR} datasets:train:out_size=64 network_g:out_size=64 network_d:out_size=64 '
    "network_d:narrow=0.125"
)


@pytest.fixture
def gfpgan_file(tmp_path: Path) -> Path:
    """Options of GFPGAN's kind, with three faces of 64x64 px, sharp in ``gt`` and blurred in ``lq``."""
    write_faces(tmp_path / "gt", 3, 64)
    write_faces(tmp_path / "lq", 3, 64, sigma=1.5)
    return write_yaml(tmp_path / "gfpgan.yml", gfpgan_options())


@pytest.mark.slow
def test_gfpgan_is_trained_resumed_tested_and_reported(basicsr: Callable, tmp_path: Path, gfpgan_file: Path) -> None:
    train = f"train -opt gfpgan.yml --force_yml {SMALL_GFPGAN}"
    options = gfpgan_options()
    test = {key: options[key] for key in ("name", "model_type", "manual_seed", "network_g")}
    test.update(scale=1, num_gpu=0, plugins=["gfpgan"])
    test["datasets"] = {"test_1": {**options["datasets"]["val"], "name": "faces"}}
    test["path"] = {"pretrain_network_g": "experiments/broken/models/net_g_latest.pth", "param_key_g": "params_ema"}
    test["val"] = {"save_img": True, "suffix": None, "metrics": PSNR}
    write_yaml(tmp_path / "test.yml", test)
    small = f"--force_yml {SMALL_GENERATOR} network_g:out_size=64"
    lines = [
        f"{train} name=whole train:total_iter=4",
        f"{train} name=broken train:total_iter=2",
        f"{train} name=broken train:total_iter=4 --auto_resume",
        f"test -opt test.yml --workers 0 {small}", f"test -opt test.yml --workers 1 {small} name=again",
        "test -opt test.yml --workers 0 --images blurred --force_yml name=blurred",
        "report blurred gfpgan --resamples 100",
    ]  # fmt: skip
    done = basicsr("\n".join(lines), code=SEVERAL)
    assert done.returncode == 0, done.stderr
    whole, broken = tmp_path / "experiments" / "whole", tmp_path / "experiments" / "broken"
    for name in ("net_g_4", "net_d_4"):
        assert same(weights(whole, name), weights(broken, name)), name
    log = next(whole.glob("train_*.log")).read_text()
    assert len(losses(log, "l_p_64")) == 4
    assert len(losses(log, "l_d_r1")) == 2
    assert len(losses(log, "l_d")) == 4
    assert np.isfinite(losses(log, "l_d")).all()
    assert log.count("# psnr: ") == 2
    run, again = (read_run(tmp_path / "results" / name) for name in ("gfpgan", "again"))
    for record, second in zip(run.sets["faces"], again.sets["faces"], strict=True):
        restored, gt = cv2.imread(str(run.folder / record.picture)), cv2.imread(str(tmp_path / record.gt_path))
        mse = np.mean((restored.astype(float) - gt) ** 2)
        assert record.values["psnr"] == pytest.approx(10 * np.log10(255**2 / mse))
        assert record.values == second.values  # in another process, and though the network draws noise
    blurred = read_run(tmp_path / "results" / "blurred").sets["faces"]
    assert [record.pixels for record in blurred] == [record.pixels for record in run.sets["faces"]]
    assert all(record.values["psnr"] > 20 for record in blurred)  # what is normalised is measured as it was
    report = json.loads((tmp_path / "reports" / "blurred_vs_gfpgan" / "report.json").read_text())
    assert "gfpgan" in json.dumps(report)


def test_gfpgan_under_basicsrs_own_loop_which_ours_goes_on_from(
    basicsr: Callable, tmp_path: Path, gfpgan_file: Path
) -> None:
    train = f"train -opt gfpgan.yml --force_yml {SMALL_GFPGAN}"
    lines = [f"{train} train:total_iter=2 --stock", f"{train} train:total_iter=3 --auto_resume"]
    done = basicsr("\n".join(lines), code=SEVERAL)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "experiments" / "gfpgan"
    assert "Start training at iteration 2 of 3" in done.stderr
    assert not same(weights(run, "net_g_2"), weights(run, "net_g_latest"))
    log = done.stderr + done.stdout
    assert len(losses(log, "l_g_pix")) >= 3
    assert np.isfinite(losses(log, "l_g_pix") + losses(log, "l_d_r1")).all()


@pytest.mark.slow
def test_gfpgan_with_facial_components_and_an_identity_network(
    basicsr: Callable, tmp_path: Path, gfpgan_file: Path
) -> None:
    write_faces(tmp_path / "large", 1, 512)
    components = {"left_eye": (180, 240, 40), "right_eye": (330, 240, 40), "mouth": (256, 370, 60)}
    landmarks = {name: list(np.array(place, float)) for name, place in components.items()}  # as GFPGAN's script has it
    torch.save({"00000000": landmarks}, tmp_path / "landmarks.pth")
    options = gfpgan_options()
    options["datasets"]["train"].update(
        dataroot_gt="large", crop_components=True, component_path="landmarks.pth", eye_enlarge_ratio=1.4
    )
    options["datasets"]["val"].update(dataroot_gt="large", dataroot_lq="large")
    for part in ("left_eye", "right_eye", "mouth"):
        options[f"network_d_{part}"] = {"type": "FacialComponentDiscriminator"}
        options["path"][f"pretrain_network_d_{part}"] = None
    options["network_identity"] = {"type": "ResNetArcFace", "block": "IRBlock", "layers": [2, 2, 2, 2], "use_se": False}
    options["path"].update(pretrain_network_identity=None, ignore_resume_networks=["network_identity"])
    vanilla = {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 1}
    options["train"].update(gan_component_opt=vanilla, comp_style_weight=200, identity_weight=10)
    file = write_yaml(tmp_path / "whole.yml", options)
    forced = f"{SHORT} {SMALL_GENERATOR} network_g:narrow=0.0625 network_d:narrow=0.0625 train:total_iter=2".split()
    done = basicsr("train", "-opt", file, "--force_yml", PLUGIN, *forced)
    assert done.returncode == 0, done.stderr
    for name in ("l_identity", "l_g_comp_style_loss", "l_d_mouth"):
        assert np.isfinite(losses(done.stderr, name)).all() and len(losses(done.stderr, name)) == 2, name
    models = {path.name for path in (tmp_path / "experiments" / "gfpgan" / "models").iterdir()}
    assert {"net_d_mouth_2.pth", "net_d_left_eye_2.pth", "net_g_latest.pth"} <= models


def realesrgan_options(plugins: list[str]) -> dict:
    """Return options with the keys of Real-ESRGAN's ``train_realesrgan_x4plus.yml``, small."""
    kernels = {
        "blur_kernel_size": 21, "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03], "sinc_prob": 0.1,
        "kernel_list": ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"],
        "blur_sigma": [0.2, 3], "betag_range": [0.5, 4], "betap_range": [1, 2],
    }  # fmt: skip
    second = {f"{key}2": value for key, value in kernels.items()}
    degraded = {
        "resize_prob": [0.2, 0.7, 0.1], "resize_range": [0.15, 1.5], "gaussian_noise_prob": 0.5, "noise_range": [1, 30],
        "poisson_scale_range": [0.05, 3], "gray_noise_prob": 0.4, "jpeg_range": [30, 95],
    }  # fmt: skip
    optimizer = {"weight_decay": 0, "betas": [0.9, 0.99], **adam(1e-4)}
    gan = {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 0.1}
    rates = {"type": "MultiStepLR", "milestones": [400_000], "gamma": 0.5}
    return {
        "name": "realesrgan", "model_type": "RealESRGANModel", "scale": 4, "num_gpu": "auto", "manual_seed": 0,
        "plugins": plugins, "l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False,
        **degraded, "second_blur_prob": 0.8, **{f"{key}2": value for key, value in degraded.items()},
        "gt_size": 64, "queue_size": 2,
        "datasets": {
            "train": {
                "name": "DF2K", "type": "RealESRGANDataset", "dataroot_gt": "gt", "meta_info": "list.txt",
                "io_backend": {"type": "disk"}, **kernels, **second, "final_sinc_prob": 0.8, "gt_size": 64,
                "use_hflip": True, "use_rot": False, "use_shuffle": True, "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 1, "prefetch_mode": None,
            },
        },
        "network_g": {
            "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 8,
        },
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8, "skip_connection": True},
        "path": {"pretrain_network_g": None, "param_key_g": "params_ema", "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.999, "optim_g": {**optimizer}, "optim_d": {**optimizer}, "scheduler": rates, "total_iter": 1,
            "warmup_iter": -1, "pixel_opt": L1, "gan_opt": gan, "net_d_iters": 1, "net_d_init_iters": 0,
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5e3, "use_tb_logger": False},
    }  # fmt: skip


def test_real_esrgans_models_say_in_one_line_that_they_need_a_gpu(basicsr: Callable, tmp_path: Path) -> None:
    write_faces(tmp_path / "gt", 1, 32)
    file = write_yaml(tmp_path / "t.yml", realesrgan_options(["realesrgan"]))
    done = basicsr("train", "-opt", file, "--force_yml", "num_gpu=0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "model_type: RealESRGANModel needs a GPU, because its constructor calls .cuda(). No GPU is used" in line
    assert "SRGANModel" in line


AS_ON_A_GPU = """
import sys, torch
from torch.nn import functional as F
torch.nn.Module.cuda = torch.Tensor.cuda = lambda self: self
pad = F.pad
F.pad = lambda *args, **kwargs: pad(*args, **kwargs).contiguous()  # as CUDA's reflection
from dfpg_cli.main import main
from dfpg_plugin.options import checking
checking._check_device = lambda opt, plugins: None
status = main()
from basicsr.utils.registry import MODEL_REGISTRY
print("it was", MODEL_REGISTRY.get("RealESRGANModel").__module__)
sys.exit(status)
"""


@pytest.mark.parametrize("plugins", [[], ["realesrgan"]])
def test_real_esrgan_of_either_package_trains_as_far_as_a_cpu_can_tell(
    basicsr: Callable, tmp_path: Path, plugins: list[str]
) -> None:
    write_faces(tmp_path / "gt", 2, 400)  # smaller ones it enlarges to 400 px
    (tmp_path / "list.txt").write_text("00000000.png\n00000001.png\n")
    file = write_yaml(tmp_path / "t.yml", realesrgan_options(plugins))
    done = basicsr("train", "-opt", file, code=AS_ON_A_GPU)
    assert done.returncode == 0, done.stderr
    assert f"it was {'realesrgan' if plugins else 'basicsr'}.models.realesrgan_model" in done.stdout
    assert np.isfinite(losses(done.stderr, "l_g_pix") + losses(done.stderr, "l_d_fake")).all()
    assert "datasets:train:gt_size: not read by RealESRGANDataset" in done.stderr  # a key of their own option file
    assert (tmp_path / "experiments" / "realesrgan" / "models" / "net_g_latest.pth").is_file()


def with_a_model_of_basicsr(model: str) -> dict:
    """Return the small demo with a model of BasicSR: our data, generator and metrics in it."""
    opt = small_options()
    opt.update(name=model, model_type=model)
    train, train_set = opt["train"], opt["datasets"]["train"]
    for section, keys in ((opt, ("network_prior", "network_d")), (train, ("prior_opt", "gan_opt", "estimated_prior"))):
        for key in keys:
            section.pop(key, None)
    train.update(scheduler={"type": "MultiStepLR", "milestones": [100], "gamma": 0.5}, total_iter=2)
    if model == "SRModel":
        del train["optim_d"]
    else:
        opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}
        gan = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.05}
        train.update(gan_opt=gan, net_d_iters=1, net_d_init_iters=0)
    if model == "ESRGANModel":
        opt["network_d"] = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 8, "input_size": 128}
        train_set.update(faces=None, split=None, dataroot_gt="gt", gt_size=128)
    opt["datasets"]["val"] = {
        "name": "pairs", "type": "FaceDeblurTestDataset", "dataroot_lq": "lq", "dataroot_gt": "gt",
    }  # fmt: skip
    d_vgg = {"type": "calculate_vggface_distance", "weights": "stand-in", "layer": "relu3_3", "input": "pm1"}
    metrics = {
        **PSNR, "ssim_3d": {"type": "calculate_ssim_3d", "better": "higher"}, "d_vgg": {**d_vgg, "better": "lower"},
        "identity": {"type": "calculate_identity_similarity", "better": "higher"},
    }  # fmt: skip
    opt["val"] = {"val_freq": 2, "save_img": False, "suffix": None, "metrics": metrics}
    opt["logger"]["save_checkpoint_freq"] = 1
    return opt


@pytest.mark.parametrize(
    ("flag", "models"), [("", ("SRModel", "SRGANModel", "ESRGANModel")), ("--stock", ("SRModel", "SRGANModel"))]
)
def test_our_parts_train_in_basicsrs_models(
    command: Callable, tmp_path: Path, flag: str, models: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    write_faces(tmp_path / "gt", 2, 144)
    write_faces(tmp_path / "lq", 2, 144, sigma=2)
    for model in models:
        file = write_yaml(tmp_path / f"{model}.yml", with_a_model_of_basicsr(model))
        assert command("train", "-opt", file, *flag.split()) == 0
    said = capsys.readouterr().err
    for model in models:
        run = tmp_path / "experiments" / model
        first, last = (weights(run, f"net_g_{i}")["params"] for i in (1, 2))
        assert all(torch.isfinite(value).all() for value in last.values()), model
        assert [name for name in first if torch.equal(first[name], last[name])] == [], model
    values = losses(said, "l_(?:g_)?pix")
    assert len(values) == 2 * len(models)
    assert np.isfinite(values).all()
    for metric in with_a_model_of_basicsr("SRModel")["val"]["metrics"]:
        measured = losses(said, f"# {metric}")
        assert len(measured) >= len(models), metric
        assert np.isfinite(measured).all(), metric
