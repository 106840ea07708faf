"""Short trainings through both loops: the same losses and weights, exact lengths, resume, what is left untouched."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from kit import for_sr_model, write_yaml

from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.reading import force, read_option_file
from dfpg_plugin.runs.building import build_loaders

METRIC = {"type": "calculate_psnr", "crop_border": 0}
KEYS = ("l_d_real", "l_d_fake", "l_g_pix", "l_g_prior", "l_g_gan", "cos_p1")


@pytest.fixture
def option_file(tmp_path: Path, demo_options: dict, eight_faces: Path, two_faces: Path) -> Path:
    """Options for 8 faces in batches of 4, two iterations an epoch, 6 in all; two others to validate."""
    train = demo_options["datasets"]["train"]
    train.update(faces=None, split=None, dataroot_gt=str(eight_faces), batch_size_per_gpu=4)
    val = demo_options["datasets"]["val"]
    val.update(faces=None, split=None, dataroot_gt=str(two_faces))
    demo_options["train"]["total_iter"] = 6
    demo_options["val"]["val_freq"] = 4
    return write_yaml(tmp_path / "small.yml", demo_options)


def logged(run: Path) -> list[tuple[int, dict[str, float]]]:
    text = "".join(p.read_text() for p in sorted(run.glob("train_*.log")))
    lines = re.findall(r"iter:\s*([\d,]+), .*", text)
    rows = [line for line in text.splitlines() if "l_g_pix:" in line]
    values = [{key: float(re.search(rf"{key}: (\S+)", row)[1]) for key in KEYS} for row in rows]
    return list(zip(map(int, lines), values, strict=True))


def weights(run: Path, name: str = "net_g_latest") -> dict:
    return torch.load(run / "models" / f"{name}.pth", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[part][k], b[part][k]) for part in a for k in a[part]) and a.keys() == b.keys()


def test_both_loops_give_the_same_losses_and_weights(command: Callable, option_file: Path, tmp_path: Path) -> None:
    assert command("train", "-opt", option_file) == 0
    assert command("train", "-opt", option_file, "--stock", "--force_yml", "name=stock") == 0
    ours, theirs = tmp_path / "experiments" / "small", tmp_path / "experiments" / "stock"
    assert [i for i, _ in logged(ours)] == [1, 2, 3, 4, 5, 6]
    assert logged(ours) == logged(theirs)
    for name in ("net_g_latest", "net_g_2", "net_g_6", "net_d_6", "net_g_best"):
        assert same(weights(ours, name), weights(theirs, name)), name
    states = [{p.name for p in (run / "training_states").glob("*.state")} for run in (ours, theirs)]
    assert states[0] == states[1] == {"2.state", "4.state", "6.state"}


def test_a_resumed_run_ends_like_one_without_a_break(command: Callable, option_file: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "experiments" / "small", tmp_path / "experiments" / "broken"
    every_third = "logger:save_checkpoint_freq=3"
    assert command("train", "-opt", option_file, "--force_yml", every_third) == 0
    part = ["train", "-opt", option_file, "--force_yml", "name=broken", every_third]
    assert command(*part, "train:total_iter=3") == 0  # in the middle of the second epoch
    assert command(*part, "--auto_resume") == 0
    assert logged(broken)[3:] == logged(whole)[3:]
    assert same(weights(broken), weights(whole))
    assert same(weights(broken, "net_d_latest"), weights(whole, "net_d_latest"))


def test_each_loop_continues_the_others_checkpoint(command: Callable, option_file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "experiments" / "small"
    base = ["train", "-opt", option_file, "--force_yml"]
    once = "logger:save_checkpoint_freq=4"
    assert command(*base, once) == 0
    assert command(*base, once, "name=stock_first", "train:total_iter=4", "--stock") == 0
    assert command(*base, once, "name=stock_first", "--auto_resume") == 0
    assert same(weights(tmp_path / "experiments" / "stock_first"), weights(whole))
    assert command(*base, "name=ours_first", "train:total_iter=4") == 0
    assert command(*base, "name=ours_first", "--auto_resume", "--stock") == 0
    assert (tmp_path / "experiments" / "ours_first" / "training_states" / "6.state").is_file()
    assert [i for i, _ in logged(tmp_path / "experiments" / "ours_first")] == [1, 2, 3, 4, 5, 6]


def test_the_plain_pipeline_runs_without_our_command(basicsr: Callable, option_file: Path, tmp_path: Path) -> None:
    code = "import sys, dfpg_plugin; from basicsr.train import train_pipeline; train_pipeline(sys.argv.pop(1))"
    done = basicsr(tmp_path, "-opt", option_file, code=code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "experiments" / "small" / "models" / "net_g_latest.pth").is_file()


@pytest.mark.parametrize(("batch", "total"), [(3, 7), (8, 3)])
def test_a_training_makes_exactly_total_iter_iterations(
    command: Callable, option_file: Path, tmp_path: Path, batch: int, total: int
) -> None:
    forced = [f"datasets:train:batch_size_per_gpu={batch}", f"train:total_iter={total}", f"val:val_freq={total}"]
    assert command("train", "-opt", option_file, "--force_yml", *forced) == 0
    run = tmp_path / "experiments" / "small"
    assert [i for i, _ in logged(run)] == list(range(1, total + 1))
    (log,) = run.glob("train_*.log")
    assert log.read_text().count("Validation ORL-val") == 1
    assert re.findall(r"Best: .* @ (\d+) iter", log.read_text()) == [str(total)] * 2


def test_less_than_a_batch_is_an_error(command: Callable, option_file: Path, capsys) -> None:
    assert command("train", "-opt", option_file, "--force_yml", "datasets:train:batch_size_per_gpu=9") == 2
    assert "8 images an epoch are less than one batch of 9" in capsys.readouterr().err


def test_a_failed_start_leaves_an_earlier_run_alone(command: Callable, option_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "experiments" / "small"
    assert command("train", "-opt", option_file, "--force_yml", "train:total_iter=1") == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for wrong in ("network_g:type=DFPGNte", "datasets:train:batch_size_per_gpu=9", "network_prior:weights=nowhere.pth"):
        assert command("train", "-opt", option_file, "--force_yml", wrong) == 2
    assert {p: p.read_bytes() for p in before} == before
    assert [p.name for p in run.parent.glob("[!.]*")] == ["small"]


def test_a_new_run_of_the_same_name_renames_the_earlier_one(
    command: Callable, option_file: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert command("train", "-opt", option_file, "--force_yml", "train:total_iter=1") == 0
    names = sorted(p.name for p in (tmp_path / "experiments").glob("[!.]*"))
    assert len(names) == 2
    assert names[1].startswith("small_archived_")


def test_a_loss_that_is_not_finite_ends_the_run_with_its_name(
    command: Callable, option_file: Path, tmp_path: Path, capsys
) -> None:
    assert command("train", "-opt", option_file, "--force_yml", "train:pixel_opt:loss_weight=.inf") == 1
    assert "l_g_pix is inf at iteration 1" in capsys.readouterr().err
    assert not list((tmp_path / "experiments" / "small").rglob("*.pth"))


def test_a_run_ends_with_figures_for_restored_and_blurred_and_a_picture(
    command: Callable, option_file: Path, tmp_path: Path, eight_faces: Path
) -> None:
    from PIL import Image

    eight, once = f"datasets:val:dataroot_gt={eight_faces}", "logger:save_checkpoint_freq=6"
    assert command("train", "-opt", option_file, "--force_yml", eight, once) == 0
    run = tmp_path / "experiments" / "small"
    text = next(run.glob("train_*.log")).read_text()
    assert re.search(r"Validation of ORL-val, 8 images:\n\t # psnr: blurred \d+\.\d+, restored \d+\.\d+ \([+-]", text)
    assert "Start training" in text  # early and late records
    assert "Prior features: VGGFaceFeatureExtractor from random" in text
    gap = 4
    assert Image.open(run / "comparison_ORL-val.png").size == (3 * (92 + gap) + gap, 6 * (112 + gap) + gap)
    assert (run / "small.yml").read_text().endswith(option_file.read_text())


def test_validation_without_ground_truth_saves_pictures_and_refuses_metrics_that_need_one(
    command: Callable, option_file: Path, tmp_path: Path, eight_faces: Path, capsys
) -> None:
    real = f"datasets:val={{name: real, type: FaceDeblurTestDataset, dataroot_lq: {eight_faces}}}"
    assert command("train", "-opt", option_file, "--force_yml", real) == 2
    assert (
        "val:metrics: the data set real has no ground truth, without which psnr, ssim can't be measured"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "experiments").exists()
    assert command("train", "-opt", option_file, "--force_yml", real, "val:metrics=", "val:save_img=true") == 0
    assert len(list((tmp_path / "experiments" / "small" / "visualization").rglob("*_6.png"))) == 8


def test_training_for_some_iterations_lowers_the_losses(command: Callable, option_file: Path, tmp_path: Path) -> None:
    forced = ["train:total_iter=40", "train:optim_g:lr=2e-3", "logger:save_checkpoint_freq=40", "val:val_freq=40"]
    assert command("train", "-opt", option_file, "--force_yml", *forced) == 0
    rows = [values for _, values in logged(tmp_path / "experiments" / "small")]
    for key in ("l_g_pix", "l_g_prior"):
        first, last = (sum(r[key] for r in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last < 0.8 * first, key


def test_workers_change_nothing(command: Callable, option_file: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        forced = [f"name=w{workers}", f"datasets:train:num_worker_per_gpu={workers}", "logger:save_checkpoint_freq=6"]
        assert command("train", "-opt", option_file, "--force_yml", *forced) == 0
    runs = [tmp_path / "experiments" / name for name in ("w0", "w2")]
    assert logged(runs[0]) == logged(runs[1])


@pytest.mark.slow
def test_two_processes_train_on_cpus_and_one_writes(basicsr: Callable, option_file: Path, tmp_path: Path) -> None:
    code = "import sys; from torch.distributed.run import main; main(sys.argv[1:])"
    # with Adam's own eps a weight whose gradient is nearly 0 moves a whole step by the sign of a rounding error
    forced = [f"train:{optimizer}:eps=1.0e-4" for optimizer in ("optim_g", "optim_d")]
    forced += ["train:total_iter=10", "val:val_freq=10", "logger:save_checkpoint_freq=10"]
    done = basicsr(
        *("--nproc_per_node=2", "--standalone", "-m", "dfpg_cli.main"),
        *("train", "-opt", option_file, "--launcher", "pytorch"),
        *("--force_yml", "datasets:train:batch_size_per_gpu=2", *forced),
        code=code,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "experiments" / "small"
    assert [i for i, _ in logged(run)] == list(range(1, 11))
    assert len(list(run.glob("train_*.log"))) == 1
    alone = basicsr("train", "-opt", option_file, "--force_yml", "name=alone", *forced, code=None)
    assert alone.returncode == 0
    whole = tmp_path / "experiments" / "alone"
    for (_, shared), (_, single) in zip(logged(run), logged(whole), strict=True):  # the same 4 faces at each step
        assert shared == pytest.approx(single, rel=1e-3, abs=1e-4)
    for key, value in weights(whole)["params"].items():
        torch.testing.assert_close(weights(run)["params"][key], value, rtol=1e-4, atol=1e-6)
        assert (weights(run)["params"][key] - value).abs().max() < 1e-5

    state = torch.load(run / "training_states" / "10.state", weights_only=True)
    forced = [f"path:pretrain_network_g={run}/models/net_g_10.pth", "path:param_key_g=params_ema"]
    opt = read_option_file(str(option_file))
    force(opt, forced)
    complete(opt, Arguments(str(option_file)), tmp_path, is_train=False)
    opt.update(rank=0, world_size=1)
    model = build_model(opt)
    for loader in build_loaders(opt, "val"):
        model.validation(loader, 10, None, False)
        shared = {
            key: record["val"] for key, record in state["best_metric_results"][loader.dataset.opt["name"]].items()
        }
        assert shared == pytest.approx(model.metric_results, abs=1e-6)


def test_a_dry_run_trains_a_step_and_writes_nothing(
    command: Callable, option_file: Path, tmp_path: Path, capsys
) -> None:
    assert command("train", "-opt", option_file, "--dry-run") == 0
    assert re.search(r"Dry run: .* in order\. l_d_real: ", capsys.readouterr().err)
    assert not (tmp_path / "experiments").exists()
    assert command("train", "-opt", option_file, "--dry-run", "--stock") == 2


@pytest.fixture
def drawn(
    command: Callable, demo_options: dict, option_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[bool], list[torch.Tensor]]]:
    """Make a dry run as a process of two; return of each run of its network if it trains, and what it draws."""

    class Drawing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Conv2d(3, 3, 1)
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            trained.append(self.training)
            draws.append(torch.cat([torch.rand(2), self.dropout(torch.ones(62))]))
            return self.body(x)

    trained, draws = [], []
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Drawing", Drawing)
    demo_options["network_g"] = {"type": "Drawing"}

    def run(rank: int, validates: bool, seed: int = 0) -> tuple[list[bool], list[torch.Tensor]]:
        trained.clear()
        draws.clear()
        monkeypatch.setattr("dfpg_plugin.options.completing.get_dist_info", lambda: (rank, 2))
        options = {**for_sr_model(demo_options), "model_type": "DFPGModel", "manual_seed": seed}
        if not validates:
            del options["val"]
        assert command("train", "-opt", write_yaml(option_file, options), "--dry-run") == 0
        return list(trained), list(draws)

    return run


def test_each_process_draws_its_own_numbers_and_the_same_each_time(drawn: Callable) -> None:
    runs = ((0, 0), (0, 0), (1, 0), (0, 7))
    first, again, *others = (drawn(rank, validates=False, seed=seed)[1][-1] for rank, seed in runs)
    assert torch.equal(first, again)
    for other in others:  # another process, another manual_seed
        assert not torch.equal(first[:2], other[:2])
        assert not torch.equal(first[2:], other[2:])  # which values dropout leaves out


def test_a_validation_before_the_first_iteration_draws_no_number_of_the_training(drawn: Callable) -> None:
    with_validation, without = drawn(0, validates=True), drawn(0, validates=False)
    assert with_validation[0] == [False, True]
    assert without[0] == [True]
    assert torch.equal(with_validation[1][1], without[1][0])


def test_a_run_is_found_from_any_folder(command: Callable, option_file: Path, tmp_path: Path, monkeypatch) -> None:
    part = ["train", "-opt", option_file, "--auto_resume", "--force_yml", f"path:root={tmp_path}"]
    assert command(*part, "train:total_iter=2") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command(*part) == 0
    assert [i for i, _ in logged(tmp_path / "experiments" / "small")] == [1, 2, 3, 4, 5, 6]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("model", ["DFPGModel", "SRModel"])
def test_a_border_that_leaves_nothing_to_measure_is_an_error(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path, capsys, model: str
) -> None:
    if model == "SRModel":
        write_yaml(option_file, for_sr_model(demo_options))
    wide = "val:metrics:psnr:crop_border=46"  # of faces of 92x112 px
    assert command("train", "-opt", option_file, "--force_yml", wide) == 2
    message = (
        "val:metrics: calculate_psnr: crop_border: 46 leaves less than 1 px of an image of 92x112 px. Lower it, or"
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("model", ["SRModel", "SRGANModel", "ESRGANModel"])
def test_basicsrs_models_resume_exactly_too(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path, model: str
) -> None:
    demo_options.update(model_type=model, path={})
    del demo_options["network_prior"], demo_options["train"]["prior_opt"], demo_options["network_d"]
    del demo_options["train"]["estimated_prior"]
    demo_options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [5]}
    if model == "SRModel":
        del demo_options["train"]["gan_opt"], demo_options["train"]["optim_d"]
    else:
        demo_options["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}
    demo_options["logger"]["save_checkpoint_freq"] = 3
    file = write_yaml(option_file, demo_options)
    whole, broken = tmp_path / "experiments" / "small", tmp_path / "experiments" / "broken"
    assert command("train", "-opt", file) == 0
    part = ["train", "-opt", file, "--force_yml", "name=broken"]
    assert command(*part, "train:total_iter=3") == 0
    assert command(*part, "--auto_resume") == 0
    assert same(weights(broken), weights(whole))
    states = [torch.load(run / "training_states" / "6.state", weights_only=True) for run in (whole, broken)]
    assert states[0]["best_metric_results"] == states[1]["best_metric_results"] != {}
    assert str(states[0]["optimizers"]) == str(states[1]["optimizers"])
    assert str(states[0]["random"]) == str(states[1]["random"])


def test_a_run_that_went_back_goes_on_from_there(command: Callable, option_file: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "experiments" / "small"
    assert command("train", "-opt", option_file) == 0
    back = ["train", "-opt", option_file, "--force_yml", f"path:resume_state={run}/training_states/2.state"]
    assert command(*back, "train:total_iter=3", "logger:save_checkpoint_freq=1", "logger:keep_checkpoints=1") == 0
    assert re.search(r"to iteration 2\. Its later checkpoints are now in .*small/abandoned_\d", capsys.readouterr().err)
    assert [path.name for path in (run / "training_states").glob("*.state")] == ["3.state"]
    assert len(list(run.glob("abandoned_*/training_states/*.state"))) == 2
    assert command("train", "-opt", option_file, "--auto_resume", "--force_yml", "train:total_iter=4") == 0
    assert [i for i, _ in logged(run)] == [1, 2, 3, 4, 5, 6, 3, 4]


def test_a_run_that_went_back_has_the_best_network_up_to_there(
    command: Callable, option_file: Path, tmp_path: Path
) -> None:
    run, often = tmp_path / "experiments" / "small", ["val:val_freq=1", "logger:save_checkpoint_freq=1"]
    assert command("train", "-opt", option_file, "--force_yml", *often) == 0
    records = [
        torch.load(run / "training_states" / f"{i}.state", weights_only=True)["best_metric_results"]["ORL-val"]["psnr"]
        for i in (3, 6)
    ]
    assert records[1]["iter"] > 3, "the best network has to be one that is set aside"
    back = [f"path:resume_state={run}/training_states/3.state", "train:total_iter=3", "val:val_freq=3"]
    assert command("train", "-opt", option_file, "--force_yml", "logger:save_checkpoint_freq=1", *back) == 0
    assert same(weights(run, "net_g_best"), weights(run, f"net_g_{records[0]['iter']}"))


def test_best_is_kept_by_the_first_validation_set_of_the_file_also_after_a_change_of_sets(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path
) -> None:
    sets, val = demo_options["datasets"], demo_options["datasets"].pop("val")
    sets.update(val_z={**val, "name": "z"}, val_a={**val, "name": "a"})
    demo_options["val"]["val_freq"] = 2
    run = tmp_path / "experiments" / "small"
    assert command("train", "-opt", write_yaml(option_file, demo_options), "--force_yml", "train:total_iter=2") == 0
    text = next(run.glob("train_*.log")).read_text()
    assert text.index("Validation z") < text.index("Validation a")
    sets["val_z"]["name"] = "new"
    assert command("train", "-opt", write_yaml(option_file, demo_options), "--auto_resume") == 0
    records = torch.load(run / "training_states" / "6.state", weights_only=True)["best_metric_results"]
    assert records.keys() == {"new", "a"}
    best = weights(run, "net_g_best")
    assert same(best, weights(run, f"net_g_{records['new']['psnr']['iter']}"))


def test_another_run_goes_on_from_a_state_with_that_states_networks(
    command: Callable, option_file: Path, tmp_path: Path
) -> None:
    assert command("train", "-opt", option_file) == 0
    whole = tmp_path / "experiments" / "small"
    fork = ["name=fork", f"path:resume_state={whole}/training_states/2.state"]
    for flags in ([], ["--stock"]):
        assert command("train", "-opt", option_file, *flags, "--force_yml", *fork) == 0
        forked = tmp_path / "experiments" / "fork"
        # BasicSR's own loop begins the epoch again
        assert same(weights(forked), weights(whole)) == (not flags)
        assert [path.stem for path in sorted((forked / "training_states").glob("*.state"))] == ["4", "6"]
        shutil.rmtree(forked)
    assert [path.stem for path in sorted((whole / "training_states").glob("*.state"))] == ["2", "4", "6"]


def test_another_run_begins_with_the_best_network_of_the_state_s_run(
    command: Callable, option_file: Path, tmp_path: Path
) -> None:
    whole, forked = (tmp_path / "experiments" / name for name in ("small", "fork"))
    assert command("train", "-opt", option_file, "--force_yml", "val:val_freq=1", "logger:save_checkpoint_freq=1") == 0
    state = whole / "training_states" / "4.state"
    best = torch.load(state, weights_only=True)["best_metric_results"]["ORL-val"]["psnr"]["iter"]
    fork = ["name=fork", f"path:resume_state={state}", "train:total_iter=4"]
    assert command("train", "-opt", option_file, "--force_yml", *fork) == 0
    assert same(weights(forked, "net_g_best"), weights(whole, f"net_g_{best}"))


def test_another_run_of_a_model_of_basicsr_has_no_best_network_which_would_never_change(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path
) -> None:
    options = for_sr_model(demo_options)
    options["val"]["val_freq"] = 1
    options["logger"]["save_checkpoint_freq"] = 1
    options["train"]["total_iter"] = 2
    file = write_yaml(option_file, options)
    assert command("train", "-opt", file) == 0
    fork = ["name=fork", f"path:resume_state={tmp_path}/experiments/small/training_states/1.state"]
    assert command("train", "-opt", file, "--force_yml", *fork) == 0
    models = {path.name for path in (tmp_path / "experiments" / "fork" / "models").iterdir()}
    assert models == {"net_g_2.pth", "net_g_latest.pth"}


def test_a_run_without_a_seed_keeps_the_seed_that_it_drew(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del demo_options["manual_seed"]
    write_yaml(option_file, demo_options)
    drawn = iter((5, 5, 6))
    monkeypatch.setattr("dfpg_plugin.options.completing.random.randint", lambda low, high: next(drawn))
    assert command("train", "-opt", option_file) == 0
    part = ["train", "-opt", option_file, "--force_yml", "name=broken"]
    assert command(*part, "train:total_iter=2") == 0
    assert command(*part, "--auto_resume") == 0
    whole, broken = tmp_path / "experiments" / "small", tmp_path / "experiments" / "broken"
    assert same(weights(broken), weights(whole))


@pytest.mark.parametrize("flags", [[], ["--stock"]])
def test_changed_rates_and_metrics_take_effect_when_a_run_is_resumed(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path, capsys, flags: list
) -> None:
    assert command("train", "-opt", option_file, *flags, "--force_yml", "train:total_iter=4") == 0
    train = demo_options["train"]
    before, train["optim_g"]["lr"], train["optim_d"]["betas"] = train["optim_g"]["lr"], 1e-6, [0.5, 0.9]
    train["scheduler"]["gamma"] = 0.5
    demo_options["val"].update(val_freq=5, metrics={"psnr": METRIC, "d": {"type": "calculate_ssim_3d"}})
    assert command("train", "-opt", write_yaml(option_file, demo_options), *flags, "--auto_resume") == 0
    said = f"Changed since iteration 4, and in effect from now on: train:optim_g:lr {before} -> 1e-06; train:scheduler:"
    assert said in capsys.readouterr().err
    run = tmp_path / "experiments" / "small"
    state = torch.load(run / "training_states" / "6.state", weights_only=True)
    rates, betas = ([optimizer["param_groups"][0][key] for optimizer in state["optimizers"]] for key in ("lr", "betas"))
    assert rates[0] == pytest.approx(1e-6)
    assert list(betas[1]) == [0.5, 0.9]
    assert [schedule["gamma"] for schedule in state["schedulers"]] == [0.5, 0.5]
    assert state["best_metric_results"]["ORL-val"].keys() == {"psnr", "d"}


def test_a_state_of_another_model_is_named(
    command: Callable, demo_options: dict, option_file: Path, tmp_path: Path, capsys
) -> None:
    assert command("train", "-opt", option_file, "--force_yml", "train:total_iter=2") == 0
    demo_options["path"] = {}
    del demo_options["network_d"], demo_options["train"]["gan_opt"], demo_options["train"]["optim_d"]
    assert command("train", "-opt", write_yaml(option_file, demo_options), "--auto_resume") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"2\.state does not fit these options: .*: AssertionError: Wrong lengths of optimizers\.$", last)


def test_debug_shows_where_a_component_failed(command: Callable, option_file: Path, capsys) -> None:
    wrong = ["train", "-opt", option_file, "--force_yml", "train:optim_g:betas={a: 1}"]
    for flags, shown in (([], False), (["--debug"], True)):
        assert command(*wrong, *flags) == 2
        error = capsys.readouterr().err
        assert ("Traceback" in error) == shown
        assert error.splitlines()[-1].startswith("basicsr: error: DFPGModel can't be built with these options: ")
