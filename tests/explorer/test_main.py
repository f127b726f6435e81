"""``python -m explorer``: port, browser window, start from any folder, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from conftest import ROOT
from explorer import __main__ as start


def test_a_port_that_is_taken_is_refused_or_passed_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((start.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert start.main(["--port", str(port)]) == 2
        assert f"port {port} is taken" in capsys.readouterr().err
        monkeypatch.setattr(start, "PORT", port)
        assert start.choose_port(None) not in (port, 0)
    assert start.choose_port(port) == port
    assert start.main(["--port", "99999"]) == 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="a display is always there")
def test_window_command_needs_a_display_and_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    command = start.window_command("http://127.0.0.1:1", {"DISPLAY": ":0"})
    assert command[:2] == ["/usr/bin/chromium", "--app=http://127.0.0.1:1"]
    assert start.window_command("http://127.0.0.1:1", {}) == []
    monkeypatch.setattr(start.shutil, "which", lambda _name: None)
    monkeypatch.setattr(start, "PLACES", ())
    assert start.window_command("http://127.0.0.1:1", {"DISPLAY": ":0"}) == []


def test_it_starts_from_any_folder_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    port = start.choose_port(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DISPLAY", None)
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "explorer", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert f"http://127.0.0.1:{port}" in line
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/host-config", timeout=60) as answer:
                assert answer.status == 200
            with pytest.raises(OSError), socket.create_connection((_own_address(), port), timeout=2):
                pass  # config.toml was found: it listens on this machine alone
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        log.seek(0)
        assert "Traceback" not in log.read()
        assert process.returncode == 0


def _own_address() -> str:
    """An address of this machine that is not 127.0.0.1."""
    return "127.0.0.2" if sys.platform == "linux" else socket.gethostbyname(socket.gethostname())
