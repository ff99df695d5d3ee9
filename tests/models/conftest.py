"""What the tests of the models share."""

from tests.backbones.conftest import no_network

__all__ = ["no_network"]
