"""Figures of an audit, drawn from its document alone.

Colours are seaborn's colour-blind palette and never carry meaning alone: markers and hatching
repeat it, and n stands beside every group. Names of groups are data: no mathtext, no markup.
What it does not do: choose what is worth looking at (see ``page``).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fvlfp.metrics import is_ratio

BLUE, ORANGE, GREY = "#0173b2", "#d55e00", "#8c8c8c"
#: lessons use it as well: plt.style.use("fvlfp.audit.report.figures")
STYLE = "fvlfp.audit.report.figures"
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that XML does not allow
CURVES = 8  # groups drawn at most as curves
SHOWN = 30  # groups drawn at most: the lowest and the highest
NAMES = {
    "selection_rate": "selection rate",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "demographic_parity_difference": "demographic parity difference",
    "demographic_parity_ratio": "demographic parity ratio",
    "equal_opportunity_difference": "equal opportunity difference",
    "equalized_odds_difference_worst": "equalized odds, worst",
    "equalized_odds_difference_sum": "equalized odds, sum",
    "equalized_odds_difference_mean": "equalized odds, mean",
    "accuracy_gap": "accuracy gap",
    "roc_auc_gap": "ROC-AUC gap",
    "brier_gap": "Brier score gap",
}


class Look(TypedDict):
    """Colour, marker and dash of one curve, as matplotlib takes them."""

    color: tuple[float, float, float]
    marker: str
    ls: str
    ms: float
    lw: float


def measure_name(name: str) -> str:
    """A gap's or rate's name in words."""
    base, _, rest = name.partition("_class_")
    return NAMES.get(base, base.replace("_", " ")) + (f" ({rest} over classes)" if rest else "")


def rates(document: Mapping[str, Any], attribute: str) -> Figure:
    """Each group's rates with their intervals; a dashed line is the rate of everybody together."""
    groups = document["attributes"][attribute]["groups"]
    binary = document["positive"] is not None
    wanted = ["selection_rate", "accuracy", "tpr", "fpr"] if binary else ["accuracy", "balanced_accuracy"]
    present = next(iter(groups.values()))["rates"]
    wanted = [rate for rate in wanted if rate in present]
    order = _order(groups, "accuracy" if "accuracy" in wanted else wanted[0])
    rows = (len(wanted) + 1) // 2
    height = 0.5 + rows * (0.75 + 0.26 * len(order))
    figure, axes = new_figure(7.2, height, rows, 2)
    for ax in axes[len(wanted) :]:
        ax.set_visible(False)
    axes = axes[: len(wanted)]
    for i, (ax, rate) in enumerate(zip(axes, wanted, strict=True)):
        cells = [groups[g]["rates"][rate] for g in order]
        _intervals(ax, cells, BLUE)
        overall = document["overall"]["rates"][rate]["value"]
        if overall is not None:
            ax.axvline(overall, color=GREY, ls="--", lw=1, zorder=0)
        title = measure_name(rate)
        if rate == "tpr":
            title += f" of {_short(document['positive'])!r}"
        ax.set_title(title, loc="left", parse_math=False)
        _ticks(ax, _with_n(groups, order, rate, named=i % 2 == 0))
    _same_scale(axes)
    return figure


def gaps(document: Mapping[str, Any], attribute: str) -> Figure:
    """Every gap with its interval, over the range that chance alone would reach at this n."""
    part = document["attributes"][attribute]["gaps"]
    order = [g for g in part if not is_ratio(g)]
    figure, axes = new_figure(7.2, 1.3 + 0.38 * len(order), 1, 1)
    ax = axes[0]
    for y, gap in enumerate(order):
        entry = part[gap]
        if entry["null_95"] is not None:
            ax.barh(y, entry["null_95"], height=0.62, color="#e6e6e6", edgecolor=GREY, hatch="///", lw=0.4)
            ax.plot([entry["expected_null"]] * 2, [y - 0.31, y + 0.31], color="#444444", lw=1.5)
        if entry.get("perfect_classifier") is not None:
            ax.plot(entry["perfect_classifier"], y, marker="D", color=ORANGE, ms=6, mfc="white", ls="")
    _intervals(ax, [part[g] for g in order], BLUE)
    _ticks(ax, [measure_name(g) for g in order])
    ax.set_xlim(left=0)
    ax.set_xlabel("gap (0 is equality)")
    keys = [
        mpl.lines.Line2D([], [], color=BLUE, marker="o", lw=2, label="measured, with interval"),
        mpl.lines.Line2D([], [], color="#444444", lw=1.5, label="expected by chance"),
        mpl.patches.Patch(fc="#e6e6e6", ec=GREY, hatch="///", label="95 % of chance results"),
        mpl.lines.Line2D([], [], color=ORANGE, marker="D", mfc="white", ls="", label="perfect classifier"),
    ]
    if any(part[g].get("band") for g in order):
        keys.append(mpl.patches.Patch(fc=ORANGE, alpha=0.3, label="range over prompt templates"))
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    return figure


