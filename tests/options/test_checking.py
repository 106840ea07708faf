"""Options are checked before anything is built."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from basicsr.data import realesrgan_dataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.metrics import calculate_metric
from basicsr.models import realesrgan_model, realesrnet_model
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from kit import for_sr_model, write_yaml

from dfpg_cli.run_options import read_options
from dfpg_plugin.checks import UserError, check_border
from dfpg_plugin.metrics.batches import better_by_default
from dfpg_plugin.options.checking import check_options
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.keys import unknown_keys, warn_of_idle_keys
from dfpg_plugin.options.reading import open_option_file, read_option_file
from dfpg_plugin.runs.building import build_loaders
from dfpg_plugin.runs.metric_trials import check_metrics, try_metrics
from dfpg_plugin.training.stock import train_stock


def check(opt: dict, tmp_path: Path, is_train: bool = True) -> None:
    complete(opt, Arguments("t.yml"), tmp_path, is_train)
    check_options(opt, ["dfpg_plugin", "other"])


def test_the_demo_passes(demo_options: dict, tmp_path: Path) -> None:
    check(demo_options, tmp_path)


def hand_over(given: Arguments, has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Hand options to a BasicSR that trains nothing; return the folders that it was given."""
    options = read_options(given, is_train=True, join_group=False)
    folders: list[object] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setattr("basicsr.train.train_pipeline", folders.append)
    monkeypatch.setattr("basicsr.train.load_resume_state", None)
    monkeypatch.setattr("sys.argv", [])
    train_stock(options, given)
    return folders


def set_key(opt: dict, key: str, value: object) -> None:
    *sections, last = key.split(":")
    for section in sections:
        opt = opt[section]
    opt[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "network_g:type",
            "DFPGNte",
            "network_g:type: no arch is called 'DFPGNte'. Did you mean DFPGNet.*dfpg_plugin, other",
        ),
        ("network_g:type", None, "network_g:type: no arch is called None"),
        ("model_type", "DFPG", "model_type: no model is called 'DFPG'"),
        ("datasets:train:type", "FaceBlurDatset", "datasets:train:type.*Did you mean FaceBlurDataset"),
        ("train:prior_opt:type", "PriorLos", "train:prior_opt:type.*Did you mean PriorLoss"),
        ("val:metrics:psnr:type", "calculate_pnsr", "val:metrics:psnr:type.*Did you mean calculate_psnr"),
        ("val:metrics:ssim", {"type": "calculate_ssim_3d", "crop": 3}, "val:metrics:ssim: unknown key 'crop'"),
        ("val:metrics:ssim", {"type": "calculate_vggface_distance"}, "val:metrics:ssim: the key 'weights' is missing"),
        ("network_g:num_feats", 3, "network_g: unknown key 'num_feats'. Did you mean num_feat"),
        ("train:prior_opt:weight", 3, "train:prior_opt: unknown key 'weight'"),
        ("network_prior", {"type": "VGGFaceFeatureExtractor"}, "network_prior: the key 'weights' is missing"),
        ("network_g", "DFPGNet", "network_g: expected options as `key: value`, got 'DFPGNet'"),
        ("network_g", {"type": "AdaptedNet", "network": {"type": "EDSR"}}, "network_g:network: the key 'num_in_ch' is"),
        ("network_g", {"type": "AdaptedNet", "network": {"type": "EDRS"}}, "network_g:network:type: no arch is called"),
        (
            "train:perceptual_opt",
            {"type": "PriorPerceptualLoss", "network_prior": {"type": "VGGFaceFeatureExtractor", "weight": "x"}},
            "train:perceptual_opt:network_prior: unknown key 'weight'",
        ),
        ("train:total_iter", 0, "train:total_iter: expected a whole number from 1, got 0"),
        ("train:total_iter", "100", "train:total_iter: expected a whole number from 1, got '100'"),
        ("train:total_iter", float("inf"), "train:total_iter: expected a whole number"),
        ("train:total_iter", 1.5, "train:total_iter: expected a whole number"),
        ("manual_seed", 2**32, "manual_seed: expected a whole number from 0 to 4000000000, got 4294967296"),
        ("val:val_freq", None, "val:val_freq: is missing"),
        ("datasets:train:batch_size_per_gpu", -1, "batch_size_per_gpu"),
        ("train:optim_d:lr", "fast", "train:optim_d:lr"),
        ("datasets:train:prefetch_mode", "cpu", "prefetch_mode"),
        ("datasets:train:prefetch_mode", "cuda", "needs a GPU"),
        ("path:pretrain_network_g", "nowhere.pth", "path:pretrain_network_g: nowhere.pth does not exist"),
        ("datasets:train:dataroot_gt", "nowhere", "datasets:train:dataroot_gt: the folder nowhere does not exist"),
        ("datasets:trian", {"type": "FaceBlurDataset"}, "datasets:trian: 'trian' is not one of train, val"),
    ],
)
def test_what_would_fail_later_is_named(
    demo_options: dict, tmp_path: Path, key: str, value: object, message: str
) -> None:
    set_key(demo_options, key, value)
    demo_options["num_gpu"] = 0
    with pytest.raises(UserError, match=message):
        check(demo_options, tmp_path)


