"""Documents that stay true: every command in every README parses, links lead somewhere, Python runs, the README stays one page."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from chipcore.cli.main import build_parser
from conftest import ROOT

READMES = sorted(file for file in ROOT.rglob("README.md") if not any(part.startswith(".") for part in file.relative_to(ROOT).parts))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m |torchrun |pytest |chip-explorer |CHIP_FUZZ=)[^`]+)`", re.DOTALL)


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Every command of the unnamed blocks and of the prose, one a line."""
    found = []
    for language, body in BLOCK.findall(text):
        if not language:
            found += [line.strip() for line in body.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    prose = BLOCK.sub("", text)
    return found + [" ".join(one.split()) for one in INLINE.findall(prose)]


def known_flags(source: Path) -> set[str]:
    return set(re.findall(r"--[a-z][a-z0-9-]*", text_of(source)))


def check_command(command: str) -> None:
    """Raises where the command would be refused before it does anything."""
    for one in command.split(" && "):
        words = [word for word in shlex.split(one, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        if words[0] == "torchrun":
            words = words[words.index("-m") - 1 :]
            words[0] = "python"
        if words[:2] == ["python", "-m"]:
            words = words[2:]
        if words[0] == "chipcore":
            if words[1:] in ([], ["COMMAND"]) or "--help" in words:
                continue
            arguments = build_parser(words[1]).parse_args(words[1:])
            assert callable(arguments.run), one
        elif words[0] in ("chip-explorer", "explorer"):
            assert {word for word in words[1:] if word.startswith("--")} <= known_flags(ROOT / "explorer" / "__main__.py"), one
        elif words[0].startswith("tests."):
            source = ROOT / (words[0].replace(".", "/") + ".py")
            assert source.is_file(), f"{one}: there is no {source}"
            assert {word for word in words[1:] if word.startswith("--")} <= known_flags(source), one
        elif words[0] == "pytest":
            for word in words[1:]:
                assert not word.startswith(("tests/", "chipcore/")) or list(ROOT.glob(word)), f"{one}: there is no {word}"
        elif words[0] == "streamlit":
            assert (ROOT / words[2]).is_file(), one
        else:
            assert words[0] in ("pip", "pipx", "ruff", "lint-imports", "mypy", "apt-get", "git", "docker"), f"{one}: what program is this?"


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_in_a_readme_parses(file: Path) -> None:
    for command in commands(text_of(file)):
        check_command(command)


def test_commands_that_would_be_refused_are_noticed() -> None:
    for wrong in (
        "chipcore fit --network efficientnet_lite0", "python -m chipcore explain a.jpg --nonsense", "pytest tests/nowhere.py",
        "python -m tests.benchmarks.nothing", "python -m tests.benchmarks.tables WORK --nonsense", "chip-explorer --nonsense", "unheard-of",
    ):  # fmt: skip
        with pytest.raises((Exception, SystemExit)):
            check_command(wrong)


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text_of(file)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(file)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (file.parent / place).resolve() if place else file
        assert target.exists(), f"{file.relative_to(ROOT)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{file.relative_to(ROOT)} links to {link}; that page has no such heading"


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_python_in_a_readme_is_python_and_its_imports_are_there(file: Path) -> None:
    for language, body in BLOCK.findall(text_of(file)):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.Import):
                for one in node.names:
                    importlib.import_module(one.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, one.name) for one in node.names), ast.unparse(node)


def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data as skimage_data

    Image.fromarray(skimage_data.chelsea()).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    names: dict[str, object] = {"model": model}
    for language, body in BLOCK.findall(text_of(ROOT / "README.md")):
        if language == "python":
            exec(body, names)
    saliency = names["saliency"]
    assert saliency.raw.shape == (7, 7) and saliency.picture.shape == (224, 224) and saliency.label.startswith("zebra")  # type: ignore[attr-defined]


def test_the_readme_is_one_page() -> None:
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= 150, f"README.md has {len(lines)} lines; at most 150"
    assert max(map(len, lines)) <= 100, [line for line in lines if len(line) > 100]


def test_the_readmes_results_are_those_of_the_results_page() -> None:
    """Each row's cells stand, in their order, in a row of assets/results/README.md: figures are changed there first."""

    def rows(text: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]

    section = text_of(ROOT / "README.md").partition("## Results")[2].partition("\n## ")[0]
    shown, known = rows(section)[2:], rows(text_of(ROOT / "assets" / "results" / "README.md"))
    assert len(shown) == 4
    for row in shown:
        assert any(is_part(row, other) for other in known), f"{row} stands in no table of assets/results/README.md"


def is_part(row: list[str], other: list[str]) -> bool:
    rest = iter(other)
    return all(cell in rest for cell in row)
