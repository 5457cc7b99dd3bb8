"""Everything that touches a torch model: loading, quantization, adapters. Only child processes import it."""

import os

os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # it would let a pickle among weights or checkpoints run as code
