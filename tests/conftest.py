"""Settings every test runs under."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # small tensors gain nothing from more, and parallel workers share the cores
settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("steady")
