"""``basicsr train``: train the model that an option file describes."""

import argparse

from dfpg_cli.arguments import add_basicsr_arguments


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("train", help="train a model", description=__doc__)
    add_basicsr_arguments(parser)
    text = "use BasicSR's own training loop; without a GPU, its loading of a saved state is mended"
    parser.add_argument("--stock", action="store_true", help=text)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the options, build everything, restore a validation picture, train one step, and write nothing",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train the model."""
    from dfpg_cli.run_options import read_options, to_arguments
    from dfpg_plugin.checks import UserError
    from dfpg_plugin.training.loop import train
    from dfpg_plugin.training.stock import train_stock

    arguments = to_arguments(args)
    options = read_options(arguments, is_train=True, join_group=not args.stock)
    if args.stock and args.dry_run:
        raise UserError("--dry-run: has no effect with --stock, BasicSR's own loop. Remove one of them.")
    if args.stock:
        train_stock(options, arguments)
    else:
        train(options, args.dry_run)
