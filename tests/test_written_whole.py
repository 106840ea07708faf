"""Every file that is written again is the earlier one or the later one, never a part of either."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kit import fail_at, files_of_at_most

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation import evaluate
from dfpg_plugin.evaluation.records import Record, append_chunk, keep_whole_chunks
from dfpg_plugin.preparation import kernels
from dfpg_plugin.preparation.manifest import write_manifest
from dfpg_plugin.restoration.export import to_training
from dfpg_plugin.restoration.files import Account, FileReport, write_report
from dfpg_plugin.restoration.inputs import Inputs
from dfpg_plugin.restoration.settings import Settings

RESTORER = SimpleNamespace(device="cpu", settings=Settings(), about={})


def evaluation(folder: Path, count: int) -> None:
    evaluate._write_manifest(folder, dict.fromkeys(map(str, range(count)), "x"))


def prepared(folder: Path, count: int) -> None:
    write_manifest(folder, {"seed": 0}, "pictures", {str(i): {} for i in range(count)})


def of_kernels(folder: Path, count: int) -> None:
    kernels._write_manifest(folder, {"seed": 0}, dict.fromkeys(map(str, range(count)), "x"))


def restored(folder: Path, count: int) -> None:
    account = Account(Inputs(), [])
    account.done += [FileReport(f"{i}.png") for i in range(count)]
    write_report(folder, RESTORER, account, overwrite=True)


def network(folder: Path, count: int) -> None:
    to_training(torch.nn.Linear(count, 7), folder / "net.pth")


def records(folder: Path, count: int) -> None:
    """Write them, or rewrite those that are there."""
    if not list(folder.iterdir()):
        append_chunk(folder / "set.jsonl", 0, [Record(i, "a", "", None, "") for i in range(count)])
    keep_whole_chunks(folder / "set.jsonl")


WRITERS = {
    "evaluation.json": evaluation, "manifest.json": prepared, "kernels.json": of_kernels, "report.json": restored,
    "net.pth": network, "set.jsonl": records,
}  # fmt: skip


@pytest.mark.parametrize("way", ["fsync", "replace", "full"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_can_not_be_written_again_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    write: Callable[[Path, int], None] = WRITERS[name]
    write(tmp_path, 5)
    before = (tmp_path / name).read_bytes()
    assert before
    if way != "full":
        fail_at(monkeypatch, way)
    limit = files_of_at_most(len(before) // 2) if way == "full" else nullcontext()
    with limit, pytest.raises(UserError, match=rf"^{tmp_path}/{name}: can't be written \([^\n]*$"):
        write(tmp_path, 300)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: before}