WHOLE = {
    "scale": 1.0, "num_gpu": 0.0, "manual_seed": 1e3, "datasets:train:batch_size_per_gpu": 1e1,
    "datasets:train:num_worker_per_gpu": 2.0, "datasets:train:gt_size": 32.0, "datasets:train:seed": 3.0,
    "train:total_iter": 4e0, "train:accumulate": 2.0, "train:warmup_iter": -1.0, "train:scheduler:step_size": 8e1,
    "val:val_freq": 1e3, "val:batch_size": 2.0, "val:metrics:psnr:crop_border": 4.0, "logger:keep_checkpoints": 3.0,
    "logger:print_freq": 1.0,
}  # fmt: skip


def test_whole_numbers_may_be_written_like_fractions(demo_options: dict, tmp_path: Path) -> None:
    for key, value in {**WHOLE, "train:optim_g:lr": 1.0, "train:scheduler:gamma": 1.0}.items():
        set_key(demo_options, key, value)
    file = write_yaml(tmp_path / "t.yml", demo_options)
    opt = read_options(Arguments(str(file)), is_train=True).plain
    for key, value in WHOLE.items():
        found: object = opt
        for part in key.split(":"):
            found = found[part]  # type: ignore[index]
        assert type(found) is int, key
        assert found == value
    assert type(opt["datasets"]["train"]["scale"]) is int
    assert type(opt["train"]["optim_g"]["lr"]) is type(opt["train"]["scheduler"]["gamma"]) is float


def test_workers_that_persist_need_workers(demo_options: dict, tmp_path: Path) -> None:
    train = demo_options["datasets"]["train"]
    train.update(persistent_workers=True, num_worker_per_gpu=2)
    check(demo_options, tmp_path)
    for train["num_worker_per_gpu"] in (0, 0.0):
        with pytest.raises(UserError, match="datasets:train:persistent_workers: needs workers"):
            check(demo_options, tmp_path)
    del train["num_worker_per_gpu"]
    with pytest.raises(UserError, match="datasets:train:persistent_workers: needs workers"):
        check(demo_options, tmp_path)


def test_the_stock_loop_has_no_workers_for_a_validation(demo_options: dict, tmp_path: Path) -> None:
    demo_options["datasets"]["val"]["persistent_workers"] = True
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)))
    with pytest.raises(UserError, match="datasets:val:persistent_workers: BasicSR validates without workers"):
        train_stock(read_options(arguments, is_train=True), arguments)


