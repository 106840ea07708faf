"""`basicsr prepare vggface`: write the layers of a VGGFace file that the prior needs into one small file."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from dfpg_plugin import __version__
from dfpg_plugin.checks import UserError, check_choice, check_file
from dfpg_plugin.files import sha256_of, whole_file
from dfpg_plugin.vggface.files import INPUTS, read_vggface, weights_sha256

FORMAT = "dfpg_plugin slim VGGFace 1"


def convert_vggface(
    source: Path, target: Path, *, layers: Sequence[str], input: str, channel_order: str | None = None
) -> dict[str, str]:
    """Write the convolutions that ``layers`` need from ``source`` to ``target``, in RGB order, as float32.

    ``source`` is any file that :func:`read_vggface` reads. ``target`` is a safetensors file, written whole; an existing
    file is replaced. The target declares ``input``, and the extractor then accepts no other input. ``channel_order``
    overrides the order that the source's style implies. Returns the facts to print, as text by key.

    Raises UserError if the source is missing, holds another network, declares another input, or is the target itself.
    Raises UserError if the target does not end in .safetensors or can't be written.
    """
    source, target = check_file("source", source), Path(target).expanduser()
    check_choice("input", input, INPUTS)
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: the name of the file to write must end in .safetensors.")
    if target.exists() and target.samefile(source):
        raise UserError(f"{target} is the source itself. Name another file to write.")
    file = read_vggface(source)
    if file.input not in (None, input):
        raise UserError(f"{source} is for `input: {file.input}`, but `input: {input}` is asked for.")
    tensors = {name: tensor.contiguous() for name, tensor in file.convolutions(layers, channel_order).items()}
    metadata = {
        "format": FORMAT,
        "input": input,
        "channel_order": "rgb",
        "layers": " ".join(layers),
        "source": source.name,
        "source_sha256": file.sha256,
        "source_style": file.style,
        "source_channel_order": channel_order or file.channel_order,
        "dfpg_plugin": __version__,
    }
    with whole_file(target) as out:
        out.write(save(tensors, metadata))
    return {
        **metadata,
        "target": str(target),
        "target_sha256": sha256_of(target),
        "bytes": str(target.stat().st_size),
        "tensors": str(len(tensors)),
        "weights_sha256": weights_sha256(tensors),
    }
