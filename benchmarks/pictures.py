"""The README's picture of merging, drawn from the committed results as `sparsetv report` draws it."""

from benchmarks.common import RESULTS
from benchmarks.readme_suites import rows_of
from sparsetv.report import charts
from sparsetv.report.summary import boards

PICTURE = RESULTS / "merging.svg"


def merging() -> None:
    """Normalised accuracy of every method that gives one body; what sparsetv does stands out."""
    (board,) = boards(rows_of("merge"), by=("method",))
    lines = [line for line in board.lines if not line.is_reference and line.whole.get("group") != "compression"]
    drawn = [
        (line.label.replace("`", ""), line.average.normalised or 0.0, line.whole.get("group") == "ours")
        for line in sorted(lines, key=lambda line: -(line.average.normalised or 0.0))
    ]
    text = charts.bars("merging", drawn, write="{:.3f}".format, tick="{:g}".format)
    alone = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#1f2328" '
    head, _, body = text.partition(">")
    paper = '<rect width="100%" height="100%" fill="white"/>'  # text is dark, whatever the reader's page is
    PICTURE.write_text(f"{head.replace('<svg ', alone)}>{paper}{body}\n")
