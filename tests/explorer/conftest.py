"""The app in a process of its own making: caches empty before and after every test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Importance, Network
from explorer import resources

APP = Path(__file__).resolve().parent.parent.parent / "explorer" / "app.py"


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Streamlit's caches outlive a session, so one test's network would serve the next one."""
    resources.clear()
    yield
    resources.clear()


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch, lite0: Network) -> Callable[..., AppTest]:
    """Opens the app at a URL; the network is loaded once for all tests."""
    real = chipcore.load_network
    monkeypatch.setattr(chipcore, "load_network", lambda name, **options: lite0 if name == lite0.name else real(name, **options))

    def open_at(**query: str) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=60)
        for key, value in query.items():
            app.query_params[key] = value
        return app.run()

    return open_at


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with every pass through a trunk."""
    counted: list[int] = []
    real = Network.trunk

    def trunk(self: Network, images: torch.Tensor, layers: object = ()) -> object:
        counted.append(len(images))
        return real(self, images, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "trunk", trunk)
    return counted


@pytest.fixture
def change_w(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Importance, str], Importance]], None]:
    """Puts another W in the place of the one that ships."""
    real = chipcore.load_importance

    def change(how: Callable[[Importance, str], Importance]) -> None:
        def load(network: Network, layer: str) -> Importance:
            found = real(network, layer)
            return how(dataclasses.replace(found, W=found.W.clone(), loyalty=found.loyalty.clone(), support=found.support.clone()), layer)

        monkeypatch.setattr(chipcore, "load_importance", load)

    return change


@pytest.fixture(scope="session")
def fitted(lite0: Network) -> list[int]:
    """Classes with a row of W at every depth."""
    supports = torch.stack([chipcore.load_importance(lite0, layer.name).support > 0 for layer in lite0.layers])
    return [int(index) for index in supports.all(0).nonzero().flatten()]
