"""``basicsr export``: write a trained network as ONNX, TorchScript or safetensors, and check what was written."""

import argparse
import sys
from pathlib import Path

from dfpg_cli.arguments import from_1


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("export", help="write a network for use elsewhere", description=__doc__)
    parser.add_output("file", "FILE", ".onnx, .pt (TorchScript), .safetensors, or .pth for a training")
    parser.add_argument(
        "--weights", metavar="FILE", help="a training's .pth, or a .safetensors (default: this package's own)"
    )
    parser.add_argument("-opt", "--opt", metavar="YAML", help="the training's options, where the weights don't tell")
    parser.add_argument("--grey", action="store_true", help="it was trained on grey pictures: colours are left alone")
    parser.add_argument(
        "--half",
        action="store_true",
        help="round the weights to half precision: a .safetensors or .onnx half as large",
    )
    parser.add_argument("--opset", type=from_1, metavar="N", help="of a .onnx (default: 18)")
    parser.add_argument("--discriminator", metavar="FILE", help="whose channel attention goes into a .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Export."""
    from dfpg_plugin.checks import make_folder
    from dfpg_plugin.restoration.export import OPSET, add_attention, export, round_to_half, to_training
    from dfpg_plugin.restoration.network import ATTENTION, GREY, HALF, PRECISION, SEES, load_described, read_options_of

    file = args.file.expanduser()
    _check(args, file)
    network, about = load_described(args.weights, args.opt)
    if args.grey:
        about[SEES] = GREY
    if args.half:
        round_to_half(network)
        about[PRECISION] = HALF
    make_folder("FILE", file.parent)
    if file.suffix == ".pth":
        to_training(network, file)
        print(f"{file}: for path:pretrain_network_g", file=sys.stderr)
        return
    rows = export(network, about, file, args.opset or OPSET)
    if args.discriminator is not None:
        add_attention(file, args.discriminator, read_options_of(args.opt, ATTENTION))
    for row in rows:
        shape = f"{row.batch} x 3 x {row.height} x {row.width}"
        print(f"{file}: {shape}: at most {row.largest_difference:.1e} from PyTorch", file=sys.stderr)


def _check(args: argparse.Namespace, file: Path) -> None:
    """Raise UserError for a file that is there, and for options that its kind does not have."""
    from dfpg_plugin.checks import UserError

    try:
        if file.exists() and not args.overwrite:
            raise UserError(f"{file} is there already. Choose another name, or allow it with --overwrite.")
    except OSError as error:
        raise UserError(f"{file}: can't be written ({error.strerror}).") from error
    for flag, given in (("--weights", args.weights), ("--discriminator", args.discriminator), ("-opt", args.opt)):
        if given is not None and file.resolve() == Path(given).expanduser().resolve():
            raise UserError(f"{file} is the file of {flag}, an input. Choose another name.")
    if args.grey and file.suffix == ".pth":
        raise UserError("--grey: a .pth for a training does not keep it. Remove it.")
    if args.opset is not None and file.suffix != ".onnx":
        raise UserError("--opset: needs a .onnx to write. Remove it.")
    if args.half and file.suffix not in (".safetensors", ".onnx"):
        raise UserError("--half: needs a .safetensors or .onnx to write; the other kinds keep single precision.")
    if args.discriminator is not None and (args.opt is None or file.suffix != ".safetensors"):
        raise UserError("--discriminator: needs a .safetensors to write, and its options with -opt.")
