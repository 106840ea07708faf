"""``basicsr restore``: restore the faces in photographs and videos."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dfpg_cli.arguments import flag_of, from_1

if TYPE_CHECKING:
    from dfpg_plugin.restoration.files import FileReport
    from dfpg_plugin.restoration.settings import Settings

SOME_FAILED = 1


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("restore", help="restore faces in photographs and videos", description=__doc__)
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="pictures, videos, folders or patterns")
    parser.add_argument("-o", "--out", default="results/restored", metavar="DIR", help="default: results/restored")
    add_network_arguments(parser)
    parser.add_argument(
        "--mode", choices=("photo", "aligned"), default="photo", help="find the faces (default), or each picture is one"
    )
    parser.add_argument("--detector", choices=("centerface", "dlib", "facexlib"), help="default: centerface")
    parser.add_argument("--detector-weights", metavar="DIR", help="of facexlib's network, where it is not in its place")
    parser.add_argument(
        "--box", dest="boxes", type=_box, action="append", metavar="L,T,R,B", help="a face by hand (px), several times"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="SCORE", help="a face from this score on: lower finds more (centerface: 0.5)"
    )
    text = "of detection: 2 (default) looks again at faces just below the threshold when they are restored, 1 does not"
    parser.add_argument("--passes", type=int, choices=(1, 2), help=text)
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="0..1", help="the part of the change that is applied (1)"
    )
    parser.add_argument("--face-size", type=from_1, metavar="PX", help="of the square that is restored (128)")
    parser.add_argument(
        "--ext", choices=("png", "jpg", "tif", "webp", "bmp"), help="of the results (default: lossless)"
    )
    parser.add_argument("--side-by-side", action="store_true", help="before and after in one picture")
    parser.add_argument("--no-identity", action="store_true", help="do not measure how much the identity changes")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="write over results of an earlier run")
    existing.add_argument(
        "--skip-existing", action="store_true", help="keep them, and go on with what an interrupted run has not reached"
    )
    parser.set_defaults(run=run)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which network to restore with, and how."""
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors of `basicsr export`, or a training's .pth")
    parser.add_argument("-opt", "--opt", metavar="YAML", help="the training's options, where the weights don't tell")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=from_1, help="faces at a time (default: 8)")
    parser.add_argument("--amp", choices=("bfloat16", "float16"), help="compute in lower precision")


def run(args: argparse.Namespace) -> int:
    """Restore; return 1 where a face or a file could not be."""
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
        raise UserError(f"{error.filename}: can't be looked at ({error.strerror}).") from error
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
        finally:  # of what was done before Ctrl-C or SIGTERM as well
            worth_a_report = account.totals.written or len(account.files) > 1
            where = f", see {write_report(folder, restorer, account, args.overwrite)}" if worth_a_report else ""
            print(f"{account.totals}{where}", file=sys.stderr)
    return SOME_FAILED if account.totals.failed or account.totals.failed_faces else 0


def _settings(args: argparse.Namespace) -> "Settings":
    """Return the settings that the options mean; raise UserError for one that has no effect beside another."""
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
    """Print what went wrong with a file; raise UserError where it was the only one."""
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
    if not (left < right and top < bottom):
        raise argparse.ArgumentTypeError(f"expected left < right and top < bottom, got {text}")
    return left, top, right, bottom
