"""Sets of files that are whole or not there, whatever model writes them."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.models.base_model import BaseModel
from kit import fail_at, files_of_at_most, identity

from dfpg_plugin.checks import UserError
from dfpg_plugin.runs.checkpoints import (
    LATEST,
    STAGING,
    finish_killed_save,
    iterations_of,
    load_set,
    remove_old,
    save_checkpoint,
    set_aside,
)


class StockModel(BaseModel):
    """A model with BasicSR's own way to save."""

    def __init__(self, folder: Path) -> None:
        path = {"experiments_root": folder, "models": folder / "models", "training_states": folder / "training_states"}
        for place in path.values():
            place.mkdir(exist_ok=True)
        opt = {"path": {k: str(v) for k, v in path.items()}, "rank": 0, "num_gpu": 0, "is_train": True}
        super().__init__(opt)
        self.net_g = torch.nn.Linear(300, 300)
        self.optimizers = [torch.optim.Adam(self.net_g.parameters())]

    def save(self, epoch: int, current_iter: int) -> None:
        self.save_network(self.net_g, "net_g", current_iter)
        self.save_training_state(epoch, current_iter)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_set_appears_with_its_checksums(tmp_path: Path) -> None:
    save_checkpoint(StockModel(tmp_path), 1, 8)
    assert names(tmp_path) == ["models/net_g_8.pth", "training_states/8.sha256", "training_states/8.state"]
    done = subprocess.run(
        ["sha256sum", "--check", "training_states/8.sha256"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "models/net_g_8.pth: OK\ntraining_states/8.state: OK\n"
    assert load_set(tmp_path, 8)["epoch"] == 1


def test_the_state_holds_the_best_metrics_and_the_random_states_as_plain_values(tmp_path: Path) -> None:
    model = StockModel(tmp_path)
    model.best_metric_results = {"set": {"psnr": {"better": "higher", "val": np.float64(20.5), "iter": 4}}}
    save_checkpoint(model, 0, 4)
    expected = torch.rand(3), np.random.rand(3)
    state = load_set(tmp_path, 4)
    assert state["best_metric_results"] == {"set": {"psnr": {"better": "higher", "val": 20.5, "iter": 4}}}
    from dfpg_plugin.runs.randomness import restore_random_state

    restore_random_state(state["random"], 0, 1)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_the_networks_at_the_end_have_no_state(tmp_path: Path) -> None:
    save_checkpoint(StockModel(tmp_path), LATEST, LATEST)
    assert names(tmp_path) == ["models/net_g_latest.pth"]


def test_so_many_sets_are_kept_and_the_best_and_latest(tmp_path: Path) -> None:
    model = StockModel(tmp_path)
    for name in ("net_g_best.pth", "net_g_latest.pth"):
        torch.save({}, tmp_path / "models" / name)
    for current_iter in (8, 9, 10, 11):
        save_checkpoint(model, 0, current_iter, keep=2)
    assert iterations_of(tmp_path) == [11, 10]
    assert {p.name for p in (tmp_path / "models").iterdir()} == {
        "net_g_10.pth", "net_g_11.pth", "net_g_best.pth", "net_g_latest.pth"
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "training_states").iterdir()) == [
        "10.sha256", "10.state", "11.sha256", "11.state"
    ]  # fmt: skip


@pytest.mark.parametrize("removed", range(7))
def test_a_kill_while_old_sets_are_removed_leaves_no_state_without_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    for current_iter in (8, 9, 10):
        save_checkpoint(StockModel(tmp_path), 0, current_iter)
    left, unlink = iter(range(removed)), Path.unlink

    def unlink_until_killed(path: Path, missing_ok: bool = False) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_until_killed)
    with nullcontext() if removed == 6 else pytest.raises(KeyboardInterrupt):  # two sets of three files
        remove_old(tmp_path, 1)
    there = iterations_of(tmp_path)
    assert there[0] == 10
    for current_iter in there:
        assert load_set(tmp_path, current_iter)["iter"] == current_iter
        assert (tmp_path / "models" / f"net_g_{current_iter}.pth").is_file()


