"""What is a model worth on a folder of recordings? One call measures it, another writes JSON, Markdown and a page.

    from clasp_lib import CLASP
    from clasp_lib.report import evaluate_folder, write_report
    report = evaluate_folder(CLASP.from_pretrained("pocket"), "recordings", name="pocket")
    write_report(report, "report")

On the command line: `clasp evaluate recordings --model pocket --output report`.
"""

from clasp_lib.report.files import read_report, write_report
from clasp_lib.report.measure import Report, evaluate_folder

__all__ = ["Report", "evaluate_folder", "read_report", "write_report"]
