"""Reports: a self-contained HTML page a night, and an index page over nights; jinja2 is the extra ``report``."""

from ztfzarr.report.run import index_report, night_report

__all__ = ["index_report", "night_report"]
