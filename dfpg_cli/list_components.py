"""``basicsr list``: print the components of every registry, and the package of each component."""

import argparse

REGISTRIES = ("ARCH", "DATASET", "LOSS", "METRIC", "MODEL")


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("list", help="list registered components", description=__doc__)
    parser.add_argument("--plugins", nargs="+", default=[], metavar="PACKAGE", help="packages to import first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print a line for each component: ``arch     DFPGNet     dfpg_plugin``."""
    from basicsr.utils import registry

    from dfpg_plugin.options.plugins import load_plugins

    load_plugins(args.plugins)
    rows = [
        (kind.lower(), name, component.__module__.split(".")[0])
        for kind in REGISTRIES
        for name, component in sorted(getattr(registry, f"{kind}_REGISTRY"))
    ]
    width = max(len(name) for _, name, _ in rows)
    for kind, name, package in rows:
        print(f"{kind:8} {name:{width}} {package}")
