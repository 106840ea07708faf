"""Draw the demo network's pictures for the docs: restored faces, the prior that it estimates, its training's curves.

    python scripts/draw_demo.py experiments/demo docs

The faces are of people that the network was not trained on.
"""

import argparse
import re
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from dfpg_plugin.demo.page import SAMPLES, Page
from dfpg_plugin.restoration.restorer import DFPGRestorer

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIZES = (5, 7, 9)  # px, of the blurs
CURVES = {"l_g_pix": "L1", "l_g_prior": "prior loss", "cos_p1": "cosine, P1", "cos_p2": "P2", "cos_p3": "P3"}
SMOOTH = 5  # logged values, the mean of which is drawn


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the training's folder, for its log")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    page = Page(DFPGRestorer())
    rows = []
    for name in SAMPLES[:3]:
        sharp, _ = page.restore_sample(name, 1, 0)[0]
        pairs = [page.restore_sample(name, size, 1)[0] for size in SIZES]
        rows.append(np.concatenate([sharp, *(image for pair in pairs for image in pair)], axis=1))
    cv2.imwrite(str(args.out / "demo_restored.png"), np.concatenate(rows)[..., ::-1])

    prior = page.restore_sample(SAMPLES[0], SIZES[0], 1)[2]
    figure, axes = plt.subplots(3, len(prior) // 3, figsize=(11, 7))
    for axis, (picture, text) in zip(axes.flat, prior, strict=True):
        axis.imshow(picture)
        axis.set_title(text, fontsize=7)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(args.out / "demo_prior.png", dpi=90)

    draw_curves(args.run, args.out / "demo_curves.png")


def draw_curves(run: Path, file: Path) -> None:
    """Draw what a training has logged."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(run.glob("train_*.log")))
    lines = [line for line in text.splitlines() if "l_g_pix:" in line]
    iterations = [int(re.search(r"iter:\s*([\d,]+)", line)[1].replace(",", "")) for line in lines]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    for key, label in CURVES.items():
        values = [float(re.search(rf"{key}: (\S+)", line)[1]) for line in lines]
        smooth = np.convolve(values, np.ones(SMOOTH) / SMOOTH, mode="valid")
        axis = axes[{"l_g_pix": 0, "l_g_prior": 1}.get(key, 2)]
        axis.plot(iterations[SMOOTH - 1 :], smooth, label=label)
        axis.set_xlabel("iteration")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
