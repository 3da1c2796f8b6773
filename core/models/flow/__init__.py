"""Our flow generator, not the paper's: `velocity` is the network, `matching` its training."""
