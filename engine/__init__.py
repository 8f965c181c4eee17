"""What is decided (run, plan), recorded (store), said (bus) and done (actions). Stands on `contracts`; knows nothing of
projections, consumers or scripts.
"""
