"""Federated training with Flower: one ClientApp, one ServerApp, one Strategy, and a Grid in this process."""
