"""The values that some options accept. These are copies, because importing ``dfpg_plugin`` takes seconds."""

SPLITS = ("train", "val", "test")
KERNEL_METHODS = ("chakrabarti", "boracchi-foi")
PRIOR_INPUTS = ("pm1", "caffe255", "rgb255")
CHANNEL_ORDERS = ("rgb", "bgr")
PICTURE_CHOICES = ("random", "worst", "median", "best")
