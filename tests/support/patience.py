"""How long tests wait for what has to come: it only ends what hangs, however slow and busy the machine is."""

PATIENCE_S = 120.0
