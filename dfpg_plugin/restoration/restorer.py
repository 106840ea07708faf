"""Restore the faces in photographs, for ``basicsr restore`` and for use from Python."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import nn
from torch.nn import functional as F

from dfpg_plugin.checks import UserError, check_choice, check_share
from dfpg_plugin.media.pictures import Picture, swap_red_and_blue
from dfpg_plugin.media.pillow_images import restore_image
from dfpg_plugin.media.reading import read_picture
from dfpg_plugin.metrics.recognisers import Recogniser, load_recogniser
from dfpg_plugin.models.model_checks import explaining
from dfpg_plugin.models.priors import estimates_priors
from dfpg_plugin.restoration.detectors import Find, load_detector
from dfpg_plugin.restoration.faces import Colours, Face, crop, paste, same_face, to_bgr, without_doubles
from dfpg_plugin.restoration.failures import ERRORS, noting, tell_failures
from dfpg_plugin.restoration.network import GREY, SEES, choose_device, load_attention, load_described
from dfpg_plugin.restoration.settings import ALIGNED, PHOTO, FaceReport, Settings
from dfpg_plugin.speed.acceleration import autocast, channels_last
from dfpg_plugin.speed.tiles import restore_in_tiles
from dfpg_plugin.speed.winograd import with_winograd

TILE, TILE_OVERLAP = 512, 64  # px
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue, ITU-R BT.601
MOST_DOUBTFUL = 16  # the most faces of a picture that get a second look, which costs as much as restoring a face
MULTIPLE = 8  # px; the sides of a network's input are padded to multiples of this
File = str | Path


@dataclass
class Restored:
    """A restored picture, and a report of each face."""

    picture: Picture
    faces: list[FaceReport] = field(default_factory=list)


class DFPGRestorer:
    """Restores faces with any registered network, by default with the package's own.

    ``weights`` and ``option_file`` are those of :func:`load_network`. Raises UserError for files, packages and devices
    that are missing.
    """

    def __init__(
        self, weights: File | None = None, option_file: File | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        network, self.about = load_described(weights, option_file)
        self._attention = load_attention(weights)
        name = self.settings.recogniser
        if self.settings.mode == PHOTO and not self.settings.boxes:  # a missing file is an error before any picture
            load_detector(self.settings.detector, self.settings.detector_weights)
        self._recogniser: Recogniser | None = None if name is None else load_recogniser(name, None)
        self.sees_grey = self.about.get(SEES) == GREY
        self.device = choose_device(self.settings.device)
        if self.device.type == "cpu":
            torch.set_flush_denormal(True)
            if torch.get_num_threads() == 1:  # Winograd's transforms use one thread
                network = with_winograd(network)
        self.estimates_priors = estimates_priors(network)
        self.network: nn.Module = channels_last(network.to(self.device))

    @overload
    def restore(self, image: PillowImage.Image, colours: str = "bgr") -> PillowImage.Image: ...

    @overload
    def restore(self, image: File | NDArray, colours: str = "bgr") -> NDArray: ...

    def restore(self, image: File | NDArray | PillowImage.Image, colours: str = "bgr") -> NDArray | PillowImage.Image:
        """Restore an array (uint8 or uint16, (H,W), (H,W,3) or (H,W,4)), a PIL image or a file's path.

        ``colours`` is the order of an array's channels, ``bgr`` or ``rgb``. An array gives an array of the same shape
        and dtype. A path gives an array, not turned by EXIF. A PIL image gives a PIL image; :func:`restore_image` lists
        the modes. A face that can't be restored is left as it is, with a warning. Raises UserError for an image that
        can't be read, for arrays of other shapes or dtypes, and in mode ``aligned`` for a face that can't be restored.
        """
        check_choice("colours", colours, ("bgr", "rgb"))
        if isinstance(image, str | Path):
            return self._restore_aloud(read_picture(image)).array(colours)
        if isinstance(image, PillowImage.Image):
            return restore_image(image, self._restore_aloud)
        array = np.asarray(image)
        if array.dtype.name not in ("uint8", "uint16") or array.shape[2:] not in ((), (3,), (4,)) or array.ndim < 2:
            raise UserError(
                f"image: expected uint8 or uint16 of (H,W), (H,W,3) or (H,W,4), got {array.dtype} {array.shape}."
            )
        picture = Picture(array.copy() if colours == "bgr" else swap_red_and_blue(array.copy()))
        return self._restore_aloud(picture).array(colours)

    def restore_picture(self, picture: Picture) -> Restored:
        """Restore the faces of a photograph, or in mode ``aligned`` the whole picture."""
        change, where, reports = self.restore_colours(picture.colours(), self.settings.mode, self.settings.strength)
        return Restored(picture.with_changes(change, where) if where.any() else picture, reports)

    def _restore_aloud(self, picture: Picture) -> Picture:
        """Return the restored picture. Warn of faces that failed; in mode ``aligned``, raise UserError."""
        restored = self.restore_picture(picture)
        tell_failures(restored.faces, self.settings.mode)
        return restored.picture

    def restore_colours(
        self, seen: Colours, mode: str, strength: float
    ) -> tuple[Colours, NDArray[np.bool_], list[FaceReport]]:
        """Return the changes to upright RGB (H,W,3) in [0,1], the mask (H,W) of changed pixels, and the faces' reports.

        ``strength``, from 0 to 1, is the part of the change that is returned. Raises UserError for other strengths.
        """
        check_share("strength", strength)
        if mode == ALIGNED:
            change, where, reports = self._restore_aligned(seen, strength)
            return strength * change, where, reports
        faces = [Face(box) for box in self.settings.boxes] or self._find(seen)
        change, weight, reports = self._restore_faces(seen, faces, strength)
        return strength * change, weight > 0, reports

    def restore_squares(self, squares: Sequence[Colours]) -> list[Colours]:
        """Restore RGB faces (H,W,3) in [0,1]. Faces of the same size are restored in batches of ``batch_size``."""
        restored: dict[int, Colours] = {}
        for shape in dict.fromkeys(square.shape for square in squares):
            places = [i for i, square in enumerate(squares) if square.shape == shape]
            for first in range(0, len(places), self.settings.batch_size):
                some = places[first : first + self.settings.batch_size]
                batch = np.stack([squares[i] for i in some]).transpose(0, 3, 1, 2)
                for i, image in zip(some, self._run(torch.from_numpy(np.ascontiguousarray(batch))), strict=True):
                    restored[i] = image.permute(1, 2, 0).numpy()
        return [restored[i] for i in range(len(squares))]

    def attention(self, layer: int, prior: torch.Tensor) -> torch.Tensor:
        """Return the importance (C,) of the channels of an estimated prior (1,C,H,W). ``layer`` is 1, 2 or 3.

        The importance is the discriminator's attention if the weights' file holds it, otherwise the mean magnitude.
        """
        prior = prior.float().cpu()
        if self._attention is None:
            return prior[0].abs().mean(dim=(1, 2))
        return self._attention[layer - 1].attention(prior)[0, :, 0, 0]  # type: ignore[operator]

    def as_seen(self, batch: torch.Tensor) -> torch.Tensor:
        """Return RGB (B,3,H,W) as the network saw pictures in training: grey if the network was trained on grey."""
        if not self.sees_grey:
            return batch
        return (batch * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)

    @torch.no_grad()
    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        height, width = batch.shape[-2:]
        seen = self.as_seen(batch)
        padded = F.pad(seen, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        padded = padded.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.settings.amp, self.device), explaining(self.network, padded):
            result = restore_in_tiles(self.network, padded, TILE, TILE_OVERLAP)
        result = result[..., :height, :width].float().cpu()
        if self.sees_grey:  # the change of the grey picture is added to each colour
            result = batch + (result - seen).mean(dim=1, keepdim=True)
        result = result.clamp(0, 1)
        if not torch.isfinite(result).all():
            raise UserError("the network returned numbers that are not finite")
        return result

    def _restore_aligned(self, seen: Colours, strength: float) -> tuple[Colours, NDArray[np.bool_], list[FaceReport]]:
        height, width = seen.shape[:2]
        report = FaceReport((0, 0, width, height), None)
        start = time.perf_counter()
        with noting(report):
            (restored,) = self.restore_squares([seen])
            report.seconds = time.perf_counter() - start
            report.identity_change = self._identity_change(seen, seen + strength * (restored - seen))
            return restored - seen, np.ones((height, width), bool), [report]
        return np.zeros_like(seen), np.zeros((height, width), bool), [report]

    def _find(self, seen: Colours) -> list[Face]:
        """Return the sure faces, and the doubtful faces that a second look confirms."""
        settings = self.settings
        detector = load_detector(settings.detector, settings.detector_weights)
        threshold = detector.threshold if settings.threshold is None else settings.threshold
        least = threshold
        if settings.passes > 1:
            least = min(threshold, max(detector.floor, threshold - detector.doubt))
        found = detector.find(seen, least)
        sure = [face for face in found if face.score is not None and face.score >= threshold]
        doubtful = [face for face in without_doubles(found) if face not in sure][:MOST_DOUBTFUL]
        confirmed = self._confirmed(seen, doubtful, detector.find, threshold)
        return without_doubles([*sure, *confirmed])

    def _confirmed(self, seen: Colours, doubtful: Sequence[Face], find: Find, threshold: float) -> list[Face]:
        """Return the faces that reach the threshold when they are restored, with the boxes that are found then."""
        size = self.settings.face_size
        squares: dict[int, Colours] = {}
        matrices = {}
        for i, face in enumerate(doubtful):
            with suppress(*ERRORS):
                matrices[i] = face.to_square(size)
                squares[i] = crop(seen, matrices[i], size)
        restored = self._restore_each([FaceReport(face.box, face.score) for face in doubtful], squares)
        confirmed = []
        for i, square in restored.items():
            again = [face.moved_from(matrices[i]) for face in find(square, threshold)]
            confirmed += [face for face in again if same_face(face, doubtful[i])][:1]
        return confirmed

    def _restore_faces(
        self, seen: Colours, faces: Sequence[Face], strength: float
    ) -> tuple[Colours, NDArray, list[FaceReport]]:
        """Return a picture's changes at full strength (H,W,3), their weights (H,W), and a report of each face."""
        total, weight = np.zeros_like(seen), np.zeros(seen.shape[:2], np.float32)
        reports = [FaceReport(f.box, f.score, None if f.landmarks is None else f.landmarks.tolist()) for f in faces]
        size = self.settings.face_size
        squares: dict[int, tuple[NDArray, Colours]] = {}
        for i, face in enumerate(faces):
            with noting(reports[i]):
                matrix = face.to_square(size)
                squares[i] = (matrix, crop(seen, matrix, size))
        start = time.perf_counter()
        restored = self._restore_each(reports, {i: square for i, (_, square) in squares.items()})
        seconds = (time.perf_counter() - start) / max(1, len(restored))
        for i, image in restored.items():
            matrix, square = squares[i]
            paste(image - square, total, weight, matrix)
            reports[i].seconds = seconds
            reports[i].identity_change = self._identity_change(square, square + strength * (image - square))
        total /= np.maximum(weight, 1)[..., None]
        return total, weight, reports

    def _restore_each(self, reports: Sequence[FaceReport], squares: dict[int, Colours]) -> dict[int, Colours]:
        """Restore all squares together. If that fails, restore them one by one, and leave out those that fail."""
        with suppress(*ERRORS):  # a traceback in `except` would keep the failed batch in memory
            return dict(zip(squares, self.restore_squares(list(squares.values())), strict=True))
        restored: dict[int, Colours] = {}
        for i, square in squares.items():
            with noting(reports[i]):
                (restored[i],) = self.restore_squares([square])
        return restored

    def _identity_change(self, before: Colours, after: Colours) -> float | None:
        """Return 1 - cosine of both pictures' vectors; None unless a recogniser finds one face in each picture."""
        if self._recogniser is None:
            return None
        try:
            vectors = [self._recogniser.embed_only_face(to_bgr(image)) for image in (before, after)]
        except ERRORS:
            return None
        old, new = vectors
        return None if old is None or new is None else float(1 - old @ new)
