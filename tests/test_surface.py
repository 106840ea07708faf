"""The public surface: a change of it is a decision."""

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points, metadata

import pytest
import yaml
from basicsr.utils import registry
from kit import ROOT

import dfpg_plugin
from dfpg_cli.main import build_parser

INTERFACE = {  # name: where it is, and its arguments
    "DFPGRestorer": ("restoration.restorer", ["weights", "option_file", "settings"]),
    "Settings": (
        "restoration.settings",
        ["mode", "detector", "detector_weights", "boxes", "threshold", "passes", "strength", "face_size", "batch_size",
         "device", "amp", "recogniser"],
    ),
    "blur": ("data.degradation", ["image", "kernel"]),
    "load_network": ("restoration.network", ["weights", "option_file", "device"]),
    "prior_loss": ("losses.prior_loss", ["estimated", "target", "reduction"]),
    "register_in_spandrel": ("restoration.in_spandrel", ["ignore_duplicates"]),
    "ssim_3d": ("metrics.ssim_3d", ["restored", "sharp"]),
    "synthesise_kernels": ("data.kernels", ["size", "count", "rng", "method"]),
}  # fmt: skip


def registered(kind: str) -> set[str]:
    return {name for name, v in getattr(registry, f"{kind}_REGISTRY") if v.__module__.startswith("dfpg_plugin.")}


def test_registered_components() -> None:
    assert registered("ARCH") == {
        "DFPGNet", "CAFeatureDiscriminator", "VGGFaceFeatureExtractor",
        "PriorGuidedNet", "AdaptedNet", "SpandrelNet", "TorchvisionFeatureExtractor", "ArcFaceFeatureExtractor",
        "TimmFeatureExtractor",
    }  # fmt: skip
    assert registered("DATASET") == {"FaceBlurDataset", "FaceDeblurTestDataset", "FacePairDataset"}
    assert registered("LOSS") == {"PriorLoss", "PriorPerceptualLoss"}
    assert registered("MODEL") == {"DFPGModel"}
    assert registered("METRIC") == {
        "calculate_identity_similarity", "calculate_lpips", "calculate_pyiqa", "calculate_ssim_3d",
        "calculate_vggface_distance",
    }  # fmt: skip


@pytest.mark.parametrize("name", INTERFACE)
def test_interface_in_python(name: str) -> None:
    module, arguments = INTERFACE[name]
    found = getattr(dfpg_plugin, name)
    assert found is getattr(import_module(f"dfpg_plugin.{module}"), name)
    assert list(inspect.signature(found).parameters) == arguments
    assert inspect.getdoc(found)


def test_nothing_else_is_the_interface() -> None:
    assert sorted(dfpg_plugin.__all__) == sorted([*INTERFACE, "__version__"])
    assert not hasattr(dfpg_plugin, "DFPGRestorrer")


def test_what_needs_more_is_imported_where_it_is_used(basicsr: Callable) -> None:
    done = basicsr(code="import sys, dfpg_plugin\nprint(*sys.modules)\nprint(*dir(dfpg_plugin))")
    modules, names = done.stdout.splitlines()
    assert not {"spandrel", "dfpg_plugin.restoration"} & set(modules.split())
    assert set(INTERFACE) <= set(names.split())


def test_command_and_flags() -> None:
    (commands,) = [a for a in build_parser()._actions if a.dest == "command"]
    flags = {
        name: sorted(o for a in parser._actions for o in a.option_strings if a.dest not in ("help", "traceback"))
        for name, parser in commands.choices.items()
    }
    shared = sorted(["-opt", "--opt", "--launcher", "--auto_resume", "--debug", "--local_rank", "--force_yml"])
    network = ["--weights", "-opt", "--opt", "--device", "--batch-size", "--amp"]
    assert flags == {
        "train": sorted([*shared, "--stock", "--dry-run"]),
        "test": sorted([*shared, "--images", "--workers"]),
        "report": sorted(
            [
                "-o",
                "--out",
                "--title",
                "--resamples",
                "--seed",
                "--pictures",
                "--num-pictures",
                "--picture-metric",
                "--compare",
            ]
        ),
        "study": sorted(["-opt", "--opt", "--test", "--seeds", "--jobs", "-o", "--out", "--title"]),
        "restore": sorted(
            [
                *("-o", "--out", *network, "--mode", "--detector", "--detector-weights", "--box", "--passes"),
                *("--strength", "--threshold"),
                *("--face-size", "--ext", "--side-by-side", "--no-identity", "--overwrite", "--skip-existing"),
            ]
        ),
        "export": sorted(
            [
                "-o",
                "--out",
                "--opset",
                "--weights",
                "-opt",
                "--opt",
                "--grey",
                "--half",
                "--discriminator",
                "--overwrite",
            ]
        ),
        "demo": sorted([*network, "--host", "--port"]),
        "list": ["--plugins"],
        "doctor": [],
        "options": ["--json-schema", "--markdown"],
        "prepare": [],
    }


def test_prepares_kinds_and_flags() -> None:
    (commands,) = [a for a in build_parser()._actions if a.dest == "command"]
    (kinds,) = [a for a in commands.choices["prepare"]._actions if a.dest == "kind"]
    flags = {
        name: {o for a in parser._actions for o in a.option_strings if a.dest not in ("help", "traceback")}
        for name, parser in kinds.choices.items()
    }
    writing = {"faces", "kernels", "pairs", "lmdb", "vggface"}
    assert {name for name, found in flags.items() if {"-o", "--out"} <= found} == writing
    flags = {name: found - {"-o", "--out"} for name, found in flags.items()}
    assert flags == {
        "faces": {
            *("--split", "--lfw", "--photos", "--format", "--quality"),
            *("--detector", "--detector-weights", "--min-side", "--min-score"),
        },
        "kernels": {"--method", "--sizes", "--count", "--seed", "--workers"},
        "pairs": {
            *("--faces", "--kernels", "--kernel-range", "--sizes", "--per-size", "--first-id"),
            *("--limit", "--cut", "--crop", "--suffix", "--seed"),
        },
        "lmdb": {"--compress-level"},
        "check": {"--gt", "--min-side", "--workers"},
        "vggface": {"--layers", "--input", "--channel-order"},
    }


def test_entry_points_and_version() -> None:
    (command,) = entry_points(group="console_scripts", name="basicsr")
    assert command.value == "dfpg_cli.main:main"
    assert [e.value for e in entry_points(group="basicsr.plugins")] == ["dfpg_plugin"]
    assert metadata("dfpg_plugin")["Version"] == dfpg_plugin.__version__


def test_the_papers_options_are_the_papers() -> None:
    opt = yaml.safe_load((ROOT / "options" / "train_dfpg_mspl.yml").read_text(encoding="utf-8"))
    train = opt["train"]
    assert train["total_iter"] == 200 * (24_183 // 16) == 302_200
    assert (train["optim_g"]["lr"], train["optim_d"]["lr"]) == (1e-4, 1e-5)
    assert train["optim_g"]["betas"] == train["optim_d"]["betas"] == [0.9, 0.999]
    assert train["scheduler"] == {"type": "StepLR", "step_size": 24_183 // 16, "gamma": 0.99}
    assert (train["gan_opt"]["loss_weight"], train["prior_opt"]["loss_weight"]) == (0.05, 1.0)
    assert opt["datasets"]["train"]["batch_size_per_gpu"] == 16
    assert opt["network_g"]["type"] == "DFPGNet"
