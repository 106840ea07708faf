"""What some options can be. These are copies, because importing the package that knows them takes seconds."""

SPLITS = ("train", "val", "test")
KERNEL_METHODS = ("chakrabarti", "boracchi-foi")
PRIOR_INPUTS = ("pm1", "caffe255", "rgb255")
CHANNEL_ORDERS = ("rgb", "bgr")
PICTURE_CHOICES = ("random", "worst", "median", "best")
