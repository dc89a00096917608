"""Scores as data for machines, and as a table for people: plain text or Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .judge import Score
from .protocols import Protocol

Format = Literal["text", "markdown", "json"]
FORMATS: tuple[Format, ...] = ("text", "markdown", "json")
MEAN = "mean"


@dataclass(frozen=True)
class Published:
    """A line of the paper's Table 3 (Araujo et al. 2023), on the paper's own data set, LSFD: mean PSNR in dB, SSIM."""

    model: str
    input: Literal["RGB", "raw"]
    train_psnr: float
    train_ssim: float
    test_psnr: float
    test_ssim: float


PUBLISHED = (
    Published("Laplace", "RGB", 25.92, 0.659, 26.88, 0.712),
    Published("Wavelets", "RGB", 26.27, 0.797, 27.65, 0.828),
    Published("UNet", "RGB", 35.13, 0.899, 36.29, 0.922),
    Published("FocusDeep", "RGB", 36.99, 0.942, 38.47, 0.965),
    Published("UNet", "raw", 30.01, 0.759, 30.21, 0.767),
    Published("FocusDeep", "raw", 33.47, 0.882, 32.89, 0.898),
)
NOTE = (
    "published: Table 3 of Araujo et al. 2023, measured on their data set LSFD against a commercial program's results; "
    "rows of other data do not compare with it one to one"
)


def evaluation_report(
    scores: Sequence[Score], *, version: str, data: str, protocol: Protocol, border: int, published: bool = False
) -> dict[str, Any]:
    """The JSON object of ``pyfocus evaluate --json``: plain numbers, strings, lists and None only.

    ``rows`` hold a fuser on a scene, ``means`` a fuser over all scenes; a PSNR of None is that of equal pictures.
    ``published`` adds the paper's figures, under that name.
    """
    rows = [
        {
            "fuser": score.fuser,
            "scene": score.scene,
            **_figures(score.psnr, score.ssim, score.inner_psnr, score.inner_ssim, score.seconds),
            "width": score.size[1],
            "height": score.size[0],
            "frames": score.frames,
            "left_out": list(score.left_out),
        }
        for score in scores
    ]
    means = [_mean([s for s in scores if s.fuser == name]) for name in dict.fromkeys(s.fuser for s in scores)]
    report: dict[str, Any] = {"version": version, "data": data, "protocol": protocol, "border_px": border}
    report |= {"rows": rows, "means": means}
    if published:
        report["published"] = [
            {"model": p.model, "input": p.input, "data": f"LSFD {part}", "psnr": psnr, "ssim": ssim}
            for p in PUBLISHED
            for part, psnr, ssim in (("train", p.train_psnr, p.train_ssim), ("test", p.test_psnr, p.test_ssim))
        ]
    return report


def report_text(report: dict[str, Any], format: Format) -> str:
    """The report as a table or as JSON, without a line's end after the last."""
    if format == "json":
        return json.dumps(report, indent=1, allow_nan=False)
    heads, lines = _cells(report)
    if format == "markdown":
        ruler = ["---", "---", *["--:"] * (len(heads) - 2)]
        table = ["| " + " | ".join(line) + " |" for line in [heads, ruler, *lines]]
    else:
        widths = [max(len(line[k]) for line in [heads, *lines]) for k in range(len(heads))]
        table = [_aligned(line, widths) for line in [heads, ["-" * w for w in widths], *lines]]
    notes = [_how(report), *([NOTE] if "published" in report else [])]
    return "\n".join([*table, "", *notes])


def _cells(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows as words: each fuser's scenes, its mean after them when there are several, then the paper's."""
    border = report["border_px"]
    heads = [
        "fuser",
        "scene",
        "PSNR dB",
        "SSIM",
        *([f"PSNR -{border} px", f"SSIM -{border} px"] if border else []),
        "s",
    ]
    lines = []
    for mean in report["means"]:
        rows = [row for row in report["rows"] if row["fuser"] == mean["fuser"]]
        lines += [_line(row, border) for row in rows]
        if len(rows) > 1:
            lines.append(_line({**mean, "scene": f"{MEAN} of {len(rows)}"}, border))
    for row in report.get("published", []):
        figures = [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", *(["", ""] if border else []), ""]
        lines.append([f"{row['model']} ({row['input']}), published", row["data"], *figures])
    return heads, lines


def _line(row: dict[str, Any], border: int) -> list[str]:
    inner = [_decibels(row["inner_psnr"]), f"{row['inner_ssim']:.4f}"] if border else []
    return [row["fuser"], row["scene"], _decibels(row["psnr"]), f"{row['ssim']:.4f}", *inner, f"{row['seconds']:.2f}"]


def _decibels(value: float | None) -> str:
    return "inf" if value is None else f"{value:.2f}"


def _aligned(line: list[str], widths: list[int]) -> str:
    """Names to the left, figures to the right."""
    words = [word.ljust(w) if k < 2 else word.rjust(w) for k, (word, w) in enumerate(zip(line, widths, strict=True))]
    return "  ".join(words).rstrip()


def _how(report: dict[str, Any]) -> str:
    what = {
        "paper": "8-bit sRGB as it lies, where every frame saw the scene",
        "score": "registered on the truth, a gain per channel, 6 % cut off all round",
    }[report["protocol"]]
    return f"protocol {report['protocol']}: {what}; means over scenes; {report['data']}"


def _mean(scores: Sequence[Score]) -> dict[str, Any]:
    def over(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if known else None

    psnr, ssim = (over([getattr(s, name) for s in scores]) for name in ("psnr", "ssim"))
    inner = (over([getattr(s, name) for s in scores]) for name in ("inner_psnr", "inner_ssim"))
    return {
        "fuser": scores[0].fuser,
        "scenes": len(scores),
        **_figures(psnr, ssim, *inner, over([s.seconds for s in scores])),
    }


def _figures(*values: float | None) -> dict[str, float | None]:
    """PSNR, SSIM, both without the border, and seconds, rounded; None for what JSON has no number for."""
    names = (("psnr", 4), ("ssim", 6), ("inner_psnr", 4), ("inner_ssim", 6), ("seconds", 3))
    return {
        name: round(value, digits) if value is not None and math.isfinite(value) else None
        for (name, digits), value in zip(names, values, strict=True)
    }
