"""Pairs of blurred and sharp faces, blurred while they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.utils import get_root_logger, img2tensor, scandir
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError, check_choice, check_folder, check_keys
from dfpg_plugin.data import transforms
from dfpg_plugin.data.degradation import add_noise, blur, quantise
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.kernels import Kernels, read_mspl_kernels, synthesise_kernels
from dfpg_plugin.data.stream import EpochCounter

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
# what BasicSR's builders and loaders read, or write, in every dataset's options
BASICSR_KEYS = {
    *("name", "type", "phase", "scale", "io_backend", "use_shuffle", "batch_size_per_gpu", "num_worker_per_gpu"),
    *("dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers"),
}
NO_BLUR = 0


@dataclass(frozen=True)
class FaceBlurOptions:
    """The keys of ``datasets.*`` that :class:`FaceBlurDataset` reads. Augmentation and crops apply to training only."""

    faces: str | None = None  # `orl`: the demo's faces; otherwise dataroot_gt
    split: str | None = None  # of the demo's faces: train, val, test
    dataroot_gt: str | None = None  # folder of sharp faces, searched in depth
    dataroot_kernels: str | None = None  # folder of MSPL's kernels; without it they are synthesised
    kernel_sizes: tuple[int, ...] = (13, 15, 17, 19, 21, 23, 25, 27)  # px, equally likely; 0 leaves the face sharp
    kernels_per_size: int = 250  # how many are synthesised, at each start; 35 ms each at 27 px
    noise_sigma: float = 2.0  # grey levels of 255
    resize: int | None = None  # px, before everything else, bilinear
    jitter: float | None = None  # strength of brightness, contrast, saturation
    crop: int | None = None  # px, random, before the blur
    resize_crop: int | None = None  # px, after the crop, bicubic
    use_hflip: bool = False
    rotation: float | None = None  # degrees, at most, to both sides
    gt_size: int | None = None  # px, random, after the blur
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
        if not self.kernel_sizes or any(s != NO_BLUR and (s < 3 or s % 2 == 0) for s in self.kernel_sizes):
            raise UserError(
                f"datasets: kernel_sizes: expected odd numbers from 3, or 0, got {list(self.kernel_sizes)}."
            )

    @classmethod
    def from_opt(cls, opt: Mapping[str, object]) -> "FaceBlurOptions":
        """Read BasicSR's dataset options; an unknown key is an error."""
        known = {f.name for f in fields(cls)}
        given: dict = {key: value for key, value in opt.items() if key not in BASICSR_KEYS}
        check_keys(f"datasets: {opt.get('name')}", given, known | BASICSR_KEYS)
        backend: dict = opt.get("io_backend") or {"type": "disk"}  # type: ignore[assignment]
        check_choice(f"datasets: {opt.get('name')}: io_backend: type", backend.get("type"), ("disk",))
        if isinstance(given.get("kernel_sizes"), list):
            given["kernel_sizes"] = tuple(given["kernel_sizes"])
        return cls(**given)


