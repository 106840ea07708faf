"""Draw the shipped network's pictures for the docs: faces it restores, the prior it estimates, its training's curves.

    pip install scikit-image && python scripts/draw_demo.py docs --log train.log

The photograph is NASA's of Eileen Collins, which is in the public domain and comes with scikit-image; the network has
never seen it. LFW's pictures may not be shown here.
"""

import argparse
import re
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import skimage.data
from numpy.typing import NDArray

from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.demo.page import Page
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration.detectors import load_detector
from dfpg_plugin.restoration.faces import crop, to_bgr
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import ALIGNED, PHOTO

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FACE = 128  # px, of the square that the network sees
SIZES = (13, 17, 21, 27)  # px, of the blurs
PHOTO_SIZE, PHOTO_SEED = 17, 3
SEEDS = (1, 2, 3)
CURVES = {"l_g_pix": "L1", "l_g_prior": "prior loss", "cos_p1": "cosine, P1", "cos_p2": "P2", "cos_p3": "P3"}
Photo = NDArray[np.float32]  # RGB (H,W,3) in [0,1]


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--log", type=Path, help="the training's, for its curves")
    args = parser.parse_args()
    restorer = DFPGRestorer()
    sharp = photograph()
    draw_photograph(restorer, sharp, args.out / "restored.png")
    rows, prior = draw_faces(restorer, sharp, args.out / "demo_restored.png")
    draw_teaser(rows, args.out / "teaser.png")
    draw_prior(prior, args.out / "demo_prior.png")
    if args.log is not None:
        draw_curves(args.log, args.out / "demo_curves.png")


def photograph() -> Photo:
    """Return the photograph at the size at which its face's square has 128 px."""
    large = skimage.data.astronaut().astype(np.float32) / 255
    (face, *_) = load_detector("centerface", None).find(large, 0.5)
    scale = np.sqrt(abs(np.linalg.det(face.to_square(FACE)[:, :2])))
    return cv2.resize(large, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def blurred(sharp: Photo, size: int, seed: int) -> Photo:
    """Blur by a synthesised kernel, and round to 8 bits."""
    (kernel,) = synthesise_kernels(size, 1, np.random.default_rng(seed))
    return (np.rint(255 * blur(sharp, kernel)) / 255).clip(0, 1).astype(np.float32)


def draw_photograph(restorer: DFPGRestorer, sharp: Photo, file: Path) -> None:
    """Draw the blurred photograph beside the restored one."""
    seen = blurred(sharp, PHOTO_SIZE, PHOTO_SEED)
    change, *_ = restorer.restore_colours(seen, PHOTO, 1.0)
    save(np.concatenate([seen, seen + change], axis=1), file)


def draw_faces(restorer: DFPGRestorer, sharp: Photo, file: Path) -> tuple[list[Photo], list]:
    """Draw sharp, blurred and restored faces, a row for each size.

    Return the rows, (FACE,7*FACE,3) each, and the prior estimated for the first blurred face.
    """
    page = Page(restorer)
    (face, *_) = load_detector("centerface", None).find(sharp, 0.5)
    matrix = face.to_square(FACE)
    rows, priors = [], []
    for size in SIZES:
        row = [crop(sharp, matrix, FACE)]
        for seed in SEEDS:
            square = crop(blurred(sharp, size, seed), matrix, FACE)
            (before, after), _, prior, *_ = page.restore_picture(Picture(to_bgr(square)), ALIGNED, 1.0)
            row += [before / 255, after / 255]
            priors.append(prior)
        rows.append(np.concatenate(row, axis=1))
    save(np.concatenate(rows), file)
    return rows, priors[0]


def draw_teaser(rows: list[Photo], file: Path) -> None:
    """Draw blurred, restored and sharp by the first kernel of each size, two sizes a line."""
    triplets = [np.concatenate([row[:, FACE : 3 * FACE], row[:, :FACE]], axis=1) for row in rows]
    save(np.concatenate([np.concatenate(triplets[at : at + 2], axis=1) for at in (0, 2)]), file)


def draw_prior(prior: list, file: Path) -> None:
    """Draw the estimated prior: of each layer the mean, and the channels that the discriminator weighs most."""
    figure, axes = plt.subplots(3, len(prior) // 3, figsize=(11, 7))
    for axis, (picture, text) in zip(axes.flat, prior, strict=True):
        axis.imshow(picture)
        axis.set_title(text, fontsize=7)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(file, dpi=90)


def draw_curves(log: Path, file: Path) -> None:
    """Draw what a training has logged."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if "l_g_pix:" in line]
    iterations = [int(re.search(r"iter:\s*([\d,]+)", line)[1].replace(",", "")) for line in lines]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    for key, label in CURVES.items():
        axis = axes[{"l_g_pix": 0, "l_g_prior": 1}.get(key, 2)]
        axis.plot(iterations, [float(re.search(rf"{key}: (\S+)", line)[1]) for line in lines], label=label)
        axis.set_xlabel("iteration")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=90)


def save(image: Photo, file: Path) -> None:
    """Write an RGB picture in [0,1]."""
    cv2.imwrite(str(file), np.rint(255 * image[..., ::-1].clip(0, 1)).astype(np.uint8))


if __name__ == "__main__":
    main()
