"""A whole run: prepare, train, predict, save, audit, export; in this process or on many machines."""
