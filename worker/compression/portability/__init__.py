"""Whether int8 products come out the same on x86 CPUs without VNNI."""

from worker.compression.portability.judging import Products, Saturation, judge_products

__all__ = ["Products", "Saturation", "judge_products"]
