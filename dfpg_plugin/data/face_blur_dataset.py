"""Pairs of blurred and sharp faces. The faces are blurred when they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from basicsr.utils import get_root_logger, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError, check_fields, check_keys
from dfpg_plugin.data import transforms
from dfpg_plugin.data.bad_files import BadFiles
from dfpg_plugin.data.degradation import add_noise, blur, quantise
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.images import ImageSource, find_images
from dfpg_plugin.data.kernel_files import read_kernels
from dfpg_plugin.data.kernels import CHAKRABARTI, Kernels, synthesise_kernels
from dfpg_plugin.data.stream import EpochCounter

# what BasicSR's builders and loaders read, or write, in every dataset's options
BASICSR_KEYS = {
    *("name", "type", "phase", "scale", "io_backend", "use_shuffle", "batch_size_per_gpu", "num_worker_per_gpu"),
    *("dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers"),
}
NO_BLUR = 0
STEP_STREAM, KERNEL_STREAM = 1, 2  # what is drawn besides the samples


@dataclass(frozen=True)
class FaceBlurOptions:
    """The keys of ``datasets.*`` that :class:`FaceBlurDataset` reads. Augmentation and crops apply to training only."""

    faces: str | None = None  # `orl`: the demo's faces; otherwise dataroot_gt
    split: str | None = None  # of the demo's faces: train, val, test
    dataroot_gt: str | None = None  # sharp faces: a folder, searched in depth, or with io_backend: lmdb an LMDB
    meta_info_file: str | None = None  # names of those to use; default: all
    dataroot_kernels: str | None = None  # folder of kernel files; without it they are synthesised
    kernel_range: tuple[int, int] | None = None  # which of the files' kernels of each size: from, to before
    kernel_sizes: tuple[int, ...] = (13, 15, 17, 19, 21, 23, 25, 27)  # px, equally likely; 0 leaves the face sharp
    one_size_per_batch: bool = True  # in training: one size for the images of a step, a kernel for each image
    kernel_method: str = CHAKRABARTI  # of the synthesis; or boracchi-foi
    kernels_per_size: int = 250  # how many are synthesised, at each start; 35 ms each at 27 px
    noise_sigma: float = 2.0  # grey levels of 255
    resize: int | None = None  # px, before everything else, bilinear
    jitter: float | tuple[float, float, float] | None = None  # strength, or those of brightness, contrast, saturation
    crop: int | None = None  # px, random, before the blur
    resize_crop: int | None = None  # px, after the crop, bicubic
    use_hflip: bool = False
    rotation: float | None = None  # degrees, at most, to both sides
    gt_size: int | None = None  # px, random, after the blur
    max_bad_share: float = 0.01  # of the training images that may be damaged or too small; one always may
    seed: int | None = None  # of the stream; default: manual_seed for training, 0 otherwise

    def __post_init__(self) -> None:
        """Check what does not depend on the machine."""
        if (self.faces is None) == (self.dataroot_gt is None):
            raise UserError("datasets: FaceBlurDataset needs either dataroot_gt (a folder) or faces: orl.")
        if self.split is not None and self.faces is None:
            raise UserError("datasets: split belongs to faces: orl. Remove it, or dataroot_gt.")
        if self.faces not in (None, "orl"):
            raise UserError(
                f"datasets: faces: {self.faces!r} is unknown, only orl is there. For a folder: dataroot_gt."
            )
        self._check_numbers()
        if not self.kernel_sizes or any(s != NO_BLUR and (s < 3 or s % 2 == 0) for s in self.kernel_sizes):
            raise UserError(
                f"datasets: kernel_sizes: expected odd numbers from 3, or 0, got {list(self.kernel_sizes)}."
            )
        if len(self.jitter_strengths) != 3 or not all(0 <= strength <= 1 for strength in self.jitter_strengths):
            raise UserError(f"datasets: jitter: expected a strength from 0 to 1, or three, got {self.jitter!r}.")
        self._check_steps()

    def _check_numbers(self) -> None:
        least = dict.fromkeys(("resize", "crop", "resize_crop", "gt_size", "kernels_per_size"), 1)
        for key, smallest in {**least, "noise_sigma": 0, "rotation": 0, "seed": 0}.items():
            if getattr(self, key) is not None and getattr(self, key) < smallest:
                raise UserError(f"datasets: {key}: expected a number from {smallest}, got {getattr(self, key)}.")

    def _check_steps(self) -> None:
        steps = [(key, getattr(self, key)) for key in ("resize", "crop", "resize_crop", "gt_size")]
        given = [(key, size) for key, size in steps if size is not None]
        for (key, size), (smaller, part) in pairwise(given):
            if part > size:
                raise UserError(f"datasets: {smaller}: {part} px are more than the {size} px that {key} leaves.")

    @property
    def jitter_strengths(self) -> tuple[float, ...]:
        """Return the strengths of brightness, contrast and saturation."""
        return self.jitter if isinstance(self.jitter, tuple) else (self.jitter or 0.0,) * 3

    @property
    def has_fixed_size(self) -> bool:
        """Tell whether all training images end up with the same size."""
        return any((self.resize, self.crop, self.resize_crop, self.gt_size))

    @property
    def smallest_side(self) -> int:
        """Return the px that a training image's sides need: enough for the crops, and never enlarged for the net."""
        last = self.gt_size or self.resize_crop or self.crop or self.resize or 1
        return max(last, self.crop or 1) if self.resize is None else last

    @classmethod
    def from_opt(cls, opt: Mapping[str, object]) -> "FaceBlurOptions":
        """Read BasicSR's dataset options; an unknown key is an error."""
        known = {f.name for f in fields(cls)}
        given: dict = {key: value for key, value in opt.items() if key not in BASICSR_KEYS}
        check_keys(f"datasets: {opt.get('name')}", given, known | BASICSR_KEYS)
        for key, value in given.items():
            given[key] = tuple(value) if isinstance(value, list) else value
        check_fields(f"datasets: {opt.get('name')}", cls, given)
        return cls(**given)


