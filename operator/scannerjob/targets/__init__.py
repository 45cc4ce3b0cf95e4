"""Where work is launched: one package for each kind of target."""
