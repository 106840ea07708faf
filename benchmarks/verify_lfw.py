"""How well the recogniser tells the people of LFW apart: View 2, sharp pictures, the official protocol.

    python benchmarks/verify_lfw.py lfw-deepfunneled.tar pairs.txt --store lfw.npz

A check of the verification itself against a number that is known: dlib's author states 99.13 % for his network, and
99.38 % with the mean of 100 copies of each face, moved and mirrored at random; ``--mirrored`` takes two. Every pair of
``pairs.txt`` counts: of several faces in a picture, the one nearest its middle is taken; where none is found, one is
taken to be in the central square. The threshold of each of the file's folds is chosen on the others.

``--store`` keeps the vectors, so that a run that was stopped goes on. It takes a quarter of an hour on one CPU core.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from side_by_side import publish
from tqdm import tqdm

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import decode_image
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.files import whole_file
from dfpg_plugin.metrics.face_sets import read_lfw_pairs, verify_pairs
from dfpg_plugin.metrics.recognisers import DLIB, RECOGNISERS, Recogniser, load_recogniser
from dfpg_plugin.preparation.lfw import open_lfw

SAVE_EVERY = 500  # pictures, about a minute


@dataclass
class Vectors:
    """The unit vector of each picture, and how many faces are found in it, by the file's name without extension."""

    of: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    faces: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, kind: str) -> "Vectors":
        """Return what a file holds; nothing where there is none. Raises UserError for vectors of another kind."""
        if not path.exists():
            return cls()
        with np.load(path) as stored:
            if str(stored["kind"]) != kind:
                raise UserError(f"--store: {path} holds vectors of another kind. Name another file.")
            names = stored["names"].tolist()
            return cls(
                dict(zip(names, stored["vectors"], strict=True)),
                dict(zip(names, stored["faces"].tolist(), strict=True)),
            )

    def write(self, path: Path, kind: str) -> None:
        """Write all; ``kind`` says what they are of."""
        names = sorted(self.of)
        with whole_file(path) as file:
            np.savez(
                file, kind=kind, names=names,
                vectors=[self.of[name] for name in names], faces=[self.faces[name] for name in names],
            )  # fmt: skip


def kind_of(recogniser: Recogniser, mirrored: bool) -> str:
    """Return what a file of vectors says of them."""
    return f"{recogniser.name}, {recogniser.weights_sha256}{', mirrored' if mirrored else ''}"


def embed_pictures(
    lfw: Path, wanted: set[str], recogniser: Recogniser, store: Path | None, *, mirrored: bool
) -> Vectors:
    """Return the vectors of the pictures of these names. Raises UserError for a picture that is missing or damaged."""
    kind = kind_of(recogniser, mirrored)
    vectors = Vectors() if store is None else Vectors.read(store, kind)
    names, photographs = open_lfw(lfw)
    if missing := sorted(wanted - {PurePosixPath(name).stem for name in names}):
        raise UserError(f"{lfw}: lacks {len(missing)} pictures of the pairs: {list_some(missing)}.")
    with tqdm(total=len(wanted), initial=len(wanted & vectors.of.keys()), unit="picture") as progress:
        for photograph in photographs:
            name = PurePosixPath(photograph.name).stem
            if name not in wanted or name in vectors.of:
                continue
            picture = decode_image(photograph.content, f"{lfw}: {photograph.name}")
            vectors.of[name], vectors.faces[name] = recogniser.embed_middle_face(picture, mirrored=mirrored)
            progress.update()
            if store is not None and len(vectors.of) % SAVE_EVERY == 0:
                vectors.write(store, kind)
    if store is not None:
        vectors.write(store, kind)
    return vectors


def row_of(
    lfw: Path, pair_file: Path, recogniser: Recogniser, store: Path | None, *, mirrored: bool
) -> Mapping[str, object]:
    """Return the accuracy of the protocol and what it is of."""
    pairs, folds = read_lfw_pairs(pair_file)
    wanted = {name for pair in pairs for name in pair[:2]}
    vectors = embed_pictures(lfw, wanted, recogniser, store, mirrored=mirrored)
    result, _ = verify_pairs(pairs, vectors.of, folds=folds)
    counts = [vectors.faces[name] for name in wanted]
    return {
        "recogniser": recogniser.name + (", mirrored" if mirrored else ""),
        "accuracy, %": f"{100 * result.accuracy:.2f}",
        "std of the folds": f"{100 * result.std:.2f}",
        "pairs": result.count,
        "judged wrongly": result.right.count(False),
        "thresholds, squared": f"{min(result.thresholds):.4f} to {max(result.thresholds):.4f}",
        "pictures": len(wanted),
        "without a face": counts.count(0),
        "with several": sum(count > 1 for count in counts),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="LFW, deep funneled: its folder, .tar or .tgz")
    parser.add_argument("pairs", type=Path, help="LFW's pairs.txt")
    parser.add_argument("--recogniser", choices=RECOGNISERS, default=DLIB)
    parser.add_argument("--weights", help="folder of facexlib's files")
    parser.add_argument("--mirrored", action="store_true", help="the mean with each face's mirror image")
    parser.add_argument("--store", type=Path, help="file of the vectors, .npz, with which a stopped run goes on")
    parser.add_argument("--json", help="write the table to this file as well")
    args = parser.parse_args(argv)
    try:
        row = row_of(
            args.lfw, args.pairs, load_recogniser(args.recogniser, args.weights), args.store, mirrored=args.mirrored
        )
    except UserError as error:
        parser.error(str(error))
    publish([dict(row)], "LFW, View 2, sharp pictures", args.json)


if __name__ == "__main__":
    main()
