"""Train the stand-in prior on LFW's training people.

Oxford's VGGFace weights may not be redistributed. This trains ten of VGG-16's convolutions (up to relu4_3) to tell
LFW's training people apart, measures on validation and test people how well it verifies faces, and stores the
convolutions up to relu3_3, the layers that the prior uses, in half precision.

    basicsr prepare faces -o datasets/LFW --lfw lfw-deepfunneled.tgz
    python scripts/train_standin_prior.py datasets/LFW --out dfpg_plugin/weights/standin_prior_lfw.safetensors

It runs on a GPU where there is one. On a CPU a few iterations show that it works.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import center_crop, rgb_to_grayscale

from dfpg_plugin.archs.vggface_arch import build_layers
from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.data.people import TEST, TRAIN, VAL
from dfpg_plugin.files import whole_file
from dfpg_plugin.metrics.weights import best_device

LAST_TRAINED, LAST_STORED = "relu4_3", "relu3_3"
SIZE = 128  # px, of the input: FFHQ's square in the middle of the prepared faces
MOST_TRAINED, MOST_VERIFIED = 14, 10  # pictures of a person, so that the most photographed do not count for most
EMBEDDING, DROPOUT = 256, 0.4
SCALE, MARGIN = 24.0, 0.1  # of the additive margin softmax
MARGIN_FROM = 0.2  # of the iterations: until then there is no margin
DEGREES = 15.0  # that a face is turned at most, to both sides
WINDOWS = (0.7, 0.95)  # of a face's side, that the network is shown; FFHQ's square is 0.8
SHIFT = 0.12  # of the window's side, at most
JITTER = 0.4  # of brightness, contrast and saturation: factors in [0.6, 1.4]
PRINT_EVERY = 100


class Faces(NamedTuple):
    """The faces of a split."""

    images: Tensor  # uint8 RGB (N,3,H,W)
    people: Tensor  # int64 (N,), numbers from 0


class Verification(NamedTuple):
    """How well a score tells whether two faces are one person's."""

    num_same: int  # pairs of one person
    num_different: int
    accuracy: float  # the best mean of both kinds' shares judged rightly, over all thresholds
    auc: float  # the probability that a pair of one person scores above a pair of two


class Recogniser(nn.Module):
    """VGG-16 up to relu4_3, features averaged on a 4x4 grid: (B,3,128,128) in [-1,1] -> unit vectors (B,256)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = build_layers(LAST_TRAINED)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(512 * 16, EMBEDDING)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings, of length 1."""
        return F.normalize(self.head(self.features(x)).float())


class MarginSoftmax(nn.Module):
    """The additive margin softmax (Wang et al. 2018): cross-entropy of scaled cosines to a unit vector per person."""

    def __init__(self, num_people: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(num_people, EMBEDDING))

    def forward(self, embeddings: Tensor, people: Tensor, margin: float) -> Tensor:
        """Return the mean loss; ``margin`` is what the own person's cosine has to be ahead by."""
        cosines = embeddings @ F.normalize(self.centres).T
        ahead = margin * F.one_hot(people, cosines.shape[1])
        return F.cross_entropy(SCALE * (cosines - ahead), people)


def load_faces(folder: Path, least: int, most: int) -> Faces:
    """Read the first ``most`` faces of each person below ``folder`` who has ``least`` or more.

    Raises UserError where there is no such person.
    """
    by_person: dict[str, list[str]] = {}
    for name in list_images(check_folder("faces", folder)):
        by_person.setdefault(PurePosixPath(name).parts[0], []).append(name)
    kept = [names[:most] for names in by_person.values() if len(names) >= least]
    if not kept:
        raise UserError(f"{folder}: nobody has {least} pictures. Make it with: basicsr prepare faces --lfw.")
    with ThreadPoolExecutor() as pool:  # OpenCV decodes without Python's lock
        images = list(pool.map(lambda name: read_image(folder / name)[..., ::-1], chain(*kept)))
    people = np.repeat(np.arange(len(kept)), [len(names) for names in kept])
    return Faces(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(people))


def to_input(images: Tensor) -> Tensor:
    """Return the central 128 px of uint8 faces in [-1,1]."""
    return center_crop(images, [SIZE, SIZE]).float() / 127.5 - 1


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """Return ``count`` random numbers in [low,high]."""
    return low + (high - low) * torch.rand(count, device=device)


def augment(images: Tensor) -> Tensor:
    """Turn, scale, shift, mirror and colour uint8 faces (B,3,H,W), each in its own way; return (B,3,128,128) in [-1,1].

    Written out, because torchvision's transforms draw once for a whole batch.
    """
    count, device = len(images), images.device
    angle = uniform(count, -DEGREES, DEGREES, device) * (math.pi / 180)
    window = uniform(count, *WINDOWS, device)
    mirror = (torch.rand(count, device=device) < 0.5).float() * -2 + 1
    cos, sin = window * angle.cos(), window * angle.sin()
    # in affine_grid's coordinates a side is 2 long
    dx, dy = (2 * window * uniform(count, -SHIFT, SHIFT, device) for _ in range(2))
    matrix = torch.stack([mirror * cos, -sin, dx, mirror * sin, cos, dy], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrix, [count, 3, SIZE, SIZE], align_corners=False)
    faces = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    return 2 * colour(faces) - 1


