"""`unwind bench`: every figure is a ratio taken within one run on one machine, because absolute rates say more about
the disk than about the engine. The figures and their thresholds stand in `figures`, what is measured in `measure`,
the peer and the raw ceiling run as processes of their own."""
