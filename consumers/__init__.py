"""What keeps it moving: each consumer takes one thing from one source, calls one engine function, and settles it.
`process` is what they share, `roles` wires them, `assembly` starts and stops them.
"""
