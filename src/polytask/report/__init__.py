"""Records of runs, drawn: one HTML page, or files of figures."""

from polytask.report._collection import Collection
from polytask.report._entries import collect
from polytask.report._figures import write_figures
from polytask.report._live import LiveServer
from polytask.report._page import page

__all__ = ["Collection", "LiveServer", "collect", "page", "write_figures"]
