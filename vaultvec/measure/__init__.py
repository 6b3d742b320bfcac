"""The benchmark and the tuner: what embedding costs on this machine and these notes, and what would make it faster.

rounds (timing in turn) ← ways (what is timed) ← prices, tuning, surroundings, ceiling, extras ← bench ← report
"""