@pytest.mark.parametrize(
    ("entry", "theirs", "ours"),
    [
        ("train:warmup_iter=-1", "'-1'", "-1"),
        ("train:optim_g:lr=1e-4", "'1e-4'", "0.0001"),
        ("val=null", "'null'", "None"),
        ("train:pixel_opt={type: L1Loss}", "'{type: L1Loss}'", "{'type': 'L1Loss'}"),
        ("name=none", "None", "'none'"),
    ],
)
def test_the_stock_loop_is_not_given_values_that_it_would_misread(
    demo_options: dict, tmp_path: Path, entry: str, theirs: str, ours: str
) -> None:
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)), force_yml=[entry])
    with pytest.raises(
        UserError, match=re.escape(f"--force_yml {entry}: BasicSR reads the value as {theirs}, not {ours}.")
    ):
        train_stock(read_options(arguments, is_train=True), arguments)


def test_the_stock_loop_is_not_given_a_value_with_an_equals_sign(demo_options: dict, tmp_path: Path) -> None:
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)), force_yml=["name=a=b"])
    with pytest.raises(UserError, match="--force_yml name=a=b: BasicSR takes no value with `=`"):
        train_stock(read_options(arguments, is_train=True), arguments)


IGNORED = "BasicSR's own loop does not read it. For --stock remove it."


@pytest.mark.parametrize(
    ("key", "value", "arguments", "has_gpu", "message"),
    [
        ("train:non_finite", {"action": "skip"}, {}, False, f"train:non_finite: {IGNORED}"),
        ("logger:keep_checkpoints", 3, {}, False, f"logger:keep_checkpoints: {IGNORED}"),
        ("dist_params", {"backend": "nccl", "timeout": 60}, {}, False, f"dist_params:timeout: {IGNORED}"),
        (
            "dist_params",
            {"backend": "gloo"},
            {"launcher": "pytorch"},
            False,
            "dist_params:backend: BasicSR uses nccl w",
        ),
        ("path:root", ".", {"auto_resume": True}, True, "path:root: BasicSR's --auto_resume looks only into the work"),
        ("name", "undebugged", {}, False, "name: BasicSR takes a name with 'debug' for a debugging run."),
        (
            "manual_seed",
            1,
            {"force_yml": ["manual_seed=2"]},
            False,
            "--force_yml manual_seed: BasicSR draws random numbers before it reads this.",
        ),
    ],
)
def test_the_stock_loop_is_not_given_what_it_would_ignore(
    demo_options: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: object,
    arguments: dict,
    has_gpu: bool,
    message: str,
) -> None:
    set_key(demo_options, key, value)
    given = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)), **arguments)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        hand_over(given, has_gpu, monkeypatch)


@pytest.mark.parametrize(
    ("key", "value", "arguments", "has_gpu"),
    [
        ("train:non_finite", None, {}, False),
        ("dist_params", {"backend": "gloo"}, {}, False),
        ("dist_params", {"backend": "nccl"}, {"launcher": "pytorch"}, False),
        ("path:root", ".", {"auto_resume": True}, False),
        ("path:root", ".", {}, True),
        ("name", "small", {"debug": True}, False),
        ("manual_seed", 1, {"force_yml": ["datasets:train:seed=2"]}, False),
    ],
)
def test_the_stock_loop_is_given_what_it_reads(
    demo_options: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: object,
    arguments: dict,
    has_gpu: bool,
) -> None:
    set_key(demo_options, key, value)
    given = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)), **arguments)
    root = str(Path.cwd()) if key != "path:root" else str(Path(str(value)).resolve())
    assert hand_over(given, has_gpu, monkeypatch) == [root]


def test_a_validation_loads_without_workers_whatever_its_options_say(demo_options: dict, tmp_path: Path) -> None:
    demo_options["datasets"]["val"]["persistent_workers"] = True
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    (loader,) = build_loaders(opt, "val")
    assert loader.num_workers == 0
    assert len(next(iter(loader))["lq"]) == 1


def test_fractions_stay_mistakes(demo_options: dict, tmp_path: Path) -> None:
    for key in WHOLE:
        if key not in ("datasets:train:gt_size", "datasets:train:seed", "val:metrics:psnr:crop_border"):
            set_key(demo_options, key, 2.5)
    file = write_yaml(tmp_path / "t.yml", demo_options)
    with pytest.raises(UserError, match=f"{len(WHOLE) - 3} mistakes") as caught:
        read_options(Arguments(str(file)), is_train=True)
    assert "logger:keep_checkpoints: expected a whole number from 1, got 2.5" in str(caught.value)


