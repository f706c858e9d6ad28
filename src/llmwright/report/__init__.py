"""`report.html`: a finished run as one page that opens offline in any browser.

    from llmwright.report.page import write_report
    write_report(Path("runs/demo"))
"""
