"""A GPU whose memory does not suffice gets smaller batches; faked on the CPU."""

from __future__ import annotations

import pytest
import torch

from chipcore import Network
from chipcore.errors import ChipError
from chipcore.gating.perturbation import perturbed_scores
from chipcore.gating.suffix import Suffix


@pytest.mark.parametrize("room", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_smaller_batches_give_the_same_scores(tiny: Network, monkeypatch: pytest.MonkeyPatch, room: int, batch: int) -> None:
    layer = tiny.layer("late")
    with torch.inference_mode():
        activations = tiny.forward_prefix(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), [layer])
        suffix, features, side_inputs = tiny.suffix(layer, [layer]), activations.features[layer.path], activations.side_inputs[layer.path]
        gates = (torch.rand(5, 9, 5, generator=torch.Generator().manual_seed(1)) < 0.5).float()
        expected = perturbed_scores(suffix, features, side_inputs, gates, 1000)
        real, tried = Suffix.scores, []

        def scores(self: Suffix, prepared: torch.Tensor, beside: object, some: torch.Tensor, *more: object) -> torch.Tensor:
            tried.append(some.shape[0] * some.shape[1])
            if tried[-1] > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, prepared, beside, some, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(Suffix, "scores", scores)
        found = perturbed_scores(suffix, features, side_inputs, gates, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert sum(count > room for count in tried) <= 8, "what went wrong once is not tried again for every photograph"
        monkeypatch.setattr(Suffix, "scores", lambda *_given: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
        with pytest.raises(ChipError, match="GPU's memory does not suffice for a single gated network"):
            perturbed_scores(suffix, features, side_inputs, gates, batch)
