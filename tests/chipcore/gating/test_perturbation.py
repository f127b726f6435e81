"""Predictions of the perturbed networks: both precisions against a float64 reference, and how many run at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.networks import Network


def gated_passes(network: Network, layer: str, inputs: Tensor, gates: Tensor) -> Tensor:
    """The definition, Eq. 3: a whole pass in float64 for every image and gate sample, shape (B, N, C)."""
    model = copy.deepcopy(network.model).double()
    scores = []
    for image, drawn in zip(inputs.double(), gates.double(), strict=True):
        for gate in drawn:

            def close(_module: object, _inputs: object, output: Tensor, gate: Tensor = gate) -> Tensor:
                return output * gate[:, None, None]

            handle = model.get_submodule(layer).register_forward_hook(close)
            scores.append(model(image[None])[0])
            handle.remove()
    return torch.stack(scores).unflatten(0, gates.shape[:2])


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 8, 8, generator=generator), torch.randint(0, 2, (3, 7, 5), generator=generator).float()


def scores_of(network: Network, inputs: Tensor, gates: Tensor, precision: str, batch: int = 4) -> Tensor:
    layer = network.layer("late")
    activations = network.forward_prefix(inputs, (layer,))
    suffix = network.suffix(layer, (layer,))
    return perturbed_scores(suffix, activations.features[layer.path], activations.side_inputs[layer.path], gates, batch, precision)  # type: ignore[arg-type]


@torch.no_grad()
def test_both_precisions_are_the_definition_to_their_own_rounding(tiny: Network, drawn: tuple[Tensor, Tensor]) -> None:
    expected = gated_passes(tiny, "second", *drawn)
    full, half = (scores_of(tiny, *drawn, precision) for precision in ("float32", "bfloat16"))
    assert full.dtype is half.dtype is torch.float32
    spread = float(expected.std())
    full_error, half_error = (float((scores.double() - expected).abs().max()) / spread for scores in (full, half))
    assert full_error < 1e-5
    # bfloat16 keeps 8 bits: it errs, or it was not used, by less than a few of its roundings.
    assert 1e-4 < half_error < 0.1


@torch.no_grad()
def test_the_number_at_once_changes_nothing(tiny: Network, drawn: tuple[Tensor, Tensor]) -> None:
    one, many = (scores_of(tiny, *drawn, "float32", batch) for batch in (1, 100))
    torch.testing.assert_close(one, many)


def test_a_cpu_keeps_the_widest_step_at_64_mib() -> None:
    cpu = torch.device("cpu")
    assert batch_size(1 << 17, cpu) == (64 << 20) // (4 << 17) == 128
    assert batch_size(1, cpu) == 1024 and batch_size(1 << 30, cpu) == 8


def test_a_gpu_takes_a_sixteenth_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 float32 tensors of the widest step: what convolutions and their workspaces take beside it, with room to spare."""
    free = 8 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    cuda = torch.device("cuda")
    peak = 1 << 20
    assert batch_size(peak, cuda) == free // (16 * 4 * peak) == 128
    assert batch_size(1, cuda) == 4096 and batch_size(1 << 40, cuda) == 8
