"""A trial of the deployment on one machine: keys, processes, one run, faults."""
