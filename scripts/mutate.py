"""Change the code and see whether a test notices: changes of a list, or random ones made by cosmic-ray.

    python scripts/mutate.py --changes scripts/unnoticed_changes.json
    python scripts/mutate.py dfpg_plugin/losses dfpg_plugin/runs/checkpoints.py --count 50 --seed 0

The second needs `pip install cosmic-ray`. Everything happens in copies of the checkout. A module's tests are those of
its name, then those of its room (`tests/losses` for `dfpg_plugin/losses`), of the default run; a change is killed by
the first that fails. The last line is the score; the exit status is 1 where a change of a list survived.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Lock
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "dfpg_cli"  # whose tests are in tests/cli
DEFAULT_RUN = "not harness and not slow and not gpu"
NO_TESTS = 5  # pytest's exit status
PRELOADED = ("torch", "torchvision", "cv2", "numba", "scipy.stats", "pydantic")  # nothing that imports the package


@dataclass(frozen=True)
class Change:
    """A file of the package with other content."""

    file: str  # relative to the checkout
    content: str
    what: str
    tests: tuple[str, ...] = ()  # default: by the file's name and room


def read_changes(list_file: Path) -> Iterator[Change]:
    """Return the changes of a JSON list of {file, old, new, what, tests}; ``old`` has to be in the file once."""
    for entry in json.loads(list_file.read_text(encoding="utf-8")):
        before = (ROOT / entry["file"]).read_text(encoding="utf-8")
        if before.count(entry["old"]) != 1:
            raise SystemExit(f"{list_file}: {entry['file']} holds {before.count(entry['old'])} times: {entry['old']}")
        tests = entry.get("tests", "").split()
        yield Change(entry["file"], before.replace(entry["old"], entry["new"]), entry["what"], tuple(tests))


def draw_changes(paths: list[Path], count: int, seed: int) -> list[Change]:
    """Return ``count`` of cosmic-ray's mutations of modules, or all where there are fewer.

    Left out is what no test is needed for: what Python refuses, and types (``int | None``).
    """
    from cosmic_ray.commands.init import init
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB

    with tempfile.TemporaryDirectory() as folder:
        work = WorkDB(Path(folder) / "work.sqlite", WorkDB.Mode.create)
        init([path.resolve() for path in paths], work, {})
        mutations = sorted(
            (m for item in work.work_items for m in item.mutations if "_BitOr_" not in m.operator_name),
            key=lambda m: (str(m.module_path), m.operator_name, m.occurrence),
        )
        work.close()
    random.Random(seed).shuffle(mutations)
    changes: list[Change] = []
    for mutation in mutations:
        if len(changes) == count:
            break
        code = Path(mutation.module_path).read_text(encoding="utf-8")
        operator = get_operator(mutation.operator_name)(**mutation.operator_args)
        line = code.splitlines()[mutation.start_pos[0] - 1].strip()
        what = f"line {mutation.start_pos[0]}, {mutation.operator_name.removeprefix('core/')}: {line[:80]}"
        file = Path(mutation.module_path).relative_to(ROOT).as_posix()
        mutated = mutate_code(code, operator, mutation.occurrence)
        with suppress(SyntaxError):
            compile(mutated, file, "exec")
            changes.append(Change(file, mutated, what))
    return changes


def tests_of(file: str, root: Path) -> list[list[str]]:
    """Return the tests of a module, the nearest first: of its name, and of its room."""
    path = Path(file)
    room = Path("tests").joinpath(*path.parts[1:-1] if path.parts[0] != COMMAND else ["cli"])
    named = sorted(p.relative_to(root).as_posix() for p in (root / room).glob(f"test_{path.stem}*.py"))
    return [tests for tests in (named, [room.as_posix()]) if tests and (root / tests[0]).exists()]


class Worker:
    """Tries changes in a copy of the checkout, in a process that has loaded what every test loads."""

    copy: Path

    @classmethod
    def start(cls, folder: Path, lock: Lock) -> None:
        """Copy the checkout, without what git and tests leave behind, to a new folder below ``folder``."""
        with lock:
            cls.copy = folder / str(len(list(folder.iterdir())))
            left = shutil.ignore_patterns(".*", "__pycache__", "experiments", "results", "tb_logger", "datasets")
            shutil.copytree(ROOT, cls.copy, ignore=left)
        for module in PRELOADED:
            importlib.import_module(module)

    @classmethod
    def fate(cls, change: Change, seconds: int) -> str:
        """Return what became of a change: killed, survived, or too slow for the tests, which notices it as well."""
        file = cls.copy / change.file
        before = file.read_bytes()
        file.write_text(change.content, encoding="utf-8")
        try:
            for tests in [list(change.tests)] if change.tests else tests_of(change.file, cls.copy):
                status = run_tests(tests, cls.copy, seconds)
                if status is None:
                    return "too slow"
                if status not in (0, NO_TESTS):
                    return "killed"
        finally:
            file.write_bytes(before)
        return "survived"


def run_tests(tests: Sequence[str], copy: Path, seconds: int) -> int | None:
    """Return pytest's exit status for tests of a copy, from a fork of this process; None where it takes longer."""
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        os.environ.update(PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", DEFAULT_RUN, *tests]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := os.waitpid(child, os.WNOHANG)) != (0, 0):
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> int:
    """Print what became of each change, and the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="modules or folders of the package")
    parser.add_argument("--changes", type=Path, nargs="+", help="lists of changes")
    parser.add_argument("--count", type=int, default=50, help="of random changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="changes that are tried at once, each in its own copy")
    parser.add_argument("--seconds", type=int, default=300, help="for the tests of one change")
    args = parser.parse_args()
    if bool(args.paths) == bool(args.changes):
        parser.error("name modules, or lists of changes")
    if args.changes:
        changes = [change for file in args.changes for change in read_changes(file)]
    else:
        modules = sorted({m for p in args.paths for m in (p.rglob("*.py") if p.is_dir() else [p])})
        changes = draw_changes(modules, args.count, args.seed)
    survived = 0
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        start = (Path(folder), context.Lock())
        with ProcessPoolExecutor(args.jobs, context, initializer=Worker.start, initargs=start) as workers:
            fates = workers.map(partial(Worker.fate, seconds=args.seconds), changes)
            for change, became in zip(changes, fates, strict=True):
                survived += became == "survived"
                print(f"{became}: {change.file}: {change.what}", flush=True)
    print(f"{len(changes) - survived} of {len(changes)} were noticed")
    return int(bool(args.changes) and survived > 0)


if __name__ == "__main__":
    sys.exit(main())
