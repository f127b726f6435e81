"""``chip-explorer`` or ``python -m explorer``: start the app from any folder, in a window of its own where a browser offers one."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path

from explorer.services.limits import MAX_VISITORS, VISITORS
from explorer.services.memory import bound

ROOT = Path(__file__).resolve().parent.parent
HOST, PORT = "127.0.0.1", 8501
APP_PACKAGES = ("streamlit", "plotly", "matplotlib_venn", "cachetools")  # what the extra `app` installs
LATER = 12  # seconds after which the first page is surely drawn, and the charts of the others are loaded
# Browsers that open an address as a window without tabs and address bar (--app).
COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "brave-browser",
    "microsoft-edge",
    "vivaldi",
    "chrome",
    "msedge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge", "/Applications/Brave Browser.app/Contents/MacOS/Brave Browser",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe", r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until Ctrl-C; returns the exit status, 2 for a mistake that one sentence explains."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: threads that spin are ruinous on a busy machine
    parser = argparse.ArgumentParser(prog="chip-explorer", description="The CHIP explorer, in your browser.")
    parser.add_argument("--port", type=int, default=None, metavar="N", help=f"default: {PORT}, or a free one where that is taken")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument(
        "--allow", nargs="+", type=Path, default=[], metavar="DIR", help="folders whose photographs and checkpoints visitors may name"
    )
    parser.add_argument(
        "--visitors", type=int, default=None, metavar="N",
        help=f"how many may be here at once (default: {MAX_VISITORS}); given at all, fits can be stopped by those alone who started them",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    missing = [name for name in APP_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"explorer: the app needs {', '.join(missing)}; install it with: pip install 'chipcore[app]'", file=sys.stderr)
        return 2
    if options.visitors is not None:
        if options.visitors < 1:
            print(f"explorer: --visitors is {options.visitors}; give 1 or more.", file=sys.stderr)
            return 2
        os.environ[VISITORS] = str(options.visitors)
    for folder in options.allow:
        if not folder.is_dir():
            print(f"explorer: --allow {folder} is not a folder; give folders that exist.", file=sys.stderr)
            return 2
    if options.allow:  # resolved here, where the paths are relative to
        os.environ["CHIP_FOLDERS"] = os.pathsep.join(str(folder.resolve()) for folder in options.allow)
    try:
        port = choose_port(options.port)
    except (OSError, OverflowError):
        print(f"explorer: port {options.port} is taken or not allowed; leave --port out to have a free one chosen.", file=sys.stderr)
        return 2
    if (
        ROOT / ".streamlit" / "config.toml"
    ).is_file():  # a checkout; installed, the file lies beside app.py: Streamlit looks at both places
        os.chdir(ROOT)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    bound()  # before there are threads
    _preload()
    address = f"http://{HOST}:{port}"
    threading.Thread(target=_when_up, args=(address, not options.no_browser), daemon=True).start()
    from streamlit.web import cli

    with contextlib.suppress(KeyboardInterrupt):
        cli.main(
            ["run", str(ROOT / "explorer" / "app.py"), f"--server.port={port}", "--logger.hideWelcomeMessage=true"], standalone_mode=False
        )
    print("The CHIP explorer has ended.", flush=True)
    # At once: background work may be inside torch, and there the interpreter would abort when it is taken down.
    os._exit(0)


def choose_port(wanted: int | None) -> int:
    """``wanted`` if it is free, else ``OSError``; without one the usual port, or any free one where that is taken."""
    for port in (wanted,) if wanted is not None else (PORT, 0):
        with socket.socket() as probe:
            if os.name != "nt":  # there it would allow a port that is taken
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                if port == 0 or wanted is not None:
                    raise
            else:
                return int(probe.getsockname()[1])
    raise OSError("no port is free")  # not reached: port 0 gives one or raises


def window_command(address: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The command that opens the address as an app window; empty where no browser that can is found."""
    found = next((path for path in map(shutil.which, COMMANDS) if path), None) or next(
        (place for place in PLACES if Path(place).is_file()), None
    )
    if found is None or not has_display(environment):
        return []
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium refuses to run its sandbox as root
    return [found, f"--app={address}", "--window-size=1440,1000", *(["--no-sandbox"] if root else [])]


def has_display(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a browser could open a window here at all."""
    return sys.platform in ("win32", "darwin") or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _preload() -> None:
    """Import now what the first page needs, or its visitor would wait for it."""
    import explorer.views.explore  # noqa: F401


def _when_up(address: str, browser: bool) -> None:
    """Say where it is and open it, once the server answers."""
    for _attempt in range(600):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()  # noqa: S310
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    print(f"The CHIP explorer is at {address} (Ctrl-C ends it).", flush=True)
    if browser and has_display():
        _open(address)
    _warm()


def _open(address: str) -> None:
    command = window_command(address)
    try:
        if command:
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        else:
            webbrowser.open(address)
    except (OSError, webbrowser.Error):
        print("No browser could be started; open the address by hand.", flush=True)


def _warm() -> None:
    """Load what the first page shows while the browser starts: the first network, its W, and the first image's pass.

    Then, when nobody waits for that page any more, the code of the other pages.
    """
    from chipcore import ChipError
    from explorer.services import gallery, memory
    from explorer.state import cached

    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)  # this is no visitor's thread
    with contextlib.suppress(ChipError):  # the page says it better
        network = cached.network(cached.available_networks()[0])
        for layer in network.layers:
            cached.importance(network.id, layer.name, network)
        image = gallery.image(next(iter(gallery.ENTRIES)))
        cached.seen(network.id, image.sha256, network, image)
    time.sleep(LATER)
    for name in ("channels", "compare", "localize", "learn", "fit"):
        importlib.import_module(f"explorer.views.{name}")
    memory.settle()


if __name__ == "__main__":
    sys.exit(main())
