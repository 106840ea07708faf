"""Restore faces in photographs: what ``basicsr restore`` does, for a notebook as well."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import cv2
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
from dfpg_plugin.restoration.faces import Colours, Face, as_lists, crop, paste, same_face, to_bgr, without_doubles
from dfpg_plugin.restoration.network import GREY, SEES, choose_device, load_attention, load_described
from dfpg_plugin.restoration.settings import ALIGNED, PHOTO, FaceReport, Settings
from dfpg_plugin.speed.acceleration import autocast, channels_last
from dfpg_plugin.speed.tiles import restore_in_tiles
from dfpg_plugin.speed.winograd import with_winograd

TILE, TILE_OVERLAP = 512, 64  # px
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
MOST_DOUBTFUL = 16  # faces of a picture that are looked at again, the surest: each costs as much as a restored one
MULTIPLE = 8  # to which what is given to a network is padded
File = str | Path
ERRORS = (ValueError, RuntimeError, ArithmeticError, MemoryError, cv2.error)  # of one face, which is then left as it is


@dataclass
class Restored:
    """A restored picture and what was done to it."""

    picture: Picture
    faces: list[FaceReport] = field(default_factory=list)


class DFPGRestorer:
    """Restores faces with any registered network, by default the package's own.

    ``restore`` takes a path, a PIL image or an array, BGR as OpenCV has it or RGB, and returns the same kind.
    """

    def __init__(
        self, weights: File | None = None, option_file: File | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        network, self.about = load_described(weights, option_file)
        self._attention = load_attention(weights)
        name = self.settings.recogniser
        if self.settings.mode == PHOTO and not self.settings.boxes:  # what is missing is told before the first picture
            load_detector(self.settings.detector, self.settings.detector_weights)
        self._recogniser: Recogniser | None = None if name is None else load_recogniser(name, None)
        self.sees_grey = self.about.get(SEES) == GREY
        self.device = choose_device(self.settings.device)
        if self.device.type == "cpu":
            torch.set_flush_denormal(True)
            if torch.get_num_threads() == 1:  # its transforms use no more
                network = with_winograd(network)
        self.estimates_priors = estimates_priors(network)
        self.network: nn.Module = channels_last(network.to(self.device))

    @overload
    def restore(self, image: PillowImage.Image, colours: str = "bgr") -> PillowImage.Image: ...

    @overload
    def restore(self, image: File | NDArray, colours: str = "bgr") -> NDArray: ...

    def restore(self, image: File | NDArray | PillowImage.Image, colours: str = "bgr") -> NDArray | PillowImage.Image:
        """Restore an array (uint8 or uint16, (H,W), (H,W,3) or (H,W,4)), a PIL image or a file's path.

        ``colours`` of arrays: ``bgr`` or ``rgb``. A path gives an array; what comes back for a PIL image of each mode,
        :func:`restore_image` says. Raises UserError where nothing can be done.
        """
        check_choice("colours", colours, ("bgr", "rgb"))
        if isinstance(image, str | Path):
            return self.restore_picture(read_picture(image)).picture.array(colours)
        if isinstance(image, PillowImage.Image):
            return restore_image(image, lambda picture: self.restore_picture(picture).picture)
        array = np.asarray(image)
        if array.dtype.name not in ("uint8", "uint16") or array.shape[2:] not in ((), (3,), (4,)) or array.ndim < 2:
            raise UserError(
                f"image: expected uint8 or uint16 of (H,W), (H,W,3) or (H,W,4), got {array.dtype} {array.shape}."
            )
        picture = Picture(array if colours == "bgr" else swap_red_and_blue(array))
        return self.restore_picture(picture).picture.array(colours)

    def restore_picture(self, picture: Picture) -> Restored:
        """Restore the faces of a photograph, or in mode ``aligned`` the whole picture."""
        change, where, reports = self.restore_colours(picture.colours(), self.settings.mode, self.settings.strength)
        return Restored(picture.with_changes(change, where) if where.any() else picture, reports)

    def restore_colours(
        self, seen: Colours, mode: str, strength: float
    ) -> tuple[Colours, NDArray[np.bool_], list[FaceReport]]:
        """Return the changes to upright RGB (H,W,3) in [0,1], where they count (H,W), and a report of each face.

        ``strength``, from 0 to 1, is the part of the change that is returned. Raises UserError where it is no such
        number.
        """
        check_share("strength", strength)
        if mode == ALIGNED:
            change, where, reports = self._restore_aligned(seen, strength)
            return strength * change, where, reports
        faces = [Face(box) for box in self.settings.boxes]
        change, weight, reports = (
            self._restore_faces(seen, faces, strength) if faces else self._find_and_restore(seen, strength)
        )
        return strength * change, weight > 0, reports

    def restore_squares(self, squares: Sequence[Colours]) -> list[Colours]:
        """Restore RGB faces (H,W,3) in [0,1], in batches of equal sizes."""
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
        """Return how much each channel of an estimated prior (1,C,H,W) counts, layers from 1.

        By the discriminator's attention where the weights' file carries it, else by the mean magnitude.
        """
        prior = prior.float().cpu()
        if self._attention is None:
            return prior[0].abs().mean(dim=(1, 2))
        return self._attention[layer - 1].attention(prior)[0, :, 0, 0]  # type: ignore[operator]

    def as_seen(self, batch: torch.Tensor) -> torch.Tensor:
        """Return RGB (B,3,H,W) as the network knows pictures: without colours where it was trained without."""
        if not self.sees_grey:
            return batch
        return (batch * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)

    @torch.no_grad()
    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        height, width = batch.shape[-2:]
        given, batch = batch, self.as_seen(batch)
        padded = F.pad(batch, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        padded = padded.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.settings.amp, self.device), explaining(self.network, padded):
            result = restore_in_tiles(self.network, padded, TILE, TILE_OVERLAP)
        result = result[..., :height, :width].float().cpu()
        if self.sees_grey:  # the colours stay, the change of the lightness is added to each
            result = given + (result - batch).mean(dim=1, keepdim=True)
        result = result.clamp(0, 1)
        if not torch.isfinite(result).all():
            raise UserError("the network returned numbers that are not finite")
        return result

    def _restore_aligned(self, seen: Colours, strength: float) -> tuple[Colours, NDArray[np.bool_], list[FaceReport]]:
        height, width = seen.shape[:2]
        report = FaceReport((0, 0, width, height), None)
        start = time.perf_counter()
        with _noting(report):
            (restored,) = self.restore_squares([seen])
            report.seconds = time.perf_counter() - start
            report.identity_change = self._identity_change(seen, seen + strength * (restored - seen))
            return restored - seen, np.ones((height, width), bool), [report]
        return np.zeros_like(seen), np.zeros((height, width), bool), [report]

    def _find_and_restore(self, seen: Colours, strength: float) -> tuple[Colours, NDArray, list[FaceReport]]:
        """Restore the faces that are sure, and of the doubtful ones those that a second look confirms."""
        settings = self.settings
        detector = load_detector(settings.detector, settings.detector_weights)
        threshold = detector.threshold if settings.threshold is None else settings.threshold
        least = threshold - detector.doubt if settings.passes > 1 else threshold
        found = detector.find(seen, least)
        sure = [face for face in found if face.score is not None and face.score >= threshold]
        doubtful = without_doubles(found)[len(without_doubles(sure)) :][:MOST_DOUBTFUL]
        confirmed = self._confirmed(seen, doubtful, detector.find, threshold)
        return self._restore_faces(seen, without_doubles([*sure, *confirmed]), strength)

    def _confirmed(self, seen: Colours, doubtful: Sequence[Face], find: Find, threshold: float) -> list[Face]:
        """Return those faces that reach the threshold in their restored square, where they lie there."""
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
        """Return the full changes of a picture (H,W,3), where they are (H,W), and a report of each face.

        How much the identity changes is measured at ``strength``.
        """
        total, weight = np.zeros_like(seen), np.zeros(seen.shape[:2], np.float32)
        reports = [FaceReport(face.box, face.score, as_lists(face.landmarks)) for face in faces]
        size = self.settings.face_size
        squares: dict[int, tuple[NDArray, Colours]] = {}
        for i, face in enumerate(faces):
            with _noting(reports[i]):
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
        """Restore together; where that fails, one by one, so that only those that fail are left out."""
        with suppress(*ERRORS):  # whose traceback would keep the batch in memory
            return dict(zip(squares, self.restore_squares(list(squares.values())), strict=True))
        restored: dict[int, Colours] = {}
        for i, square in squares.items():
            with _noting(reports[i]):
                (restored[i],) = self.restore_squares([square])
        return restored

    def _identity_change(self, before: Colours, after: Colours) -> float | None:
        """Return 1 - cosine of both vectors; None where not exactly one face is found, or the recogniser fails."""
        if self._recogniser is None:
            return None
        try:
            vectors = [self._recogniser.embed_only_face(to_bgr(image)) for image in (before, after)]
        except ERRORS:
            return None
        return None if any(vector is None for vector in vectors) else float(1 - vectors[0] @ vectors[1])  # type: ignore[operator]


@contextmanager
def _noting(report: FaceReport) -> Iterator[None]:
    """Note in a face's report what fails. Where a single face needs more than the memory, all of that size do."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except ERRORS as error:
        report.error = str(error)
