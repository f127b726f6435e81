"""Speed, as ratios against plain baselines: ``python -m chipcore bench``."""
