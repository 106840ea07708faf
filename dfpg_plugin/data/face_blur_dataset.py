"""Pairs of blurred and sharp faces. The faces are blurred when they are read."""

from collections.abc import Mapping

import numpy as np
import torch
from basicsr.utils import get_root_logger, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.data import transforms
from dfpg_plugin.data.bad_files import BadFiles
from dfpg_plugin.data.degradation import add_noise, blur, quantise
from dfpg_plugin.data.face_blur_options import NO_BLUR, FaceBlurOptions
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.images import ImageSource, find_images
from dfpg_plugin.data.kernel_files import read_kernels
from dfpg_plugin.data.kernels import Kernels, synthesise_kernels
from dfpg_plugin.data.stream import EpochCounter
from dfpg_plugin.files import flat_stem

STEP_STREAM, KERNEL_STREAM = 1, 2  # spawn keys: the sizes of steps and the kernels have random numbers of their own


@DATASET_REGISTRY.register()
class FaceBlurDataset(Dataset):
    """Sharp faces, blurred on the fly with motion kernels and noise.

    Sample i of epoch e depends only on (seed, e, i). The blur size of a step depends only on (seed, step). Both need a
    sampler that tells epoch and step, see :class:`EpochCounter`. A training image that is damaged or too small is named
    in the log and replaced by another, up to ``max_bad_share``. In the phases ``val`` and ``test``, nothing is
    augmented or replaced. Each index then always returns the same pair, and the blurred face is rounded to 8 bits.
    Options: :class:`FaceBlurOptions`, and BasicSR's ``io_backend`` (disk or lmdb).
    """

    Options = FaceBlurOptions

    def __init__(self, opt: Mapping[str, object]) -> None:
        super().__init__()
        self.opt = opt  # BasicSR reads dataset.opt['name']
        self.options = FaceBlurOptions.of_data_set(f"datasets: {opt.get('name')}", opt)
        self.is_train = opt["phase"] == "train"
        # BasicSR's own loop has seeded torch with manual_seed + rank; `basicsr train` gives each data set its seed
        default = torch.initial_seed() % 2**32 if self.is_train else 0
        self.seed: int = default if self.options.seed is None else self.options.seed
        self.source = self._find_faces()
        self.kernels = self._find_kernels()
        self.shape: tuple[int, ...] | None = None  # needed of every image: the first one's, if no option sets a size
        batch_size: int = opt.get("batch_size_per_gpu") or 1  # type: ignore[assignment]
        self.epochs = EpochCounter(batch_size)
        blur(np.zeros((3, 3, 3), np.float32), np.ones((3, 3), np.float32))  # compiles the blur once for all workers
        if self.is_train and batch_size > 1 and not self.options.has_fixed_size:
            self.shape = self._read(0)[1].shape
        self.bad = BadFiles(str(opt.get("name")), len(self), self.options.max_bad_share)

    def __len__(self) -> int:
        """Return the number of sharp faces."""
        return len(self.source.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and ``gt``, float RGB (3,H,W) in [0,1], and their paths.

        The noise may move a training ``lq`` a little outside of [0,1]. Raises UserError, naming the file, for a
        validation image that can't be read, and for more unusable training images than ``max_bad_share`` allows.
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
        # BasicSR names the restored image after lq_path
        return {"lq": lq, "gt": gt, "lq_path": f"{flat_stem(name)}.png", "gt_path": self.source.where(name)}

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
