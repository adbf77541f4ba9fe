"""Pixels from numbers: the drawing itself, compiled for the CPU, or batched for a device. Knows no categories."""
