"""``basicsr options``: print every key of an option file with its type, default and meaning."""

import argparse


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("options", help="print the keys that an option file may hold", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    text = "print a JSON schema, with which editors complete and check an option file"
    form.add_argument("--json-schema", action="store_true", help=text)
    form.add_argument("--markdown", action="store_true", help="print the page docs/options.md")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the keys as text, Markdown or a JSON schema."""
    from basicsr.utils.registry import DATASET_REGISTRY

    from dfpg_plugin.evaluation.set_metrics import SET_METRICS
    from dfpg_plugin.options.completing import section_of_data_set
    from dfpg_plugin.options.describing import describe, json_schema, to_markdown, to_text

    if args.json_schema:
        print(json_schema())
        return
    own = {f"datasets:* with type: {name}": section_of_data_set(name) for name, _ in DATASET_REGISTRY}
    sections: dict = {path: section for path, section in sorted(own.items()) if section is not None}
    sections |= {f"val:set_metrics:* with type: {name}": section for name, section in SET_METRICS.items()}
    print((to_markdown if args.markdown else to_text)(describe(sections)))