@pytest.mark.parametrize("best_after", [5000, 7500])
def test_a_run_that_goes_back_keeps_what_it_saves_and_loses_nothing(tmp_path: Path, best_after: int) -> None:
    """The best network of iterations that are left behind is left behind with them."""
    model = StockModel(tmp_path)
    for hour, current_iter in enumerate((5000, 7500, 10000, 25000)):
        save_checkpoint(model, 0, current_iter)
        os.utime(tmp_path / "training_states" / f"{current_iter}.state", (3600 * hour, 3600 * hour))
    best = tmp_path / "models" / "net_g_best.pth"
    torch.save({}, best)
    os.utime(best, (0, 0) if best_after == 5000 else (3600, 3600))
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    aside = set_aside(tmp_path, 5000)
    assert aside is not None
    assert iterations_of(tmp_path) == [5000]
    assert iterations_of(aside) == [25000, 10000, 7500]
    assert load_set(aside, 7500)["iter"] == 7500
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert best.is_file() == (best_after == 5000)
    for current_iter in (7500, 10000):
        save_checkpoint(model, 0, current_iter, keep=2)
        assert iterations_of(tmp_path)[0] == current_iter
    assert iterations_of(tmp_path) == [10000, 7500]
    assert set_aside(tmp_path, 10000) is None


@pytest.mark.parametrize("name", ["models/net_g_8.pth", "training_states/8.state", "training_states/8.sha256"])
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    save_checkpoint(StockModel(tmp_path), 0, 8)
    content = (tmp_path / name).read_bytes()
    for place in np.random.default_rng(0).integers(0, len(content) * 8, 40):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(UserError, match=r"damaged|missing"):
            load_set(tmp_path, 8)


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    save_checkpoint(StockModel(tmp_path), 0, 8)
    (tmp_path / "models" / "net_g_8.pth").unlink()
    with pytest.raises(UserError, match=r"net_g_8.pth is missing"):
        load_set(tmp_path, 8)


def test_what_cant_be_written_leaves_the_earlier_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # BasicSR waits a second after each try
    model = StockModel(tmp_path)
    save_checkpoint(model, 0, 8)
    before = names(tmp_path)
    refused = pytest.raises(UserError, match=r"can't save iteration 9 .*earlier checkpoints are untouched")
    with files_of_at_most(100_000), refused:  # a network has 361 kB
        save_checkpoint(model, 0, 9)
    assert names(tmp_path) == before
    assert load_set(tmp_path, 8)["iter"] == 8
    assert model.opt["path"]["models"] == str(tmp_path / "models")


def assert_whole(folder: Path) -> None:
    for current_iter in iterations_of(folder):
        assert load_set(folder, current_iter)["iter"] == current_iter
        assert (folder / "models" / f"net_g_{current_iter}.pth").is_file()


# the state and the sums are written beside the run, three files are moved, the two folders are synced last
STEPS = [*(("fsync", number) for number in range(2 + 3 + 2)), *(("replace", number) for number in range(2 + 3))]


@pytest.mark.parametrize(("step", "number"), STEPS)
def test_whichever_step_fails_sets_are_whole_and_the_failed_one_is_finished_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    model = StockModel(tmp_path)
    save_checkpoint(model, 0, 8)
    earlier = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    fail_at(monkeypatch, step, number)
    is_of_a_folder = step == "fsync" and number >= 5  # which some file systems refuse
    refused = pytest.raises(UserError, match=r"^[^\n]*can't be written [^\n]*$")
    with nullcontext() if is_of_a_folder else refused:
        save_checkpoint(model, 0, 9)
    assert_whole(tmp_path)
    finish_killed_save(tmp_path)
    assert_whole(tmp_path)
    assert {path: path.read_bytes() for path in earlier} == earlier
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} - {
        path.relative_to(tmp_path).as_posix() for path in earlier
    }
    assert files in (set(), {"models/net_g_9.pth", "training_states/9.sha256", "training_states/9.state"})
    assert is_of_a_folder <= bool(files)
    save_checkpoint(model, 0, 10)
    assert load_set(tmp_path, 10)["iter"] == 10


