"""`basicsr test`: values image by image, equal to BasicSR's own loop, whatever stops it or shares it out."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from basicsr.models import build_model
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY
from kit import ROOT, register
from results_folders import method
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.records import MANIFEST, Record, append_chunk, read_run, set_file
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.reading import read_option_file
from dfpg_plugin.reports.report import build_report
from dfpg_plugin.runs.building import build_loaders, validate


def values_of(folder: Path) -> dict[str, dict]:
    return {record.name: record.values for record in read_run(folder).sets["Small"]}


def test_means_are_those_of_basicsrs_own_loop(small_set: Callable) -> None:
    files = small_set()
    folder = files.run()
    opt = complete(read_option_file(str(files.option_file)), Arguments("small.yml"), files.folder, is_train=False)
    opt.update(rank=0, world_size=1)
    model = build_model(opt)
    validate(opt, model, build_loaders(opt, "test"), "x", None)
    mine = values_of(folder)
    assert sorted(mine) == sorted(files.names)
    for key, mean in model.metric_results.items():
        assert np.mean([values[key] for values in mine.values()]) == pytest.approx(mean, abs=1e-4), key


def test_saved_pictures_give_the_values_by_scikit_image(small_set: Callable) -> None:
    files = small_set(save_img=True)
    folder = files.run()
    for record in read_run(folder).sets["Small"]:
        restored, gt = cv2.imread(str(folder / record.picture)), cv2.imread(record.gt_path)
        assert Path(record.picture).name == f"{record.name}_small.png"
        assert record.values["psnr"] == pytest.approx(peak_signal_noise_ratio(gt, restored), abs=1e-9)
        settings = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        _, ssim = structural_similarity(gt, restored, full=True, **settings)
        # BasicSR takes the windows that lie inside the image
        assert record.values["ssim"] == pytest.approx(ssim[5:-5, 5:-5].mean(), abs=1e-6)
        assert record.gt == f"{record.name.split('_')[0]}.png"
        assert record.size == int(record.name.rsplit("k", 1)[1])


@pytest.mark.parametrize("suffix", [None, "mine"])
def test_pictures_are_saved_under_the_names_that_basicsr_gives(small_set: Callable, suffix: str | None) -> None:
    files = small_set(people=1, save_img=True, suffix=suffix, metrics={})
    saved = files.run() / "visualization"
    opt = complete(read_option_file(str(files.option_file)), Arguments("small.yml"), files.folder, is_train=False)
    opt.update(rank=0, world_size=1)
    opt["path"]["visualization"] = str(files.folder / "basicsrs")
    (loader,) = build_loaders(opt, "test")
    SRModel.nondist_validation(build_model(opt), loader, "x", None, True)
    names = [sorted(p.relative_to(root) for p in root.rglob("*.png")) for root in (saved, files.folder / "basicsrs")]
    assert names[0] == names[1]
    assert names[0] == [Path("Small", f"{name}_{suffix or 'small'}.png") for name in sorted(files.names)]


def test_what_a_test_set_draws_follows_manual_seed(small_set: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noise(torch.utils.data.Dataset):
        def __init__(self, opt: dict) -> None:
            self.opt = opt

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict:
            lq, gt = torch.rand(2, 3, 16, 12)
            return {"lq": lq, "gt": gt, "lq_path": f"a/{index}.png", "gt_path": f"b/{index}.png"}

    register(monkeypatch, DATASET_REGISTRY, Noise)
    files = small_set(people=1, metrics={"psnr": {"type": "calculate_psnr", "crop_border": 0}})
    forced = "datasets:test={name: Small, type: Noise}"
    runs = (
        files.run(f"name=r{n}", forced, f"manual_seed={seed}", images="blurred") for n, seed in enumerate((1, 1, 2))
    )
    first, again, other = (np.array([values["psnr"] for values in values_of(run).values()]) for run in runs)
    assert np.array_equal(first, again)
    assert (first != other).all()


@pytest.mark.parametrize("part", ["set_gt", "set_blur"])
def test_methods_that_were_measured_on_different_pictures_are_not_compared(small_set: Callable, part: str) -> None:
    files = small_set(people=2, sizes=(5,), metrics={"psnr": {"type": "calculate_psnr", "crop_border": 0}})
    runs = [method("a", files.run("name=a", images="blurred")), method("b", files.run("name=b", images="blurred"))]
    build_report(runs, "Same pictures", resamples=10, seed=0)
    path = next((files.folder / "set" / part).glob("s38*"))
    image = cv2.imread(str(path))
    image[3, 5, 1] ^= 1  # one grey level
    cv2.imwrite(str(path), image)
    runs.append(method("c", files.run("name=c", images="blurred")))
    with pytest.raises(UserError, match=rf"different pictures of the same names \(1\): {files.names[1]}"):
        build_report(runs, "Different pictures", resamples=10, seed=0)


def test_blurred_and_sharp_are_measured_without_weights(small_set: Callable) -> None:
    files = small_set()
    (files.folder / "net.pth").unlink()
    forced = ["path:pretrain_network_g=~"]
    blurred = values_of(files.run("name=blurred", *forced, images="blurred"))
    for name, values in blurred.items():
        lq = cv2.imread(str(files.folder / "set" / "set_blur" / f"{name}.png"))
        gt = cv2.imread(str(files.folder / "set" / "set_gt" / f"{name.split('_')[0]}.png"))
        assert values["psnr"] == calculate_metric({"img": lq, "img2": gt}, {"type": "calculate_psnr", "crop_border": 0})
    sharp = files.run("name=sharp", *forced, images="sharp")
    assert {values["psnr"] for values in values_of(sharp).values()} == {np.inf}
    assert {values["d_vgg"] for values in values_of(sharp).values()} == {0}
    assert json.loads((sharp / MANIFEST).read_text())["method"]["images"] == "sharp"
    with pytest.raises(UserError, match="path:pretrain_network_g: missing, so there is nothing to test"):
        files.run(*forced)


def test_a_folder_of_another_methods_images(small_set: Callable) -> None:
    """As BasicSR names them, with one missing, one of another size, one damaged, and two that could be meant."""
    files = small_set()
    other = files.folder / "other"
    other.mkdir()
    for name in files.names:
        image = cv2.imread(str(files.folder / "set" / "set_blur" / f"{name}.png"))
        cv2.imwrite(str(other / f"{name}_method.png"), image)
    (other / f"{files.names[0]}_method.png").unlink()
    cv2.imwrite(str(other / f"{files.names[1]}_method.png"), np.zeros((64, 60, 3), np.uint8))
    (other / f"{files.names[2]}_method.png").write_bytes(b"no picture")
    cv2.imwrite(str(other / f"{files.names[3]}_second.png"), image)
    folder = files.run("name=other", images="other")
    records = {record.name: record for record in read_run(folder).sets["Small"]}
    problems = [records[name].problem for name in files.names]
    assert problems[0] == "missing"
    assert problems[1] == "60x64 px instead of 92x112 px"
    assert "damaged" in problems[2]
    assert problems[3] == f"several files: {files.names[3]}_method, {files.names[3]}_second"
    assert problems[4:] == [None] * 4
    assert records[files.names[0]].values == {}
    blurred = values_of(files.run("name=blurred", images="blurred"))
    assert records[files.names[4]].values == pytest.approx(blurred[files.names[4]])
    with pytest.raises(UserError, match="--images: the folder nowhere does not exist"):
        files.run(images="nowhere")


def test_two_processes_measure_what_one_does(small_set: Callable) -> None:
    files = small_set()
    one, two = values_of(files.run("name=one")), values_of(files.run("name=two", workers=2))
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-5), name


def test_no_more_processes_start_than_there_is_work_for(small_set: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from dfpg_plugin.evaluation import evaluate

    class InThisProcess(evaluate.DataLoader):
        def __init__(self, chunks: object, *, num_workers: int, **_: object) -> None:
            started.append(num_workers)
            super().__init__(chunks, batch_size=None)

    started: list[int] = []
    monkeypatch.setattr(evaluate, "DataLoader", InThisProcess)
    files = small_set(people=1, metrics={}, save_img=True, batch_size=1)
    files.run("name=one", workers=1)
    files.run("name=many", workers=32)
    assert started == [1, len(files.names)]


def test_winograds_convolutions_give_the_same_values(small_set: Callable, monkeypatch: pytest.MonkeyPatch) -> None:

    from dfpg_plugin.evaluation import image_sources

    files = small_set()
    made = []
    original = image_sources.with_winograd
    monkeypatch.setattr(image_sources, "with_winograd", lambda net: made.append(original(net)) or made[-1])
    direct = values_of(files.run("name=direct"))
    assert not made
    fast = values_of(files.run("name=fast", "val:winograd=true"))
    assert "WinogradConv2d" in {type(layer).__name__ for layer in made[0].modules()}
    for name, values in direct.items():
        assert fast[name] == pytest.approx(values, abs=1e-3), name


def test_a_model_that_restores_no_single_image_is_left_to_its_own_way(
    small_set: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Clips(DFPGModel):
        def nondist_validation(self, dataloader, current_iter: str, tb_logger: None, save_img: bool) -> None:
            seen.append(len(dataloader.dataset))
            if len(dataloader.dataset) == 1:
                raise ValueError("a clip has more than one frame")

    seen: list[int] = []
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, "Clips", Clips)
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    files = small_set()
    assert not (files.run("model_type=Clips") / MANIFEST).exists()
    assert seen == [1, len(files.names)]
    (line,) = {record.message for record in caplog.records if "in its own way" in record.message}
    assert "(it restores no single image: a clip has more than one frame), which no report can read" in line
    detection = {"detection": {"type": "detection_rate", "recogniser": "dlib"}}
    with pytest.raises(UserError, match=r"set_metrics: Clips measures in its own way .* Remove them"):
        files.run("model_type=Clips", f"val:set_metrics={json.dumps(detection)}")


def test_the_processes_of_an_evaluation_share_the_gpus_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from dfpg_plugin.evaluation import evaluate

    devices = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)
    monkeypatch.setattr(evaluate.os, "sched_getaffinity", lambda process: set(range(32)))
    assert evaluate._default_workers({"num_gpu": 2}) == evaluate._default_workers({"num_gpu": 8}) == 8
    assert evaluate._default_workers({"num_gpu": 1}) == 4
    assert evaluate._default_workers({"num_gpu": 0}) == 32
    for worker in range(4):
        evaluate._start_worker(worker, evaluate._gpus({"num_gpu": 2}))
    evaluate._start_worker(3, evaluate._gpus({"num_gpu": 0}))
    assert devices == [0, 1, 0, 1]


def kill_after(files: object, lines: int) -> None:
    """Start the evaluation as a user does; kill it after so many lines are written."""
    code = "import sys; from dfpg_cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "test", "-opt", str(files.option_file), "--workers", "1"]
    path = files.folder / "results" / "small" / "Small.jsonl"
    process = subprocess.Popen(command, cwd=files.folder, stderr=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)})
    try:
        for _ in range(3000):
            if path.exists() and path.read_bytes().count(b"\n") >= lines:
                break
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
    finally:
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert workers
    for _ in range(1000):  # they look for their parent every few seconds
        if not any(Path("/proc", worker).exists() for worker in workers):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the workers outlive their parent")
    assert path.read_bytes().count(b"\n") >= lines


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(small_set: Callable) -> None:
    files = small_set(people=4, sizes=(5, 7, 9), batch_size=1)
    whole = values_of(files.run("name=whole", workers=1))
    kill_after(files, lines=3)
    folder = files.folder / "results" / "small"
    before = (folder / "Small.jsonl").read_bytes()
    first = json.loads((folder / MANIFEST).read_text())
    assert first["finished"] is None
    with pytest.raises(UserError, match="of 12 images of Small are measured"):
        read_run(folder)
    files.run(workers=1)
    assert (folder / "Small.jsonl").read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    last = json.loads((folder / MANIFEST).read_text())
    assert (last["started"], last["finished"] is None) == (first["started"], False)
    assert values_of(folder) == whole
    assert len(list(folder.parent.glob("small*"))) == 1  # nothing was archived


@pytest.mark.parametrize("change", ["val:batch_size=2", "val:metrics:psnr:crop_border=1", "val:metrics:lost=~"])
def test_another_evaluation_or_a_finished_one_is_put_aside(small_set: Callable, change: str) -> None:
    files = small_set()
    folder = files.run()
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "finished": None}))
    (folder / "Small.jsonl").write_text("")
    wrong = Record(0, "wrong", "", None, "")
    append_chunk(set_file(folder, "Small"), 0, [wrong])
    changed = [] if change.endswith("~") else [change]
    files.run(*changed)
    archived = list(folder.parent.glob("small_archived_*"))
    if changed:
        assert len(archived) == 1
        assert "wrong" not in values_of(folder)
    else:  # the same evaluation goes on from what is there, whatever it says
        assert archived == []
        files.run()
        assert len(list(folder.parent.glob("small_archived_*"))) == 1


def test_several_sets_and_one_without_ground_truth(small_set: Callable) -> None:
    files = small_set()
    forced = [
        "datasets:test_2={name: Second, type: FaceBlurDataset, faces: orl, split: val, kernel_sizes: [5], "
        "kernels_per_size: 2}",
        "val:metrics={psnr: {type: calculate_psnr, crop_border: 0}}",
    ]
    run = read_run(files.run(*forced))
    assert {name: len(records) for name, records in run.sets.items()} == {"Small": 8, "Second": 40}
    assert run.sets["Second"][0].gt == "s33/1.pgm"
    forced = [
        "datasets:test={name: Real, type: FaceDeblurTestDataset, dataroot_lq: set/set_blur}",
        "val={save_img: true}",
    ]
    run = read_run(files.run(*forced))
    assert all(r.values == {} and (run.folder / r.picture).is_file() for r in run.sets["Real"])


def test_the_manifest_says_what_was_measured(small_set: Callable) -> None:
    files = small_set()
    manifest = read_run(files.run()).manifest
    assert manifest["metrics"]["ssim"] == {
        "type": "calculate_ssim", "better": "higher", "of": "image", "uses": {},
        "settings": {"crop_border": 0, "input_order": "HWC", "test_y_channel": False},
    }  # fmt: skip
    d_vgg = manifest["metrics"]["d_vgg"]
    assert d_vgg["settings"]["layer"] == "relu3_3"
    assert len(d_vgg["uses"]["weights_sha256"]) == 64
    method = manifest["method"]
    assert method["weights"]["file"] == "net.pth"
    assert len(method["weights"]["sha256"]) == 64
    assert method["parameters"] > 10_000
    assert manifest["software"]["torch"]
    assert manifest["sets"]["Small"]["options"]["dataroot"] == "set"


def test_wrong_batch_sizes_and_sets_of_one_name_are_refused(small_set: Callable) -> None:
    files = small_set(batch_size=0)
    with pytest.raises(UserError, match="val:batch_size: expected a whole number from 1, got 0"):
        files.run()
    with pytest.raises(UserError, match=r"val:batch_size: expected a whole number from 1, got 0\.5"):
        files.run("val:batch_size=0.5")
    other = "datasets:test_2={name: Small, type: FaceDeblurTestDataset, dataroot: set}"
    with pytest.raises(UserError, match=r"datasets: two sets would be written to Small\.jsonl"):
        files.run("val:batch_size=2", other)


@pytest.mark.parametrize("change", ["val:save_img=true", "val:amp=bfloat16", "val:tile=80", "picture"])
def test_an_evaluation_of_changed_inputs_does_not_go_on(small_set: Callable, change: str) -> None:
    files = small_set(people=2)
    folder = files.run()
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "finished": None}))
    if change == "picture":
        path = files.folder / "set" / "set_blur" / f"{files.names[0]}.png"
        path.write_bytes(path.read_bytes() + b"0")
    files.run(*([] if change == "picture" else [change]))
    assert len(list(folder.parent.glob("small_archived_*"))) == 1


def test_the_way_that_is_better_is_the_metrics_own(small_set: Callable) -> None:
    files = small_set(metrics={"psnr": {"type": "calculate_psnr", "crop_border": 0}})
    manifest = read_run(files.run()).manifest
    assert manifest["metrics"]["psnr"]["better"] == "higher"
    metric = "{type: calculate_vggface_distance, weights: stand-in, layer: relu3_3, input: pm1}"
    with pytest.raises(UserError, match="val:metrics:d_vgg: better: is missing, so BasicSR assumes higher"):
        files.run(f"val:metrics:d_vgg={metric}")
    with pytest.raises(UserError, match="val:metrics:psnr:better: expected higher or lower, got 'Higher'"):
        files.run("val:metrics:psnr:better=Higher")
