"""Deterministic simulation: the engine's own shells over a store and a bus in memory, on a loop whose time is virtual.
One seed is one world; the same seed is the same world. docs/simulation.md tells how to use it.
"""
