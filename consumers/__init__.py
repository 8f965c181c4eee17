"""What keeps it moving: each consumer takes one thing from one source, calls one engine function, and settles it.
`assembly` wires them.
"""