def test_the_stock_loop_is_not_handed_whole_numbers_that_it_can_not_use(demo_options: dict, tmp_path: Path) -> None:
    demo_options["train"]["total_iter"] = 5000.0  # which it can
    demo_options["datasets"]["train"]["num_worker_per_gpu"] = 2.0
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)))
    with pytest.raises(UserError, match=r"^datasets:train:num_worker_per_gpu: BasicSR takes no whole number written"):
        train_stock(read_options(arguments, is_train=True), arguments)


def test_all_mistakes_are_named_at_once_with_their_lines(tmp_path: Path, demo_options: dict) -> None:
    demo_options["network_g"]["num_feats"] = 3
    demo_options["train"]["totl_iter"] = 3
    demo_options["datasets"]["train"]["gt_sise"] = 8
    demo_options["train"]["optim_g"]["betta"] = 1
    demo_options["train"]["scheduler"]["gama"] = 1
    demo_options["logger"]["print_frequency"] = 1
    demo_options["networkg"] = {"type": "DFPGNet"}
    demo_options["path"]["strict_load_h"] = True
    file = write_yaml(tmp_path / "t.yml", demo_options)
    text = file.read_text().splitlines()

    def line(part: str) -> int:
        return next(i for i, row in enumerate(text, start=1) if part in row)

    opt = complete(read_option_file(str(file)), Arguments(str(file)), tmp_path, is_train=True)
    with pytest.raises(UserError) as caught:
        check_options(opt, ["dfpg_plugin"], lines=open_option_file(str(file)).lines)
    head, *problems = [re.sub(r" or .*|\? Known.*", "?", line) for line in str(caught.value).split("\n  ")]
    assert head == "8 mistakes in the options:"
    assert sorted(problems) == sorted(
        [
            f"line {line('network_g:')}: network_g: unknown key 'num_feats'. Did you mean num_feat?",
            f"line {line('totl_iter')}: train:totl_iter: unknown key. Did you mean total_iter?",
            f"line {line('gt_sise')}: datasets:train:gt_sise: unknown key. Did you mean gt_size?",
            f"line {line('betta')}: train:optim_g:betta: unknown key. Did you mean betas?",
            f"line {line('gama')}: train:scheduler:gama: unknown key. Did you mean gamma?",
            f"line {line('print_frequency')}: logger:print_frequency: unknown key. Did you mean print_freq?",
            f"line {line('networkg:')}: networkg: unknown key. Did you mean network_g?",
            f"line {line('strict_load_h')}: path:strict_load_h: unknown key. Did you mean strict_load_g?",
        ]
    )


@pytest.fixture
def real_esrgan_of_basicsr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put BasicSR's own classes back where another test of this process has loaded the package realesrgan."""
    parts = {
        MODEL_REGISTRY: (realesrgan_model.RealESRGANModel, realesrnet_model.RealESRNetModel),
        DATASET_REGISTRY: (realesrgan_dataset.RealESRGANDataset,),
    }
    for registry, classes in parts.items():
        for part in classes:
            monkeypatch.setitem(registry._obj_map, part.__name__, part)


@pytest.mark.usefixtures("real_esrgan_of_basicsr")
def test_what_a_model_or_data_set_of_others_reads_is_no_mistake(tmp_path: Path, demo_options: dict) -> None:
    demo_options["model_type"] = "RealESRGANModel"
    del demo_options["network_prior"], demo_options["train"]["prior_opt"], demo_options["train"]["estimated_prior"]
    demo_options.update(resize_prob=[0.2, 0.7, 0.1], l1_gt_usm=True)
    demo_options["datasets"]["val"] = {"type": "RealESRGANDataset", "blur_kernel_size": 21, "final_sinc_prob": 0.8}
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    assert list(unknown_keys(opt)) == []
    opt["resize_probb"] = 1
    (problem,) = unknown_keys(opt)
    assert problem.startswith("resize_probb: unknown key. Did you mean resize_prob")


