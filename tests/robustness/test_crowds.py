"""A short crowd on two real networks: ``tests/benchmarks/crowds.py`` is the long one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from benchmarks.crowds import Crowd, Place

from chipcore.methods import METHODS
from chipcore.solvers import admm
from chipcore.solvers.threads import solving_threads


@pytest.mark.slow
def test_a_crowd_sees_what_each_would_see_alone() -> None:
    place = Place.open(("vgg16_slim", "efficientnet_lite0"), list(METHODS), ("chelsea",), most=28)
    assert {asked.method for asked in place.questions} == set(METHODS)
    hooks = place.hooks()
    crowd = Crowd(place, {asked: place.answer(asked) for asked in place.questions})
    assert sum(answer.startswith("refused") for answer in crowd.alone.values()) <= 4, "CAM of the small VGG, Refined CHIP at its own layer"
    crowd.run(4, 2)
    assert not crowd.wrong and not crowd.failed
    assert crowd.maps.total() >= 4 and place.hooks() == hooks


def test_solves_at_once_leave_torchs_threads_alone() -> None:
    """They used to set the number of threads for the process while they ran; the last to end left its own behind."""
    gram = torch.eye(6, dtype=torch.float64).expand(300, 6, 6) * torch.arange(1, 301)[:, None, None]
    cross = torch.randn(300, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lam = 0.01 * admm.lambda_max(cross)
    expected, before = admm.solve(gram, cross, lam).W, torch.get_num_threads()
    seen: list[int] = []
    over = threading.Event()

    def be_born() -> None:
        while not over.is_set():
            thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()

    visitor = threading.Thread(target=be_born)
    visitor.start()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: admm.solve(gram, cross, lam).W, range(24)))
    over.set()
    visitor.join()
    assert all(torch.equal(one, expected) for one in found)
    assert set(seen) == {before} and torch.get_num_threads() == before
    assert solving_threads(before) is solving_threads(before)
