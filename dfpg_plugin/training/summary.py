"""The summary at the end of a training: each metric before and after restoring, and a picture of some faces."""

from collections.abc import Sequence
from pathlib import Path

import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, tensor2img
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.utils import make_grid, save_image

from dfpg_plugin.files import whole_file
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.completing import RunOptions

NUM_ROWS = 6
GAP = 4  # px between pictures


def summarise(model: MendedModel, loaders: Sequence[DataLoader], options: RunOptions) -> None:
    """For every validation set with ground truth, log each metric before and after restoring, and save a picture.

    The picture, ``comparison_<set>.png`` in the experiment's folder, shows up to six faces: blurred | restored | sharp.
    """
    for loader in loaders:
        name = loader.dataset.opt["name"]  # type: ignore[attr-defined]
        metrics = (options.plain["val"] or {}).get("metrics") or {}
        rows: list[Tensor] = []
        totals, count = {key: [0.0, 0.0] for key in metrics}, 0
        # the numbers of the faces in the picture, evenly spread over the set
        shown = set(torch.linspace(0, len(loader) - 1, min(NUM_ROWS, len(loader))).int().tolist())
        for index, data in enumerate(loader):
            if "gt" not in data:
                break
            lq, restored, gt = _restore(model, data)
            count += 1
            blurred = F.interpolate(lq, gt.shape[-2:]) if lq.shape != gt.shape else lq
            for key, metric in metrics.items():
                for column, image in enumerate((blurred, restored)):
                    totals[key][column] += _measure(image, gt, metric)
            if index in shown and (not rows or rows[0].shape == gt.shape):
                rows += [blurred, restored, gt]
        if count:
            _log(name, count, {key: [total / count for total in pair] for key, pair in totals.items()})
            _save_picture(rows, options.folder / f"comparison_{name}.png")


def _restore(model: MendedModel, data: dict) -> tuple[Tensor, Tensor, Tensor]:
    model.feed_data(data)
    model.test()
    visuals = model.get_current_visuals()
    return visuals["lq"], visuals["result"], visuals["gt"]


def _measure(image: Tensor, gt: Tensor, metric: dict) -> float:
    # clones, because tensor2img clamps its argument in place
    pair = {"img": tensor2img([image.clone()]), "img2": tensor2img([gt.clone()])}
    return float(calculate_metric(pair, metric))


def _log(name: str, count: int, means: dict[str, list[float]]) -> None:
    lines = [f"Validation of {name}, {count} images:"]
    for key, (before, after) in means.items():
        lines.append(f"\t # {key}: blurred {before:.4f}, restored {after:.4f} ({after - before:+.4f})")
    get_root_logger().info("\n".join(lines))


def _save_picture(rows: Sequence[Tensor], path: Path) -> None:
    images = torch.cat(list(rows)).clamp(0, 1)
    with whole_file(path) as file:
        save_image(make_grid(images, nrow=3, padding=GAP, pad_value=1), file, format="png")
    get_root_logger().info(f"Picture (blurred | restored | sharp): {path}")
