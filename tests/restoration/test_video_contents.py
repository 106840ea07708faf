"""What lies in a video beside its pixels, and films that are not as they should be."""

import io
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from basicsr.utils.registry import ARCH_REGISTRY
from kit import fail_at, files_of_at_most, identity
from PIL import Image
from restoration.test_video import BOX, INSIDE, NOBODY, SOMEBODY, Kind, decoded, numbers, ramp, write

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.kinds import UNKNOWN
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.media.video_encoding import choose_encoding
from dfpg_plugin.media.video_files import is_companion, is_video
from dfpg_plugin.media.video_frames import FULL, Layout, orientation_of
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.video import restore_video

LIMITED = Kind(".mp4", "libx264", "yuv420p")
SCREEN = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
HDR10 = f"log-level=error:master-display={SCREEN}:max-cll=1000,400"


@pytest.fixture
def nobody(weights: str) -> DFPGRestorer:
    """A restorer that finds no face."""
    return DFPGRestorer(weights, settings=NOBODY)


def add(target: av.container.OutputContainer, count: int = 3, **settings: object) -> Callable[[], None]:
    """Add a grey film of 64x48; return what writes it."""
    video = target.add_stream("libx264", rate=25, **settings)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"

    def finish() -> None:
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))

    return finish


def write_grey(path: Path) -> None:
    with av.open(str(path), "w") as target:
        add(target)()


def packets(path: Path, kind: str) -> list[tuple[bytes, int | None, int | None]]:
    with av.open(str(path)) as source:
        return [(bytes(p), p.pts, p.duration) for p in source.demux(getattr(source.streams, kind)) if p.size]


