"""The pure heart: what is true about a run (`state`, `evolve`), what follows from an input (`decide`), what must be
done about it (`react`).
"""
