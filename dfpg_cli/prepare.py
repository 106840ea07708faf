"""``basicsr prepare``: make training faces, kernels, blurred test sets, LMDBs or small VGGFace files; check images."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dfpg_cli.arguments import DETECTOR_WEIGHTS, Parser, from_0, from_1, refuse
from dfpg_cli.choices import CHANNEL_ORDERS, KERNEL_METHODS, PRIOR_INPUTS, SPLITS

if TYPE_CHECKING:
    from dfpg_plugin.preparation.face_folder import FaceFormat, Written

KERNEL_SIZES = (13, 15, 17, 19, 21, 23, 25, 27)  # px, the sizes of MSPL's and Shen's kernels
MIN_SIDE = 128  # px, the side of the faces that train_dfpg_mspl.yml gives the network
FACE_KINDS = ("png", "webp", "jpg")
FORMAT_FLAGS = ("format", "quality")
PHOTO_FLAGS = ("detector", "detector_weights", "min_side", "min_score")
PRIOR_LAYERS = ("relu1_2", "relu2_2", "relu3_3")  # the paper's prior


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand, and a subcommand of its own for each kind of data."""
    parser = commands.add_parser(
        "prepare", help="make faces, kernels, test sets, LMDBs, weights files; check images", description=__doc__
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_faces(kinds.add_parser("faces", help="make training faces from LFW, photographs or the demo's faces"))
    _add_kernels(kinds.add_parser("kernels", help="synthesise motion blur kernels in MSPL's layout"))
    _add_pairs(kinds.add_parser("pairs", help="blur sharp faces into a test set of the published layout"))
    _add_lmdb(kinds.add_parser("lmdb", help="write the images of a folder into an LMDB of BasicSR's layout"))
    _add_check(kinds.add_parser("check", help="list images with problems, and tell what training does with them"))
    _add_vggface(kinds.add_parser("vggface", help="convert any VGGFace file to a small one"))


def _add_faces(parser: Parser) -> None:
    parser.add_output("target", "FOLDER", "the folder to make")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--split", choices=SPLITS, help="write the demo's faces (ORL) of this split")
    source.add_argument("--lfw", type=Path, metavar="PATH", help="LFW, deep funneled: its folder, .tar or .tgz")
    text = "photographs, of which every face is cut out; each folder in FOLDER is a person"
    source.add_argument("--photos", type=Path, metavar="FOLDER", help=text)
    text = f"with --lfw or --photos: {', '.join(FACE_KINDS)} (default: {FACE_KINDS[0]}, which loses nothing)"
    parser.add_argument("--format", choices=FACE_KINDS, metavar="KIND", help=text)
    parser.add_argument("--quality", type=from_1, metavar="1-100", help="quality of webp and jpg (default: 88)")
    text = "with --photos: the detector that finds the faces (default: dlib)"
    parser.add_argument("--detector", choices=("dlib", "facexlib"), help=text)
    parser.add_argument("--detector-weights", metavar="DIR", help=DETECTOR_WEIGHTS)
    text = "with --photos: leave out faces whose square is narrower (default: 128)"
    parser.add_argument("--min-side", type=from_1, metavar="PX", help=text)
    text = "with --photos: leave out faces with a lower score (default: dlib 0.3, facexlib 0.9)"
    parser.add_argument("--min-score", type=float, help=text)
    parser.set_defaults(run=run_faces)


def _add_kernels(parser: Parser) -> None:
    parser.add_output("folder", "FOLDER", "the folder for the kernels")
    text = "how kernels are synthesised (default: %(default)s)"
    parser.add_argument("--method", choices=KERNEL_METHODS, default=KERNEL_METHODS[0], help=text)
    text = "odd numbers (default: 13 15 ... 27)"
    parser.add_argument("--sizes", type=from_1, nargs="+", default=list(KERNEL_SIZES), metavar="PX", help=text)
    parser.add_argument("--count", type=from_1, default=2250, help="kernels of each size (default: %(default)s)")
    parser.add_argument("--seed", type=from_0, default=0, help="default: %(default)s")
    parser.add_argument("--workers", type=from_0, default=0, help="processes besides this one (default: %(default)s)")
    parser.set_defaults(run=run_kernels)


def _add_pairs(parser: Parser) -> None:
    parser.add_output("target", "FOLDER", "the folder to make; its name becomes the name of the set")
    parser.add_argument("--faces", type=Path, required=True, help="folder of sharp faces")
    parser.add_argument("--kernels", type=Path, required=True, help="folder of kernel files")
    text = "sizes of the kernels (default: 13 15 ... 27)"
    parser.add_argument("--sizes", type=from_1, nargs="+", default=list(KERNEL_SIZES), metavar="PX", help=text)
    text = "pictures of each face and size (default: %(default)s)"
    parser.add_argument("--per-size", type=from_1, default=10, help=text)
    text = "the first kernel's number in the names of the pictures (default: %(default)s)"
    parser.add_argument("--first-id", type=from_0, default=1, help=text)
    text = "choose among the kernels FROM to TO - 1 of each size (default: all)"
    parser.add_argument("--kernel-range", type=from_0, nargs=2, metavar=("FROM", "TO"), help=text)
    parser.add_argument("--limit", type=from_1, metavar="N", help="take N faces, spread evenly over the sorted names")
    parser.add_argument("--cut", type=from_1, metavar="PX", help="take the central square of this side, not resized")
    parser.add_argument("--crop", type=from_1, metavar="PX", help="resize the largest central square to this side")
    parser.add_argument("--suffix", default="", help="text after the published name, such as _random")
    parser.add_argument("--seed", type=from_0, default=0, help="for the choice of kernels (default: %(default)s)")
    parser.set_defaults(run=run_pairs)


def _add_lmdb(parser: Parser) -> None:
    parser.add_argument("source", type=Path, help="folder of images, searched in depth")
    parser.add_output("target", "LMDB", "the .lmdb to write")
    text = "PNG's compression; 0 is read fastest (default: %(default)s)"
    parser.add_argument("--compress-level", type=int, default=1, metavar="0-9", help=text)
    parser.set_defaults(run=run_lmdb)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of images, or of blurred images with --gt; searched in depth")
    parser.add_argument("--gt", type=Path, help="folder of the sharp images; the pairs of a test set are checked too")
    text = f"the least side that is needed (default: {MIN_SIDE}; with --gt 1)"
    parser.add_argument("--min-side", type=from_1, metavar="PX", help=text)
    parser.add_argument("--workers", type=from_0, default=0, help="processes besides this one (default: %(default)s)")
    parser.set_defaults(run=run_check)


def _add_vggface(parser: Parser) -> None:
    parser.add_argument("source", type=Path, help="a VGGFace file of any kind")
    parser.add_output("target", "FILE", "the .safetensors file to write")
    text = f"the layers to keep; pool5 keeps all (default: {' '.join(PRIOR_LAYERS)})"
    parser.add_argument("--layers", nargs="+", default=list(PRIOR_LAYERS), help=text)
    text = "the form of the pictures that the layers will get (default: %(default)s)"
    parser.add_argument("--input", choices=PRIOR_INPUTS, default=PRIOR_INPUTS[0], help=text)
    text = "the channel order of the source, if it differs from the usual order of such a file"
    parser.add_argument("--channel-order", choices=CHANNEL_ORDERS, help=text)
    parser.set_defaults(run=run_vggface)


def run_faces(args: argparse.Namespace) -> None:
    """Write faces. Print their number and what was left out."""
    if args.split is not None:
        from dfpg_plugin.preparation.faces import prepare_faces

        refuse(args, (*FORMAT_FLAGS, *PHOTO_FLAGS), "on the demo's faces, --split")
        print(f"{args.target}: {prepare_faces(args.target, args.split)} faces")
        return
    from dfpg_plugin.preparation.face_folder import FaceFormat

    file_format = FaceFormat(args.format or FACE_KINDS[0], args.quality)
    written = _from_lfw(args, file_format) if args.lfw is not None else _from_photos(args, file_format)
    for name, reasons in written.left_out.items():
        for reason in reasons:
            print(f"{name}: {reason}", file=sys.stderr)
    counts = ", ".join(f"{count} {split}" for split, count in written.faces.items())
    print(f"{args.target}: {written.faces.total()} faces ({counts})")


def _from_lfw(args: argparse.Namespace, file_format: "FaceFormat") -> "Written":
    from dfpg_plugin.preparation.lfw import prepare_lfw

    refuse(args, PHOTO_FLAGS, "on LFW's faces, --lfw")
    return prepare_lfw(args.lfw, args.target, file_format)


def _from_photos(args: argparse.Namespace, file_format: "FaceFormat") -> "Written":
    from dfpg_plugin.preparation.face_folder import FACE_SIDE, FFHQ_SIDE
    from dfpg_plugin.preparation.photos import prepare_photos
    from dfpg_plugin.restoration.aligning import FaceCutter

    given = {name: getattr(args, name) for name in PHOTO_FLAGS if getattr(args, name) is not None}
    cutter = FaceCutter(FACE_SIDE, FFHQ_SIDE, **given)
    settings = {"source": "photos", **asdict(cutter)}
    del settings["detector_weights"]  # the place of the file does not change the faces
    return prepare_photos(args.photos, args.target, file_format, cutter, settings)


def run_kernels(args: argparse.Namespace) -> None:
    """Make kernels and print their checksums."""
    from dfpg_plugin.preparation.kernels import prepare_kernels

    checksums = prepare_kernels(args.folder, args.sizes, args.count, args.seed, args.method, args.workers)
    for size, checksum in checksums.items():
        print(f"{size} px: {args.count} kernels, sha256 {checksum}")


def run_pairs(args: argparse.Namespace) -> None:
    """Make a test set and print its size."""
    from dfpg_plugin.preparation.pairs import PairSettings, prepare_pairs

    settings = PairSettings(
        sizes=tuple(args.sizes), kernels_per_size=args.per_size, seed=args.seed, first_id=args.first_id,
        crop=args.crop, suffix=args.suffix, kernel_range=args.kernel_range and tuple(args.kernel_range),
        cut=args.cut, limit=args.limit,
    )  # fmt: skip
    count = prepare_pairs(args.faces, args.kernels, args.target, settings)
    print(f"{args.target}: {count} blurred pictures")


def run_lmdb(args: argparse.Namespace) -> None:
    """Write an LMDB and print its size."""
    from dfpg_plugin.preparation.lmdb import write_lmdb

    count = write_lmdb(args.source, args.target, compress_level=args.compress_level)
    print(f"{args.target}: {count} images")


def run_check(args: argparse.Namespace) -> None:
    """Print the images with problems. Raise UserError if an image can't be used."""
    from dfpg_plugin.checks import UserError
    from dfpg_plugin.preparation.check import check_images, check_pairs, summarise

    if args.gt is None:
        findings = check_images(args.folder, min_side=args.min_side or MIN_SIDE, workers=args.workers)
    else:
        findings = check_pairs(args.folder, args.gt, min_side=args.min_side or 1, workers=args.workers)
    for line in summarise(findings):
        print(line)
    unusable = {finding.path for finding in findings if not finding.usable and finding.kind != "ignored"}
    if unusable:
        raise UserError(
            f"{args.folder}: {len(unusable)} files can't be used, as listed above. Replace, rename or remove them."
        )


def run_vggface(args: argparse.Namespace) -> None:
    """Convert a file and print facts about the new file."""
    from dfpg_plugin.preparation.vggface import convert_vggface

    summary = convert_vggface(
        args.source, args.target, layers=args.layers, input=args.input, channel_order=args.channel_order
    )
    for key, value in summary.items():
        print(f"{key}: {value}")