def warnings_of(opt: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(logging.getLogger("basicsr"), "warning", said.append)
    warn_of_idle_keys(opt, open_option_file(str(write_yaml(tmp_path / "t.yml", opt))))
    assert all(re.match(r"line \d+: ", message) for message in said)
    return [message.split(": ", 1)[1] for message in said]


@pytest.fixture
def basicsr_options(demo_options: dict) -> dict:
    """The demo's options for a model and a data set of BasicSR."""
    demo_options["model_type"] = "SRModel"
    del demo_options["network_prior"], demo_options["network_d"]
    for key in ("prior_opt", "gan_opt", "optim_d", "estimated_prior"):
        del demo_options["train"][key]
    demo_options["datasets"]["val"] = {"name": "v", "type": "PairedImageDataset", "io_backend": {"type": "disk"}}
    return demo_options


def test_keys_that_only_others_of_basicsr_read_are_idle(
    basicsr_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BasicSR's own option files hold them: net_d_iters of its StyleGAN2, gt_size of its Real-ESRGAN, and more."""
    opt = complete(basicsr_options, Arguments("t.yml"), tmp_path, is_train=True)
    assert warnings_of(opt, tmp_path, monkeypatch) == []
    opt["train"]["net_d_iters"] = 1
    opt["datasets"]["val"]["interval_list"] = [1]
    opt.update(save_img=True, crop_border=4)
    check_options(opt, ["dfpg_plugin"])
    said = warnings_of(opt, tmp_path, monkeypatch)
    assert [line.split(", as far")[0] for line in said] == [
        "save_img: not read by SRModel", "crop_border: not read by SRModel", "train:net_d_iters: not read by SRModel",
        "datasets:val:interval_list: not read by PairedImageDataset",
    ]  # fmt: skip


@pytest.mark.parametrize(("given", "lines"), [({}, 0), ({"use_shuffle": True}, 0), ({"use_shuffle": False}, 1)])
def test_an_order_that_is_asked_for_and_never_kept_is_told(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict, lines: int
) -> None:
    demo_options["datasets"]["train"].update(given)
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    message = "datasets:train:use_shuffle: false has no effect. Training images are always shuffled."
    assert warnings_of(opt, tmp_path, monkeypatch) == [message] * lines


@pytest.mark.parametrize("kind", ["PairedImageDataset", "FaceBlurDataset", "FacePairDataset", "FaceDeblurTestDataset"])
def test_keys_by_which_only_training_images_are_loaded_are_told_elsewhere(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    loading = {"batch_size_per_gpu": 4, "num_worker_per_gpu": 2, "persistent_workers": True, "dataset_enlarge_ratio": 3}
    demo_options["datasets"]["val_2"] = {"type": kind, **loading}
    demo_options["datasets"]["train"].update(loading)
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    assert sorted(warnings_of(opt, tmp_path, monkeypatch)) == [
        f"datasets:val_2:{key}: has no effect in a validation or test set. Remove it." for key in sorted(loading)
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train:net_d_iter", 1, "train:net_d_iter: unknown key"),  # which nothing in BasicSR reads
        ("datasets:val:gt_sise", 1, "datasets:val:gt_sise: unknown key. Did you mean gt_size"),
        ("network_d", {"type": "UNetDiscriminatorSN", "num_in_ch": 3}, "network_d: unknown key"),
        ("train:gan_opt", {"type": "GANLoss", "gan_type": "vanilla"}, "train:gan_opt: unknown key"),
    ],
)
def test_misspelt_keys_and_parts_that_nothing_builds_stay_mistakes_in_basicsrs_models(
    basicsr_options: dict, tmp_path: Path, key: str, value: object, message: str
) -> None:
    set_key(basicsr_options, key, value)
    with pytest.raises(UserError, match=message):
        check(basicsr_options, tmp_path)


def test_in_this_packages_model_and_data_sets_every_unread_key_is_a_mistake(demo_options: dict, tmp_path: Path) -> None:
    demo_options["train"]["net_d_iters"] = 1
    demo_options["datasets"]["train"]["interval_list"] = [1]
    with pytest.raises(
        UserError, match=r"train:net_d_iters: unknown key.*\n.*datasets:train:interval_list: unknown key"
    ):
        check(demo_options, tmp_path)


def test_what_a_model_or_data_set_of_others_does_not_seem_to_read_is_said_only(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Theirs:
        def __init__(self, opt: dict) -> None:
            self.known = opt["their_key"]

    monkeypatch.setitem(MODEL_REGISTRY._obj_map, "Theirs", Theirs)
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Theirs", Theirs)
    # in one piece the unread keys would stand in the source of their class, which is this whole file
    unread_section, unread = "_".join(("section", "unread")), "_".join(("gt", "wide"))
    demo_options.update(model_type="Theirs", their_key=1)
    demo_options[unread_section] = {"a": 1}
    demo_options["datasets"]["val"] = {"name": "v", "type": "Theirs", unread: 1}
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    check_options(opt, ["dfpg_plugin"])
    said = warnings_of(opt, tmp_path, monkeypatch)
    assert any(line.startswith(f"{unread_section}: not read by Theirs, as far as its source tells.") for line in said)
    assert any(line.startswith(f"datasets:val:{unread}: not read by Theirs") for line in said)
    assert not any(line.startswith("their_key") for line in said)


@pytest.mark.usefixtures("real_esrgan_of_basicsr")
@pytest.mark.parametrize("name", ["RealESRGANModel", "RealESRNetModel"])
def test_a_model_whose_constructor_needs_a_gpu_is_refused_without_one(
    demo_options: dict, tmp_path: Path, name: str
) -> None:
    demo_options.update(model_type=name, num_gpu=0)
    with pytest.raises(UserError, match=f"model_type: {name} needs a GPU, because its constructor calls .cuda"):
        check(demo_options, tmp_path)
    demo_options["num_gpu"] = 1
    with pytest.raises(UserError) as caught:  # for other reasons
        check(demo_options, tmp_path)
    assert "needs a GPU" not in str(caught.value)


def test_components_of_other_plugins_with_any_arguments_pass(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Theirs", lambda **kwargs: None)
    demo_options["network_g"] = {"type": "Theirs", "whatever": 1}
    check(demo_options, tmp_path)


def test_names_with_basicsrs_suffix_are_found_without_it(demo_options: dict, tmp_path: Path) -> None:
    demo_options["network_g"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3}
    check(demo_options, tmp_path)


def test_testing_needs_weights(demo_options: dict, tmp_path: Path) -> None:
    demo_options["datasets"] = {"test": demo_options["datasets"]["val"]}
    with pytest.raises(UserError, match="path:pretrain_network_g: missing"):
        check(demo_options, tmp_path, is_train=False)


METRICS = {"p": {"type": "calculate_psnr"}, "n": {"type": "calculate_niqe"}, "s": {"type": "calculate_ssim"}}


def test_metrics_with_a_ground_truth_need_one(tmp_path: Path) -> None:
    basicsrs = SingleImageDataset({"dataroot_lq": str(tmp_path), "io_backend": {"type": "disk"}})
    for dataset in (SimpleNamespace(has_gt=False), basicsrs):
        with pytest.raises(UserError, match=r"the data set real has no ground truth, without which p, s can't be"):
            check_metrics({"val": {"metrics": METRICS}}, dataset, "real")


@pytest.mark.parametrize("val", [None, {}, {"metrics": None}, {"metrics": {"n": METRICS["n"]}}])
def test_no_metrics_and_those_of_one_image_need_no_ground_truth(val: dict | None) -> None:
    check_metrics({"val": val}, SimpleNamespace(has_gt=False), "real")


@pytest.mark.parametrize("dataset", [SimpleNamespace(has_gt=True), object()])
def test_all_metrics_pass_with_ground_truth_and_for_data_sets_that_do_not_say(dataset: object) -> None:
    check_metrics({"val": {"metrics": METRICS}}, dataset, "real")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"type": "calculate_lpips", "net": "vggg"}, "val:metrics:m: calculate_lpips: net: 'vggg' is not one of"),
        ({"type": "calculate_vggface_distance", "weights": "nowhere.pth"}, r"val:metrics:m: .*nowhere\.pth"),
        ({"type": "calculate_psnr", "crop_border": "4"}, "val:metrics:m: bad operand type"),
    ],
)
def test_metrics_that_would_fail_at_a_validation_are_named_at_once(metric: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        try_metrics({"val": {"metrics": {"m": metric}}})


@pytest.mark.parametrize("val", [None, {}, {"metrics": None}, {"metrics": {"p": {**METRICS["p"], "crop_border": 0}}}])
def test_metrics_that_work_are_tried_without_a_word(val: dict | None) -> None:
    try_metrics({"val": val})


def test_a_direction_without_a_value_is_refused_for_basicsr_takes_it_for_lower(
    demo_options: dict, tmp_path: Path
) -> None:
    demo_options["val"]["metrics"]["psnr"]["better"] = None
    with pytest.raises(UserError, match="val:metrics:psnr:better: has no value"):
        check(demo_options, tmp_path)


@pytest.mark.parametrize("train", [{}, {"tf32": True}])
def test_a_test_needs_no_complete_training(demo_options: dict, tmp_path: Path, train: dict) -> None:
    (tmp_path / "net.pth").touch()
    demo_options.update(train=train, path={"pretrain_network_g": str(tmp_path / "net.pth")})
    demo_options["datasets"] = {"test": demo_options["datasets"]["val"]}
    for key in ("network_d", "network_prior"):
        del demo_options[key]
    check(demo_options, tmp_path, is_train=False)
    demo_options["train"] = {"tf32": 3}
    with pytest.raises(UserError, match="train:tf32: expected true or false, got 3"):
        check(demo_options, tmp_path, is_train=False)


def test_a_data_set_whose_type_is_no_text_is_named(demo_options: dict, tmp_path: Path) -> None:
    demo_options["datasets"]["val"]["type"] = ["a"]
    with pytest.raises(UserError, match="datasets:val:type: expected text"):
        check(demo_options, tmp_path)


def test_options_of_a_data_set_of_others_are_their_own(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Theirs:
        class Options:
            pass

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Theirs", Theirs)
    demo_options["datasets"]["val"] = {"name": "v", "type": "Theirs"}
    check(demo_options, tmp_path)


def test_frequencies_without_a_value_are_the_defaults_for_basicsr_too(demo_options: dict, tmp_path: Path) -> None:
    demo_options["logger"].update(print_freq=None, save_checkpoint_freq=None)
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    assert (opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"]) == (100, 5000)


NEEDED_BY_STOCK = [
    *("num_gpu", "path", "logger:print_freq", "logger:save_checkpoint_freq", "logger:use_tb_logger", "val:save_img"),
    *("datasets:train:num_worker_per_gpu", "datasets:train:name", "datasets:val:name"),
]


@pytest.mark.parametrize("key", NEEDED_BY_STOCK)
@pytest.mark.parametrize("is_there", [True, False])
def test_the_stock_loop_is_not_started_without_what_basicsr_has_no_default_for(
    demo_options: dict, tmp_path: Path, key: str, is_there: bool
) -> None:
    demo_options["val"]["save_img"] = False
    set_key(demo_options, key, None)
    if not is_there:
        *above, name = key.split(":")
        section = demo_options
        for part in above:
            section = section[part]
        del section[name]
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)))
    with pytest.raises(UserError, match=f"^{key}: has no value, and BasicSR has no default"):
        train_stock(read_options(arguments, is_train=True, join_group=False), arguments)


