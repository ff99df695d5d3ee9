"""What lmms-eval reads of a plug-in: model name to class, in a module of the model's name."""

AVAILABLE_MODELS = {"selected_frames": "SelectedFrames"}
