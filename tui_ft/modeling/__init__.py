"""Everything that touches a torch model: loading, quantization, adapters. Only child processes import it."""
