"""``basicsr report``: compare the results of `basicsr test` as tables, plots and pictures, or compare two reports."""

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
MAX_NAME = 60  # characters of a folder's name that is made from labels


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("report", help="compare results as tables, plots, pictures", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a results folder, or a name in results/; LABEL=RUN,RUN for several trainings of one method",
    )
    text = "the folder of the report (default: in reports/, named by the methods)"
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--title", help=f"title of the report (default: {DEFAULTS['title']})")
    parser.add_argument("--resamples", type=from_1, help=f"resamples of the bootstrap (default: {RESAMPLES})")
    parser.add_argument("--seed", type=from_0, help=f"of the bootstrap and of random pictures (default: {SEED})")
    text = f"which pictures are shown (default: {PICTURE_CHOICES[0]})"
    parser.add_argument("--pictures", choices=PICTURE_CHOICES, help=text)
    text = f"how many pictures are shown (default: {DEFAULTS['num_pictures']})"
    parser.add_argument("--num-pictures", type=from_1, metavar="N", help=text)
    text = "the metric that chooses the pictures and stands under them (default: the first)"
    parser.add_argument("--picture-metric", metavar="KEY", help=text)
    text = "tell why the numbers of two report.json files differ"
    parser.add_argument("--compare", nargs=2, type=Path, metavar="JSON", help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write a report and print its files, or print the differences of two reports."""
    from dfpg_plugin.checks import UserError

    if args.compare and args.runs:
        raise UserError("--compare: has no effect on runs. Name two report.json files, and no run.")
    if args.compare:
        refuse(args, DEFAULTS, "with --compare")
        from dfpg_plugin.reports.comparison import compare_reports

        for line in compare_reports(*args.compare):
            print(line)
        return
    if not args.runs:
        raise UserError("report: no run is named. Name results folders, or two report.json files with --compare.")
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
    """Return a folder's name made from labels: ``DFPG_vs_NAFNet``. A long name is cut, and gets a digest."""
    name = re.sub(r"[^\w.-]+", "_", "_vs_".join(labels))
    digest = hashlib.sha256(repr(labels).encode()).hexdigest()[:8]
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}_{digest}"
