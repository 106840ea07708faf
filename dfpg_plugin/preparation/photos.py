"""`basicsr prepare faces --photos`: cut training faces from a user's own photographs."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import Image, look_for_images
from dfpg_plugin.files import flat_stem
from dfpg_plugin.preparation.face_folder import Cut, FaceFormat, Photograph, Written, write_faces

CutFaces = Callable[[bytes, str], tuple[list[Image], list[str]]]  # a file's content and name -> its faces, notes


def prepare_photos(
    folder: Path, target: Path, file_format: FaceFormat, cut_faces: CutFaces, settings: dict[str, object]
) -> Written:
    """Write the faces of every photograph below ``folder`` with :func:`write_faces`, and return its result.

    ``cut_faces`` returns the faces of a photograph, uint8 BGR (160,160,3), and why others were left out. ``settings``
    are those that the faces depend on. Each folder directly below ``folder`` is a person. A photograph outside of these
    folders is a person of its own. The first face of ``anna/party/1.jpg`` becomes
    ``{split}/anna/anna_party_1_1.png``. Files that are no pictures are left out, and so are photographs whose faces
    would have the names of others. The result lists both. Raises UserError if the folder is missing, has no photograph
    or contains the target.
    """
    folder = check_folder("--photos", folder)
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{target}: lies in {folder}, so that its faces would be photographs next time. Choose another."
        )
    listing = look_for_images(folder)
    names = listing.names
    stems = {name: flat_stem(name) for name in names}
    first_of_stem = {stems[name]: name for name in reversed(names)}  # of equal stems, the first name is set last

    def cut(photograph: Photograph) -> Cut:
        stem = stems[photograph.name]
        if (first := first_of_stem[stem]) != photograph.name:
            return Cut(left_out=[f"its faces would be called like those of {first}"])
        faces, left_out = cut_faces(photograph.content, photograph.name)
        return Cut({f"{stem}_{n}": face for n, face in enumerate(faces, 1)}, left_out)

    written = write_faces(target, _photographs(folder, names), names, cut, file_format, settings)
    others = {name: [why] for name, why in listing.left_out.items()}
    return Written(written.faces, {**written.left_out, **others})


def _photographs(folder: Path, names: list[str]) -> Iterator[Photograph]:
    for name in names:
        path = PurePosixPath(name)
        person = path.parts[0] if len(path.parts) > 1 else path.stem
        try:
            content = (folder / name).read_bytes()
        except OSError:  # treated like an empty file, which is reported as no picture
            content = b""
        yield Photograph(name, person, content)
