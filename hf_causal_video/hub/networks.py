"""Local vision networks that travel with a checkpoint: without them it would answer only where it was trained.

A network that lies in the checkpoint's folder, or next to it, is uploaded under `networks/`; elsewhere it is found
there by its fingerprint, see `features.networks.find_network`.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from hf_causal_video.features.networks import NETWORKS, find_network, network_files
from hf_causal_video.utils.errors import CausalVideoError

FIELDS = {  # in a config: provenance, name of a network in it, its revision
    "frame_model": ("feature_provenance", "frame_revision"),
    "object_model": ("feature_provenance", "object_revision"),
    "detector": ("trajectory_provenance", "revision"),
}


@dataclass(frozen=True)
class CarriedNetwork:
    """A network that is uploaded with its checkpoint.

    Args:
        field: of the provenance that names it.
        name: its folder in the repository.
        files: its files.
    """

    field: str
    name: str
    files: list[Path]


def carried_networks(folder: Path, config: PreTrainedConfig) -> list[CarriedNetwork]:
    """List the local networks that lie in or next to a checkpoint; one with pickled weights stays at home.

    Args:
        folder: of the checkpoint.
        config: of its model.
    """
    carried: list[CarriedNetwork] = []
    taken: dict[str, Path] = {}
    for field, (card, revision) in FIELDS.items():
        provenance = getattr(config, card, None) or {}
        name = provenance.get(field)
        if not name or not str(provenance.get(revision)).startswith("sha256-"):
            continue
        try:
            network = Path(find_network(name, provenance[revision], folder, field)).resolve()
        except CausalVideoError:
            continue  # the push says that only this machine has it
        files = network_files(network)
        if not network.is_relative_to(folder.resolve().parent) or any(file.suffix == ".bin" for file in files):
            continue
        place = f"{NETWORKS}/{network.name}"
        if taken.setdefault(place, network) != network:  # two networks of one name
            place = f"{NETWORKS}/{field}/{network.name}"
        carried.append(CarriedNetwork(field, place, files))
    return carried


def rename_networks(config: dict[str, object], networks: list[CarriedNetwork]) -> dict[str, object]:
    """Return the fields of a config in which networks that travel are called by their names in the repository."""
    renamed = dict(config)
    for network in networks:
        card = FIELDS[network.field][0]
        provenance = renamed.get(card)
        assert isinstance(provenance, dict)
        renamed[card] = {**provenance, network.field: network.name}
    return renamed
