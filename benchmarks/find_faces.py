"""How many blurred faces `basicsr restore` finds, how many it finds where none are, and the seconds without a face.

    python benchmarks/find_faces.py lfw-deepfunneled.tar --weights net.safetensors -opt net.yml
    python benchmarks/find_faces.py lfw-deepfunneled/ --split val --detector dlib --threshold -0.5

Blurred: pictures of LFW, made smaller so that FFHQ's square around the face is 128 px wide, blurred by a new kernel
each, 8 bits. Sharp: pictures of LFW as they are; boxes other than the named person's are counted and kept as pictures
(``--extra``), for many are of people in the background. Nobody: photographs of scikit-image without a person, sharp and
blurred twice. LFW's people are split as `basicsr prepare faces` does.
"""

import argparse
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from side_by_side import publish
from skimage import data

from dfpg_plugin.data.degradation import blur, quantise
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.data.people import TEST, VAL, split_of
from dfpg_plugin.restoration.faces import BOX_BELOW, BOX_TO_SQUARE, Face, same_face
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import PHOTO, FaceReport, Settings

SQUARE = (37, 32, 172)  # px: left, top and side of FFHQ's square in LFW's pictures of 250 px, the median of 197
SIDE = 128  # px, of that square when the kernels blur it
SIZES = (13, 17, 21, 27)  # px, of the kernels
NOBODY = (
    "brick", "cell", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass", "gravel", "hubble_deep_field",
    "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip
BLURS = (0, 2, 4)  # px, of the Gaussians that blur photographs of nobody
Picture = NDArray[np.float32]  # RGB (H,W,3) in [0,1]


def read_people(lfw: Path, split: str) -> dict[str, list[bytes]]:
    """Return the files of each person of a split, in order, from LFW's folder or tar."""
    people: dict[str, list[bytes]] = {}
    if lfw.is_dir():
        for file in sorted(lfw.glob("**/*.jpg")):
            if split_of(file.parent.name) == split:
                people.setdefault(file.parent.name, []).append(file.read_bytes())
        return people
    with tarfile.open(lfw) as archive:
        for member in sorted((m for m in archive if m.name.endswith(".jpg")), key=lambda m: m.name):
            name = Path(member.name).parent.name
            if split_of(name) == split and (opened := archive.extractfile(member)):
                people.setdefault(name, []).append(opened.read())
    return people


def decode(content: bytes) -> Picture:
    """Return a file's picture."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return pixels[..., ::-1].astype(np.float32) / 255


def true_face(scale: float) -> Face:
    """Return the box of the kind that detectors give, of the person that a picture of LFW is named after."""
    left, top, side = (scale * v for v in SQUARE)
    middle_x, middle_y, half = left + side / 2, top + side / 2 + BOX_BELOW * side, side / BOX_TO_SQUARE / 2
    return Face((middle_x - half, middle_y - half, middle_x + half, middle_y + half))


def find(restorer: DFPGRestorer, picture: Picture) -> list[FaceReport]:
    """Return what is reported of a photograph."""
    return restorer.restore_colours(picture, PHOTO, 1.0)[2]


def rows_of_blurred(
    restorer: DFPGRestorer, people: dict[str, list[bytes]], count: int, seed: int
) -> list[dict[str, object]]:
    """Return how many faces are found of ``count`` people, by size of the kernel."""
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng(seed)
    scale = SIDE / SQUARE[2]
    for size in SIZES:
        found = extra = 0
        chosen = rng.choice(sorted(people), count, replace=False)
        start = time.perf_counter()
        for name, kernel in zip(chosen, synthesise_kernels(size, count, rng), strict=True):
            small = cv2.resize(decode(people[name][0]), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            reports = find(restorer, quantise(blur(small, kernel)))
            right = [report for report in reports if same_face(Face(report.box), true_face(scale))]
            found += bool(right)
            extra += len(reports) - len(right)
        seconds = (time.perf_counter() - start) / count
        rows.append({
            "kernel, px": size, "pictures": count, "found": f"{found / count:.1%}", "other boxes": extra,
            "s": f"{seconds:.2f}",
        })  # fmt: skip
    return rows


def rows_of_sharp(
    restorer: DFPGRestorer, people: dict[str, list[bytes]], count: int, extra: Path | None
) -> list[dict[str, object]]:
    """Return how many boxes are found in ``count`` sharp pictures; draw the others into files of ``extra``."""
    pictures = [content for files in people.values() for content in files][:count]
    found = doubles = others = 0
    for i, content in enumerate(pictures):
        picture = decode(content)
        reports = find(restorer, picture)
        right = [report for report in reports if same_face(Face(report.box), true_face(1.0))]
        wrong = [report for report in reports if report not in right]
        found, doubles, others = found + bool(right), doubles + max(0, len(right) - 1), others + len(wrong)
        if extra is not None and wrong:
            extra.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(extra / f"{i:04d}.png"), _drawn(picture, wrong))
    return [{
        "pictures": len(pictures), "found": f"{found / max(1, len(pictures)):.1%}", "boxed twice": doubles,
        "other boxes": others,
    }]  # fmt: skip


def _drawn(picture: Picture, reports: Sequence[FaceReport]) -> NDArray[np.uint8]:
    drawn = np.rint(255 * picture[..., ::-1]).astype(np.uint8).copy()
    for report in reports:
        left, top, right, bottom = (round(v) for v in report.box)
        cv2.rectangle(drawn, (left, top), (right, bottom), (0, 255, 0), 1)
        cv2.putText(drawn, f"{report.score:.2f}", (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 255), 1)
    return drawn


def rows_of_nobody(restorer: DFPGRestorer, count: int) -> list[dict[str, object]]:
    """Return how many boxes are found in at most ``count`` photographs without a person, and the seconds."""
    rows: list[dict[str, object]] = []
    for name in NOBODY[:count]:
        try:
            sharp = to_colours(getattr(data, name)())
        except (OSError, ModuleNotFoundError, ValueError):  # one that scikit-image would have to fetch
            continue
        boxes, seconds = [], []
        for sigma in BLURS:
            picture = cv2.GaussianBlur(sharp, (0, 0), sigma) if sigma else sharp
            start = time.perf_counter()
            boxes.append(len(find(restorer, picture)))
            seconds.append(time.perf_counter() - start)
        size = f"{sharp.shape[1]}x{sharp.shape[0]}"
        rows.append({"photograph": name, "px": size, "boxes": sum(boxes), "s": f"{max(seconds):.2f}"})
    return rows


def to_colours(pixels: NDArray) -> Picture:
    """Return a picture of scikit-image as RGB in [0,1]."""
    pixels = np.asarray(pixels)
    picture = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    return np.ascontiguousarray(np.dstack([picture] * 3) if picture.ndim == 2 else picture[..., :3])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="LFW, deep funneled: its folder or tar")
    parser.add_argument("--split", choices=(VAL, TEST), default=TEST)
    parser.add_argument(
        "--count", type=int, default=60, help="blurred faces of each size; five times as many sharp ones"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="of the network; default: this package's own")
    parser.add_argument("-opt", "--opt", help="its options, where the weights don't tell")
    parser.add_argument("--detector", default=Settings.detector)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--passes", type=int, default=Settings.passes)
    parser.add_argument("--extra", type=Path, help="folder for sharp pictures with boxes of others")
    parser.add_argument("--json", help="write the tables to files of this beginning as well")
    args = parser.parse_args(argv)
    settings = Settings(detector=args.detector, threshold=args.threshold, passes=args.passes, recogniser=None)
    restorer = DFPGRestorer(args.weights, args.opt, settings)
    people = read_people(args.lfw, args.split)
    how = f"{args.detector}, threshold {args.threshold}, passes {args.passes}"
    tables = {
        "blurred": rows_of_blurred(restorer, people, min(args.count, len(people)), args.seed),
        "sharp": rows_of_sharp(restorer, people, 5 * args.count, args.extra),
        "nobody": rows_of_nobody(restorer, args.count),
    }
    for name, rows in tables.items():
        publish(rows, f"{name} ({args.split}; {how})", args.json and f"{args.json}_{name}.json")


if __name__ == "__main__":
    main()
