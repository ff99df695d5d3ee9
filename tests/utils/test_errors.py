"""How commands end: one sentence for each fault of files and network, Ctrl-C, and no waiting for a network."""

import errno
import socket
import time
from functools import partial

import pytest
from huggingface_hub import constants
from transformers import AutoConfig

from hf_causal_video.models import hub_access
from hf_causal_video.models.loading import open_pretrained
from hf_causal_video.utils.errors import CausalVideoError, as_message, first_line, reworded, run_command
from hf_causal_video.utils.files import write_whole


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.mp4"), "cannot read a.mp4: found no such"),
        (OSError(errno.ENOSPC, "No space left on device", "out.png"), "cannot write out.png: found no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/nowhere/out.png"), "cannot write /nowhere/out.png"),
        (OSError(errno.EROFS, "Read-only file system", "out.html"), "cannot write out.html"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "cannot reach the Hub"),
        (OSError("We couldn't open it"), "cannot read a file or repository"),
    ],
)
def test_each_fault_has_its_sentence(fault, words):
    message = str(as_message(fault))
    assert message.startswith(words) and message.count("Fix:") == 1


def test_what_a_client_of_the_network_wraps_is_about_the_hub():
    try:
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as cause:
            raise OSError("We couldn't connect") from cause
    except OSError as error:
        assert str(as_message(error)).startswith("cannot reach the Hub: found we couldn't connect")


def test_a_command_ends_with_one_sentence(capsys):
    def stopped():
        raise KeyboardInterrupt

    def unwritable():
        write_whole("/proc/no/such/place.png", b"")

    assert run_command("hf-causal-video answer", stopped) == 130
    told = capsys.readouterr().err.strip()
    assert told == "hf-causal-video answer: stopped by Ctrl-C."
    assert run_command("x", unwritable) == 2
    assert "/proc/no/such/place.png" in capsys.readouterr().err


def test_errors_of_other_libraries_are_reworded_and_our_own_pass():
    with pytest.raises(CausalVideoError, match="a.csv cannot be read: found one line; expected csv") as caught:
        with reworded((ValueError, KeyError), "a.csv cannot be read", expected="csv"):
            raise ValueError("one line\nand many more")
    assert isinstance(caught.value.__cause__, ValueError)
    own = CausalVideoError("row 3", found=1, expected=2, fix="correct it")
    with pytest.raises(CausalVideoError, match="^row 3"), reworded(ValueError, "a.csv", expected="csv"):
        raise own
    with pytest.raises(OSError), reworded(ValueError, "a.csv", expected="csv"):
        raise OSError
    assert first_line(OSError()) == "OSError"


def test_no_network_is_found_out_at_once_and_called_so(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(CausalVideoError, match="cannot reach the Hub for org/no-such-model"):
        open_pretrained(AutoConfig.from_pretrained, "org/no-such-model")
    assert time.monotonic() - started < 30, "one try, where the client alone makes many"
    assert constants.HF_HUB_OFFLINE is False, "as it was before"


def test_a_name_that_is_never_looked_up_does_not_hold_the_command(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(2) or socket.socket())
    started = time.monotonic()
    assert hub_access.hub_is_reachable(timeout_s=0.2) is False
    assert time.monotonic() - started < 3


def test_a_local_folder_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_access, "hub_is_reachable", partial(pytest.fail, "looked for a network"))
    with pytest.raises(CausalVideoError, match="checkpoint"):
        open_pretrained(AutoConfig.from_pretrained, tmp_path)
