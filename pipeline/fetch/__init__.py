"""URLs -> image bytes: safe, polite, fast.  A failure of a URL is a value (`records.Failure`), never an exception."""

from pipeline.fetch.fetcher import Fetcher, fetch_all
from pipeline.fetch.job import Fetched
from pipeline.fetch.sniff import image_format

__all__ = ["Fetched", "Fetcher", "fetch_all", "image_format"]
