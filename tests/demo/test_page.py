"""The page in a real browser: a picture goes in and comes out restored; what is none, or too large, is told."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import ROOT, photo
from PIL import Image, ImageCms
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from dfpg_plugin.demo.page import SAMPLES, Page, _keep
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WAIT = 60_000  # ms


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start ``basicsr demo`` as a user does; give its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    code = "import sys; from dfpg_cli.main import main; sys.exit(main())"
    kept = tmp_path_factory.mktemp("kept")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(kept)}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "demo", "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, log.read_text()
    finally:
        assert list(kept.glob("dfpg-demo-*/*"))
        process.terminate()
        process.wait(60)
        assert not list(kept.glob("dfpg-demo-*"))  # what was uploaded is gone


@pytest.fixture
def tab(server: str) -> Iterator[Tab]:
    """The page in a browser, whose requests elsewhere are noted."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1400, "height": 1200})
        outside: list[str] = []
        opened.on("request", lambda request: outside.append(request.url) if server not in request.url else None)
        opened.goto(server)
        expect(opened.locator("#restore")).to_be_visible(timeout=WAIT)
        yield opened
        browser.close()
        assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []


def upload(tab: Tab, file: Path) -> None:
    tab.locator("#upload input[type=file]").set_input_files(str(file))
    expect(tab.locator("#upload")).to_contain_text(re.compile(file.stem), timeout=WAIT)
    tab.locator("#restore").click()


@pytest.mark.slow
def test_a_photograph_is_restored_compared_and_fetched(tab: Tab, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "party.png"), cv2.GaussianBlur(photo(), (0, 0), 1.5))
    upload(tab, tmp_path / "party.png")
    expect(tab.locator("#account")).to_contain_text(re.compile(r"\d faces? on cpu"), timeout=WAIT)
    with tab.expect_download() as download:
        tab.locator("#saved a").first.click()
    download.value.save_as(str(tmp_path / "restored.png"))
    before, after = (cv2.imread(str(tmp_path / name)) for name in ("party.png", "restored.png"))
    assert after.shape == before.shape
    assert 0.01 < (before != after).any(axis=2).mean() < 0.9
    expect(tab.locator("#prior img").first).to_be_visible(timeout=WAIT)
    assert tab.locator("#prior img").count() >= 15

    slider = tab.locator("#compared")
    first = slider.screenshot()
    box = slider.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0] - box["width"] / 4, middle[1], steps=5)
    tab.mouse.up()
    assert slider.screenshot() != first
    tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)


@pytest.mark.slow
def test_a_sharp_face_is_blurred_and_restored(tab: Tab) -> None:
    tab.get_by_role("tab", name="Blur a sharp face").click()
    tab.locator("#sample").click()
    expect(tab.locator("#account")).to_contain_text("1 face on cpu", timeout=WAIT)


def test_the_slider_s_strength_is_the_part_of_the_change_that_is_shown() -> None:
    page = Page(DFPGRestorer(settings=Settings(recogniser=None)))
    shown = {strength: page.restore_sample(SAMPLES[0], 7, 0, strength)[0] for strength in (0, 0.5, 1)}
    before, after = (image.astype(float) for image in shown[1])
    assert np.abs(after - before).max() > 8
    assert np.array_equal(*shown[0])
    assert np.abs(shown[0.5][1] - (before + after) / 2).max() <= 1


def test_the_download_keeps_depth_transparency_and_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = np.dstack([photo().astype(np.uint16) * 257 + 3, np.full(photo().shape[:2], 40_000, np.uint16)])
    stored = cv2.imencodeWithMetadata(".png", deep, [2], [np.frombuffer(profile, np.uint8)])[1]
    (tmp_path / "deep.png").write_bytes(stored.tobytes())
    page = Page(DFPGRestorer(settings=Settings(recogniser=None)))
    *_, account, result = page.restore_upload(str(tmp_path / "deep.png"), "photo")
    assert "3 faces on cpu" in account
    kept = Path(_keep(tmp_path, result))
    after = cv2.imread(str(kept), cv2.IMREAD_UNCHANGED)
    assert (after.dtype, after.shape) == (deep.dtype, deep.shape)
    assert np.array_equal(after[..., 3], deep[..., 3])
    assert np.array_equal(after[-20:], deep[-20:])
    assert (after != deep).mean() > 0.05
    assert Image.open(kept).info["icc_profile"] == profile


def test_the_prior_is_that_of_the_square_that_was_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = cv2.warpAffine(photo(), cv2.getRotationMatrix2D((545, 145), 20, 1), (700, 400), borderValue=(90, 90, 90))
    restorer = DFPGRestorer(settings=Settings(recogniser=None))
    page, squares, shown = Page(restorer), [], []
    restore_squares = restorer.restore_squares
    monkeypatch.setattr(restorer, "restore_squares", lambda given: squares.extend(given) or restore_squares(given))
    monkeypatch.setattr(page, "_prior", lambda square: shown.append(square) or [])
    page.restore_picture(Picture(turned), "photo", 1.0)
    assert any(np.array_equal(shown[0], square) for square in squares)
    page.restore_picture(Picture(np.zeros((64, 64, 3), np.uint8)), "photo", 1.0)
    assert shown[1] is None


@pytest.mark.slow
def test_what_is_no_picture_or_too_large_is_told_and_the_server_lives_on(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    upload(tab, tmp_path / "words.png")
    expect(tab.get_by_text("not an image that can be read")).to_be_visible(timeout=WAIT)
    tab.reload()
    Image.fromarray(np.zeros((6000, 10_000), np.uint8)).save(tmp_path / "large.png")
    upload(tab, tmp_path / "large.png")
    expect(tab.get_by_text("has 60000000 pixels, more than 24000000")).to_be_visible(timeout=WAIT)
    tab.reload()
    cv2.imwrite(str(tmp_path / "face.png"), photo())
    upload(tab, tmp_path / "face.png")
    expect(tab.locator("#account")).to_contain_text("on cpu", timeout=WAIT)
