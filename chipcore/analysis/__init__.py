"""What one reads off W, and off the maps made with it."""