def test_subtitles_attachments_chapters_and_metadata_are_kept(tmp_path: Path, nobody: DFPGRestorer) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:00,010 --> 00:00:00,080\nHello\n\n", encoding="utf-8")
    chapters = [{"id": 1, "start": 0, "end": 40, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
    path, output = tmp_path / "a.mkv", tmp_path / "out.mkv"
    with av.open(str(path), "w") as target, av.open(str(tmp_path / "s.srt")) as text:
        finish = add(target)
        subtitles = target.add_stream_from_template(text.streams.subtitles[0])
        subtitles.metadata["language"], subtitles.disposition = "eng", 0x40  # forced
        target.add_attachment("font.ttf", "font/ttf", b"letters")
        target.set_chapters(chapters)
        target.metadata["title"] = "Wedding"
        finish()
        for packet in text.demux():
            if packet.size:
                packet.stream = subtitles
                target.mux(packet)
    assert restore_video(nobody, path, output).notes == []
    assert [content for content, *_ in packets(output, "subtitles")] == [b"Hello"]
    assert packets(output, "subtitles") == packets(path, "subtitles")
    with av.open(str(path)) as before, av.open(str(output)) as after:
        assert after.metadata["title"] == "Wedding"
        assert after.chapters() == before.chapters() != []
        assert after.streams.subtitles[0].metadata["language"] == "eng"
        assert after.streams.subtitles[0].disposition == before.streams.subtitles[0].disposition == 0x40
        (font,) = (stream for stream in after.streams if stream.type == "attachment")
        assert font.metadata["filename"] == "font.ttf"
        assert bytes(font.data) == b"letters"


def test_a_film_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, nobody: DFPGRestorer, disk: list[tuple[str, tuple[int, int]]]
) -> None:
    write_grey(tmp_path / "a.mp4")
    restore_video(nobody, tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert disk == [("synced", identity(tmp_path / "out.mp4")), ("renamed", identity(tmp_path / "out.mp4"))]


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "full"])
def test_a_film_that_can_not_be_written_leaves_the_earlier_one(
    tmp_path: Path, nobody: DFPGRestorer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_grey(tmp_path / "a.mp4")
    output = tmp_path / "out.mp4"
    output.write_bytes(b"earlier")
    if step != "full":
        fail_at(monkeypatch, step)
    limit = files_of_at_most(1000) if step == "full" else nullcontext()
    with (
        limit,
        pytest.raises(
            UserError, match=rf"^{tmp_path}/out\.mp4: can't be written \((No space left|File too large)[^\n]*$"
        ),
    ):
        restore_video(nobody, tmp_path / "a.mp4", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "brighten.safetensors", "out.mp4"]
    assert output.read_bytes() == b"earlier"


def test_a_second_film_is_copied_and_said(tmp_path: Path, nobody: DFPGRestorer) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as target:
        for finish in [add(target), add(target)]:
            finish()
    film = restore_video(nobody, tmp_path / "a.mkv", tmp_path / "out.mkv")
    assert film.notes == ["stream 1 (video, h264) is copied as it is: only the first film of a file is restored"]
    with av.open(str(tmp_path / "out.mkv")) as source:
        assert [sum(1 for _ in source.decode(source.streams.video[1]))] == [3]


def test_a_stream_that_the_result_can_not_hold_is_said(tmp_path: Path, nobody: DFPGRestorer) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as target:
        finish, places = add(target, 30), target.add_data_stream("klv")
        finish()
        packet = av.Packet(b"where we are")
        packet.stream, packet.pts, packet.dts, packet.time_base = places, 0, 0, Fraction(1, 90_000)
        target.mux(packet)
    film = restore_video(nobody, path, tmp_path / "out.mkv")
    assert film.notes == ["stream 1 (data) is left out: .mkv can't hold it", ".ts is written as .mkv"]


@pytest.mark.parametrize(
    ("key", "notes"),
    [
        ("com.apple.quicktime.make", []),
        ("diary", [".mp4 can't hold this metadata, which is left out: diary"]),
    ],
)
def test_metadata_is_kept_or_said(tmp_path: Path, nobody: DFPGRestorer, key: str, notes: list[str]) -> None:
    path, output = tmp_path / "a.mp4", tmp_path / "out.mp4"
    with av.open(str(path), "w", container_options={"movflags": "use_metadata_tags"}) as target:
        target.metadata.update({key: "value", "title": "Wedding"})
        add(target)()
    assert restore_video(nobody, path, output).notes == notes
    with av.open(str(output)) as after:
        assert after.metadata["title"] == "Wedding"
        assert after.metadata.get(key) == (None if notes else "value")


@pytest.mark.parametrize("name", ["tc.mov", "chapters.mp4"])
def test_time_code_and_chapters_text_are_written_anew(tmp_path: Path, nobody: DFPGRestorer, name: str) -> None:
    chapters = [{"id": 0, "start": 0, "end": 40, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
    output = tmp_path / f"out{Path(name).suffix}"
    with av.open(str(tmp_path / name), "w") as target:
        finish = add(target)
        if name == "tc.mov":
            target.metadata["timecode"] = "01:00:00:00"
        else:
            target.set_chapters(chapters)
        finish()
    assert restore_video(nobody, tmp_path / name, output).notes == []
    with av.open(str(output)) as after:
        assert [stream.type for stream in after.streams] == ["video", "data"]
        assert after.streams.video[0].metadata.get("timecode") == ("01:00:00:00" if name == "tc.mov" else None)
        found = [(c["end"] * c["time_base"], c["metadata"]["title"]) for c in after.chapters()]
        assert found == ([] if name == "tc.mov" else [(Fraction(1, 25), "One")])


def test_the_numbers_of_hdrs_screen_are_kept(tmp_path: Path, nobody: DFPGRestorer) -> None:
    kind = Kind(".mkv", "libx265", "yuv420p10le", matrix=9, curve=16)
    write(tmp_path / "a.mkv", "libx265", [ramp(kind)], kind, {"x265-params": HDR10})
    restore_video(nobody, tmp_path / "a.mkv", tmp_path / "out.mkv")
    names = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    before, after = (
        [bytes(decoded(tmp_path / name)[0].side_data[kind]) for kind in names] for name in ("a.mkv", "out.mkv")
    )
    assert before == after


def test_interlaced_films_stay_so_or_it_is_said(tmp_path: Path, nobody: DFPGRestorer) -> None:
    path, output = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write(path, "libx264", [ramp(LIMITED)], LIMITED, {"x264-params": "interlaced=1"})
    (before,) = decoded(path)
    assert before.interlaced_frame
    assert restore_video(nobody, path, output).notes == []
    assert decoded(output)[0].interlaced_frame
    with av.open(str(path)) as source:
        notes = choose_encoding(source.streams.video[0], before, ".webm").notes
    assert notes == ["the film is interlaced, which libvpx-vp9 does not mark: players will show combed edges"]


def test_the_mark_of_a_stereoscopic_film_is_said_to_be_lost(tmp_path: Path, nobody: DFPGRestorer) -> None:
    write(tmp_path / "a.mp4", "libx264", [ramp(LIMITED)], LIMITED, {"x264-params": "frame-packing=3"})
    assert restore_video(nobody, tmp_path / "a.mp4", tmp_path / "out.mp4").notes == [
        "the mark of a stereoscopic film is left out"
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_film_that_is_stored_on_its_side_is_looked_at_upright_and_stays_so(
    tmp_path: Path, weights: str, suffix: str
) -> None:
    path, output = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
    encoder = "libvpx-vp9" if suffix == ".webm" else "libx264"
    with av.open(str(path), "w") as target:
        video = target.add_stream(encoder, rate=25)
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        video.set_display_rotation(90)
        target.mux(video.encode(ramp(LIMITED)))
        target.mux(video.encode(None))
    # counterclockwise by a right angle: (x, y) is seen at (y, 128 - x)
    left, top, right, bottom = BOX
    settings = type(SOMEBODY)(boxes=[(top, 128 - right, bottom, 128 - left)], recogniser=None)
    restore_video(DFPGRestorer(weights, settings=settings), path, output)
    (before,), (after,) = decoded(path), decoded(output)
    assert after.rotation == before.rotation == 90
    change = numbers(after).astype(float) - numbers(before)
    assert change.shape == (64, 128)
    assert abs(change[INSIDE].mean() - 21.9) < 2
    assert abs(change[:, :24].mean()) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_display_matrix_is_the_orientation_that_exif_has(tmp_path: Path, orientation: int) -> None:
    angle, flip = {
        1: (0, ""), 2: (0, "h"), 3: (180, ""), 4: (0, "v"), 5: (90, "v"), 6: (-90, ""), 7: (90, "h"), 8: (90, ""),
    }[orientation]  # fmt: skip
    with av.open(str(tmp_path / "a.mkv"), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.set_display_rotation(angle, hflip=flip == "h", vflip=flip == "v")
        target.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        target.mux(video.encode(None))
    (frame,) = decoded(tmp_path / "a.mkv")
    content = [bytes(frame.side_data["DISPLAYMATRIX"])] if "DISPLAYMATRIX" in frame.side_data else []
    matrix = np.frombuffer(content[0], "<i4").tolist() if content else None
    assert orientation_of(matrix) == orientation


def test_time_stamps_that_are_not_even_are_kept(tmp_path: Path, nobody: DFPGRestorer) -> None:
    write(tmp_path / "a.mp4", "libx264", [ramp(LIMITED) for _ in range(4)], LIMITED, times=[0, 1, 3, 7])
    restore_video(nobody, tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert [frame.time for frame in decoded(tmp_path / "out.mp4")] == [0, 0.04, 0.12, 0.28]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv420p10le"])
def test_what_is_brightened_above_the_highest_number_never_wraps(
    tmp_path: Path, weights: str, pixel_format: str
) -> None:
    kind = Kind(".mp4", "libx264", pixel_format, range=2 if pixel_format == "yuvj420p" else 1)
    frame = ramp(kind)
    steps = 2 ** (kind.depth - 8)
    # of so strong an orange that red is cut off in RGB, while green and blue can be brightened
    for plane, number in enumerate((254, 16, 240)):
        numbers(frame, plane)[:] = number * steps
    write(tmp_path / "a.mp4", "libx264", [frame], kind, {"qp": "0"})
    restore_video(DFPGRestorer(weights, settings=SOMEBODY), tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert numbers(decoded(tmp_path / "out.mp4")[0]).min() >= 250 * steps


def test_a_film_whose_rows_are_stored_from_the_bottom_is_changed_at_the_right_place(tmp_path: Path) -> None:
    kind = Kind(".avi", "rawvideo", "bgr24", range=2)
    path = tmp_path / "a.avi"
    write(path, "rawvideo", [ramp(kind)], kind)
    content, header = path.read_bytes(), b"".join(n.to_bytes(4, "little", signed=True) for n in (40, 128, -64))
    assert header in content
    path.write_bytes(content.replace(header, header[:8] + (64).to_bytes(4, "little")))
    (before,) = decoded(path)
    assert before.planes[0].line_size < 0
    layout = Layout(128, 64, "bgr24", 5, FULL)
    seen, picture = before.to_ndarray(format="rgb24").astype(int), layout.picture(before)
    brighter = picture.pixels.copy()
    brighter[:16, 98:102] += 6554  # a tenth
    layout.add_change(before, picture, Picture(brighter))
    change = before.to_ndarray(format="rgb24") - seen
    assert np.abs(change[:16, 98:102] - 25.5).max() < 1
    assert (change[16:] == 0).all()


def test_an_odd_size_is_kept(tmp_path: Path, nobody: DFPGRestorer) -> None:
    kind = Kind(".webm", "libvpx-vp9", "yuv420p")
    frame = ramp(kind).reformat(width=161, height=127)
    write(tmp_path / "a.mkv", "libvpx-vp9", [frame], kind)
    assert restore_video(nobody, tmp_path / "a.mkv", tmp_path / "out.mkv").notes == [
        "yuv420p is written as yuv444p, because libx264 takes no yuv420p of 161x127 px: nothing is lost, but some "
        "players don't show it"
    ]
    (before,), (after,) = decoded(tmp_path / "a.mkv"), decoded(tmp_path / "out.mkv")
    assert (after.width, after.height, after.format.name) == (161, 127, "yuv444p")
    assert np.abs(numbers(after).astype(int) - numbers(before)).mean() < 1


def of_two_sizes(folder: Path) -> Path:
    """Write eight frames of 128x64 and eight of 64x32 into one film."""
    for name, size in (("a.ts", (128, 64)), ("b.ts", (64, 32))):
        frames = [ramp(LIMITED).reformat(width=size[0], height=size[1]) for _ in range(8)]
        first = 0 if name == "a.ts" else 8
        write(folder / name, "libx264", frames, LIMITED, {"qp": "0"}, times=range(first, first + 8))
    path = folder / "c.ts"
    path.write_bytes((folder / "a.ts").read_bytes() + (folder / "b.ts").read_bytes())
    return path


def test_a_film_whose_size_changes_is_whole_and_it_is_said(tmp_path: Path, nobody: DFPGRestorer) -> None:
    output = tmp_path / "out.mkv"
    film = restore_video(nobody, of_two_sizes(tmp_path), output)
    assert film.frames == 16
    assert film.notes[0] == (
        "from frame 9 on there are other frames, 64x32 yuv420p: they are converted to 128x64 yuv420p, like the first "
        "frame"
    )
    after = decoded(output)
    assert {(frame.width, frame.height) for frame in after} == {(128, 64)}
    assert np.abs(numbers(after[15]).astype(int) - numbers(after[0]))[:, :48].mean() < 3


def test_faces_stay_at_their_place_where_the_size_of_a_film_changes(
    tmp_path: Path, weights: str, nobody: DFPGRestorer
) -> None:
    path = of_two_sizes(tmp_path)
    restore_video(nobody, path, tmp_path / "before.mkv")
    film = restore_video(DFPGRestorer(weights, settings=SOMEBODY), path, tmp_path / "after.mkv")
    assert (len(film.faces), film.failed_faces) == (16, 0)
    for before, after in zip(decoded(tmp_path / "before.mkv"), decoded(tmp_path / "after.mkv"), strict=True):
        change = numbers(after)[INSIDE].astype(float) - numbers(before)[INSIDE]
        assert abs(change.mean() - 21.9) < 2  # a tenth of limited white


def test_failed_faces_of_a_film_are_counted_and_the_status_is_1(
    restore: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, x: object) -> object:
        raise RuntimeError("no memory for faces")

    monkeypatch.setattr(ARCH_REGISTRY.get("Brighten"), "forward", fail)
    write(tmp_path / "a.mp4", "libx264", [ramp(LIMITED) for _ in range(3)], LIMITED)
    status, said = restore("a.mp4", "-o", "out", "--box", ",".join(map(str, BOX)))
    assert status == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())["files"][0]
    assert (report["frames"], report["failed_faces"]) == (3, 3)
    assert "no memory for faces" in said


def test_a_damaged_part_is_left_out_and_said(tmp_path: Path, nobody: DFPGRestorer) -> None:
    write(tmp_path / "a.avi", "mjpeg", [ramp(Kind(".avi", "mjpeg", "yuvj422p", range=2)) for _ in range(4)], LIMITED)
    content = bytearray((tmp_path / "a.avi").read_bytes())
    places = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    content[places[2] : places[2] + 600] = bytes(600)
    (tmp_path / "a.avi").write_bytes(content)
    film = restore_video(nobody, tmp_path / "a.avi", tmp_path / "out.mkv")
    assert film.frames == len(decoded(tmp_path / "out.mkv")) == 3
    assert film.notes[0] == "a damaged part after frame 2 is left out, and so is any later damaged part"


def test_colours_that_can_not_be_read_are_refused(restore: Callable, tmp_path: Path) -> None:
    kind = Kind(".mp4", "libx264", "yuv420p", matrix=8)  # YCgCo
    write(tmp_path / "a.mp4", "libx264", [ramp(kind)], kind)
    status, said = restore("a.mp4", "-o", "out")
    assert status == 2
    assert said.splitlines()[-1] == (
        "basicsr: error: a.mp4: its colour matrix, number 8 of H.273, can't be read. Convert it to BT.709 first."
    )
    assert not list((tmp_path / "out").iterdir())


def test_a_single_film_shows_its_frames_on_a_terminal(
    tmp_path: Path, nobody: DFPGRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write(tmp_path / "a.mp4", "libx264", [ramp(LIMITED) for _ in range(5)], LIMITED)
    for kind, shown in ((Terminal, True), (io.StringIO, False)):
        monkeypatch.setattr(sys, "stderr", kind())
        restore_video(nobody, tmp_path / "a.mp4", tmp_path / "out.mp4")
        assert ("a.mp4" in sys.stderr.getvalue() and "/5 " in sys.stderr.getvalue()) == shown


def test_companions_of_macos_and_other_suffixes(restore: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mp4", "libx264", [ramp(LIMITED)], LIMITED)
    (folder / "._a.mp4").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    (folder / "b.ts").write_text("export const film = 1;", encoding="utf-8")
    (folder / "a.mp4").with_name("c.film").write_bytes((folder / "a.mp4").read_bytes())
    status, said = restore("in", "-o", "out", "--threshold", 2)
    assert status == 0, said
    files = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["files"]
    left_out = {"in/._a.mp4": "hidden", "in/b.ts": UNKNOWN}
    assert {file["input"]: file["left_out"] for file in files if file["left_out"]} == left_out
    assert "._a.mp4: left out: hidden" in said
    assert "b.ts: left out: not of a kind that can be read" in said
    assert "c.film: .film is written as .mkv" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mp4", "c.mkv", "report.json"]
    status, said = restore("in/._a.mp4", "in/a.mp4", "-o", "named", "--threshold", 2)
    assert status == 0, said
    assert "._a.mp4: left out: no film or picture, but a file that macOS writes beside one" in said
    assert sorted(p.name for p in (tmp_path / "named").iterdir()) == ["a.mp4", "report.json"]


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("a", b"\x00\x00\x00\x18ftypisom", True), ("a", b"\x00\x00\x00\x18ftypheic", False),
        ("a", b"\x00\x00\x00\x18ftypavif", False), ("a", b"\x1aE\xdf\xa3", True), ("a", b"RIFF....AVI LIST", True),
        ("a", b"RIFF....WEBPVP8 ", False), ("a", (b"G" + bytes(187)) * 3, True), ("a", b"G" * 100, False),
        ("a.m2t", (bytes(4) + b"G" + bytes(187)) * 3, True), ("a", b"", False), ("a.jpg", b"\x1aE\xdf\xa3", False),
        ("a.MP4", b"nothing", True), ("a.AVI", b"nothing", True),
    ],
)  # fmt: skip
def test_the_content_decides_where_the_suffix_is_unknown(
    tmp_path: Path, name: str, start: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(start)
    assert is_video(tmp_path / name) == expected


def test_the_cover_of_a_film_is_kept_and_not_taken_for_the_film(tmp_path: Path, nobody: DFPGRestorer) -> None:
    path, output = tmp_path / "a.mp4", tmp_path / "out.mp4"
    with av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 32, 32, "yuvj420p", 0x400
        finish = add(target)
        target.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        target.mux(cover.encode(None))
        finish()
    film = restore_video(nobody, path, output)
    assert (film.frames, film.notes) == (3, [])
    with av.open(str(path)) as before, av.open(str(output)) as after:
        pictures = [
            [bytes(packet) for packet in source.demux(stream) if packet.size]
            for source in (before, after)
            for stream in source.streams.video
            if stream.disposition & 0x400
        ]
    assert len(pictures) == 2
    assert pictures[0] == pictures[1] != []


def test_a_file_of_sound_alone_is_refused(restore: Callable, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as target:
        sound = target.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    status, said = restore("a.mp4", "-o", "out")
    assert status == 2
    assert said.splitlines()[-1] == "basicsr: error: a.mp4: has no moving pictures."


@pytest.mark.parametrize(
    ("start", "beside", "expected"),
    [
        (b"\x00\x05\x16\x07", False, True), (b"anything", True, True), (b"anything", False, False),
        (b"\x00\x00\x00\x18ftypisom", True, False),
    ],
)  # fmt: skip
def test_a_companion_is_known_by_its_start_or_by_the_film_beside_it(
    tmp_path: Path, start: bytes, beside: bool, expected: bool
) -> None:
    (tmp_path / "._a.mp4").write_bytes(start)
    if beside:
        (tmp_path / "a.mp4").write_bytes(b"")
    assert is_companion(tmp_path / "._a.mp4") == expected
    assert not is_companion(tmp_path / "a.mp4")


def test_a_picture_with_a_companions_name_is_restored_and_a_companion_is_told(
    restore: Callable, tmp_path: Path
) -> None:
    picture = np.full((32, 40, 3), 90, np.uint8)
    for name in ("a.png", "._a.png", "b.png"):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "._b.png").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    status, said = restore("a.png", "._a.png", "b.png", "._b.png", "-o", "out", "--mode", "aligned")
    assert status == 0, said
    assert "._b.png: left out: no film or picture, but a file that macOS writes beside one" in said
    assert "3 faces in 3 of 4 files, 1 left out" in said
    assert np.asarray(Image.open(tmp_path / "out" / "._a.png"))[0, 0, 0] == 116  # 90 + 25.5


def test_a_colon_in_a_films_name_is_no_protocol(
    tmp_path: Path, nobody: DFPGRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clip.mp4", "libx264", [ramp(LIMITED)], LIMITED)
    (tmp_path / "clip.mp4").rename("clip:1.mp4")
    assert restore_video(nobody, Path("clip:1.mp4"), Path("new:1.mp4")).frames == 1
