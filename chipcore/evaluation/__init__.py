"""How good maps are, measured as the field measures it: localization, segmentation, pointing, faithfulness."""