@pytest.mark.parametrize("lacking", ["val", "sets"])
def test_the_stock_loop_needs_no_key_of_a_validation_that_it_does_not_make(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    demo_options["val"].pop("save_img", None)
    if lacking == "val":
        demo_options["val"] = None
    else:
        del demo_options["datasets"]["val"]
    monkeypatch.setattr("sys.argv", ["basicsr"])
    monkeypatch.setattr("basicsr.train.train_pipeline", lambda root: started.append(root))
    started: list[str] = []
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", demo_options)))
    train_stock(read_options(arguments, is_train=True, join_group=False), arguments)
    assert len(started) == 1


def test_the_stock_loop_is_not_started_without_a_schedule_for_a_model_of_basicsr(
    demo_options: dict, tmp_path: Path
) -> None:
    options = for_sr_model(demo_options)
    options["val"]["save_img"] = False
    del options["train"]["scheduler"]
    arguments = Arguments(str(write_yaml(tmp_path / "t.yml", options)))
    with pytest.raises(UserError, match=r"^train:scheduler: has no value, and BasicSR has no default"):
        train_stock(read_options(arguments, is_train=True, join_group=False), arguments)


def test_a_training_has_one_training_set(demo_options: dict, tmp_path: Path) -> None:
    demo_options["datasets"]["train_2"] = dict(demo_options["datasets"]["train"])
    with pytest.raises(UserError, match="datasets:train_2: a training has one set, `train`"):
        check(demo_options, tmp_path)


def test_the_direction_of_niqe_has_to_be_said(demo_options: dict, tmp_path: Path) -> None:
    demo_options["val"]["metrics"] = {"n": {"type": "calculate_niqe", "crop_border": 0}}
    with pytest.raises(UserError, match="val:metrics:n: better: is missing, so BasicSR assumes higher"):
        check(demo_options, tmp_path)
    demo_options["val"]["metrics"]["n"]["better"] = "lower"
    check(demo_options, tmp_path)
    assert better_by_default({"type": "calculate_niqe"}) == "lower"
    assert better_by_default({"type": "calculate_psnr"}) == "higher"


def test_a_metric_of_one_image_is_tried_too() -> None:
    metric = {"type": "calculate_niqe", "crop_border": 0}
    for border in (0, 4):
        try_metrics({"val": {"metrics": {"m": {**metric, "crop_border": border}}}})
    with pytest.raises(UserError, match=r"val:metrics:m: .*str"):
        try_metrics({"val": {"metrics": {"m": {**metric, "crop_border": "4"}}}})


def test_a_metric_of_one_image_of_another_package_is_not_tried_on_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_a_face(img: object) -> float:
        raise ValueError("no face")

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "of_a_face", of_a_face)
    try_metrics({"val": {"metrics": {"m": {"type": "of_a_face"}}}})


