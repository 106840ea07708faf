"""Compare restored images with sharp ones of the same names: PSNR, SSIM, and SSIM-3D, the SSIM of the paper's tables.

    python examples/measure_two_folders.py restored sharp

Both folders hold PNGs.
"""

import sys
from pathlib import Path

import cv2

# dfpg_plugin is imported first: without it, BasicSR can't be imported beside today's torchvision.
from dfpg_plugin import ssim_3d

# isort: split
from basicsr.metrics import calculate_psnr, calculate_ssim

restored_folder, sharp_folder = map(Path, sys.argv[1:3])
rows = []
for file in sorted(restored_folder.glob("*.png")):
    restored, sharp = cv2.imread(str(file)), cv2.imread(str(sharp_folder / file.name))  # uint8 (H,W,3)
    if restored is None or sharp is None:
        sys.exit(f"{file.name}: is not an image in both folders")
    # BasicSR's metrics can leave out pixels at the border; the paper's tables leave out none.
    psnr, ssim = calculate_psnr(restored, sharp, crop_border=0), calculate_ssim(restored, sharp, crop_border=0)
    rows.append((psnr, ssim, ssim_3d(restored, sharp)))
    print("{}: PSNR {:.2f} dB, SSIM {:.4f}, SSIM-3D {:.4f}".format(file.name, *rows[-1]))

means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
print("mean of {}: PSNR {:.2f} dB, SSIM {:.4f}, SSIM-3D {:.4f}".format(len(rows), *means))
