"""How strong a chessboard of single pixels is in pictures: losses on a network's pooled features may leave one there.

    python benchmarks/chessboard.py results/DFPG/visualization/LFW-test datasets/LFW/LFW-test/LFW-test_gt

One line a folder: the mean, over pictures, channels and squares of 8 px, of the pattern's amplitude in grey levels.
The pattern is +1 and -1 by turns, along rows and columns. The mean of 5x5 px is taken off the picture before, and with
this mean a 25th of the pattern. Pictures need 8 px.
"""

import argparse
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from dfpg_plugin.data.images import list_images

SQUARE = 8  # px
SURROUNDINGS = 5  # px


def amplitude(image: Tensor) -> float:
    """Return the pattern's mean amplitude in an image (C,H,W), in the image's unit."""
    height, width = image.shape[-2:]
    pattern = 1 - 2 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2)
    around = F.avg_pool2d(image, SURROUNDINGS, 1, SURROUNDINGS // 2, count_include_pad=False)
    return F.avg_pool2d((image - around) * pattern, SQUARE).abs().mean().item()


def mean_of(folder: Path) -> tuple[float, int]:
    """Return the mean amplitude of a folder's pictures in grey levels, and their number."""
    files = [folder / name for name in list_images(folder)]
    if not files:
        raise SystemExit(f"{folder}: holds no picture.")
    found = [amplitude(torch.from_numpy(cv2.imread(str(file))).permute(2, 0, 1).float()) for file in files]
    return sum(found) / len(found), len(found)


def main() -> None:
    """Measure folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        mean, count = mean_of(folder)
        print(f"{folder}: {mean:.3f} grey levels in {count} pictures")


if __name__ == "__main__":
    main()
