"""Explain what helps if a GPU runs out of memory."""

import torch

WHAT_HELPS = {
    "train": "A training step needs less memory with a smaller datasets:train:batch_size_per_gpu, train:accumulate: 2 "
    "or more, network_g:use_checkpoint: true, train:amp: bfloat16 or train:cuda_graph: false. A validation needs less "
    "with val:tile or val:amp: bfloat16. The last checkpoint is whole: --auto_resume goes on from it.",
    "test": "The test needs less memory with val:tile, val:amp: bfloat16, a smaller val:batch_size or fewer --workers. "
    "The measured images are kept: run the same command to go on.",
    "restore": "Less memory is needed with --amp bfloat16, a smaller --face-size, --passes 1 or --batch-size 1. "
    "--device cpu needs no GPU. The restored files are kept.",
}
MOST_SENTENCES = 2  # of torch's message: the memory that was asked for, and the memory that the GPU has


def explain(error: torch.OutOfMemoryError, command: str) -> str:
    """Return one line: torch's message, and what helps in ``command``, such as ``train``."""
    # an error from a worker process has the worker's traceback before the message
    last = str(error).strip().split("\n")[-1].split("OutOfMemoryError: ")[-1]
    reason = ". ".join(sentence.rstrip(".") for sentence in last.split(". ")[:MOST_SENTENCES])
    return f"{reason}. {WHAT_HELPS.get(command, '')}".strip()
