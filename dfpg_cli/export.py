"""``basicsr export``: write a trained network as ONNX, TorchScript or safetensors, and check the written file."""

import argparse
import sys
from pathlib import Path

from dfpg_cli.arguments import from_1


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("export", help="write a network for use elsewhere", description=__doc__)
    parser.add_output("file", "FILE", "the file to write: .onnx, .pt (TorchScript), .safetensors, or .pth (PyTorch)")
    text = "the network: a training's .pth, or a .safetensors of this command (default: this package's own)"
    parser.add_argument("--weights", metavar="FILE", help=text)
    text = "the training's option file, if it is not in the folder of the training"
    parser.add_argument("-opt", "--opt", metavar="YAML", help=text)
    text = "mark the network as trained on grey pictures: `basicsr restore` then keeps the colours of a picture"
    parser.add_argument("--grey", action="store_true", help=text)
    text = "round the weights to half precision, which halves the size of a .safetensors or .onnx"
    parser.add_argument("--half", action="store_true", help=text)
    parser.add_argument("--opset", type=from_1, metavar="N", help="ONNX's opset of a .onnx, 18 to 23 (default: 18)")
    text = "a discriminator's .pth; its channel attention is added to a .safetensors, for `basicsr demo`"
    parser.add_argument("--discriminator", metavar="FILE", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
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
        print(f"{file}: written for path:pretrain_network_g of a training", file=sys.stderr)
        return
    rows = export(network, about, file, args.opset or OPSET)
    if args.discriminator is not None:
        add_attention(file, args.discriminator, read_options_of(args.opt, ATTENTION))
    for row in rows:
        shape = f"{row.batch} x 3 x {row.height} x {row.width}"
        print(f"{file}: {shape}: differs by at most {row.largest_difference:.1e} from PyTorch", file=sys.stderr)


def _check(args: argparse.Namespace, file: Path) -> None:
    """Raise UserError for a file that exists or is an input, and for options without effect on the kind of file."""
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
        raise UserError("--grey: has no effect on a .pth, which holds weights only. Remove it.")
    if args.opset is not None and file.suffix != ".onnx":
        raise UserError("--opset: has an effect on a .onnx only. Remove it.")
    if args.half and file.suffix not in (".safetensors", ".onnx"):
        raise UserError("--half: has an effect on a .safetensors or .onnx only. Remove it.")
    if args.discriminator is not None and (args.opt is None or file.suffix != ".safetensors"):
        raise UserError("--discriminator: needs a .safetensors to write, and the training's option file with -opt.")