@pytest.mark.parametrize("number", range(6))  # of two sets of three files
@pytest.mark.parametrize("step", ["unlink", "rename"])
def test_old_and_later_sets_that_can_not_be_taken_away_are_named_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    for current_iter in (8, 9, 10):
        save_checkpoint(StockModel(tmp_path), 0, current_iter)
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file())
    fail_at(monkeypatch, step, number)
    with pytest.raises(UserError, match=rf"^{tmp_path}: can't be written \(No space left on device\)"):
        remove_old(tmp_path, 1) if step == "unlink" else set_aside(tmp_path, 8)
    assert_whole(tmp_path)
    if step == "rename":
        assert sorted(path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()) == before


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the superuser's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    model = StockModel(tmp_path)
    save_checkpoint(model, 0, 8)
    tmp_path.chmod(0o555)
    try:
        with as_nobody(), pytest.raises(UserError, match="can't be written"):
            save_checkpoint(model, 0, 9)
    finally:
        tmp_path.chmod(0o700)
    assert load_set(tmp_path, 8)["iter"] == 8


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_move_that_a_kill_broke_off_is_finished(tmp_path: Path, moved: int) -> None:
    model = StockModel(tmp_path)
    save_checkpoint(model, 0, 8)
    replace = os.replace

    def save_until_killed() -> None:
        moves = iter(range(moved))

        def replace_until_killed(source: Path, target: Path) -> None:
            if STAGING not in str(target) and next(moves, None) is None:
                os._exit(9)  # nothing of Python's runs any more, no `finally` either
            replace(source, target)

        os.replace = replace_until_killed
        save_checkpoint(model, 0, 9)

    process = get_context("fork").Process(target=save_until_killed, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == (9 if moved < 3 else 0)
    finish_killed_save(tmp_path)
    assert names(tmp_path) == [
        *("models/net_g_8.pth", "models/net_g_9.pth", "training_states/8.sha256", "training_states/8.state"),
        *("training_states/9.sha256", "training_states/9.state"),
    ]
    assert [load_set(tmp_path, current_iter)["iter"] for current_iter in (8, 9)] == [8, 9]


def test_every_file_is_on_the_disk_before_it_is_moved_and_the_folders_after(
    tmp_path: Path, disk: list[tuple[str, tuple[int, int]]]
) -> None:
    save_checkpoint(StockModel(tmp_path), 0, 8)
    files = [tmp_path / name for name in names(tmp_path)]
    assert len(files) == 3
    for file in files:
        moved = max(place for place, event in enumerate(disk) if event == ("renamed", identity(file)))
        assert ("synced", identity(file)) in disk[:moved]
        assert ("synced", identity(file.parent)) in disk[moved:]


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    save_checkpoint(StockModel(tmp_path), 0, 8)
    for name in ("net_g_best.pth", "net_g_9.pth", "net_g_latest.pth"):  # of the user's, without a state
        torch.save({}, tmp_path / "models" / name)
    wanted = names(tmp_path)
    (tmp_path / STAGING / "models").mkdir(parents=True)
    (tmp_path / STAGING / "models" / "net_g_10.pth").write_bytes(b"half")
    finish_killed_save(tmp_path)
    assert names(tmp_path) == wanted
    assert not (tmp_path / STAGING).exists()


def test_the_sums_are_those_of_the_content(tmp_path: Path) -> None:
    save_checkpoint(StockModel(tmp_path), 0, 3)
    first = (tmp_path / "training_states" / "3.sha256").read_text().split()[0]
    assert first == hashlib.sha256((tmp_path / "models" / "net_g_3.pth").read_bytes()).hexdigest()
