"""A validation that several processes share gives what one gives, with BasicSR's own as the measure."""

import math
from pathlib import Path

import pytest
import torch
from basicsr.metrics.psnr_ssim import calculate_psnr
from basicsr.models.sr_model import SRModel
from kit import files_of_at_most
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.models import validation
from dfpg_plugin.models.mended_model import MendedModel

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "better": "lower"},
}


class Pairs(Dataset):
    """Seven pairs of different difficulty."""

    opt = {"name": "seven"}  # noqa: RUF012

    def __len__(self) -> int:
        return 7

    def __getitem__(self, i: int) -> dict:
        generator = torch.Generator().manual_seed(i)
        gt = torch.rand(3, 24, 24 + i, generator=generator)
        lq = (gt + 0.05 * (i + 1) * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
        return {"lq": lq, "gt": gt, "lq_path": f"a/{i}.png", "gt_path": f"b/{i}.png"}


def options(tmp_path: Path, **changes: object) -> dict:
    return {
        "num_gpu": 0, "dist": False, "rank": 0, "world_size": 1, "is_train": False, "scale": 1, "name": "t",
        "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1},
        "path": {"visualization": str(tmp_path)}, "val": {"metrics": METRICS, "suffix": None}, **changes,
    }  # fmt: skip


def build(kind: type, opt: dict) -> SRModel:
    torch.manual_seed(0)
    return kind(opt)


@pytest.mark.parametrize("suffix", [None, "mine"])
def test_one_process_gives_what_basicsr_gives(tmp_path: Path, suffix: str | None) -> None:
    results = []
    for kind in (SRModel, MendedModel):
        folder = tmp_path / kind.__name__
        model = build(kind, options(folder, val={"metrics": METRICS, "suffix": suffix}))
        model.validation(DataLoader(Pairs()), 5, None, True)
        files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.png")}
        best = {(name, key): of for name, found in model.best_metric_results.items() for key, of in found.items()}
        results.append((model.metric_results, best, files))
    (theirs, their_best, their_files), (ours, our_best, our_files) = results
    assert ours == pytest.approx(theirs, rel=1e-12)  # the order of a sum may differ
    assert our_best.keys() == their_best.keys()
    for key, best in their_best.items():
        assert our_best[key] == {**best, "val": pytest.approx(best["val"], rel=1e-12)}
    assert our_files == their_files
    assert len(our_files) == 7


def test_a_picture_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path) -> None:
    model = build(MendedModel, options(tmp_path, val={"metrics": None, "suffix": None}))
    model.validation(DataLoader(Pairs()), 5, None, True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with torch.no_grad():
        model.net_g.conv_last.bias += 0.1
    limit = min(map(len, before.values())) // 2
    with files_of_at_most(limit), pytest.raises(UserError, match=r"seven/0_t\.png: can't be written"):
        model.validation(DataLoader(Pairs()), 5, None, True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("processes", [2, 3, 9])
def test_several_processes_give_what_one_gives(tmp_path: Path, monkeypatch, processes: int) -> None:
    alone = build(MendedModel, options(tmp_path))
    alone.validation(DataLoader(Pairs()), 5, None, False)

    parts: list = []

    def exchange(everyone: list, rows: list) -> None:
        """Collect what each process has; the last one, which comes then, sees everything."""
        parts.append(rows)
        everyone[:] = [*parts, *[[]] * (len(everyone) - len(parts))]

    monkeypatch.setattr(validation.distributed, "all_gather_object", exchange)
    model = build(MendedModel, options(tmp_path))
    for rank in range(processes):
        model.opt.update(rank=rank, world_size=processes, dist=True)
        model.validation(DataLoader(Pairs()), 5, None, False)
    assert sorted(number for rows in parts for number, _ in rows) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert model.metric_results == alone.metric_results


def test_the_means_are_those_of_the_images(tmp_path: Path) -> None:
    class Nothing(MendedModel):
        def test(self) -> None:
            self.output = self.lq

    model = build(Nothing, options(tmp_path))
    model.validation(DataLoader(Pairs()), 5, None, False)
    images = [{k: (255 * v).round().permute(1, 2, 0).numpy() for k, v in p.items() if k in ("lq", "gt")} for p in
              (Pairs()[i] for i in range(7))]  # fmt: skip
    expected = sum(calculate_psnr(p["lq"], p["gt"], 0) for p in images) / 7
    assert model.metric_results["psnr"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("kind", "largest"), [("psnr", 11), ("ssim", 6)])
def test_a_border_leaves_something_to_measure(tmp_path: Path, kind: str, largest: int) -> None:
    for border in (largest, largest + 1):
        metrics = {kind: {"type": f"calculate_{kind}", "crop_border": border}}
        model = build(MendedModel, options(tmp_path, val={"metrics": metrics, "suffix": None}))
        if border == largest:
            model.validation(DataLoader(Pairs()), 5, None, False)
            assert math.isfinite(model.metric_results[kind])
            continue
        with pytest.raises(UserError, match=f"val:metrics: calculate_{kind}: crop_border: {border} leaves less than"):
            model.validation(DataLoader(Pairs()), 5, None, False)


@pytest.mark.parametrize(("val", "shown"), [({}, False), ({"pbar": False}, False), ({"pbar": True}, True)])
def test_a_bar_counts_the_images_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture, val: dict, shown: bool
) -> None:
    model = build(MendedModel, options(tmp_path, val={"metrics": None, **val}))
    model.validation(DataLoader(Pairs()), 5, None, False)
    assert ("7/7 " in capsys.readouterr().err) == shown
