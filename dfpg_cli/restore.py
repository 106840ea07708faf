"""``basicsr restore``: restore the faces in photographs and videos."""

import argparse
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from dfpg_cli.arguments import DETECTOR_WEIGHTS, flag_of, from_1

if TYPE_CHECKING:
    from dfpg_plugin.restoration.files import FileReport
    from dfpg_plugin.restoration.settings import Settings

SOME_FAILED = 1


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("restore", help="restore faces in photographs and videos", description=__doc__)
    text = "pictures, videos, folders, or patterns such as 'in/*.jpg'"
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=text)
    text = "the folder of the results (default: %(default)s)"
    parser.add_argument("-o", "--out", default="results/restored", metavar="DIR", help=text)
    add_network_arguments(parser)
    text = "photo (default): find the faces; aligned: each picture is one face"
    parser.add_argument("--mode", choices=("photo", "aligned"), default="photo", help=text)
    text = "the detector that finds the faces (default: centerface)"
    parser.add_argument("--detector", choices=("centerface", "dlib", "facexlib"), help=text)
    parser.add_argument("--detector-weights", metavar="DIR", help=DETECTOR_WEIGHTS)
    text = "restore the face in this box (px), and search no other faces; can be given several times"
    parser.add_argument("--box", dest="boxes", type=_box, action="append", metavar="L,T,R,B", help=text)
    text = "the least score of a face; a lower one finds more faces (default: centerface 0.5, dlib 0, facexlib 0.8)"
    parser.add_argument("--threshold", type=float, metavar="SCORE", help=text)
    text = "2 (default): restore faces just below the threshold and search these again; 1: leave these faces out"
    parser.add_argument("--passes", type=int, choices=(1, 2), help=text)
    text = "the part of the change that is applied; 0 leaves a picture as it is (default: 1)"
    parser.add_argument("--strength", type=float, default=1.0, metavar="0..1", help=text)
    text = "side of the square in which a face is restored (default: 128)"
    parser.add_argument("--face-size", type=from_1, metavar="PX", help=text)
    text = "kind of the resulting pictures (default: PNG; PNG, TIFF and BMP stay as they are)"
    parser.add_argument("--ext", choices=("png", "jpg", "tif", "webp", "bmp"), help=text)
    text = "also write a picture that shows before and after"
    parser.add_argument("--side-by-side", action="store_true", help=text)
    parser.add_argument("--no-identity", action="store_true", help="do not measure how much the identity changes")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    text = "keep the results of an earlier run, and restore the other files"
    existing.add_argument("--skip-existing", action="store_true", help=text)
    parser.set_defaults(run=run)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the network and its device, which ``restore`` and ``demo`` share."""
    text = "a .safetensors of `basicsr export`, or a training's .pth (default: this package's own network)"
    parser.add_argument("--weights", metavar="FILE", help=text)
    text = "the training's option file, if it is not in the folder of the training"
    parser.add_argument("-opt", "--opt", metavar="YAML", help=text)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--batch-size", type=from_1, help="faces that are restored at a time (default: 8)")
    text = "compute in lower precision (default: single precision)"
    parser.add_argument("--amp", choices=("bfloat16", "float16"), help=text)


def run(args: argparse.Namespace) -> int:
    """Restore the files and write a report. Return 1 if a face or a file could not be restored."""
    from dfpg_cli.interruption import sigterm_interrupts
    from dfpg_plugin.checks import UserError
    from dfpg_plugin.restoration.files import Account, restore_files, write_report
    from dfpg_plugin.restoration.inputs import find_inputs, plan_outputs
    from dfpg_plugin.restoration.restorer import DFPGRestorer

    settings = _settings(args)
    folder = Path(args.out).expanduser()
    suffix = f".{args.ext}" if args.ext else None
    try:
        inputs = find_inputs(args.inputs, folder)
        jobs = plan_outputs(
            inputs, folder, suffix,
            overwrite=args.overwrite, skip_existing=args.skip_existing, side_by_side=args.side_by_side,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{error.filename}: can't be read ({error.strerror}).") from error
    restorer = DFPGRestorer(args.weights, args.opt, settings)
    print(f"Restoring with {restorer.about['weights']} on {restorer.device}.", file=sys.stderr)
    account = Account(inputs, jobs)
    for left_out in account.left_out:
        print(f"{left_out.input}: left out: {left_out.left_out}", file=sys.stderr)
    with sigterm_interrupts():
        try:
            for report in restore_files(restorer, jobs):
                account.done.append(report)
                _tell(report, is_alone=len(account.files) == 1)
        finally:  # Ctrl-C and SIGTERM leave a report too
            worth_a_report = account.totals.written or len(account.files) > 1
            where = f", see {write_report(folder, restorer, account, args.overwrite)}" if worth_a_report else ""
            print(f"{account.totals}{where}", file=sys.stderr)
    return SOME_FAILED if account.totals.failed or account.totals.failed_faces else 0


def _settings(args: argparse.Namespace) -> "Settings":
    """Return the settings that the options ask for. Raise UserError for an option without effect beside another."""
    from dfpg_plugin.checks import UserError
    from dfpg_plugin.restoration.settings import OF_PHOTOS, Settings, first_idle

    given = {name: getattr(args, name) for name in OF_PHOTOS if getattr(args, name) is not None}
    if found := first_idle(given, args.mode, args.detector or Settings.detector):
        idle, other = map(flag_of, found)
        value = {"mode": f" {args.mode}", "detector": f" {args.detector or Settings.detector}"}.get(found[1], "")
        raise UserError(f"{idle}: has no effect with {other}{value}. Remove one of them.")
    return Settings(
        mode=args.mode, device=args.device, amp=args.amp, strength=args.strength,
        recogniser=None if args.no_identity else "dlib", **given,
    )  # fmt: skip


def _tell(report: "FileReport", is_alone: bool) -> None:
    """Print the errors and notes of a file. Raise UserError if the only file has an error."""
    from dfpg_plugin.checks import UserError

    if is_alone and report.error is not None:
        raise UserError(report.error)
    for problem in [report.error, *report.notes, *(f"a face: {face.error}" for face in report.faces if face.error)]:
        if problem:
            print(f"{report.input}: {problem}", file=sys.stderr)


def _box(text: str) -> tuple[float, ...]:
    parts = text.split(",")
    try:
        left, top, right, bottom = map(float, parts)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected left,top,right,bottom in px, got {text}") from None
    if not all(map(isfinite, (left, top, right, bottom))) or not (left < right and top < bottom):
        raise argparse.ArgumentTypeError(f"expected left < right and top < bottom, got {text}")
    return left, top, right, bottom
