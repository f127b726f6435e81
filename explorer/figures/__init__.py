"""Pictures and charts from arrays: pure functions, no Streamlit.

Only what the first page needs is imported here; charts (Plotly, Matplotlib) are modules of their own that a view
imports when it is opened, because they take longer to load than the first page to draw.
"""

from explorer.figures.pictures import (
    SIDE,
    FigurePanel,
    blank_picture,
    chip_picture,
    circled,
    data_uri,
    enlarged,
    gradient,
    jpeg,
    png,
    strip,
    whole_image,
)

__all__ = [
    "SIDE",
    "FigurePanel",
    "blank_picture",
    "chip_picture",
    "circled",
    "data_uri",
    "enlarged",
    "gradient",
    "jpeg",
    "png",
    "strip",
    "whole_image",
]
