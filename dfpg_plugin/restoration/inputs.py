"""Which files to restore, where their results go, and what is left out and why."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import look_into
from dfpg_plugin.media.pictures import LOSSLESS
from dfpg_plugin.media.video_files import is_companion, is_video, suffix_of_result

OUTPUT_FOLDER = "the folder of the results"
FOLDER_OF_PATTERN = "a folder, of which a pattern takes no files"
THERE_ALREADY = "its result is there already"
COMPANION = "no film or picture, but what macOS notes beside one"


@dataclass(frozen=True)
class Input:
    """A file to restore."""

    path: Path
    below: Path  # its path below the folder that was given
    root: Path  # that folder; of a file the one it lies in


@dataclass
class Inputs:
    """What was asked for."""

    files: list[Input] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # path of a file, or a folder with a slash: why


@dataclass(frozen=True)
class Job:
    """A file and where its results go."""

    input: Path
    output: Path
    side_by_side: Path | None = None
    kept: frozenset[Path] = frozenset()  # results of an earlier run, which stay as they are
    is_renamed: bool = False  # since another file's result has the name that this one's would have
    idle: tuple[str, ...] = ()  # options that have no effect on it

    @property
    def results(self) -> list[Path]:
        """Return the files to write."""
        return [path for path in (self.output, self.side_by_side) if path is not None]


def find_inputs(given: Sequence[str], output: Path) -> Inputs:
    """Return what files, folders (in depth) and patterns mean, each file once, and what of a folder is left out.

    The folder ``output`` is left out where it lies in a given folder, or among a pattern's files: results are no
    inputs. Raises UserError where nothing is, and for results that would lie among a folder's files.
    """
    found = Inputs()
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            _add_folder(found, path, output)
        elif path.is_file():
            found.files.append(Input(path, Path(path.name), path.parent))
        else:
            _add_pattern(found, text, path, output)
    first: dict[Path, Input] = {}
    for file in found.files:
        same = first.setdefault(file.path.resolve(), file)
        if same.path != file.path:
            found.left_out[str(file.path)] = f"the same file as {same.path}"
    once = list(first.values())
    found.files = [file for file in once if not is_companion(file.path)]
    found.left_out.update({str(file.path): COMPANION for file in once if file not in found.files})
    return found


def _add_folder(found: Inputs, folder: Path, output: Path) -> None:
    if output.resolve() == folder.resolve():
        raise UserError(f"-o: {output} is an input itself, so that its results would be inputs. Choose another folder.")
    listing = look_into(folder, also=is_video)
    names = [name for name in listing.names if not _is_below(folder / name, output, folder)]
    left_out = {name: why for name, why in listing.left_out.items() if not _is_below(folder / name, output, folder)}
    if len(names) + len(left_out) < len(listing.names) + len(listing.left_out):
        left_out[f"{output.resolve().relative_to(folder.resolve()).as_posix()}/"] = OUTPUT_FOLDER
    if not names:
        rest = f" (left out: {listing.what_is_left_out()})" if listing.left_out else ""
        raise UserError(f"no image and no video in {folder}{rest}.")
    found.files += [Input(folder / name, Path(name), folder) for name in names]
    for name, why in left_out.items():
        found.left_out[f"{folder / name}{'/' if name.endswith('/') else ''}"] = why


def _add_pattern(found: Inputs, text: str, path: Path, output: Path) -> None:
    everything = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    matches = [match for match in everything if match.is_file()]
    if "**" not in text:  # which goes into the folders
        found.left_out.update({f"{match}/": FOLDER_OF_PATTERN for match in everything if match.is_dir()})
    if not matches:
        raise UserError(f"{text}: no such file or folder, and no file matches it as a pattern.")
    others = [match for match in matches if not match.resolve().is_relative_to(output.resolve())]
    if others and len(others) < len(matches):
        found.left_out[f"{output}/"] = OUTPUT_FOLDER
    found.files += [Input(match, Path(match.name), match.parent) for match in others or matches]


def _is_below(path: Path, output: Path, folder: Path) -> bool:
    """Tell whether a path in a folder lies in the folder of the results, which lies there as well."""
    inner = output.resolve()
    return inner.is_relative_to(folder.resolve()) and path.resolve().is_relative_to(inner)


def plan_outputs(
    inputs: Inputs, folder: Path, suffix: str | None, *, overwrite: bool, skip_existing: bool, side_by_side: bool
) -> list[Job]:
    """Return what to restore, having looked at all results before any is written.

    JPEGs become PNGs unless ``suffix`` says otherwise: a JPEG's pixels outside the faces would change when it is
    written once more. Where two results would have one name, the files' own suffixes are kept in it (``x.jpg.png``),
    or the folders that were given precede it. Raises UserError for what would be written over, an input above all,
    and for options of pictures where all inputs are films.
    With ``skip_existing``, what is there is kept; a file whose results are all there is added to ``inputs.left_out``.
    """
    of_pictures = _options_of_pictures(inputs.files, suffix, side_by_side)
    jobs = []
    sources = {file.path.resolve() for file in inputs.files}
    for file, below in _names(inputs.files, suffix).items():
        output = folder / below
        is_film = is_video(file.path)
        both = side_by_side_of(output) if side_by_side and not is_film else None
        is_renamed = below != _candidates(file, suffix)[0]
        job = Job(file.path, output, both, is_renamed=is_renamed, idle=of_pictures if is_film else ())
        for written in job.results:
            if written.resolve() in sources:
                raise UserError(f"{written} is an input itself. Choose another folder with -o.")
        there = frozenset(path for path in job.results if path.exists())
        if there and skip_existing:
            job = replace(job, kept=there)
        elif there and not overwrite:
            raise UserError(
                f"{min(there)} is there already. Choose another folder with -o, or allow it: --overwrite. "
                "To go on with what is missing: --skip-existing."
            )
        if len(job.kept) == len(job.results):
            inputs.left_out[str(job.input)] = THERE_ALREADY
        else:
            jobs.append(job)
    _refuse_doubles(jobs)
    return jobs


def _options_of_pictures(files: Sequence[Input], suffix: str | None, side_by_side: bool) -> tuple[str, ...]:
    """Return which options are given that films do not have; raise UserError where all files are films."""
    given = tuple(flag for flag, is_given in (("--ext", suffix), ("--side-by-side", side_by_side)) if is_given)
    if given and files and all(is_video(file.path) for file in files):
        raise UserError(f"{given[0]}: has no effect on films, and no input is a picture. Remove it.")
    return given


def side_by_side_of(output: Path) -> Path:
    """Return where before and after go."""
    return output.with_name(f"{output.stem}_side_by_side.png")


def _names(files: Sequence[Input], suffix: str | None) -> dict[Input, Path]:
    """Return where each result goes below the folder of the results, each elsewhere as far as possible."""
    level = dict.fromkeys(files, 0)
    candidates = {file: _candidates(file, suffix) for file in files}
    for _ in range(3):
        users: dict[Path, list[Input]] = {}
        for file in files:
            users.setdefault(candidates[file][level[file]], []).append(file)
        for several in users.values():
            for file in several if len(several) > 1 else ():
                level[file] = min(level[file] + 1, 3)
    return {file: candidates[file][level[file]] for file in files}


def _candidates(file: Input, suffix: str | None) -> list[Path]:
    """Return the names of a result in the order of preference."""
    new = _suffix(file.path, suffix)
    short = file.below.with_suffix(new)
    full = short if file.below.suffix == new else file.below.with_name(f"{file.below.name}{new}")
    root = Path(file.root.resolve().name)
    return [short, full, root / short, root / full]


def _suffix(path: Path, wanted: str | None) -> str:
    suffix = path.suffix.lower()
    if is_video(path):
        return suffix_of_result(path)
    if wanted is not None:
        return wanted
    return suffix if suffix in LOSSLESS else ".png"


def _refuse_doubles(jobs: Sequence[Job]) -> None:
    taken: dict[Path, Path] = {}
    for job in jobs:
        for written in job.results:
            if (first := taken.setdefault(written.resolve(), job.input)) is not job.input:
                raise UserError(f"{job.input} and {first} would both be written to {written}. Restore them one by one.")
