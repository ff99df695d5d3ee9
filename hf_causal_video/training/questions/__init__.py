"""Questions as a training task: splits, model, batches, predictions and metrics."""
