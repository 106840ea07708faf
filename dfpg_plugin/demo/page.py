"""A page in the browser to try a network on a photograph of one's own, or on a sharp face that the page blurs."""

import os
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.files import whole_file
from dfpg_plugin.media.pictures import Picture, encode_picture
from dfpg_plugin.media.reading import decode_picture
from dfpg_plugin.restoration.faces import Colours, Face, crop, shrink, to_bgr, to_uint8
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import ALIGNED, PHOTO, FaceReport

if TYPE_CHECKING:
    import gradio

MOST_BYTES = 20 * 2**20  # of an upload
MOST_MEGAPIXELS = 24  # of an upload
SHOWN_CHANNELS = 4  # channels that are shown of each layer of the prior
LEAST_SIDE = 16  # px; narrower faces are padded, as no network takes them
SHOWN_SIZE = 128  # px, side of a channel's picture
SAMPLES = ("s33/1.pgm", "s34/3.pgm", "s35/2.pgm", "s36/5.pgm")  # ORL faces of people that no training of the demo saw
BOX_COLOUR = (0, 255, 0)  # RGB
TITLE = "DFPG: face deblurring guided by a deep feature prior"
WARNING = (
    "The package's own network has learnt from 11,854 photographs of 5,164 people to remove motion blur from faces. "
    "A restored face may differ from the person's real face. Do not use restored faces to recognise anybody, or as "
    "evidence."
)
Picture8 = NDArray[np.uint8]  # RGB (H,W,3)
Answer = tuple[tuple[Picture8, Picture8], Picture8, list, str, Picture]


class Page:
    """The actions behind the page's buttons, without Gradio."""

    def __init__(self, restorer: DFPGRestorer) -> None:
        self.restorer = restorer

    def restore_upload(self, path: str | None, mode: str, strength: float = 1.0) -> Answer:
        """Restore an uploaded file.

        Return (before, after), the picture with the faces' boxes, the prior's pictures, a text about the faces, and the
        result for the download. ``strength``, from 0 to 1, is the part of the change that is applied. Raises UserError
        if there is no file, if the file is no picture, or if the file is too large.
        """
        if path is None:
            raise UserError("Choose a photograph first.")
        content = Path(path).read_bytes()
        if len(content) > MOST_BYTES:
            raise UserError(f"The file is larger than {MOST_BYTES // 2**20} MB.")
        picture = decode_picture(content, "The file", MOST_MEGAPIXELS * 10**6)
        return self.restore_picture(picture, mode, strength)

    def restore_sample(self, name: str, size: int, seed: int, strength: float = 1.0) -> Answer:
        """Blur the face ``name`` of SAMPLES by a kernel of ``size`` px, and restore the blurred face.

        Size 1 leaves the face sharp. Return what :meth:`restore_upload` returns.
        """
        sharp = orl_faces("val").read(name)[..., ::-1].astype(np.float32) / 255
        if size > 1:
            (kernel,) = synthesise_kernels(int(size) | 1, 1, np.random.default_rng(int(seed)))
            sharp = blur(np.ascontiguousarray(sharp), kernel)
        return self.restore_picture(Picture(to_bgr(sharp.astype(np.float32))), ALIGNED, strength)

    def restore_picture(self, picture: Picture, mode: str, strength: float) -> Answer:
        """Restore a picture. Return what :meth:`restore_upload` returns."""
        restorer, seen = self.restorer, picture.colours()
        change, where, reports = restorer.restore_colours(seen, mode, strength)
        restored = seen + change
        boxes = to_uint8(seen)
        for report in reports:
            left, top, right, bottom = (round(v) for v in report.box)
            cv2.rectangle(boxes, (left, top), (right, bottom), BOX_COLOUR, max(1, round(max(seen.shape) / 400)))
        square = self._first_square(seen, reports, mode)
        account = "\n\n".join([_account(reports, str(restorer.device)), *(f"The file: {n}." for n in picture.notes)])
        result = picture.with_changes(change, where) if where.any() else picture
        return (to_uint8(seen), to_uint8(restored)), boxes, self._prior(square), account, result

    def _first_square(self, seen: Colours, reports: Sequence[FaceReport], mode: str) -> Colours | None:
        """Return the square of the first face that was restored; None if there is none."""
        size = self.restorer.settings.face_size
        if mode == ALIGNED:
            square = shrink(seen, 2 * size / max(seen.shape))
            lacking = [max(0, LEAST_SIDE - side) for side in square.shape[:2]]
            return np.pad(square, [*((0, number) for number in lacking), (0, 0)], mode="edge")
        report = next((report for report in reports if report.error is None), None)
        if report is None:
            return None
        landmarks = None if report.landmarks is None else np.array(report.landmarks)
        return crop(seen, Face(report.box, report.score, landmarks).to_square(size), size)

    @torch.no_grad()
    def _prior(self, square: Colours | None) -> list[tuple[Picture8, str]]:
        """Return pictures of the prior that the network estimates for a face, each with a label.

        Each layer gives the mean of all channels, ``P1 mean``, and the most important channels, ``P1 #12: 0.87``. The
        list is empty without a face, and for a network that estimates no prior.
        """
        network = self.restorer.network
        if square is None or not self.restorer.estimates_priors:
            return []
        batch = self.restorer.as_seen(torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))[None])
        _, priors = network(batch.to(self.restorer.device), return_priors=True)
        pictures = []
        for i, prior in enumerate(priors, start=1):
            features = prior[0].float().cpu()
            pictures.append((_heat(features.mean(0)), f"P{i} mean"))
            weights = self.restorer.attention(i, prior)
            for channel in weights.argsort(descending=True)[:SHOWN_CHANNELS].tolist():
                text = f"P{i} #{channel}: {weights[channel]:.2f}"
                pictures.append((_heat(features[channel]), text))
        return pictures


