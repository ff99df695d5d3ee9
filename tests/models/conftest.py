"""What the tests of the models share."""

from tests.backbones.conftest import no_network, seed

__all__ = ["no_network", "seed"]
