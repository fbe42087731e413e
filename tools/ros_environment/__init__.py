"""How tools/environment.py makes the environment: one part a module, standard library only."""
