"""What the engine asks of the bus: its exchanges, queues and bindings, as data (`engine.bus.topology`).

Not a client: publishing and consuming are `contracts.sdk.transport`'s, which modules use as well. Called by the
assembly, which declares the topology at start and gives the queues to intake.
"""
