"""Choose the files to restore and the places of their results. Say which files are left out, and why."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import look_into
from dfpg_plugin.media.pictures import LOSSLESS
from dfpg_plugin.media.video_files import is_companion, is_video, suffix_of_result
from dfpg_plugin.restoration.earlier import Source, read_earlier

OUTPUT_FOLDER = "the folder of the results"
FOLDER_OF_PATTERN = "a folder; a pattern takes files only"
THERE_ALREADY = "its result is there already"
COMPANION = "no film or picture, but a file that macOS writes beside one"


@dataclass(frozen=True)
class Input:
    """A file to restore."""

    path: Path
    below: Path  # the path below root
    root: Path  # the folder that the user named; for a file or a pattern, the folder of the file


@dataclass
class Inputs:
    """The files that the user named."""

    files: list[Input] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # the reason by path: `a/b.txt`, or `a/hidden/` for a folder


@dataclass(frozen=True)
class Job:
    """A file to restore, and where its results go."""

    input: Path
    output: Path
    side_by_side: Path | None = None
    kept: frozenset[Path] = frozenset()  # results of an earlier run that are not written again
    is_renamed: bool = False  # True if another file's result would have the same name
    idle_flags: tuple[str, ...] = ()  # options that have no effect on this file, such as --ext on a film
    may_replace: bool = False  # True if a result takes the place of a file that is there

    @property
    def results(self) -> list[Path]:
        """Return the paths of all results, those in ``kept`` too."""
        return [path for path in (self.output, self.side_by_side) if path is not None]


def find_inputs(given: Sequence[str], output: Path) -> Inputs:
    """Return the files that ``given`` names, each file once, and what is left out.

    ``given`` holds files, folders, which are searched in depth, and patterns such as ``in/*.jpg``. Results are no
    inputs: the files below ``output`` are left out if ``output`` lies in a given folder, or if a pattern matches other
    files too. Raises UserError for a name without any file, and if ``output`` is itself a given folder.
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
    if "**" not in text:  # a pattern with ** takes the files of the folders
        found.left_out.update({f"{match}/": FOLDER_OF_PATTERN for match in everything if match.is_dir()})
    if not matches:
        raise UserError(f"{text}: no such file or folder, and no file matches it as a pattern.")
    others = [match for match in matches if not match.resolve().is_relative_to(output.resolve())]
    if others and len(others) < len(matches):
        found.left_out[f"{output}/"] = OUTPUT_FOLDER
    found.files += [Input(match, Path(match.name), match.parent) for match in others or matches]


def _is_below(path: Path, output: Path, folder: Path) -> bool:
    """Tell whether ``path``, a file in ``folder``, is a result. False if ``output`` does not lie in ``folder``."""
    inner = output.resolve()
    return inner.is_relative_to(folder.resolve()) and path.resolve().is_relative_to(inner)


def plan_outputs(
    inputs: Inputs, folder: Path, suffix: str | None, *, overwrite: bool, skip_existing: bool, side_by_side: bool
) -> list[Job]:
    """Return the jobs for ``inputs``. All results are checked before any file is written.

    A picture's result is a PNG, unless the picture is PNG, TIFF or BMP itself or ``suffix`` says otherwise: a JPEG's
    pixels outside the faces would change if they were written as JPEG again. Results that would have the same name keep
    the file's own suffix, ``x.jpg.png``, or get the name of the given folder in front, ``holiday/x.png``.

    With ``skip_existing``, existing results are kept. A file whose results all exist is added to ``inputs.left_out``.

    Raises UserError if a result would replace an input, or an existing file without ``overwrite`` and
    ``skip_existing``. Raises UserError for two results of the same name, for an existing result of another file with
    ``skip_existing``, and for ``suffix`` or ``side_by_side`` if all inputs are films.
    """
    picture_flags = _given_picture_flags(inputs.files, suffix, side_by_side)
    jobs = []
    earlier = read_earlier(folder) if skip_existing else {}
    sources = {file.path.resolve() for file in inputs.files}
    for file, below in _names(inputs.files, suffix).items():
        output = folder / below
        is_film = is_video(file.path)
        both = side_by_side_of(output) if side_by_side and not is_film else None
        is_renamed = below != _candidates(file, suffix)[0]
        idle_flags = picture_flags if is_film else ()
        job = Job(file.path, output, both, is_renamed=is_renamed, idle_flags=idle_flags, may_replace=overwrite)
        for written in job.results:
            if written.resolve() in sources:
                raise UserError(f"{written} is an input itself. Choose another folder with -o.")
        there = frozenset(path for path in job.results if path.exists())
        if there and skip_existing:
            _refuse_results_of_others(job, earlier)
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


def _refuse_results_of_others(job: Job, earlier: Mapping[Path, set[Source]]) -> None:
    """Raise UserError if an existing result is known to be another file's."""
    sources = earlier.get(job.output.resolve(), set())
    own = {Source(job.input.name, size) for size in (None, job.input.stat().st_size)}
    if sources and not sources & own and job.output.exists():
        other = min(source.name for source in sources)
        raise UserError(
            f"--skip-existing: {job.output} is there already, and was made from another {other}, not from "
            f"{job.input} as it is now. Choose another folder with -o, or allow it: --overwrite."
        )


def _given_picture_flags(files: Sequence[Input], suffix: str | None, side_by_side: bool) -> tuple[str, ...]:
    """Return the given options that have no effect on films. Raise UserError if there are any and only films."""
    given = tuple(flag for flag, is_given in (("--ext", suffix), ("--side-by-side", side_by_side)) if is_given)
    if given and files and all(is_video(file.path) for file in files):
        raise UserError(f"{given[0]}: has no effect on films, and no input is a picture. Remove it.")
    return given


def side_by_side_of(output: Path) -> Path:
    """Return the path of the picture before and after: ``a_side_by_side.png`` for ``a.png``."""
    return output.with_name(f"{output.stem}_side_by_side.png")


def _names(files: Sequence[Input], suffix: str | None) -> dict[Input, Path]:
    """Return each result's path below the folder of the results. Files with the same path get their next candidate."""
    chosen = dict.fromkeys(files, 0)  # the index of a candidate
    candidates = {file: _candidates(file, suffix) for file in files}
    for _ in range(3):  # four candidates
        users: dict[Path, list[Input]] = {}
        for file in files:
            users.setdefault(candidates[file][chosen[file]], []).append(file)
        for several in users.values():
            if len(several) > 1:
                for file in several:
                    chosen[file] += 1
    return {file: candidates[file][chosen[file]] for file in files}


def _candidates(file: Input, suffix: str | None) -> list[Path]:
    """Return four possible paths of a result, the best first: x.png, x.jpg.png, holiday/x.png, holiday/x.jpg.png."""
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
