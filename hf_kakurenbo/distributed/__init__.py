"""Ranks, and no method: collective calls, and a barrier that reports instead of hanging."""
