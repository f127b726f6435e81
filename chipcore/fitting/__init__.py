"""The estimator: moments of perturbed predictions, accumulated over images and solved class by class."""
