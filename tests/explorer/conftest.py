"""The app in a process of its own making: caches empty before and after every test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import chipcore
from chipcore import Importance, Network
from explorer.services import memory
from explorer.state import cached, queues

APP = Path(__file__).resolve().parent.parent.parent / "explorer" / "app.py"


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Streamlit's caches outlive a session, so one test's network would serve the next one."""
    cached.clear()
    queues.clear()
    yield
    cached.clear()
    queues.clear()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What visitors upload in a test is not left in anybody's cache folder."""
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch, lite0: Network, slim: Network) -> None:
    """The bundled networks are loaded once for all tests, so there is nothing new for the garbage collector to settle."""
    real, known = chipcore.load_network, {network.name: network for network in (lite0, slim)}

    def load(name: str, **options: object) -> Network:
        return known[name] if name in known and "checkpoint" not in options else real(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(chipcore, "load_network", load)
    monkeypatch.setattr(memory, "settle", lambda: None)


@pytest.fixture
def open_app(loaded_once: None) -> Callable[..., AppTest]:
    """Opens the app at a URL: ``page`` is the view, everything else the query."""

    def open_at(page: str = "", **query: str) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=240)
        if page:
            app._page_hash = calc_hash(page)
        for key, value in query.items():
            app.query_params[key] = value
        return app.run()

    return open_at


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with every pass through a network."""
    counted: list[int] = []
    real = Network.forward_prefix

    def forward_prefix(self: Network, images: torch.Tensor, layers: object = ()) -> object:
        counted.append(len(images))
        return real(self, images, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "forward_prefix", forward_prefix)
    return counted


@pytest.fixture
def change_w(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Importance, str], Importance]], None]:
    """Puts another W in the place of the one that ships."""
    real = chipcore.load_importance

    def change(how: Callable[[Importance, str], Importance]) -> None:
        def load(network: Network, layer: str, folder: Path | None = None) -> Importance:
            found = real(network, layer, folder)
            return how(
                dataclasses.replace(found, W=found.W.clone(), evidence_mass=found.evidence_mass.clone(), support=found.support.clone()),
                layer,
            )

        monkeypatch.setattr(chipcore, "load_importance", load)

    return change
