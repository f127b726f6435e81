"""The mechanism: a network split at a layer, gates on its channels, and the suffix run for each of them."""
