"""Which state a run goes on from."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from basicsr.models.sr_model import SRModel
from kit import write_yaml

from dfpg_plugin.checks import UserError
from dfpg_plugin.training.resume import find_state, resume, set_aside_later


def options(folder: Path, **path: object) -> dict:
    (folder / "training_states").mkdir()
    (folder / "models").mkdir()
    folders = {"training_states": str(folder / "training_states"), "models": str(folder / "models")}
    train = {"total_iter": 10}
    return {"auto_resume": not path, "network_g": {}, "train": train, "path": {"resume_state": None, **folders, **path}}


def save(folder: Path, current_iter: int) -> Path:
    torch.save({"params": {}}, folder / "models" / f"net_g_{current_iter}.pth")
    path = folder / "training_states" / f"{current_iter}.state"
    torch.save({"iter": current_iter, "epoch": 0, "optimizers": [], "schedulers": []}, path)
    return path


def test_the_newest_state_and_its_networks_are_taken(tmp_path: Path) -> None:
    opt = options(tmp_path)
    for current_iter in (2, 10, 9):
        save(tmp_path, current_iter)
    state, paths = find_state(opt)
    assert state["iter"] == 10
    assert paths["pretrain_network_g"] == str(tmp_path / "models" / "net_g_10.pth")


def test_without_states_a_run_is_new(tmp_path: Path) -> None:
    assert find_state(options(tmp_path))[0] is None


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    opt = options(tmp_path)
    save(tmp_path, 2)
    for name in ("latest.state", "6.state.tmp", "backup_3.state"):
        (tmp_path / "training_states" / name).write_bytes(b"")
    assert find_state(opt)[0]["iter"] == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text"])
@pytest.mark.parametrize("which", ["training_states/4.state", "models/net_g_4.pth"])
def test_a_damaged_newest_state_is_skipped(tmp_path: Path, content: bytes, which: str) -> None:
    opt = options(tmp_path)
    save(tmp_path, 2)
    save(tmp_path, 4)
    (tmp_path / which).write_bytes(content)
    assert find_state(opt)[0]["iter"] == 2


@pytest.mark.parametrize("missing", ["g", "d"])
def test_a_newest_set_without_one_of_its_networks_is_skipped(tmp_path: Path, missing: str) -> None:
    opt = {**options(tmp_path), "network_d": {}}
    for current_iter in (2, 4):
        save(tmp_path, current_iter)
        torch.save({"params": {}}, tmp_path / "models" / f"net_d_{current_iter}.pth")
    (tmp_path / "models" / f"net_{missing}_4.pth").unlink()
    state, paths = find_state(opt)
    assert state["iter"] == 2
    assert paths["pretrain_network_d"] == str(tmp_path / "models" / "net_d_2.pth")


def test_networks_that_a_resumed_run_ignores_need_not_be_there(tmp_path: Path) -> None:
    opt = {**options(tmp_path), "network_prior": {}}
    opt["path"]["ignore_resume_networks"] = ["network_prior"]
    save(tmp_path, 4)
    assert find_state(opt)[0]["iter"] == 4


def test_a_run_without_a_readable_state_is_not_started_anew(tmp_path: Path) -> None:
    opt = options(tmp_path)
    save(tmp_path, 2).write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 states"):
        find_state(opt)


def test_a_state_named_in_the_options_is_taken_or_the_reason_said(tmp_path: Path) -> None:
    opt = options(tmp_path, resume_state=str(tmp_path / "x.state"))
    with pytest.raises(UserError, match=r"path:resume_state: .*x.state does not exist"):
        find_state(opt)
    torch.save({"params": 1}, tmp_path / "x.state")
    with pytest.raises(UserError, match=r"x.state is not a training state"):
        find_state(opt)
    opt["path"]["resume_state"] = str(save(tmp_path, 7))
    assert find_state(opt)[0]["iter"] == 7


@pytest.mark.parametrize("named", [False, True])
def test_a_training_that_would_end_before_its_state_is_refused(tmp_path: Path, named: bool) -> None:
    opt = options(tmp_path)
    path = save(tmp_path, 12)
    if named:
        opt["auto_resume"], opt["path"]["resume_state"] = False, str(path)
    with pytest.raises(UserError, match=r"train:total_iter: 10 is below 12, the iteration of .*12\.state"):
        find_state(opt)
    opt["train"]["total_iter"] = 12
    assert find_state(opt)[0]["iter"] == 12


def test_a_model_of_basicsr_goes_on_with_the_rate_that_is_given() -> None:
    def build(rate: float) -> SRModel:
        network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1}
        schedule = {"type": "MultiStepLR", "milestones": [9]}
        train = {"optim_g": {"type": "Adam", "lr": rate}, "scheduler": schedule, "pixel_opt": {"type": "L1Loss"}}
        return SRModel(
            {"num_gpu": 0, "dist": False, "is_train": True, "network_g": network, "path": {}, "train": train}
        )

    earlier, model = build(1e-3), build(1e-4)
    states = {"optimizers": earlier.optimizers, "schedulers": earlier.schedulers}
    resume(model, {"iter": 2, "epoch": 0} | {name: [part.state_dict() for part in of] for name, of in states.items()})
    assert model.get_current_learning_rate() == [1e-4]
    assert model.schedulers[0].get_last_lr() == [1e-4]


def test_a_training_that_goes_back_puts_the_later_sets_aside(
    command: Callable, demo_options: dict, tmp_path: Path
) -> None:
    demo_options["train"]["total_iter"] = 3
    demo_options["logger"]["save_checkpoint_freq"] = 1
    del demo_options["val"]
    back = {"path": {"resume_state": f"experiments/{demo_options['name']}/training_states/2.state"}}
    assert command("train", "-opt", write_yaml(tmp_path / "a.yml", demo_options)) == 0
    assert command("train", "-opt", write_yaml(tmp_path / "a.yml", {**demo_options, **back})) == 0
    run = tmp_path / "experiments" / demo_options["name"]
    assert sorted(path.name for path in (run / "training_states").glob("*.state")) == ["1.state", "2.state", "3.state"]
    assert [path.name for path in run.glob("abandoned_*/training_states/*.state")] == ["3.state"]


@pytest.mark.parametrize("is_there", [True, False])
def test_without_its_file_the_best_network_so_far_is_forgotten(tmp_path: Path, is_there: bool) -> None:
    run = tmp_path
    options(run)
    for iteration in (2, 4, 6):
        save(run, iteration)
    later = run / "models" / "net_g_best.pth"
    later.write_bytes(b"of iteration 6")
    os.utime(later, ns=(2**62, 2**62))
    if not is_there:
        (run / "models" / "net_g_2.pth").unlink()
    record = {"better": "higher", "val": 20.0, "iter": 2}
    others = dict(record)
    opt = {"datasets": {"val": {"name": "faces"}}}
    model = SimpleNamespace(opt=opt, best_metric_results={"faces": {"psnr": record}, "others": {"psnr": others}})
    plain = {"path": {"resume_state": f"{run}/training_states/4.state"}}
    set_aside_later(SimpleNamespace(rank=0, folder=run, plain=plain), model, 4)
    assert later.exists() == is_there
    if is_there:
        assert later.read_bytes() == (run / "models" / "net_g_2.pth").read_bytes()
    of_first, of_others = (model.best_metric_results[name]["psnr"]["iter"] for name in ("faces", "others"))
    assert (of_first, of_others) == (2 if is_there else -1, 2)
