"""The ``basicsr`` command. It parses the arguments first, and imports what the command needs afterwards."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from multiprocessing import current_process
from pathlib import Path

from dfpg_cli import (
    demo,
    doctor,
    export,
    list_components,
    options,
    prepare,
    report,
    restore,
    study,
    test,
    train,
)
from dfpg_cli.arguments import Parser

if current_process().name != "MainProcess":  # a spawned process imports this file, then basicsr, which needs our patch
    import dfpg_plugin  # noqa: F401


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command and its subcommands. Nothing heavy is imported."""
    parser = Parser(prog="basicsr", description="Train and test image restoration models of BasicSR.")
    parser.add_argument("--version", action="version", version=f"dfpg_plugin {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (train, test, report, study, prepare, restore, export, demo, list_components, options, doctor):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as :func:`dfpg_cli.running.run_command` does."""
    parser = build_parser()
    _complete(parser)
    args = parser.parse_args(argv)
    from dfpg_cli.running import run_command  # imports torch and basicsr, and registers this package's components

    return run_command(args)


def _version() -> str:
    """Return the package's version. The version is read from the file, because an import would take seconds."""
    text = (Path(__file__).parents[1] / "dfpg_plugin" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def _complete(parser: argparse.ArgumentParser) -> None:
    """Complete a line for a shell, and exit. Does nothing unless argcomplete's shell function asks."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