def colour(faces: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of RGB faces (B,3,H,W) in [0,1], each by its own factors."""
    brightness, contrast, saturation = uniform(3 * len(faces), 1 - JITTER, 1 + JITTER, faces.device).view(
        3, -1, 1, 1, 1
    )
    faces = (brightness * faces).clamp(0, 1)
    mean = rgb_to_grayscale(faces).mean(dim=(2, 3), keepdim=True)
    faces = torch.lerp(mean, faces, contrast).clamp(0, 1)
    return torch.lerp(rgb_to_grayscale(faces).expand_as(faces), faces, saturation).clamp(0, 1)


def train(faces: Faces, iterations: int, batch: int, lr: float) -> Recogniser:
    """Train with AdamW and a cosine decay, in bfloat16 on a GPU; return the network."""
    device = faces.images.device
    net = Recogniser().to(device, memory_format=torch.channels_last)
    loss_of = MarginSoftmax(int(faces.people.max()) + 1).to(device)
    optimizer = torch.optim.AdamW([*net.parameters(), *loss_of.parameters()], lr=lr, weight_decay=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    start = time.perf_counter()
    for iteration in range(1, iterations + 1):
        picked = torch.randint(len(faces.people), (batch,), device=device)
        inputs = augment(faces.images[picked]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embeddings = net(inputs)
        margin = MARGIN if iteration > MARGIN_FROM * iterations else 0.0
        loss = loss_of(embeddings, faces.people[picked], margin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if iteration % PRINT_EVERY == 0 or iteration == iterations:
            print(f"iteration {iteration}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    return net


@torch.no_grad()
def embed(net: Recogniser, images: Tensor, batch: int = 256) -> Tensor:
    """Return unit vectors (N,256): the sums of those of the faces and of their mirror images."""
    net.eval()
    sums = [net(x := to_input(part)) + net(x.flip(3)) for part in images.split(batch)]
    return F.normalize(torch.cat(sums))


def verify(embeddings: Tensor, people: Tensor) -> Verification:
    """Judge all pairs of unit vectors (N,D) by their cosine."""
    first, second = torch.triu_indices(len(people), len(people), 1, device=people.device)
    scores = (embeddings @ embeddings.T)[first, second].double().cpu()
    same = (people[first] == people[second]).cpu()
    thresholds, negatives = scores[same].sort().values, scores[~same].sort().values
    # for each pair of one person: how many pairs of two lie below it, and how many at most as high
    below = torch.searchsorted(negatives, thresholds) / len(negatives)
    not_above = torch.searchsorted(negatives, thresholds, right=True) / len(negatives)
    accepted = 1 - torch.searchsorted(thresholds, thresholds) / len(thresholds)
    accuracy = ((accepted + below) / 2).max().item()  # the best threshold is some pair's score
    return Verification(len(thresholds), len(negatives), accuracy, ((below + not_above) / 2).mean().item())


def report(net: Recogniser, folder: Path, device: torch.device) -> dict[str, Verification]:
    """Verify the people that were never trained on, and print how well."""
    found = {}
    for split in (VAL, TEST):
        faces = load_faces(folder / split, 1, MOST_VERIFIED)
        found[split] = result = verify(embed(net, faces.images.to(device)), faces.people.to(device))
        print(
            f"{split}: {100 * result.accuracy:.1f} % balanced accuracy, AUC {result.auc:.3f} "
            f"({result.num_same} pairs of one person, {result.num_different} of two)"
        )
    return found


def store(net: Recogniser, path: Path, metadata: dict[str, str]) -> None:
    """Write the convolutions up to relu3_3 in half precision."""
    names = set(build_layers(LAST_STORED).state_dict())
    state = {
        name: value.half().cpu().contiguous() for name, value in net.features.state_dict().items() if name in names
    }
    with whole_file(path) as file:
        file.write(save(state, {"input": "pm1", **metadata}))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faces", type=Path, help="what `basicsr prepare faces --lfw` wrote: train, val, test")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--iterations", type=int, default=1664)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, report, store."""
    args = parse(arguments)
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    device = best_device()
    faces = load_faces(args.faces / TRAIN, 2, MOST_TRAINED)
    people = int(faces.people.max()) + 1
    print(f"{len(faces.people)} pictures of {people} people, on {device}")
    start = time.perf_counter()
    net = train(Faces(faces.images.to(device), faces.people.to(device)), args.iterations, args.batch, args.lr)
    seconds = time.perf_counter() - start
    found = report(net, args.faces, device)
    settings = (
        f"iterations {args.iterations}, batch {args.batch}, lr {args.lr}, seed {args.seed}, seconds {seconds:.0f}"
    )
    name = f"stand-in prior, not VGGFace: VGG-16 up to relu3_3, of a network that tells {people} of LFW's people apart"
    held_out = json.dumps({split: result._asdict() for split, result in found.items()})
    store(net, args.out, {"name": name, "training": settings, "held_out": held_out})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"train_standin_prior.py: error: {error}") from error