@DATASET_REGISTRY.register()
class FaceBlurDataset(Dataset):
    """Sharp faces, blurred on the fly with motion kernels and noise.

    Sample i of epoch e depends on (seed, e, i) alone, where the sampler tells the epoch: see :class:`EpochCounter`.
    In the phases ``val`` and ``test`` nothing is augmented, every index always gives the same pair, and the blurred
    face is rounded to 8 bits. Options: :class:`FaceBlurOptions`.
    """

    def __init__(self, opt: Mapping[str, object]) -> None:
        super().__init__()
        self.opt = opt  # BasicSR reads opt['name'] from it
        self.options = FaceBlurOptions.from_opt(opt)
        self.is_train = opt["phase"] == "train"
        default = torch.initial_seed() % 2**32 if self.is_train else 0  # BasicSR has set it to manual_seed
        self.seed: int = default if self.options.seed is None else self.options.seed
        self.faces = self._list_faces()
        self.kernels = self._read_kernels()
        self.epochs = EpochCounter()

    def __len__(self) -> int:
        """Return the number of sharp faces."""
        return len(self.faces)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and ``gt``, float RGB (3,H,W) in [0,1] (``lq`` may leave it a little), and their paths.

        Raises UserError, naming the file, where it can't be read or is too small.
        """
        epoch = self.epochs.epoch_of(index) if self.is_train else 0
        rng = np.random.default_rng([self.seed, epoch, index])
        name, path = self.faces[index]
        sharp = read_image(path)
        if self.is_train:
            sharp = self._augment(sharp, path, rng)
        gt = sharp.astype(np.float32) / np.float32(255)
        lq = add_noise(self._blur(gt, rng), self.options.noise_sigma, rng)
        size = self.options.gt_size
        if self.is_train and size is not None:
            self._check_size(gt, size, path)
            gt, lq = transforms.random_crop([gt, lq], size, rng)
        elif not self.is_train:
            lq = quantise(lq)
        gt, lq = img2tensor([gt, lq], bgr2rgb=True, float32=True)
        return {"lq": lq, "gt": gt, "lq_path": f"{name}.png", "gt_path": str(path)}

    def _augment(self, image: transforms.Image, path: Path, rng: np.random.Generator) -> transforms.Image:
        options = self.options
        if options.resize is not None:
            image = transforms.resize(image, options.resize, "bilinear")
        if options.jitter is not None:
            image = transforms.jitter(image, options.jitter, rng)
        if options.crop is not None:
            self._check_size(image, options.crop, path)
            (image,) = transforms.random_crop([image], options.crop, rng)
        if options.resize_crop is not None:
            image = transforms.resize(image, options.resize_crop, "bicubic")
        if options.use_hflip:
            image = transforms.random_hflip(image, rng)
        if options.rotation is not None:
            image = transforms.random_rotation(image, options.rotation, rng)
        return image

    def _blur(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        size = rng.choice(self.options.kernel_sizes)
        if size == NO_BLUR:
            return image
        return blur(image, rng.choice(self.kernels[size]))

    def _check_size(self, image: NDArray, size: int, path: Path) -> None:
        height, width = image.shape[:2]
        if min(height, width) < size:
            raise UserError(
                f"{path}: {width}x{height} px is too small for crops of {size} px. Remove it, or crop less."
            )

    def _list_faces(self) -> list[tuple[str, Path]]:
        if self.options.faces is not None:
            return orl_faces(self.options.split or "")
        root = check_folder("dataroot_gt", self.options.dataroot_gt or "")
        found = sorted(p for p in scandir(str(root), recursive=True) if p.lower().endswith(IMAGE_SUFFIXES))
        if not found:
            raise UserError(f"dataroot_gt: no image in {root} (looked for {', '.join(IMAGE_SUFFIXES)}).")
        return [(str(Path(p).with_suffix("")).replace("/", "_"), root / p) for p in found]

    def _read_kernels(self) -> dict[int, Kernels]:
        sizes = [size for size in self.options.kernel_sizes if size != NO_BLUR]
        if self.options.dataroot_kernels is not None:
            return read_mspl_kernels(Path(self.options.dataroot_kernels).expanduser(), sizes)
        get_root_logger().info(f"Synthesising {self.options.kernels_per_size} kernels of each of {sizes} px.")
        rngs = {size: np.random.default_rng([self.seed, self.is_train, size]) for size in sizes}
        return {size: synthesise_kernels(size, self.options.kernels_per_size, rng) for size, rng in rngs.items()}


def read_image(path: Path) -> transforms.Image:
    """Read an image file as uint8 BGR (H,W,3). Raises UserError, naming the file, where that is impossible."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}). Restore it, or remove it from the data.") from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise UserError(
            f"{path}: not an image that OpenCV can read, or damaged. Replace it, or remove it from the data."
        )
    return np.asarray(image, np.uint8)
