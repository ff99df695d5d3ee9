"""Relations as a training task: splits, batches, trainer, predictions and metrics."""
