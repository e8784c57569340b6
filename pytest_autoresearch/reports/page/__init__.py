"""`report.html`: a campaign as one self-contained page, opened from disk and updated while a session runs."""

from pytest_autoresearch.reports.page.artifacts import Artifact, gather
from pytest_autoresearch.reports.page.contents import About
from pytest_autoresearch.reports.page.document import page, pieces
from pytest_autoresearch.reports.page.writer import PageWriter

__all__ = ["About", "Artifact", "PageWriter", "gather", "page", "pieces"]
