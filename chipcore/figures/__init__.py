"""The paper's figures as Matplotlib figures: maps on images, the heat map of W, Venn diagrams, tables.

Every function gives a ``matplotlib.figure.Figure``, which a notebook shows and ``savefig`` writes; pyplot is never
touched, so threads may draw at once.
"""

from chipcore.analysis.paper_figures import FIGURES
from chipcore.figures.channels import heatmap, venn
from chipcore.figures.paper import PaperFigure, PaperFigures
from chipcore.figures.pictures import map_grid, strip
from chipcore.figures.tables import table

__all__ = ["FIGURES", "PaperFigure", "PaperFigures", "heatmap", "map_grid", "strip", "table", "venn"]
