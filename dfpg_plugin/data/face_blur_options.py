"""The keys of :class:`FaceBlurDataset`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import model_validator
from typing_extensions import Self

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.kernels import BORACCHI_FOI, CHAKRABARTI
from dfpg_plugin.options.schema import DataSetKeys
from dfpg_plugin.options.section import (
    Expected,
    From0,
    From1,
    Key,
    NotNegative,
    Share,
    Text,
    Whole,
    YesOrNo,
)

NO_BLUR = 0
STEPS = ("resize", "crop", "resize_crop", "gt_size")  # the keys that set an image's side, in the order of their steps
Range = Annotated[tuple[Whole, Whole], Expected("two whole numbers, [from, to before]")]
Sizes = Annotated[tuple[From0, ...], Expected("a list of whole numbers from 0")]
Method = Annotated[Literal["chakrabarti", "boracchi-foi"], Expected(f"{CHAKRABARTI} or {BORACCHI_FOI}")]
Jitter = Annotated[Share | tuple[Share, Share, Share], Expected("a strength from 0 to 1, or three")]


class FaceBlurOptions(DataSetKeys):
    """Sharp faces that are blurred while they are read. Augmentation and crops apply to training only."""

    faces: Annotated[Literal["orl"], Expected("orl")] | None = Key(
        None, "`orl`: the demo's faces. By default dataroot_gt says where the faces lie."
    )
    split: Text | None = Key(None, "The part of the demo's faces: train, val or test.")
    dataroot_gt: Text | None = Key(None, "Sharp faces: a folder and its subfolders, or an LMDB (io_backend).")
    meta_info_file: Text | None = Key(None, "A list of the names of the faces to use. By default all.")
    dataroot_kernels: Text | None = Key(None, "A folder of kernel files. By default kernels are synthesised.")
    kernel_range: Range | None = Key(None, "The kernels of each size to use, [from, to before]: [0, 9] is the first 9.")
    kernel_sizes: Sizes = Key(
        (13, 15, 17, 19, 21, 23, 25, 27), "Sizes of the blur in px, equally likely. 0 leaves the face sharp."
    )
    one_size_per_batch: YesOrNo = Key(True, "Whether the images of a training step share one size of the blur.")
    kernel_method: Method = Key(CHAKRABARTI, "How kernels are synthesised: chakrabarti or boracchi-foi.")
    kernels_per_size: From1 = Key(250, "Kernels of each size that are synthesised at the start, 35 ms each at 27 px.")
    noise_sigma: NotNegative = Key(2.0, "The standard deviation of the noise, in grey levels of 255.")
    resize: From1 | None = Key(None, "The side in px to which the face is resized first, bilinear.")
    jitter: Jitter | None = Key(None, "How much brightness, contrast and saturation vary: one strength, or three.")
    crop: From1 | None = Key(None, "The side in px of a random crop before the blur.")
    resize_crop: From1 | None = Key(None, "The side in px to which the crop is resized, bicubic.")
    use_hflip: YesOrNo = Key(False, "Whether half of the faces are mirrored.")
    rotation: NotNegative | None = Key(None, "The largest rotation in degrees, to both sides.")
    gt_size: From1 | None = Key(None, "The side in px of a random crop after the blur.")
    max_bad_share: Share = Key(0.01, "The share of training images that may be damaged or too small. One always may.")
    seed: From0 | None = Key(None, "The seed of the samples. By default manual_seed in training and 0 otherwise.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.faces is None) == (self.dataroot_gt is None):
            raise UserError("FaceBlurDataset needs either dataroot_gt (a folder) or faces: orl.")
        if self.split is not None and self.faces is None:
            raise UserError("split belongs to faces: orl. Remove it, or dataroot_gt.")
        if not self.kernel_sizes or any(s != NO_BLUR and (s < 3 or s % 2 == 0) for s in self.kernel_sizes):
            raise UserError(f"kernel_sizes: expected odd numbers from 3, or 0, got {list(self.kernel_sizes)}.")
        steps = [(key, getattr(self, key)) for key in STEPS]
        given = [(key, size) for key, size in steps if size is not None]
        for (key, size), (smaller, part) in pairwise(given):
            if part > size:
                raise UserError(f"{smaller}: {part} px are more than the {size} px that {key} leaves.")
        return self

    @property
    def jitter_strengths(self) -> tuple[float, ...]:
        """Return the strengths of brightness, contrast and saturation."""
        return self.jitter if isinstance(self.jitter, tuple) else (self.jitter or 0.0,) * 3

    @property
    def has_fixed_size(self) -> bool:
        """Tell whether all training images end up with the same size."""
        return any(getattr(self, key) for key in STEPS)

    @property
    def smallest_side(self) -> int:
        """Return the px that each side of a training image needs.

        The image is at least as large as the network's input, and without ``resize`` as large as the crop.
        """
        last = self.gt_size or self.resize_crop or self.crop or self.resize or 1
        return max(last, self.crop or 1) if self.resize is None else last
