"""``basicsr test``: measure a trained model on the data sets of an option file."""

import argparse

from dfpg_plugin.cli.arguments import add_basicsr_arguments, read_options, to_arguments


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("test", help="test a model", description=__doc__)
    add_basicsr_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Test."""
    from dfpg_plugin.evaluation.evaluate import evaluate

    evaluate(read_options(to_arguments(args), is_train=False), args.opt)
