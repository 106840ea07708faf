"""``basicsr study``: train several option files with several seeds, test them on the same sets, and write a report."""

import argparse
from pathlib import Path

from dfpg_cli.arguments import from_0, from_1
from dfpg_cli.report import RESAMPLES, SEED


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("study", help="train, test and compare several models", description=__doc__)
    text = "the option files of the trainings, one for each model"
    parser.add_argument("-opt", "--opt", nargs="+", required=True, metavar="YAML", help=text)
    parser.add_argument("--test", required=True, metavar="YAML", help="the option file of the test sets and metrics")
    text = "each model is trained once with each seed (default: 0 1 2)"
    parser.add_argument("--seeds", type=from_0, nargs="+", default=[0, 1, 2], help=text)
    text = "trainings or tests that run at the same time (default: %(default)s)"
    parser.add_argument("--jobs", type=from_1, default=1, metavar="N", help=text)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="the folder of the report")
    parser.add_argument("--title", default="Study", help="title of the report (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train, test and write the report. Print the report's files."""
    from dfpg_plugin.evaluation.records import read_run
    from dfpg_plugin.reports.methods import Method
    from dfpg_plugin.reports.picture_choice import PictureChoice
    from dfpg_plugin.reports.publish import LOGS, check_target, publish
    from dfpg_plugin.reports.report import build_report
    from dfpg_plugin.reports.study import results_folder, run_study

    check_target(args.out)
    names = run_study(args.opt, args.seeds, args.test, args.jobs, args.out / LOGS)
    results = results_folder(args.test)
    methods = [Method(label, tuple(read_run(results / name) for name in runs)) for label, runs in names.items()]
    for path in publish(build_report(methods, args.title, RESAMPLES, SEED), args.out, PictureChoice()):
        print(path)
