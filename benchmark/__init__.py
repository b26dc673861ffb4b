"""The experiment: what is compared, on what, how it is reported."""

import os

# On a busy CPU, threads that wait by spinning steal the time that the others need: a training that shares its cores
# takes three times as long. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
