"""Find out within five seconds whether the Hub can be reached.

Why: without a network the client tries each of several files again and again, and gives up after a minute with a
sentence about a file. One connection tells the same at once; what was downloaded before can then still be used.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

PROBE_S = 5.0


def hub_is_reachable(timeout_s: float = PROBE_S) -> bool:
    """Return whether a connection to the Hub, or to the proxy on the way to it, can be opened.

    Args:
        timeout_s: seconds to wait, including the look-up of the name.
    """
    address = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.hostname or ""):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or (443 if address.scheme == "https" else 80)
    reached: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout_s).close()
            reached.append(True)
        except OSError:
            pass

    # in a thread: the look-up of a name has no timeout of its own
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(reached)


@contextmanager
def offline_where_unreachable() -> Iterator[bool]:
    """Use what was downloaded before, and nothing else, while the Hub cannot be reached; yield whether it can."""
    offline = constants.HF_HUB_OFFLINE
    reachable = offline or hub_is_reachable()
    constants.HF_HUB_OFFLINE = offline or not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = offline
