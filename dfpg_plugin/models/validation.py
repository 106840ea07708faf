"""Validate as BasicSR does, but share the images among the processes of a training."""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.models.sr_model import SRModel
from basicsr.utils import tensor2img
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dfpg_plugin.checks import check_border, make_folder
from dfpg_plugin.files import name_of_image, whole_file

Row = tuple[int, list[float]]  # an image's number and the values of its metrics


def validate(model: SRModel, loader: DataLoader, current_iter: int | str, tb_logger: object, save_img: bool) -> None:
    """Restore and measure a set. Log the means, and set the model's ``metric_results`` and best metrics.

    Each process measures every ``world_size``-th image, and then learns the values of all images. The values are added
    in the order of the images, so that the means are those of a single process. In BasicSR, the first process measures
    all images while the other processes wait (sr_model.py:133).
    """
    rows = _gathered(list(_measure(model, loader, current_iter, save_img)), model.opt)
    metrics = model.opt["val"].get("metrics")
    if not metrics:
        return
    name = loader.dataset.opt["name"]  # type: ignore[attr-defined]
    model._initialize_best_metric_results(name)
    model.metric_results = {}
    for i, metric in enumerate(metrics):
        mean = sum(values[i] for _, values in rows) / len(rows)
        model.metric_results[metric] = mean
        model._update_best_metric_result(name, metric, mean, current_iter)
    if model.opt["rank"] == 0:
        model._log_validation_metric_values(current_iter, name, tb_logger)


def _measure(model: SRModel, loader: DataLoader, current_iter: int | str, save_img: bool) -> Iterator[Row]:
    """Restore this process's images, save the restored ones if ``save_img``, and yield the rows of their values."""
    rank, processes = (model.opt["rank"], model.opt["world_size"]) if model.opt["dist"] else (0, 1)
    dataset = loader.dataset
    if processes > 1:
        mine = range(rank, len(dataset), processes)  # type: ignore[arg-type]
        loader = DataLoader(Subset(dataset, mine), generator=loader.generator)
    metrics = model.opt["val"].get("metrics") or {}
    shows_bar = rank == 0 and model.opt["val"].get("pbar", False)
    for number, data in zip(count(rank, processes), tqdm(loader, unit="image", disable=not shows_bar), strict=False):
        model.feed_data(data)
        model.test()
        images = {key: tensor2img([image]) for key, image in model.get_current_visuals().items() if key != "lq"}
        del model.lq, model.output
        if "gt" in images:
            del model.gt
        if save_img:
            path = _path(model.opt, dataset.opt, data["lq_path"][0], current_iter)  # type: ignore[attr-defined]
            write_png(path, images["result"])
        for options in metrics.values():
            check_border(options, *images["result"].shape[:2])
        pair = {"img": images["result"], **({"img2": images["gt"]} if "gt" in images else {})}
        yield number, [float(calculate_metric(pair, options)) for options in metrics.values()]


def _gathered(rows: list[Row], opt: dict) -> list[Row]:
    """Return every process's rows, in the order of the images."""
    if not opt["dist"]:
        return rows
    everyone: list[list[Row]] = [[]] * opt["world_size"]
    distributed.all_gather_object(everyone, rows)
    return sorted(row for part in everyone for row in part)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR image (H,W,3) and the folders above it, whole or not at all. Raises UserError, naming the file.

    On a full disk, BasicSR's ``imwrite`` loses the earlier picture, and may leave half of the new one without an error.
    """
    make_folder("val:save_img", path.parent)
    with whole_file(path) as file:
        file.write(cv2.imencode(".png", image)[1].tobytes())


def _path(opt: dict, data_set: Mapping, lq_path: str, current_iter: int | str) -> Path:
    """Return where BasicSR saves a restored image (sr_model.py:176-186)."""
    stem, folder = name_of_image(lq_path, data_set), Path(opt["path"]["visualization"])
    if opt["is_train"]:
        return folder / stem / f"{stem}_{current_iter}.png"
    return folder / data_set["name"] / f"{stem}_{opt['val']['suffix'] or opt['name']}.png"
