"""`basicsr prepare faces --photos`: training faces out of anybody's photographs."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import Image, look_for_images
from dfpg_plugin.preparation.face_folder import Cut, FaceFormat, Photograph, Written, write_faces

CutFaces = Callable[[bytes, str], tuple[list[Image], list[str]]]  # a file's content and name: faces, why not others


def prepare_photos(
    folder: Path, target: Path, file_format: FaceFormat, cut_faces: CutFaces, settings: dict[str, object]
) -> Written:
    """Write the faces of every photograph below ``folder`` as :func:`write_faces` does; return how many.

    ``cut_faces`` returns a photograph's faces, uint8 BGR (160,160,3), and why others were left out; ``settings`` are
    what they depend on. A person is a folder directly below ``folder``; a photograph outside of these is a person of
    its own. ``anna/party/1.jpg`` becomes ``{split}/anna/anna_party_1_1.png``, the last number counting its faces.
    Files that are no pictures, and photographs whose names would be the same, are left out and listed. Raises
    UserError where the folder is missing or holds no photograph, and for a target that lies in it.
    """
    folder = check_folder("--photos", folder)
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{target}: lies in {folder}, so that its faces would be photographs next time. Choose another."
        )
    listing = look_for_images(folder)
    names = listing.names
    stems = {name: PurePosixPath(name).with_suffix("").as_posix().replace("/", "_") for name in names}
    first = {stems[name]: name for name in reversed(names)}

    def cut(photograph: Photograph) -> Cut:
        name = photograph.name
        if (other := first[stems[name]]) != name:
            return Cut(left_out=[f"its faces would be called like those of {other}"])
        faces, left_out = cut_faces(photograph.content, name)
        return Cut({f"{stems[name]}_{n}": face for n, face in enumerate(faces, 1)}, left_out)

    written = write_faces(target, _photographs(folder, names), names, cut, file_format, settings)
    others = {name: [why] for name, why in listing.left_out.items()}
    return Written(written.faces, {**written.left_out, **others})


def _photographs(folder: Path, names: list[str]) -> Iterator[Photograph]:
    for name in names:
        path = PurePosixPath(name)
        person = path.parts[0] if len(path.parts) > 1 else path.stem
        try:
            content = (folder / name).read_bytes()
        except OSError:  # an empty file is no picture, which is what is said of it
            content = b""
        yield Photograph(name, person, content)
