"""Read the option file of ``basicsr train`` or ``basicsr test``, complete the options and check them."""

import argparse
from copy import deepcopy

from dfpg_plugin.options.checking import check_options
from dfpg_plugin.options.completing import Arguments, RunOptions, complete, convert_whole_numbers, output_root
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import force, open_option_file
from dfpg_plugin.runs.distribution import of_first_process, start_group


def to_arguments(args: argparse.Namespace) -> Arguments:
    """Return the values of the flags of :func:`dfpg_cli.arguments.add_basicsr_arguments`."""
    return Arguments(args.opt, args.launcher, args.auto_resume, args.debug, args.local_rank, tuple(args.force_yml))


def read_options(args: Arguments, is_train: bool, join_group: bool = True, needs_network: bool = True) -> RunOptions:
    """Read, complete and check the options. With ``join_group``, join the group of processes of the launcher.

    Outputs go below ``path:root``, by default the working directory. Without ``needs_network`` the trained weights may
    be missing. Raises UserError for a file that can't be read, and for all wrong options at once.
    """
    file = open_option_file(args.opt)
    opt = deepcopy(file.values)
    force(opt, args.force_yml)
    convert_whole_numbers(opt)
    if not needs_network and isinstance(opt.get("path"), dict):
        opt["path"] = {key: value for key, value in opt["path"].items() if not key.startswith("pretrain_network_")}
    plugins = load_plugins(opt.get("plugins") or [])
    seed_is_drawn = opt.get("manual_seed") is None
    complete(opt, args, output_root(opt).resolve(), is_train)
    check_options(opt, plugins, needs_network, file.lines)
    if join_group:
        start_group(args, opt.get("dist_params"), opt["num_gpu"])
    options = RunOptions.of(file, opt, seed_is_drawn)
    return options.with_seed(of_first_process(opt["manual_seed"])) if seed_is_drawn else options
