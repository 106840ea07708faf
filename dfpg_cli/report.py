"""``basicsr report``: compare what `basicsr test` has measured, as tables, plots and pictures; or two such reports."""

import argparse
import hashlib
import re
from pathlib import Path

from dfpg_cli.arguments import from_0, from_1, refuse
from dfpg_cli.choices import PICTURE_CHOICES

RESAMPLES, SEED = 10_000, 0
DEFAULTS = {
    "out": None, "title": "Results", "resamples": RESAMPLES, "seed": SEED,
    "pictures": PICTURE_CHOICES[0], "num_pictures": 6, "picture_metric": None,
}  # fmt: skip
MAX_NAME = 60  # characters of a folder that nobody has named


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("report", help="compare results as tables, plots, pictures", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a results folder, or a name in results/; LABEL=RUN,RUN for several trainings of one method",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="default: reports/ and the methods' names")
    parser.add_argument("--title", help=f"default: {DEFAULTS['title']}")
    parser.add_argument("--resamples", type=from_1, help=f"of the bootstrap (default: {RESAMPLES})")
    parser.add_argument("--seed", type=from_0, help=f"of everything drawn (default: {SEED})")
    parser.add_argument("--pictures", choices=PICTURE_CHOICES, help=f"which (default: {PICTURE_CHOICES[0]})")
    parser.add_argument("--num-pictures", type=from_1, metavar="N", help=f"default: {DEFAULTS['num_pictures']}")
    parser.add_argument("--picture-metric", metavar="KEY", help="under the pictures, and to choose by; default: first")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar="JSON", help="say why the numbers of two report.json differ"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare and print where the report is, or what differs."""
    from dfpg_plugin.checks import UserError

    if args.compare and args.runs:
        raise UserError("--compare: goes without runs. Name two report.json files alone.")
    if args.compare:
        refuse(args, DEFAULTS, "with --compare")
        from dfpg_plugin.reports.comparison import compare_reports

        for line in compare_reports(*args.compare):
            print(line)
        return
    if not args.runs:
        raise UserError("report: no run is named. Name results folders, or two reports with --compare.")
    from dfpg_plugin.reports.methods import read_methods
    from dfpg_plugin.reports.picture_choice import PictureChoice
    from dfpg_plugin.reports.publish import check_target, publish
    from dfpg_plugin.reports.report import build_report

    vars(args).update({name: value for name, value in DEFAULTS.items() if getattr(args, name) is None})
    methods = read_methods(args.runs)
    folder = args.out or Path("reports", _folder_name([method.label for method in methods]))
    check_target(folder)
    report = build_report(methods, args.title, args.resamples, args.seed)
    choice = PictureChoice(args.pictures, args.num_pictures, args.picture_metric, args.seed)
    for path in publish(report, folder, choice):
        print(path)


def _folder_name(labels: list[str]) -> str:
    """Return the labels as a folder's name; long ones are cut, and told apart by a digest."""
    name = re.sub(r"[^\w.-]+", "_", "_vs_".join(labels))
    digest = hashlib.sha256(repr(labels).encode()).hexdigest()[:8]
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}_{digest}"
