"""How much of the demo's blur linear filters undo: what a gain in dB on its validation pairs means.

Wiener filters with the power spectrum of the training faces and the noise's: one that knows the kernel of each picture
(what a blind method can't know), and one for all pictures, from the mean kernel of the training set.

    python benchmarks/demo_bounds.py
"""

import numpy as np
import yaml
from numpy.typing import NDArray

from dfpg_plugin.data.degradation import GREY_LEVELS, blur
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.data.faces import orl_faces

MARGIN = 16  # px, twice around each picture: reflected, then faded to its mean, since the filters are circular
SHAPE = (112 + 4 * MARGIN, 92 + 4 * MARGIN)
Plane = NDArray[np.float64]


def transfer(kernel: Plane) -> NDArray[np.complex128]:
    """Return the transfer function of circular convolution with a centred kernel (k,k)."""
    size = len(kernel)
    padded = np.zeros(SHAPE)
    padded[:size, :size] = kernel
    return np.fft.fft2(np.roll(padded, (-(size // 2), -(size // 2)), (0, 1)))


def extend(image: Plane) -> Plane:
    """Return an image (112,92) less its mean, with a margin that ends in 0."""
    reflected = np.pad(image - image.mean(), MARGIN, mode="reflect")
    return np.pad(reflected, MARGIN, mode="linear_ramp")


def apply(image: Plane, numerator: NDArray, denominator: NDArray) -> Plane:
    """Filter an image (112,92), its mean left alone."""
    filtered = np.fft.ifft2(np.fft.fft2(extend(image)) * numerator / denominator).real
    return filtered[2 * MARGIN : -2 * MARGIN, 2 * MARGIN : -2 * MARGIN] + image.mean()


def psnr(image: Plane, gt: Plane) -> float:
    """Return the PSNR of two planes in [0,1], after rounding to 8 bits."""
    planes = [np.rint(np.clip(p, 0, 1) * GREY_LEVELS) for p in (image, gt)]
    return float(10 * np.log10(GREY_LEVELS**2 / np.mean((planes[0] - planes[1]) ** 2)))


def main() -> None:
    """Print the mean PSNR of the demo's validation pairs: blurred, one filter, a filter for each kernel."""
    with open("options/train_dfpg_orl.yml", encoding="utf-8") as file:
        datasets = yaml.safe_load(file)["datasets"]
    train = FaceBlurDataset({**datasets["train"], "phase": "train", "seed": 0})
    val = FaceBlurDataset({**datasets["val"], "phase": "val"})
    source = orl_faces("train")
    faces = [source.read(name)[..., 0] / GREY_LEVELS for name in source.names]
    signal = np.mean([np.abs(np.fft.fft2(extend(x))) ** 2 for x in faces], axis=0) / np.prod(SHAPE)
    noise = (val.options.noise_sigma / GREY_LEVELS) ** 2
    known = np.array([transfer(k) for kernels in train.kernels.values() for k in kernels])
    mean, power = known.mean(axis=0), (np.abs(known) ** 2).mean(axis=0)
    rows = []
    for index, pair in enumerate(val):
        rng = np.random.default_rng([val.seed, 0, index])  # the draws of FaceBlurDataset
        kernel = rng.choice(val.kernels[rng.choice(val.options.kernel_sizes)])
        lq, gt = (pair[key][0].double().numpy() for key in ("lq", "gt"))
        if np.abs(blur(gt.astype(np.float32)[..., None], kernel)[..., 0] - lq).std() > 2 * np.sqrt(noise):
            raise RuntimeError("the data set draws its kernels in another way; mend this script")
        h = transfer(kernel)
        one = apply(lq, np.conj(mean) * signal, power * signal + noise)
        each = apply(lq, np.conj(h) * signal, np.abs(h) ** 2 * signal + noise)
        rows.append([psnr(image, gt) for image in (lq, one, each)])
        if index == len(val) - 1:
            break
    blurred, one_filter, known_kernel = np.mean(rows, axis=0)
    print(f"blurred {blurred:.2f} dB")
    print(f"one linear filter for all {one_filter - blurred:+.2f} dB")
    print(f"a linear filter for each kernel, if it were known {known_kernel - blurred:+.2f} dB")


if __name__ == "__main__":
    main()
