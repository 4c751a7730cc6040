"""Settings every test runs under."""

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():  # read when Triton is first imported, by whichever test that is
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)  # small tensors gain nothing from more, and parallel workers share the cores
settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("steady")
