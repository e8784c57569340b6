"""`report.html`: a campaign as one page that opens from disk, is written as it goes, and needs nothing else."""

from pytest_autoresearch.reports.page.artifacts import Artifact, gather
from pytest_autoresearch.reports.page.contents import About
from pytest_autoresearch.reports.page.document import page
from pytest_autoresearch.reports.page.writer import PageWriter

__all__ = ["About", "Artifact", "PageWriter", "gather", "page"]
