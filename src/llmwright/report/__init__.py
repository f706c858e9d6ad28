"""`report.html`: a finished run as one page that opens offline in any browser.

    from llmwright.report import write_report
    write_report(Path("runs/demo"))
"""

from .page import write_report

__all__ = ["write_report"]
