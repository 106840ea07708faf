"""``basicsr demo``: a page in the browser to try a network. Only this machine can open it, unless --host is set."""

import argparse

from dfpg_cli.arguments import port
from dfpg_cli.restore import add_network_arguments


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("demo", help="try a network in the browser", description=__doc__)
    add_network_arguments(parser)
    text = "the address to listen on; 0.0.0.0 lets other machines in (default: %(default)s, this machine only)"
    parser.add_argument("--host", default="127.0.0.1", help=text)
    parser.add_argument("--port", type=port, default=7860, help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from dfpg_plugin.demo.page import serve
    from dfpg_plugin.restoration.restorer import DFPGRestorer
    from dfpg_plugin.restoration.settings import Settings

    settings = Settings(batch_size=args.batch_size or Settings.batch_size, device=args.device, amp=args.amp)
    serve(DFPGRestorer(args.weights, args.opt, settings), args.host, args.port)
