"""What a fit takes at its peak: told before it starts, and kept to by the number of passes.

Samples and sums grow with the images; everything else is a sum of parts that are known beforehand: the process with its libraries, the
network, one batch of images on its way through trunk and suffix, and the solver's blocks. The constants
are measured peaks (``tests/chipcore/test_memory.py`` holds them to it), rounded up.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chipcore.errors import SettingsError
from chipcore.fitting.accumulate import IMAGES_AT_ONCE
from chipcore.fitting.planning import ClassSlice, bytes_of, plan_passes
from chipcore.fitting.regression import solve_block
from chipcore.fitting.settings import FitSettings
from chipcore.gating.perturbation import batch_size
from chipcore.networks.network import Layer, Network

GB = 1 << 30
_PROCESS = 600 << 20  # python, torch and what they load
COPIES = 3  # of the weights: as read, as used by the trunk, folded in the suffixes
_SLACK = 1.25  # what an allocator keeps beyond what is asked of it
_FLOAT = 4


@dataclass(frozen=True)
class Estimate:
    """Bytes of main memory: ``samples`` (with the sums beside them) at most in one pass, ``rest``, and the number of ``passes``."""

    samples: int
    rest: int
    passes: int

    @property
    def total(self) -> int:
        return self.samples + self.rest

    def sentence(self) -> str:
        """For a person, before the run."""
        more = f" in {self.passes} passes over the photographs" if self.passes > 1 else ""
        return f"at most {self.total / GB:.1f} GB of memory: samples {self.samples / GB:.1f} GB{more}, the rest {self.rest / GB:.1f} GB"


def estimate(
    network: Network, layers: Sequence[Layer], rows: Sequence[int], images: int, settings: FitSettings, memory: int
) -> Estimate:  # fmt: skip
    """What fitting these rows on so many images takes if the whole process may have ``memory`` bytes.

    Give ``memory - estimate(...).rest`` to :func:`chipcore.fit` as its ``memory``.

    Raises:
        SettingsError: not even one layer fits; names what is needed.
    """
    rest = fixed_memory(network, layers, settings)
    one = max(bytes_of(ClassSlice(layer, tuple(rows)), images, settings) for layer in layers)
    if memory < rest + one:
        raise SettingsError(
            f"{memory / GB:.1f} GB are too little to fit {network.name} at {', '.join(layer.name for layer in layers)}; "
            f"give --memory at least {(rest + one) / GB + 0.05:.1f}, fewer photographs or fewer --gates."
        )
    passes = plan_passes(layers, rows, images, settings, memory - rest)
    return Estimate(max(sum(bytes_of(part, images, settings) for part in one) for one in passes), rest, len(passes))


def fixed_memory(network: Network, layers: Sequence[Layer], settings: FitSettings) -> int:
    """Bytes that a fit takes beside its samples and sums; on a GPU the same is reckoned, though less is in main memory."""
    batch = IMAGES_AT_ONCE
    weights = sum(value.numel() * value.element_size() for value in network.model.state_dict().values())
    kept = sum(layer.channels * layer.height * layer.width for layer in layers)
    trunk = batch * _FLOAT * (network.peak(layers) + 2 * kept)
    suffixes = [_suffix(network, layers, layer, settings) for layer in layers]
    solving = max(5 * 8 * solve_block(layer.channels) * layer.channels**2 for layer in layers)
    working = max(trunk + max(suffixes), solving)
    rows = sum(12 * len(network.classes) * layer.channels for layer in layers)  # W, W with contrast, mean activation
    return int(_PROCESS + COPIES * weights + rows + _SLACK * working)


def _suffix(network: Network, layers: Sequence[Layer], layer: Layer, settings: FitSettings) -> int:
    """Bytes of one batch of images at one layer: perturbed networks, scores, and products on their way into the sums."""
    suffix = network.suffix(layer, layers)
    batch, K, N, C = IMAGES_AT_ONCE, layer.channels, settings.gates, len(network.classes)
    perturbed = 2 * batch_size(suffix.peak, network.device) * suffix.peak
    contributions = batch * suffix.contribution_size
    # Two float64 values take the room of four of ours.
    scores, gates, products = 5 * batch * N * C, 8 * batch * N * K, 6 * K * K
    return _FLOAT * (contributions + max(perturbed + scores + gates, scores + gates + products))


def keep_freed_memory() -> None:
    """Have glibc keep what it frees: giving activations back and faulting them in again costs up to half the time."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def peak_of_process() -> int | None:
    """The most main memory that this process has taken so far, in bytes; None where the system does not say."""
    try:  # Linux; what getrusage gives there includes the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
