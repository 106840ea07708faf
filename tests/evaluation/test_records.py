"""What an evaluation writes is read back, whole chunks only."""

import json
import math
from pathlib import Path

import pytest
from kit import files_of_at_most

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.records import (
    MANIFEST,
    Record,
    append_chunk,
    keep_whole_chunks,
    read_chunks,
    read_run,
    set_file,
)


def record(index: int, **values: float | None) -> Record:
    pairs = {"verification": [("s1.png", 0.25, True, 0), ("s2.png", None, False, 1)]}
    return Record(index, f"face_{index}", "face.png", 13, "00ff", values, pairs)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    append_chunk(path, 1, [record(2, psnr=math.inf), record(3, psnr=27.5)])
    append_chunk(path, 0, [record(0, psnr=1.0, ssim=None), Record(1, "lost", "", None, "", problem="missing")])
    assert dict(read_chunks(path)) == {
        1: [record(2, psnr=math.inf), record(3, psnr=27.5)],
        0: [record(0, psnr=1.0, ssim=None), Record(1, "lost", "", None, "", problem="missing")],
    }
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_nan_is_no_value(tmp_path: Path) -> None:
    append_chunk(tmp_path / "a.jsonl", 0, [record(0, identity=math.nan)])
    assert dict(read_chunks(tmp_path / "a.jsonl"))[0][0].values == {"identity": None}


@pytest.mark.parametrize("cut", [2, 30, 200, 330])
def test_a_cut_chunk_is_left_out_and_the_file_goes_on_after_it(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "set.jsonl"
    append_chunk(path, 0, [record(0, psnr=1.0), record(1, psnr=2.0)])
    whole = path.stat().st_size
    append_chunk(path, 1, [record(2, psnr=3.0), record(3, psnr=4.0)])
    assert whole > 330
    path.write_bytes(path.read_bytes()[:-cut])
    assert [chunk for chunk, _ in read_chunks(path)] == [0]
    assert keep_whole_chunks(path) == {0}
    assert path.stat().st_size == whole
    append_chunk(path, 1, [record(2, psnr=3.0), record(3, psnr=4.0)])
    assert [r.index for _, chunk in read_chunks(path) for r in chunk] == [0, 1, 2, 3]


def test_a_chunk_that_does_not_fit_on_the_disk_is_named_and_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    append_chunk(path, 0, [record(0, psnr=1.0), record(1, psnr=2.0)])
    whole = path.read_bytes()
    for reason in ("no space is left on the disk", "File too large"):  # a part is written, then nothing
        with files_of_at_most(len(whole) + 100), pytest.raises(UserError) as caught:
            append_chunk(path, 1, [record(2, psnr=3.0)])
        assert str(caught.value).startswith(f"{path}: can't be written ({reason}). Make room")
        assert [chunk for chunk, _ in read_chunks(path)] == [0]
    assert keep_whole_chunks(path) == {0}
    assert path.read_bytes() == whole


def test_a_run_is_whole_or_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no evaluation\.json"):
        read_run(tmp_path)
    manifest = {"format": 1, "command": "basicsr test", "sets": {"A/B": {"count": 2}}}
    manifest |= {key: {} for key in ("software", "machine", "method", "metrics")}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    append_chunk(set_file(tmp_path, "A/B"), 0, [record(1, psnr=2.0)])
    with pytest.raises(UserError, match="1 of 2 images of A/B are measured"):
        read_run(tmp_path)
    append_chunk(set_file(tmp_path, "A/B"), 1, [record(0, psnr=1.0)])
    run = read_run(tmp_path)
    assert [r.index for r in run.sets["A/B"]] == [0, 1]
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "sets": []}))
    with pytest.raises(UserError, match=r"evaluation\.json: is damaged \(sets\)"):
        read_run(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "format": 9}))
    with pytest.raises(UserError, match="is of format 9, not 1"):
        read_run(tmp_path)


def test_a_chunk_that_goes_on_after_a_broken_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    append_chunk(path, 3, [record(0, psnr=1.0), record(1, psnr=2.0), record(2, psnr=3.0)])
    first, _, third = path.read_text().splitlines()
    append_chunk(path, 4, [record(3, psnr=4.0)])
    path.write_text(f"{first}\nhalf a li\n{third}\n" + path.read_text().splitlines()[-1] + "\n")
    assert [chunk for chunk, _ in read_chunks(path)] == [4]
    assert list(read_chunks(tmp_path / "nowhere.jsonl")) == []