@pytest.mark.parametrize(
    ("sides", "fits"), [((96, 192), True), ((128, 191), False), ((96, 96), False), ((40, 400), False)]
)
def test_niqe_needs_two_blocks(sides: tuple[int, int], fits: bool) -> None:
    metric = {"type": "calculate_niqe", "crop_border": 0}
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    if fits:
        check_border(metric, *sides)
        assert np.isfinite(calculate_metric({"img": image}, dict(metric)))
        return
    with pytest.raises(UserError, match="leaves less than two blocks of 96 px of an image of"):
        check_border(metric, *sides)


def test_an_average_without_a_value_is_none(demo_options: dict, tmp_path: Path) -> None:
    demo_options["train"]["ema_decay"] = None
    assert complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)["train"]["ema_decay"] == 0


def test_data_sets_of_others_may_take_other_sizes(
    demo_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Theirs:
        def __init__(self, opt: dict) -> None:
            self.size = opt["gt_size"]

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Theirs", Theirs)
    del demo_options["scale"]
    demo_options["datasets"]["val"] = {
        "name": "v", "type": "Theirs", "gt_size": [64, 32], "scale": 0.5, "seed": "a", "prefetch_mode": "cpu",
    }  # fmt: skip
    check(demo_options, tmp_path)


def test_a_metric_may_be_named_by_a_number(demo_options: dict, tmp_path: Path) -> None:
    demo_options["val"]["metrics"] = {1: {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False}}
    check(demo_options, tmp_path)
