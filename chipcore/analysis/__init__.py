"""What one reads off W: maps of all layers, contributions, class channels, ablation, overlap and order of classes."""
