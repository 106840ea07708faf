"""Images per second of the training stream against the published way of making it, stage by stage, one worker.

    python benchmarks/data.py

MSPL's chain: decode, jitter, crop 448 of 512, resize to 128, flip, rotate, blur with a motion kernel of 13 to 27 px
(a ninth stays sharp), noise. The published way is written plainly below: Pillow's transforms and
``scipy.signal.convolve`` for each channel. Both read the same photograph on one thread, and take turns after every nine
images, because a worker runs one of them only, with its data in the cache; medians over these turns are printed.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import scipy.signal
import torch
import yaml
from PIL import Image, ImageEnhance
from skimage import data
from torchvision.transforms.functional import to_tensor

import dfpg_plugin  # noqa: F401 - before basicsr
from dfpg_plugin.data import degradation, face_blur_dataset, transforms
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.data.images import ImageSource
from dfpg_plugin.data.stream import EpochIndex

OPTIONS = Path(__file__).parents[1] / "options" / "train_dfpg_mspl.yml"
KERNELS_PER_SIZE = 20
Times = dict[str, list[float]]


class Published:
    """MSPL's data path, without its segmentation masks."""

    def __init__(self, path: Path, kernels: dict[int, np.ndarray]) -> None:
        self.path = path
        self.kernels = {size: stack.astype(np.float64) for size, stack in kernels.items()}
        self.times: Times = {}

    def sample(self, size: int) -> None:
        """Make one pair."""
        with self._stage("decode"):
            image = Image.open(self.path).convert("RGB")
        with self._stage("jitter, crop"):
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(random.uniform(0.5, 1.5))
            x, y = random.randint(0, 64), random.randint(0, 64)
            image = image.crop((x, y, x + 448, y + 448))
        with self._stage("resize"):
            image = image.resize((128, 128), Image.Resampling.BICUBIC)
        with self._stage("flip, rotate"):
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            image = image.rotate(random.uniform(-270, 270), Image.Resampling.BICUBIC)
        with self._stage("to tensor"):
            sharp = (to_tensor(image) - 0.5) / 0.5
        with self._stage("blur"):
            blurred = sharp.numpy().copy()
            if size:
                self._blur(blurred, random.choice(self.kernels[size]))
        with self._stage("noise"):
            blurred = blurred + (1 / 255) * np.random.normal(0, 4, blurred.shape)
            torch.from_numpy(blurred).float()

    @staticmethod
    def _blur(image: np.ndarray, kernel: np.ndarray) -> None:
        half = len(kernel) // 2
        padded = np.pad(image, ((0, 0), (half, half), (half, half)), "reflect")
        for channel in range(3):
            image[channel] = scipy.signal.convolve(padded[channel], kernel, mode="valid")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times.setdefault(name, []).append(time.perf_counter() - start)


def timed(function: Callable, times: list[float]) -> Callable:
    """Return ``function`` that also notes how long it takes."""

    def call(*args: object, **kwargs: object) -> object:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return result

    return call


def build(folder: Path) -> FaceBlurDataset:
    """Return the data set of the shipped MSPL options on the images of ``folder``, with few synthesised kernels."""
    options = yaml.safe_load(OPTIONS.read_text(encoding="utf-8"))["datasets"]["train"]
    options.update(phase="train", seed=0, dataroot_gt=str(folder), kernels_per_size=KERNELS_PER_SIZE)
    return FaceBlurDataset({**options, "dataroot_kernels": None})


def measure(dataset: FaceBlurDataset, published: Published, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of an image, published and ours, in every turn, with the same blur sizes."""
    theirs, ours = [], []
    turn = len(dataset.options.kernel_sizes)
    for first in range(0, (rounds + 2) * turn, turn):
        steps = range(first, first + turn)
        sizes = [dataset._draw_size(step, np.random.default_rng()) for step in steps]
        start = time.perf_counter()
        for size in sizes:
            published.sample(size)
        middle = time.perf_counter()
        for step in steps:
            dataset[EpochIndex(0, epoch=step, step=step)]
        theirs.append((middle - start) / turn)
        ours.append((time.perf_counter() - middle) / turn)
    return theirs[2:], ours[2:]  # the first ones warm up


def stages(dataset: FaceBlurDataset, rounds: int) -> Times:
    """Return the seconds of our stages, in a run of its own, because measuring them costs time too."""
    times: Times = {name: [] for name in ("decode", "jitter, crop", "resize", "flip, rotate", "blur", "noise")}
    places = [
        (ImageSource, "read", "decode"), (transforms, "jitter", "jitter, crop"), (transforms, "resize", "resize"),
        (transforms, "random_hflip", "flip, rotate"), (transforms, "random_rotation", "flip, rotate"),
        (FaceBlurDataset, "_blur", "blur"), (face_blur_dataset, "add_noise", "noise"),
    ]  # fmt: skip
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    count = rounds * len(dataset.options.kernel_sizes)
    try:
        for owner, name, stage in places:
            setattr(owner, name, timed(getattr(owner, name), times[stage]))
        for step in range(count):
            dataset[EpochIndex(0, epoch=step, step=step)]
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    return {name: [sum(values) / count] for name, values in times.items()}


def blur_alone(dataset: FaceBlurDataset) -> tuple[float, float]:
    """Return the mean seconds of blurring a face of 128 px, published and ours, over all sizes and kernels."""
    face = np.random.default_rng(0).random((128, 128, 3), np.float32)
    planes = np.ascontiguousarray(face.transpose(2, 0, 1))
    times = np.zeros(2)
    for kernels in dataset.kernels.values():
        start = time.perf_counter()
        for kernel in kernels.astype(np.float64):
            Published._blur(planes, kernel)
        middle = time.perf_counter()
        for kernel in kernels:
            degradation.blur(face, kernel)
        times += middle - start, time.perf_counter() - middle
    theirs, ours = times / sum(len(kernels) for kernels in dataset.kernels.values())
    return float(theirs), float(ours)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="turns of nine images")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)  # as in a data worker
    cv2.setNumThreads(1)
    photograph = Image.fromarray(data.astronaut())  # 512 px, from NASA, in scikit-image
    for suffix, options in ((".jpg", {"quality": 75}), (".jpg", {"quality": 95}), (".png", {})):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"face{suffix}"
            photograph.save(path, **options)
            dataset = build(Path(folder))
            published = Published(path, dataset.kernels)
            theirs, ours = measure(dataset, published, rounds)
            parts = stages(dataset, rounds)
            print(f"{suffix[1:]} {options or ''}: {path.stat().st_size // 1000} kB")
            print(f"  {'stage':14} {'published':>10} {'ours':>8}  ms")
            for name, values in published.times.items():
                mine = f"{1e3 * parts[name][0]:8.2f}" if name in parts else f"{'':8}"
                print(f"  {name:14} {1e3 * np.mean(values):10.2f} {mine}")
            print(f"  {'all':14} {1e3 * np.median(theirs):10.2f} {1e3 * np.median(ours):8.2f}")
            print(
                f"  images a second {1 / np.median(theirs):.0f} and {1 / np.median(ours):.0f}: "
                f"{np.median(np.divide(theirs, ours)):.1f} times"
            )
    alone = np.array([blur_alone(dataset) for _ in range(11)])
    theirs, ours = np.median(1e3 * alone, axis=0)
    ratio = np.median(alone[:, 0] / alone[:, 1])
    print(f"blurring alone, medians of {len(alone)}: {theirs:.2f} and {ours:.2f} ms, {ratio:.1f} times")


if __name__ == "__main__":
    main()
