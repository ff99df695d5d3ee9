"""A pytest plugin that makes PyPI's torchvision importable beside CPU torch.

The wheel on PyPI is a CUDA build: its compiled operators do not load, and its import stops at the first one missing.
The transforms, all that video processors use of it, are Python. Naming the operators, without a body, lets them load:

    pip install --no-deps --target .venv/torchvision torchvision==0.28.0 num2words docopt
    PYTHONPATH=.venv/torchvision python -m pytest -p tests.torchvision_operators tests/selection/test_vlm.py
"""

import torch

library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    try:
        getattr(torch.ops.torchvision, _name)
    except AttributeError:
        library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
