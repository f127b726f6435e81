"""The grid game, a part of the page Localize: four images in a mosaic, every method scored."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import streamlit as st

from chipcore import ChipError
from chipcore.evaluation import grid_game
from chipcore.evaluation.grid_game import Score, Tile
from chipcore.methods import METHODS
from explorer import figures
from explorer.components import downloads, job_progress
from explorer.figures import compare as pictures
from explorer.figures import localize as drawing
from explorer.services import gallery, reproduce
from explorer.services.jobs import Job
from explorer.state import cached, queues
from explorer.state.selection import Selection
from explorer.text import percent, plain

FIRST = ("cat", "coffee", "camera", "motorcycle")


def show(selection: Selection, methods: Sequence[str]) -> None:
    """Choose four, play, see the maps and the scores."""
    st.divider()
    st.subheader("The grid game", anchor=False)
    st.markdown(
        "Four photographs in one picture. Asked for the class of one of them, how much of a map lies **on the right one**? "
        f"A uniform map scores {percent(grid_game.CHANCE)}."
    )
    names = st.pills(
        "Four photographs", list(selection.gallery), selection_mode="multi", default=list(FIRST), key="tiles", bind="query-params",
        help="Add your own in the sidebar. The target class of each is the network’s first prediction for it alone.",
    )  # fmt: skip
    place = st.container()
    with place:
        if len(names) != 4:
            st.info(
                f"The mosaic has four places; you chose {len(names)} photograph{'s' if len(names) != 1 else ''}.",
                icon=":material/grid_view:",
            )
            return
        tiles = _tiles(selection, names)
        if tiles is not None:
            _game(selection, tiles, methods)


def _tiles(selection: Selection, names: Sequence[str]) -> list[Tile] | None:
    tiles = []
    for name in names:
        image = selection.gallery[name]
        try:
            seen = cached.seen(selection.network.id, image.sha256, selection.network, image)
        except ChipError as error:
            st.warning(f"**{plain(name)} cannot take part:** {plain(str(error))}", icon=":material/error:")
            return None
        target = seen.best(1)[0]
        tiles.append(Tile(name, image.sha256, seen.view, target, float(seen.probabilities[target])))
    return tiles


def _game(selection: Selection, tiles: Sequence[Tile], methods: Sequence[str]) -> None:
    labels = selection.network.classes.labels
    taken = ", ".join(f"{plain(tile.name)} for **{plain(labels[tile.target])}** ({percent(tile.probability)})" for tile in tiles)
    st.markdown(f"Target classes: {taken}.")
    targets = [tile.target for tile in tiles]
    if len(set(targets)) < 4:
        st.warning(
            "Two photographs have the same target class, so a map of it is right on either and wrong on one: choose photographs of four classes for a fair game.",
            icon=":material/balance:",
        )  # fmt: skip
    desk = queues.slow_maps()
    jobs = {method: desk.get(_key(selection, tiles, method)) for method in methods}
    missing = [method for method, job in jobs.items() if job is None or (job.over and job.state != "done")]
    if missing:
        several = "" if len(missing) == len(methods) else " " + ", ".join(METHODS[method].title for method in missing)
        st.button(
            f"Play{several}", key="play", type="primary", icon=":material/play_arrow:", on_click=_play, args=(selection, tiles, missing)
        )
        # What runs the whole network again and again; a fit at the layer takes seconds there, too.
        slow = [METHODS[method].title for method in missing if METHODS[method].slow and not METHODS[method].uses_layer]
        if slow:
            st.caption(
                f"{' and '.join(slow)} will take minutes here: the mosaic has four times as many pixels, and it is asked four times."
            )
    scores: dict[str, tuple[Score, ...]] = {}
    for method, job in jobs.items():
        if job is not None and job_progress.progress_until_done(desk, job):
            scores[method] = job.result
    if scores:
        _result(selection, tiles, scores)


def _key(selection: Selection, tiles: Sequence[Tile], method: str) -> str:
    at = selection.layer.name if METHODS[method].uses_layer else ""
    version = cached.importance_version(selection.network, selection.layer.name) if METHODS[method].needs_importance else ""
    return "/".join(["grid", selection.network.id, at, method, version, *(tile.sha256[:12] for tile in tiles)])


def _play(selection: Selection, tiles: Sequence[Tile], methods: Sequence[str]) -> None:
    network, layer, _full = cached.board(selection.network.id, selection.layer.name, selection.network, selection.layer)
    load = cached.importance_loader(selection.network)
    for method in methods:

        def work(job: Job, method: str = method) -> tuple[Score, ...]:
            return grid_game.play(network, layer, method, tiles, load, job.report)

        if not job_progress.start(queues.slow_maps(), _key(selection, tiles, method), f"Grid game, {METHODS[method].title}", work):
            return


def _result(selection: Selection, tiles: Sequence[Tile], scores: dict[str, tuple[Score, ...]]) -> None:
    network, _layer, full = cached.board(selection.network.id, selection.layer.name, selection.network, selection.layer)
    mosaic = grid_game.mosaic(tiles, network.geometry.size)
    labels = selection.network.classes.labels
    rows = [
        (METHODS[method].title, _percents(grid_game.mean(several)), *(_percents(score.right) for score in several))
        for method, several in scores.items()
    ]
    heads = [
        ("Mean", "Over the classes that there is a map of."),
        *((labels[tile.target], f"Asked for the class of {tile.name}.") for tile in tiles),
    ]
    st.html(drawing.scores(rows, heads, [""] * len(rows)))
    if not full:
        st.caption(
            f"{plain(network.title)} takes no picture larger than {network.geometry.size} × {network.geometry.size} pixels, so every photograph is half as large as it likes."
        )
    made = {}
    for method, several in scores.items():
        st.markdown(f"**{METHODS[method].title}**")
        with st.container(key=f"maps-grid-{method}"):
            for tile, score in zip(tiles, several, strict=True):
                picture = drawing.mosaic_map(mosaic, score.raw, score.cell, colormap=selection.colormap, opacity=selection.opacity)
                made[method, score.cell] = picture
                label = labels[tile.target]
                told = score.problem or f"{_percents(score.right)} of the map in the right place{_care(selection, method, tile)}"
                with st.container(key=f"tile-{method}-{score.cell}", gap=None):
                    st.image(
                        figures.jpeg(picture),
                        width="stretch",
                        output_format="JPEG",
                        alt=f"{METHODS[method].title} map of {label} on the mosaic: {told}",
                    )
                    st.html(f'<div class="chip-caption"><h4>{html.escape(label)}</h4><p>{html.escape(told)}</p></div>')

    def take() -> downloads.Export:
        lines = [
            (METHODS[method].title, [figures.FigurePanel(made[method, score.cell], labels[tile.target], _percents(score.right)) for tile, score in zip(tiles, several, strict=True)])
            for method, several in scores.items()
        ]  # fmt: skip
        arrays = {
            f"{method}-{score.cell + 1}": score.raw.numpy()
            for method, several in scores.items()
            for score in several
            if score.raw is not None
        }
        return downloads.Export(
            pictures.sheet(lines, f"Grid game, {network.title}, {selection.layer.name}"), {"mosaic": np.asarray(mosaic), **arrays},
            grid_game.scores_csv(network, tiles, scores),
            {
                "network": network.name, "weights_sha256": network.weights_sha256, "layer": selection.layer.name, "mosaic_pixels": network.geometry.size,
                "photographs": [{"name": tile.name, "sha256": tile.sha256, "class": labels[tile.target], "index": tile.target} for tile in tiles],
            },
            reproduce.mosaic(
                selection.network, selection.layer.name, list(scores), [_file(selection, place, tile) for place, tile in enumerate(tiles)],
                [tile.target for tile in tiles], "grid",
            ),
            {_file(selection, place, tile): selection.gallery[tile.name].data for place, tile in enumerate(tiles)},
        )  # fmt: skip

    downloads.offer("take-grid", f"grid-{network.name}-{selection.layer.name}", take, table=True, folded="Download this game")


def _file(selection: Selection, place: int, tile: Tile) -> str:
    """The image's file in the bundle, by its place in the mosaic; nothing of the visitor's name for it."""
    return f"photographs/{place + 1}.{gallery.kind(selection.gallery[tile.name].data)}"


def _care(selection: Selection, method: str, tile: Tile) -> str:
    weak = METHODS[method].needs_importance and selection.importance(selection.layer).evidence(tile.target) == "weak"
    return "; weak W, learned from few images" if weak else ""


def _percents(share: float) -> str:
    return "no map" if math.isnan(share) else f"{share:.0%}"
