"""``basicsr test``: restore and measure the test sets of an option file. The results are in results/<name>."""

import argparse

from dfpg_cli.arguments import add_basicsr_arguments, from_0


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("test", help="test a model", description=__doc__)
    add_basicsr_arguments(parser)
    parser.add_argument(
        "--images",
        default="restored",
        metavar="WHAT",
        help="the images to measure. restored (default): the network's. blurred, sharp: the test sets' own. A folder: "
        "another method's results, named like the blurred images, in one folder or in a folder for each set",
    )
    text = "processes besides this one (default: one for each CPU, at most 4 for each GPU in use)"
    parser.add_argument("--workers", type=from_0, metavar="N", help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Test the networks, or measure the images of another method."""
    from dfpg_cli.run_options import read_options, to_arguments
    from dfpg_plugin.checks import UserError
    from dfpg_plugin.evaluation.evaluate import evaluate
    from dfpg_plugin.evaluation.image_sources import RESTORED

    if args.auto_resume:
        raise UserError("--auto_resume: has no effect on a test. A test always goes on where it stopped. Remove it.")
    arguments = to_arguments(args)
    options = read_options(arguments, is_train=False, needs_network=args.images == RESTORED)
    evaluate(options, args.images, args.workers)
