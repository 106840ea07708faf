"""Train a network of your own with the prior loss, in a plain PyTorch loop.

    python examples/prior_loss_in_torch.py folder_of_sharp_faces 1000

The second argument is the number of steps.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from dfpg_plugin import blur, prior_loss, synthesise_kernels
from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor

folder, steps, rng = Path(sys.argv[1]), int(sys.argv[2]), np.random.default_rng(0)
# The data: sharp faces as float RGB in [0,1], and 20 random motion kernels of 13 x 13 px.
images = [cv2.resize(cv2.imread(str(file)), (64, 64)) for file in sorted(folder.glob("*.png"))]
faces = [image[..., ::-1].astype("float32") / 255 for image in images]
kernels = synthesise_kernels(13, 20, rng)
# Put your own network here. This one returns what has to be added to the blurred image.
network = nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 3, 5, padding=2))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
# The frozen network whose features the loss compares: RGB in [0,1] becomes three feature maps. "stand-in" comes with
# the package; the path of a VGGFace file gives the paper's prior.
extractor = VGGFaceFeatureExtractor(weights="stand-in")
for step in range(1, steps + 1):
    chosen = [faces[i] for i in rng.integers(len(faces), size=4)]
    pairs = np.array([(blur(face, kernels[rng.integers(20)]), face) for face in chosen])
    blurred, sharp = torch.from_numpy(pairs).permute(1, 0, 4, 2, 3)  # two batches, (4,3,64,64)
    restored = blurred + network(blurred)
    loss = nn.functional.l1_loss(restored, sharp) + prior_loss(extractor(restored), extractor(sharp))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}")
