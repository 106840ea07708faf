"""Where the eyes lie in the faces that `basicsr prepare faces --photos` cuts out of a folder of mixed photographs.

    python benchmarks/cut_faces.py lfw-deepfunneled.tar

The folder is made of LFW's people of one split and of scikit-image's photographs without a person: 24 pictures of one
person, 12 of two or three people in different sizes, 14 of nobody. A third of them is stored turned, with EXIF's
orientation. Each face that the command writes is looked at again by two detectors: dlib, whose landmarks the command
used, and CenterFace, whose landmarks the command did not use. An eye's distance to its place in the template is in px
of the restorer's square of 128 px.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from find_faces import NOBODY, read_people, to_colours
from numpy.typing import NDArray
from PIL import Image
from side_by_side import publish
from skimage import data

from dfpg_cli.main import main as basicsr
from dfpg_plugin.data.people import TEST, VAL
from dfpg_plugin.restoration.detectors import load_detector
from dfpg_plugin.restoration.faces import TEMPLATE

SIZE, SQUARE = 160, 128  # px, of what is written, and of the restorer's square in the middle of it
EYES = TEMPLATE[:2] * SQUARE + (SIZE - SQUARE) / 2
NEAR = 3  # px
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {1: 0, 6: 1, 3: 2, 8: 3}  # quarter turns against the clock by which a picture of an orientation is stored
ONE, SEVERAL, NONE = "one person", "several people", "nobody"
COUNTS = {ONE: 24, SEVERAL: 12, NONE: 14}  # photographs
Picture = NDArray[np.uint8]  # RGB (H,W,3)


def several(rng: np.random.Generator, portraits: Sequence[Picture]) -> Picture:
    """Return two or three portraits beside each other, each in a size of its own."""
    canvas = [cv2.resize(p, None, fx=f, fy=f) for p, f in zip(portraits, rng.uniform(1, 1.8, 3), strict=False)]
    height = max(p.shape[0] for p in canvas)
    return np.hstack([np.pad(p, ((height - p.shape[0], 0), (0, 0), (0, 0)), mode="edge") for p in canvas])


def photographs(lfw: Path, split: str, share: float, seed: int) -> dict[str, tuple[Picture, int]]:
    """Return pictures by name, such as ``one person 3``, with the number of people in each."""
    rng = np.random.default_rng(seed)
    people = read_people(lfw, split)
    names = iter(rng.permutation(sorted(people)))
    counts = {kind: max(1, round(share * count)) for kind, count in COUNTS.items()}

    def portrait() -> Picture:
        return np.asarray(Image.open(BytesIO(people[next(names)][0])).convert("RGB"))

    found = {f"{ONE} {i}": (portrait(), 1) for i in range(counts[ONE])}
    for i in range(counts[SEVERAL]):
        number = 2 + i % 2
        found[f"{SEVERAL} {i}"] = (several(rng, [portrait() for _ in range(number)]), number)
    empty = [picture for name in NOBODY if (picture := shipped(name)) is not None]
    for i in range(counts[NONE]):
        found[f"{NONE} {i}"] = (empty[i % len(empty)], 0)
    return found


def shipped(name: str) -> Picture | None:
    """Return a photograph of scikit-image; None if scikit-image would have to fetch the photograph."""
    try:
        return np.rint(255 * to_colours(getattr(data, name)())).astype(np.uint8)
    except (OSError, ModuleNotFoundError, ValueError):
        return None


def save(path: Path, picture: Picture, orientation: int) -> None:
    """Save a picture as a camera does that was turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.rot90(picture, TURNS[orientation])).save(path, quality=95, exif=exif)


def eyes_off(face: Picture, detector: str) -> float | None:
    """Return the larger distance of an eye to its place, px; None if the detector finds no face in the middle."""
    large = cv2.resize(face, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    distances = [
        float(np.linalg.norm((found.landmarks[:2] + 0.5) / 2 - 0.5 - EYES, axis=1).max())
        for found in load_detector(detector).find(large, 0.2)
        if found.landmarks is not None
    ]
    return min(distances, default=None)


def rows(folder: Path, target: Path, people: dict[str, int]) -> list[dict[str, object]]:
    """Return a row for each kind of photograph, of the faces that were cut out of ``folder`` into ``target``."""
    manifest = json.loads((target / "manifest.json").read_text())["photographs"]
    table = []
    for kind, total in ((kind, total) for kind in COUNTS if (total := sum(n.startswith(kind) for n in people))):
        names = [name for name in people if name.startswith(kind)]
        entries = [manifest[f"{name}.jpg"] for name in names]
        faces = [cv2.imread(str(file))[..., ::-1] for name in names for file in sorted(target.rglob(f"{name}_*.png"))]
        row: dict[str, object] = {
            "photographs": f"{total} of {kind}", "people": sum(people[name] for name in names), "cut out": len(faces),
            "left out": sum(not re.match("no face", why) for entry in entries for why in entry["left_out"]),
        }  # fmt: skip
        for detector in ("dlib", "centerface"):
            off = [d for face in faces if (d := eyes_off(face, detector)) is not None]
            if off:
                row |= {
                    f"median, {detector}": f"{np.median(off):.1f} px",
                    f"95 %, {detector}": f"{np.quantile(off, 0.95):.1f} px",
                    f"within {NEAR} px, {detector}": f"{sum(d <= NEAR for d in off)} of {len(off)}",
                }
        table.append(row)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="LFW, deep funneled: its folder or tar")
    parser.add_argument("--split", choices=(VAL, TEST), default=TEST)
    parser.add_argument("--share", type=float, default=1.0, help="of the 50 photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the table to this file as well")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder, target = Path(temporary, "photographs"), Path(temporary, "faces")
        folder.mkdir()
        found = photographs(args.lfw, args.split, args.share, args.seed)
        for i, (name, (picture, _)) in enumerate(found.items()):
            save(folder / f"{name}.jpg", picture, [1, 1, 6, 1, 1, 3, 1, 1, 8][i % 9])
        if (status := basicsr(["prepare", "faces", str(target), "--photos", str(folder)])) != 0:
            raise SystemExit(status)
        table = rows(folder, target, {name: number for name, (_, number) in found.items()})
    publish(table, f"eyes in faces cut out ({args.split}, seed {args.seed})", args.json)


if __name__ == "__main__":
    main()
