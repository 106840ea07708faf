"""options/combine: each file trains, its losses fall, and its prior term reaches the generator and nothing else."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.models.sr_model import SRModel
from kit import ROOT
from torch import distributed, nn
from torch.utils.data import DataLoader

from dfpg_plugin.losses.prior_loss import PriorPerceptualLoss
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.microbatch import Part, frozen
from dfpg_plugin.options.checking import check_options
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import force, read_option_file

OPTIONS = ROOT / "options"
FILES = sorted((OPTIONS / "combine").glob("*.yml"))
STEPS = 10
LAST = 3  # of which the mean counts: at these rates single steps go up
SMALLER = ["num_gpu=0", "datasets:train:batch_size_per_gpu=2", "datasets:train:kernels_per_size=2"]
WITHOUT_FILES = {  # weights that are not there, and what is too large for a test
    "dfpgnet_vgg19": ["network_prior:weights=random"],
    "dfpgnet_arcface": ["network_prior:weights=random"],
    "dfpgnet_timm": ["network_prior:weights=random"],
    "realesrgan_prior": [
        "path:pretrain_network_g=~", "network_g:network:num_block=1", "network_g:network:num_feat=16",
        "datasets:train:gt_size=24", "train:optim_g:lr=1e-3",
    ],
}  # fmt: skip
Build = Callable[..., SRModel]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Check a file's options and build its model, with one batch of its data."""

    def build_file(file: Path, *, dist: bool = False) -> SRModel:
        opt = read_option_file(str(file))
        plugins = load_plugins(opt.get("plugins") or [])
        force(opt, [*SMALLER, *WITHOUT_FILES.get(file.stem, ())])
        complete(opt, Arguments(str(file)), tmp_path, is_train=True)
        check_options(opt, plugins)
        opt.update(rank=0, world_size=1, dist=dist)
        torch.manual_seed(0)
        model = build_model(opt)
        dataset = build_dataset(opt["datasets"]["train"])
        model.feed_data(next(iter(DataLoader(dataset, opt["datasets"]["train"]["batch_size_per_gpu"]))))
        return model

    return build_file


def restoring(log: dict[str, float]) -> float:
    """Return the sum of the terms that restoring well makes small; a discriminator moves the others."""
    return sum(log[key] for key in ("l_g_pix", "l_g_prior", "l_g_percep", "l_pix", "l_percep") if key in log)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_trains_and_its_losses_fall(file: Path, build: Build) -> None:
    model = build(file)
    logs = []
    for i in range(1, STEPS + 1):
        model.update_learning_rate(i)
        model.optimize_parameters(i)
        logs.append(dict(model.get_current_log()))
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert {"l_g_prior", "l_g_percep", "l_percep"} & set(logs[0])
    assert sum(map(restoring, logs[-LAST:])) / LAST < restoring(logs[0])


def reached(net: nn.Module) -> list[str]:
    return [name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_prior_term_reaches_the_generator_and_no_other_network(file: Path, build: Build) -> None:
    model = build(file)
    if isinstance(model, DFPGModel):
        (part,) = Part.of(model.lq, model.gt, 1)
        model._estimate(part, with_graph=True)
        with frozen(model.net_d):
            model._generator_losses(part)[0]["l_g_prior"].backward()
        others = [model.net_prior, model.net_d]
    else:
        assert isinstance(model.cri_perceptual, PriorPerceptualLoss)
        model.cri_perceptual(model.net_g(model.lq), model.gt)[0].backward()
        others = [model.cri_perceptual, getattr(model, "net_d", None)]
    assert reached(model.net_g)
    assert all(reached(net) == [] for net in others if net is not None)


@pytest.mark.parametrize("name", ["edsr", "rrdbnet", "swinir", "nafnet", "b1"])
def test_with_the_prior_differs_in_the_prior_only(name: str) -> None:
    folder = "ablation" if name == "b1" else "baseline"
    plain = read_option_file(str(OPTIONS / folder / f"{name}.yml"))
    prior = read_option_file(str(OPTIONS / "combine" / f"{name}_prior.yml"))
    b4 = read_option_file(str(OPTIONS / "ablation" / "b4.yml"))
    assert prior.pop("network_prior") == b4["network_prior"]
    assert prior["train"].pop("prior_opt") == b4["train"]["prior_opt"]
    assert prior["train"].pop("estimated_prior") == "restored"
    assert prior["path"].pop("ignore_resume_networks") == ["network_prior"]
    assert (plain.pop("name"), prior.pop("name")) == (name, f"{name}_prior")
    assert prior == plain


def test_dfpgnet_without_the_prior_loss_differs_from_b4_in_that_only() -> None:
    plain, b4 = (read_option_file(str(OPTIONS / name)) for name in ("baseline/dfpgnet.yml", "ablation/b4.yml"))
    for section, key in (("train", "prior_opt"), ("train", "estimated_prior"), ("path", "ignore_resume_networks")):
        del b4[section][key]
    del b4["network_prior"], b4["name"], plain["name"]
    assert plain == b4


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", ["edsr_prior", "edsr_dfpg", "nafnet_guided", "gfpgan_prior", "dfpgnet_arcface"])
def test_it_trains_in_several_processes(name: str, build: Build) -> None:
    """DistributedDataParallel raises in the second step where a parameter got no gradient in the first."""
    model = build(OPTIONS / "combine" / f"{name}.yml", dist=True)
    assert isinstance(model.net_g, nn.parallel.DistributedDataParallel)
    for i in (1, 2):
        model.optimize_parameters(i)
    assert math.isfinite(model.get_current_log()["l_g_prior"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["srmodel_dfpgnet", "srgan_dfpgnet", "esrgan_dfpgnet"])
def test_basicsrs_own_loop_trains_it(name: str, basicsr: Callable, tmp_path: Path) -> None:
    forced = [*SMALLER, "train:total_iter=2", "val=~", "logger:print_freq=1"]
    done = basicsr("train", "-opt", OPTIONS / "combine" / f"{name}.yml", "--stock", "--force_yml", *forced)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "experiments" / name / "models" / "net_g_latest.pth").is_file()
