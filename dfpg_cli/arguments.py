"""The parser of all commands, and the flags of BasicSR, which ``basicsr train`` and ``basicsr test`` share."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RENAMED = {"--output": "--out"}
SINGULAR = {"boxes": "box"}


class Parser(argparse.ArgumentParser):
    """A parser of the ``basicsr`` command: one spelling of options in its help, the earlier ones accepted.

    Options may be written with hyphens or underscores, whichever of them is declared, and by the names of
    :data:`RENAMED`. Every command has ``--traceback``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 argparse's own
        super().__init__(*args, **kwargs)
        self.output: str | None = None
        # no default, for that of a subcommand would replace what is given before its name
        text = "show the cause of an error"
        self.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=text)

    def add_output(self, name: str, metavar: str, help: str) -> None:
        """Add ``-o`` and ``--out``; what they name may stand alone as well, as it had to before."""
        self.output = name
        self.add_argument("-o", "--out", dest=name, type=Path, metavar=metavar, help=help)
        self.add_argument(f"{name}_alone", nargs="?", type=Path, metavar=metavar, help=argparse.SUPPRESS)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 argparse's own
        """Parse arguments in whatever spelling; exit where an output is missing or named twice."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        given[:end] = map(self._declared, given[:end])
        found, rest = super().parse_known_args(given, namespace)
        if self.output is not None:
            self._settle_output(found, rest)
        return found, rest

    def _declared(self, argument: str) -> str:
        """Return an argument with the spelling of the option's name that is declared."""
        name, equals, value = argument.partition("=")
        known = self._option_string_actions
        if not name.startswith("--") or name in known:
            return argument
        spellings = (name.replace("_", "-"), "--" + name[2:].replace("-", "_"), RENAMED.get(name, name))
        fits = [spelling for spelling in spellings if any(option.startswith(spelling) for option in known)]
        return f"{fits[0]}{equals}{value}" if fits else argument

    def _settle_output(self, found: argparse.Namespace, rest: list[str]) -> None:
        name = str(self.output)
        alone = vars(found).pop(f"{name}_alone")
        if alone is None and rest and not rest[0].startswith("-"):  # argparse takes none behind an option
            alone = Path(rest.pop(0))
        if (alone is None) == (getattr(found, name) is None):
            self.error("name the output once, with -o/--out" if alone else "what to write is missing: -o/--out")
        vars(found)[name] = alone or getattr(found, name)


def flag_of(name: str) -> str:
    """Return the option whose value the parsed arguments hold under ``name``."""
    return f"--{SINGULAR.get(name, name).replace('_', '-')}"


def refuse(args: argparse.Namespace, names: Iterable[str], where: str) -> None:
    """Raise UserError for the first option of ``names`` that is given; ``where``, as ``on films``, it has no effect."""
    from dfpg_plugin.checks import UserError

    for name in names:
        if getattr(args, name) is not None:
            raise UserError(f"{flag_of(name)}: has no effect {where}. Remove it.")


def from_1(text: str) -> int:
    """Read a whole number from 1, for argparse."""
    return _whole(text, 1)


def from_0(text: str) -> int:
    """Read a whole number from 0, for argparse."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text}")
    return int(text)


def add_basicsr_arguments(parser: argparse.ArgumentParser) -> None:
    """Add BasicSR's flags, under BasicSR's names."""
    parser.add_argument("-opt", "--opt", required=True, metavar="YAML", help="the option file")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest state of the run, if any")
    parser.add_argument("--debug", action="store_true", help="log every iteration, save every 8, as debug_<name>")
    parser.add_argument("--local_rank", type=int, default=0, help="set by torch.distributed.launch")
    text = "options that replace those of the YAML"
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY:SUBKEY=VALUE", help=text)