@DATASET_REGISTRY.register()
class FaceBlurDataset(Dataset):
    """Sharp faces, blurred on the fly with motion kernels and noise.

    Sample i of epoch e depends only on (seed, e, i). The blur size of a step depends only on (seed, step). Both need a
    sampler that tells epoch and step, see :class:`EpochCounter`. A training image that is damaged or too small is named
    in the log and replaced by another, up to ``max_bad_share``. In the phases ``val`` and ``test`` nothing is augmented
    or replaced, each index always returns the same pair, and the blurred face is rounded to 8 bits.
    Options: :class:`FaceBlurOptions`, and BasicSR's ``io_backend`` (disk or lmdb).
    """

    def __init__(self, opt: Mapping[str, object]) -> None:
        super().__init__()
        self.opt = opt  # BasicSR reads opt['name'] from it
        self.options = FaceBlurOptions.from_opt(opt)
        self.is_train = opt["phase"] == "train"
        default = torch.initial_seed() % 2**32 if self.is_train else 0  # BasicSR has set it to manual_seed
        self.seed: int = default if self.options.seed is None else self.options.seed
        self.source = self._find_faces()
        self.kernels = self._find_kernels()
        self.shape: tuple[int, ...] | None = None  # of all training images, where nothing makes them equal
        batch_size: int = opt.get("batch_size_per_gpu") or 1  # type: ignore[assignment]
        self.epochs = EpochCounter(batch_size)
        blur(np.zeros((3, 3, 3), np.float32), np.ones((3, 3), np.float32))  # compiled here, once for all workers
        if self.is_train and batch_size > 1 and not self.options.has_fixed_size:
            self.shape = self._read(0)[1].shape
        self.bad = BadFiles(str(opt.get("name")), len(self), self.options.max_bad_share)

    def __len__(self) -> int:
        """Return the number of sharp faces."""
        return len(self.source.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and ``gt``, float RGB (3,H,W) in [0,1], and their paths.

        Noise may carry a training ``lq`` a little outside of [0,1]. Raises UserError, naming the file, for a validation
        image that can't be read, or for more unreadable training images than ``max_bad_share``.
        """
        epoch, step = self.epochs.position_of(index) if self.is_train else (0, 0)
        rng = np.random.default_rng([self.seed, epoch, index])
        name, sharp = self.bad.read(self._read, index, rng) if self.is_train else self._read(index)
        if self.is_train:
            sharp = self._augment(sharp, rng)
        gt = sharp.astype(np.float32) / np.float32(255)
        lq = add_noise(self._blur(gt, self._draw_size(step, rng), rng), self.options.noise_sigma, rng)
        if self.is_train:
            window = transforms.random_window(gt.shape, self.options.gt_size, rng)
            gt, lq = gt[window], lq[window]
        else:
            lq = quantise(lq)
        gt, lq = img2tensor([gt, lq], bgr2rgb=True, float32=True)
        return {"lq": lq, "gt": gt, "lq_path": _flat(name), "gt_path": self.source.where(name)}

    def _read(self, index: int) -> tuple[str, transforms.Image]:
        name = self.source.names[index]
        image = self.source.read(name)
        height, width = image.shape[:2]
        if self.is_train and min(height, width) < self.options.smallest_side:
            raise UserError(
                f"{self.source.where(name)}: {width}x{height} px is too small, {self.options.smallest_side} px are "
                "needed. Remove it, or crop less."
            )
        if self.shape not in (None, image.shape):
            raise UserError(
                f"{self.source.where(name)}: {width}x{height} px, but {self.shape[1]}x{self.shape[0]} px is the first "
                "image's size, and a batch needs one size. Set gt_size, crop or resize."
            )
        return name, image

    def _augment(self, image: transforms.Image, rng: np.random.Generator) -> transforms.Image:
        options = self.options
        if options.resize is not None:
            image = transforms.resize(image, options.resize, "bilinear")
        window = transforms.random_window(image.shape, options.crop, rng)
        image = transforms.jitter(image, options.jitter_strengths, window, rng)
        if options.resize_crop is not None:
            image = transforms.resize(image, options.resize_crop, "bicubic")
        if options.use_hflip:
            image = transforms.random_hflip(image, rng)
        if options.rotation is not None:
            image = transforms.random_rotation(image, options.rotation, rng)
        return image

    def _draw_size(self, step: int, rng: np.random.Generator) -> int:
        if self.is_train and self.options.one_size_per_batch:
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, step], spawn_key=(STEP_STREAM,)))
        return int(rng.choice(self.options.kernel_sizes))

    def _blur(self, image: NDArray[np.float32], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        if size == NO_BLUR:
            return image
        kernels = self.kernels[size]
        return blur(image, kernels[rng.integers(len(kernels))])

    def _find_faces(self) -> ImageSource:
        if self.options.faces is not None:
            return orl_faces(self.options.split or "")
        backend = self.opt.get("io_backend") or {}
        if not isinstance(backend, Mapping):
            raise UserError(f"datasets: {self.opt.get('name')}: io_backend: expected {{type: lmdb}}, got {backend!r}.")
        return find_images(self.options.dataroot_gt or "", backend.get("type", "disk"), self.options.meta_info_file)

    def _find_kernels(self) -> dict[int, Kernels]:
        options = self.options
        sizes = [size for size in options.kernel_sizes if size != NO_BLUR]
        if options.dataroot_kernels is not None:
            return read_kernels(options.dataroot_kernels, sizes, options.kernel_range)
        get_root_logger().info(f"Synthesising {options.kernels_per_size} kernels of each of {sizes} px.")
        kernels = {}
        for size in sizes:
            seed = np.random.SeedSequence([self.seed, self.is_train, size], spawn_key=(KERNEL_STREAM,))
            rng = np.random.default_rng(seed)
            kernels[size] = synthesise_kernels(size, options.kernels_per_size, rng, options.kernel_method)
        return kernels


def _flat(name: str) -> str:
    """Return a path as one file name, after which BasicSR names the restored image: ``s33/1.pgm`` -> ``s33_1.png``."""
    return f"{Path(name).with_suffix('').as_posix().replace('/', '_')}.png"