def changes(document: Mapping[str, Any], attribute: str) -> Figure:
    """The paired change of every gap with its interval; left of zero the second model is more equal."""
    part = document["attributes"][attribute]["changes"]
    order = [g for g in part if not is_ratio(g)]
    figure, axes = new_figure(7.2, 1.1 + 0.38 * len(order), 1, 1)
    ax = axes[0]
    ax.axvline(0, color="#444444", lw=1.2)
    cells = [{**part[g], "value": part[g]["change"]} for g in order]
    _intervals(ax, cells, BLUE)
    _ticks(ax, [measure_name(g) for g in order])
    first, second = document["names"]
    ax.set_xlabel(f"change of the gap, {second} minus {first}", parse_math=False)
    return figure


def dumbbells(document: Mapping[str, Any], attribute: str) -> Figure:
    """Each group's accuracy and rates under both models: hollow circle first, filled square second."""
    groups = document["attributes"][attribute]["groups"]
    wanted = list(next(iter(groups.values()))["rates"])
    order = list(groups)[:SHOWN]
    rows = (len(wanted) + 1) // 2
    figure, axes = new_figure(7.2, 0.9 + rows * (0.7 + 0.26 * len(order)), rows, 2)
    for i, (ax, rate) in enumerate(zip(axes, wanted, strict=False)):
        for y, g in enumerate(order):
            cell = groups[g]["rates"][rate]
            if cell["a"] is None:
                ax.text(0.02, y, "undefined", va="center", color=GREY, transform=ax.get_yaxis_transform())
                continue
            ax.plot([cell["a"], cell["b"]], [y, y], color=GREY, lw=1.5, zorder=1)
            ax.plot(cell["a"], y, "o", color=ORANGE, mfc="white", ms=7, zorder=2)
            ax.plot(cell["b"], y, "s", color=BLUE, ms=6, zorder=3)
        ax.set_title(measure_name(rate), loc="left")
        _ticks(ax, _with_n(groups, order, rate, named=i % 2 == 0))
    for ax in axes[len(wanted) :]:
        ax.set_visible(False)
    _same_scale(axes[: len(wanted)])
    keys = [
        mpl.lines.Line2D([], [], color=ORANGE, marker="o", mfc="white", ls="", label=document["names"][0]),
        mpl.lines.Line2D([], [], color=BLUE, marker="s", ls="", label=document["names"][1]),
    ]
    legend = figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def reliability(document: Mapping[str, Any], attribute: str) -> Figure:
    """Observed share of positives against the mean score, by group; the diagonal is calibration."""
    groups = document["attributes"][attribute]["scores"]["groups"]
    shown = [g for g in list(groups) if groups[g]["bins"]][:CURVES]
    figure, axes = new_figure(6.4, 4.6, 1, 1)
    ax = axes[0]
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, zorder=0)
    for i, (g, look) in enumerate(zip(shown, looks(), strict=False)):
        bins = groups[g]["bins"]
        x = np.array([b["mean_score"] for b in bins]) + 0.004 * (i - len(shown) / 2)
        share, low, high = (np.array([b[k] for b in bins]) for k in ("share", "low", "high"))
        ax.vlines(x, low, high, color=look["color"], lw=1)
        ax.plot(x, share, label=f"{_short(g)}  (n={groups[g]['n']:,})", **look)
    ax.set(
        xlabel="mean score of the bin", ylabel="share of positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    finish_legend(figure, ax, len(groups) - len(shown))
    return figure


def sweep(document: Mapping[str, Any], attribute: str) -> Figure:
    """Gaps and balanced accuracy as functions of the decision threshold."""
    curves = document["attributes"][attribute]["sweep"]
    figure, axes = new_figure(6.4, 4.2, 1, 1)
    ax = axes[0]
    for (name, values), look in zip(list(curves.items())[1:], looks(), strict=False):
        y = [np.nan if v is None else v for v in values]
        ax.plot(curves["threshold"], y, label=measure_name(name), markevery=5, **look)
    ax.set(xlabel="threshold: predicted positive from this score on", ylim=(0, 1))
    finish_legend(figure, ax, 0)
    return figure


def looks() -> Iterator[Look]:
    """Colour, marker and dash of each curve: three ways to tell them apart."""
    import seaborn as sns  # takes a second, and most audits draw nothing at once

    colours = sns.color_palette("colorblind", CURVES)
    for colour, marker, dash in zip(colours, "osD^vPX*", ["-", "--", "-.", ":"] * 2, strict=True):
        yield {"color": colour, "marker": marker, "ls": dash, "ms": 5, "lw": 1.6}


def finish_legend(figure: Figure, ax: Axes, hidden: int) -> None:
    """A legend below the axes that also says how many groups are not drawn."""
    handles, labels = ax.get_legend_handles_labels()
    if hidden > 0:
        handles.append(mpl.lines.Line2D([], [], ls=""))
        labels.append(f"and {hidden:,} more groups")
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


@contextmanager
def own_style() -> Iterator[None]:
    """Draw as in a fresh process: a style that the caller has set elsewhere changes no report."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def svg(figure: Figure) -> bytes:
    """The figure as SVG whose text stays text, so that any script the reader's fonts know is shown."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fvlfp"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the glyphs
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return CONTROL.sub(b"?", buffer.getvalue())


def new_figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """An empty figure in the report's style, without pyplot's global state."""
    with mpl.style.context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(axis="y", visible=False)
    return figure, list(axes.flat)


def _intervals(ax: Axes, cells: Sequence[Mapping[str, Any]], colour: str) -> None:
    for y, cell in enumerate(cells):
        if cell["value"] is None:
            ax.text(0.02, y, "undefined", va="center", color=GREY, transform=ax.get_yaxis_transform())
            continue
        if cell.get("band"):
            ax.plot(cell["band"], [y, y], color=ORANGE, lw=6, alpha=0.3, solid_capstyle="butt", zorder=1)
        if cell["low"] is not None:
            ax.plot([cell["low"], cell["high"]], [y, y], color=colour, lw=2, solid_capstyle="round")
        face = "white" if cell.get("small") else colour  # hollow: fewer than ten examples
        ax.plot(cell["value"], y, "o", color=colour, mfc=face, ms=6)


def _with_n(groups: Mapping[str, Any], order: Sequence[str], rate: str, *, named: bool) -> list[str]:
    """What stands beside each row of a panel: the number of examples its rate rests on, and the group."""
    rests_on = {"tpr": "positives", "fpr": "negatives"}.get(rate, "n")
    names = []
    for g in order:
        n = groups[g].get(rests_on)  # not in comparisons that were written by 0.1.0
        count = f"n={groups[g]['n'] if n is None else n:,.0f}"  # weighted: the effective number
        names.append(f"{_short(g)}  ({count})" if named else count)
    return names


def _ticks(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(np.arange(len(names)))
    for text in ax.set_yticklabels(list(names)):
        text.set_parse_math(False)
    ax.set_ylim(len(names) - 0.5, -0.5)


def _same_scale(axes: Sequence[Axes]) -> None:
    """Ranges of one length around each panel's own rates, within [0, 1]: a distance means the same in all."""
    ranges = [ax.get_xlim() for ax in axes]
    length = min(max(high - low for low, high in ranges), 1.04)
    for ax, (low, high) in zip(axes, ranges, strict=True):
        left = min(max((low + high - length) / 2, -0.02), 1.02 - length)
        ax.set_xlim(left, left + length)


def _short(name: str, limit: int = 28) -> str:
    name = " ".join(str(name).split()) or repr(name)
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _order(groups: Mapping[str, Any], rate: str) -> list[str]:
    """Groups in their own order; of very many, those with the lowest and the highest rate."""
    names = list(groups)
    if len(names) <= SHOWN:
        return names
    ranked = sorted(names, key=lambda g: groups[g]["rates"][rate]["value"])
    return ranked[: SHOWN // 2] + ranked[-SHOWN // 2 :]
