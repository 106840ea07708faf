"""What helps where the memory of a GPU does not suffice."""

import torch

WHAT_HELPS = {
    "train": "A training step needs less with a smaller datasets:train:batch_size_per_gpu, train:accumulate: 2 or "
    "more, network_g:use_checkpoint: true, train:amp: bfloat16 or train:cuda_graph: false; a validation with val:tile "
    "or val:amp: bfloat16. Checkpoints are whole: go on from the last one with --auto_resume.",
    "test": "Less is needed with val:tile, val:amp: bfloat16, a smaller val:batch_size or fewer --workers. What was "
    "measured is kept: the same command goes on.",
    "restore": "Less is needed with --amp bfloat16, a smaller --face-size, --passes 1 or --batch-size 1; --device cpu "
    "needs none. What was restored is kept.",
}
MOST_SENTENCES = 2  # of torch's message: what was asked for, and what the GPU has


def explain(error: torch.OutOfMemoryError, command: str) -> str:
    """Return one line: what torch says, and what helps in a command."""
    last = str(error).strip().split("\n")[-1].split("OutOfMemoryError: ")[-1]  # from a worker it follows a traceback
    reason = ". ".join(sentence.rstrip(".") for sentence in last.split(". ")[:MOST_SENTENCES])
    return f"{reason}. {WHAT_HELPS.get(command, '')}".strip()
