"""Every kind of file is found, and what is said of it is what reading it does."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestDataset
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.preparation.check import Finding, check_images, check_pairs, summarise

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)
REFUSED = "refused, and the set with it: "


def truncate(path: Path) -> None:
    RGB.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def translucent(path: Path) -> None:
    image = RGB.convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 254))
    image.save(path)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    RGB.save(path, exif=exif)


def moving(path: Path) -> None:
    RGB.save(path, save_all=True, append_images=[RGB.rotate(180)])


def deep(path: Path) -> None:
    cv2.imwrite(str(path), PIXELS.astype(np.uint16) * 257)


DAMAGED = ("broken", "skipped: not an image, or damaged", False)
GREY = ("grey", "used as three equal channels", True)
DEEP = ("16-bit", "used, upper 8 of 16 bits", True)
OPAQUE = ("alpha", "used, opaque alpha dropped", True)
TRANSLUCENT = ("alpha", "skipped: partly transparent", False)
FILES: list[tuple[str, Callable[[Path], object], list[tuple[str, str, bool]]]] = [
    ("whole.png", RGB.save, []),
    ("whole.jpg", RGB.save, []),
    ("whole.tif", RGB.save, []),
    ("exactly8.png", lambda path: RGB.resize((8, 20)).save(path), []),
    ("empty.png", lambda path: path.touch(), [("broken", "skipped: empty", False)]),
    ("text.jpg", lambda path: path.write_text("<html>not found</html>"), [DAMAGED]),
    ("cut.png", truncate, [DAMAGED]),
    ("cut.jpg", truncate, [DAMAGED]),
    ("notes.txt", lambda path: path.write_text("x"), [("ignored", "ignored: not of a kind that can be read", False)]),
    ("some.gif", RGB.save, [("palette", "used, as the palette's colours", True)]),
    ("moving.gif", moving, [("several pages", "skipped: several pages or frames", False)]),
    ("named.HEIC", lambda path: RGB.save(path, "JPEG"), []),
    ("some.tga", RGB.save, [("ignored", "ignored: TGA, which can't be read: convert it to PNG", False)]),
    (".hidden.png", RGB.save, [("ignored", "ignored: hidden", False)]),
    ("grey.png", lambda path: RGB.convert("L").save(path), [GREY]),
    ("bilevel.png", lambda path: RGB.convert("1").save(path), [GREY]),
    ("grey_alpha.png", lambda path: RGB.convert("LA").save(path), [GREY, OPAQUE]),
    ("grey16.png", lambda path: cv2.imwrite(str(path), PIXELS[..., 0].astype(np.uint16) * 257), [GREY, DEEP]),
    ("deep.png", deep, [DEEP]),
    ("deep.tif", deep, [DEEP]),
    ("deep.ppm", deep, [DEEP]),
    ("opaque.png", lambda path: RGB.convert("RGBA").save(path), [OPAQUE]),
    ("translucent.png", translucent, [TRANSLUCENT]),
    ("translucent_palette.png", lambda path: RGB.quantize(8).save(path, transparency=3), [TRANSLUCENT]),
    ("cmyk.jpg", lambda path: RGB.convert("CMYK").save(path), [("cmyk", "used, converted to RGB", True)]),
    ("palette.png", lambda path: RGB.quantize(8).save(path), [("palette", "used, as the palette's colours", True)]),
    ("rotated.jpg", rotated, [("exif rotation", "used, turned as EXIF says", True)]),
    ("dot.png", lambda path: RGB.resize((1, 1)).save(path), [("too small", "skipped: 1x1 px, 8 px are needed", False)]),
    (
        "grey_dot.png",
        lambda path: RGB.resize((20, 7)).convert("L").save(path),
        [("grey", GREY[1], False), ("too small", "skipped: 20x7 px, 8 px are needed", False)],
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for i, (name, make, _) in enumerate(FILES):
        make(tmp_path / "data" / ("sub" if i % 2 else "") / name)
    return tmp_path / "data"


def expected(folder: Path) -> list[Finding]:
    located = [(folder / ("sub" if i % 2 else "") / name, what) for i, (name, _, what) in enumerate(FILES)]
    return [Finding(path, *one) for path, what in sorted(located, key=lambda pair: pair[0]) for one in what]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_kind_is_found_and_nothing_else(folder: Path, workers: int) -> None:
    assert check_images(folder, min_side=8, workers=workers) == expected(folder)


def test_what_is_called_usable_can_be_read_and_nothing_else(folder: Path) -> None:
    unusable = {finding.path for finding in check_images(folder, min_side=1) if not finding.usable}
    for name in list_images(folder):
        if folder / name in unusable:
            with pytest.raises(UserError):
                read_image(folder / name)
        else:
            assert read_image(folder / name).dtype == np.uint8


def test_the_consequences_are_what_reading_does(folder: Path) -> None:
    at = {path.name: path for path in folder.rglob("*") if path.is_file()}
    grey = read_image(at["grey.png"])
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 1], grey[..., 2])
    assert np.array_equal(read_image(at["deep.png"]), PIXELS)
    assert np.array_equal(read_image(at["opaque.png"]), PIXELS[..., ::-1])
    assert read_image(at["rotated.jpg"]).shape == (12, 10, 3)


def test_a_picture_beyond_pillows_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RGB.save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    finding = Finding(tmp_path / "big.png", "too large", "skipped: more pixels than OpenCV or Pillow reads", False)
    assert check_images(tmp_path, min_side=1) == [finding]


def test_the_summary_has_a_line_for_each_kind_and_what_cant_be_used_comes_last() -> None:
    findings = [
        Finding(Path("a.png"), "broken", "skipped: empty", False),
        Finding(Path("b.png"), "grey", "used", True),
        Finding(Path("c.png"), "grey", "used", True),
    ]
    assert summarise(findings) == ["grey (2), used: b.png, c.png", "broken (1), skipped: empty: a.png"]
    assert summarise([]) == ["nothing odd"]


def test_a_folder_without_images_and_a_wrong_min_side_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in"):
        check_images(tmp_path, min_side=8)
    with pytest.raises(UserError, match="does not exist"):
        check_images(tmp_path / "nowhere", min_side=8)
    RGB.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="min_side: expected a number above 0, got 0"):
        check_images(tmp_path, min_side=0)


def save_pairs(tmp_path: Path, blurred: dict[str, tuple[int, int]], sharp: dict[str, tuple[int, int]]) -> list[Path]:
    folders = [tmp_path / "x_blur", tmp_path / "x_gt"]
    for folder, files in zip(folders, (blurred, sharp), strict=True):
        for name, size in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            RGB.resize(size).save(folder / name)
    return folders


def test_whole_pairs_give_no_finding(tmp_path: Path) -> None:
    lq, gt = save_pairs(tmp_path, {"1_ker01_blur_k13.png": (9, 8), "B.png": (7, 7)}, {"1.png": (9, 8), "b.jpg": (7, 7)})
    assert check_pairs(lq, gt) == []


def test_mismatched_pairs_are_named(tmp_path: Path) -> None:
    blurred = {"1_ker01_blur_k13.png": (9, 8), "2_ker01_blur_k13.png": (8, 9), "9.png": (8, 8), "C.png": (8, 8)}
    sharp = {"1.png": (9, 8), "2.png": (9, 8), "5.png": (8, 8), "c.png": (8, 8), "sub/1.jpg": (9, 8)}
    lq, gt = save_pairs(tmp_path, blurred, sharp)
    assert check_pairs(lq, gt) == [
        Finding(gt / "sub" / "1.jpg", "mismatched", f"{REFUSED}same name as 1.png", False),
        Finding(
            lq / "2_ker01_blur_k13.png", "mismatched", f"{REFUSED}8x9 px, its ground truth 2.png has 9x8 px", False
        ),
        Finding(lq / "9.png", "mismatched", f"{REFUSED}no ground truth", False),
        Finding(gt / "5.png", "mismatched", f"{REFUSED}no blurred file", False),
    ]


def test_a_broken_file_of_a_pair_is_refused_once(tmp_path: Path) -> None:
    lq, gt = save_pairs(tmp_path, {"1.png": (9, 8)}, {"1.png": (8, 8)})
    truncate(gt / "1.png")
    assert check_pairs(lq, gt) == [Finding(gt / "1.png", "broken", f"{REFUSED}not an image, or damaged", False)]


@pytest.mark.parametrize(
    ("blurred", "sharp"),
    [
        ({"1.png": (9, 8)}, {"1.png": (8, 9)}),
        ({"1.png": (9, 8), "2.png": (9, 8)}, {"1.png": (9, 8)}),
        ({"1.png": (9, 8)}, {"1.png": (9, 8), "2.png": (9, 8)}),
        ({"1.png": (9, 8)}, {"1.png": (9, 8), "1.jpg": (9, 8)}),
        ({"1.png": (9, 8), "1.jpg": (9, 8)}, {"1.png": (9, 8)}),
        ({"A.png": (9, 8)}, {"a.png": (9, 8)}),
    ],
)
def test_pairs_are_mismatched_where_the_dataset_refuses_them(tmp_path: Path, blurred: dict, sharp: dict) -> None:
    lq, gt = save_pairs(tmp_path, blurred, sharp)
    opt = {"name": "x", "phase": "val", "dataroot_lq": str(lq), "dataroot_gt": str(gt)}
    if check_pairs(lq, gt):
        with pytest.raises(UserError):
            FaceDeblurTestDataset(opt)
    else:
        assert len(FaceDeblurTestDataset(opt)) == 1
