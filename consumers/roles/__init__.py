"""What a process does beyond having a store and a bus, a file for each thing that roles make of it:

    intake, worker, timer, janitor   `owning`    takes from the bus and from the store, decides and performs runs
    relay                            `sending`   to the bus what was recorded, to outlets outside what they wait for
    projector                        `showing`   writes the read models that the API reads
    web                              `consumers.web`

Each takes from the process what it needs, wires its parts and begins them, in the order of `consumers.assembly`.
"""
