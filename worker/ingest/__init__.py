"""From an upload to an ONNX file: recognise it, refuse it by name, or convert and prove it."""

from worker.ingest.intake import Ingested, ingest
from worker.ingest.sniff import Format, recognise

__all__ = ["Format", "Ingested", "ingest", "recognise"]
