"""How large what is installed is: the chart's package, and what the image adds to its base."""

import tempfile
from pathlib import Path

from benchmarks.table import Table
from tests.support.helm import CHART, helm
from tests.support.image import build, size_of

_LARGEST = 5
# In MiB and KiB.
_IMAGE_BELOW, _CHART_BELOW = 300, 100


def run() -> Table:
    """The chart and the image, and the packages in it that take the most."""
    with tempfile.TemporaryDirectory() as folder:
        chart = _chart(Path(folder)) / 2**10
    with tempfile.TemporaryDirectory() as folder:
        home = build(Path(folder))
        image, largest = size_of(home) / 2**20, _largest(home)
    table = Table("Sizes", ["what", "size"])
    table.rows += [
        ["the chart, packaged", f"{chart:.0f} KiB"],
        ["what the image adds to its base, not compressed", f"{image:.0f} MiB"],
        *([f"of it {name}", f"{size / 2**20:.0f} MiB"] for name, size in largest),
    ]
    table.bars += [
        (f"the chart takes {chart:.0f} KiB (bar: {_CHART_BELOW})", chart < _CHART_BELOW),
        (f"the image adds {image:.0f} MiB (bar: {_IMAGE_BELOW})", image < _IMAGE_BELOW),
    ]
    return table


def _chart(folder: Path) -> int:
    helm("package", CHART, "--destination", folder)
    (package,) = folder.iterdir()
    return package.stat().st_size


def _largest(home: Path) -> list[tuple[str, int]]:
    (packages,) = home.glob("lib/python*/site-packages")
    sizes = {each.name: size_of(each) for each in packages.iterdir() if each.is_dir()}
    return sorted(sizes.items(), key=lambda named: -named[1])[:_LARGEST]