def serve(restorer: DFPGRestorer, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM. All uploads and results are removed then.

    Raises UserError if Gradio is not installed, or if the port is taken.
    """
    if find_spec("gradio") is None:
        raise UserError("basicsr demo: needs Gradio. Run: pip install gradio")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM acts like Ctrl-C, so the folder is removed
    with TemporaryDirectory(prefix="dfpg-demo-") as folder:
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder, HF_HUB_OFFLINE="1")
        import gradio

        # the machine's own fonts, because Gradio's default fonts are fetched from outside
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        try:
            build_page(Page(restorer), Path(folder)).launch(
                server_name=host, server_port=port, max_file_size=MOST_BYTES, enable_monitoring=False, footer_links=[],
                theme=theme, show_error=True,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"basicsr demo: can't listen on {host}:{port} ({error}). Choose another --port.") from error


def build_page(page: Page, folder: Path) -> "gradio.Blocks":
    """Return the page. The files for the download are written into ``folder``."""
    import gradio

    def answering(method):  # noqa: ANN001, ANN202
        def answer(*values):  # noqa: ANN002, ANN202
            try:
                *shown, result = method(*values)
                return *shown, _keep(folder, result)
            except UserError as error:
                raise gradio.Error(str(error), print_exception=False) from error

        return answer

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 600)) as blocks:
        gradio.Markdown(f"# {TITLE}\n\n{WARNING}")
        with gradio.Row():
            with gradio.Column():
                with gradio.Tab("A photograph"):
                    upload = gradio.File(label="Drop a photograph", type="filepath", elem_id="upload")
                    label = f"{PHOTO}: find the faces; {ALIGNED}: the whole picture is one face"
                    mode = gradio.Radio([PHOTO, ALIGNED], value=PHOTO, label=label)
                    restore = gradio.Button("Restore", variant="primary", elem_id="restore")
                with gradio.Tab("Blur a sharp face"):
                    name = gradio.Radio(list(SAMPLES), value=SAMPLES[0], label="Face (not used in training)")
                    size = gradio.Slider(1, 27, value=13, step=2, label="Size of the blur, px")
                    seed = gradio.Slider(0, 99, value=0, step=1, label="Number of the blur kernel")
                    sample = gradio.Button("Blur and restore", variant="primary", elem_id="sample")
                strength = gradio.Slider(
                    0, 1, value=1, step=0.05, label="Strength: the part of the change that is applied"
                )
            with gradio.Column():
                compared = gradio.ImageSlider(label="Before and after", elem_id="compared", format="png")
                account = gradio.Markdown(elem_id="account")
                saved = gradio.File(label="Download", elem_id="saved")
        with gradio.Row():
            boxes = gradio.Image(label="Where faces were found", elem_id="boxes", format="png")
            label = "Estimated prior: the mean and the most important channels of each layer"
            prior = gradio.Gallery(label=label, columns=5, elem_id="prior", format="png")
        shown = [compared, boxes, prior, account, saved]
        restore.click(answering(page.restore_upload), [upload, mode, strength], shown, api_name=False)
        sample.click(answering(page.restore_sample), [name, size, seed, strength], shown, api_name=False)
    return blocks


def _account(reports: Sequence[FaceReport], device: str) -> str:
    """Return a text in Markdown about each face."""
    if not reports:
        return "No face was found, so nothing was changed."
    lines = [f"{len(reports)} {'face' if len(reports) == 1 else 'faces'} on {device}."]
    for i, report in enumerate(reports, start=1):
        parts = [f"{report.seconds:.2f} s"]
        if report.score is not None:
            parts.append(f"detector's score {report.score:.2f}")
        if report.identity_change is not None:
            parts.append(f"identity changed by {report.identity_change:.3f}")
        if report.error is not None:
            parts.append(f"left as it was: {report.error}")
        lines.append(f"Face {i}: {', '.join(parts)}.")
    return "\n\n".join(lines)


def _keep(folder: Path, result: Picture) -> str:
    """Write a result as PNG, with its depth, transparency and profile, for the download. Return the path."""
    path = Path(mkdtemp(dir=folder)) / "restored.png"
    with whole_file(path) as file:
        file.write(encode_picture(result, ".png"))
    return str(path)


def _heat(feature: torch.Tensor) -> Picture8:
    """Return a feature (H,W) as a picture. The least value is dark, and the greatest value is bright."""
    span = (feature.max() - feature.min()).clamp(min=1e-8)
    grey = (255 * (feature - feature.min()) / span).numpy().astype(np.uint8)
    large = cv2.resize(grey, (SHOWN_SIZE, SHOWN_SIZE), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)[..., ::-1].copy(), np.uint8)
